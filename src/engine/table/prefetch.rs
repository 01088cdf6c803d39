//! Asks memory for what is about to be read, while something else is still awaited: of the time
//! and nothing else. The one file with `unsafe`; there is no safe spelling.

/// What is not longer seldom lies on two lines.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 16;

/// Has the line brought in on which `value` begins, and the one on which it ends unless it is
/// short.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the intrinsic takes a pointer; a prefetch reads nothing a program could see and \
              faults nowhere, and these point into a value that is borrowed"
)]
#[inline(always)]
pub(super) fn prefetch<T>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let first = std::ptr::from_ref(value).cast::<i8>();
    let size = size_of_val(value);
    // SAFETY: a hint, allowed for any address whatever
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(first);
        if size > SHORT {
            _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(size - 1));
        }
    }
}

/// There is no stable one here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch<T>(_: &T) {}
