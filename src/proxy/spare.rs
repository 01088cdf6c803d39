//! What one exchange leaves for the next on the same thread: buffers and header maps, the one used
//! last on top, so that it is still in the processor's cache. Connections hold none of it while
//! they wait.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderMap;

/// Bytes asked for when a head is awaited: most small responses come whole.
const SMALL: usize = 8 * 1024;
/// Bytes of a buffer that bodies are read into …
const LARGE: usize = 128 * 1024;
/// … and where a client may have a hundred of them at a time and take none.
const MEDIUM: usize = 32 * 1024;
/// Buffers kept of each size.
const BUFFERS: usize = 16;
/// Heads and header maps kept, and how large one may be.
const KEPT: usize = 64;
const HEAD: usize = 16 * 1024;
const FIELDS: usize = 64;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare {
        heads: Vec::new(),
        fields: Vec::new(),
        small: Vec::new(),
        medium: Vec::new(),
        large: Vec::new(),
    }) };
}

struct Spare {
    heads: Vec<Vec<u8>>,
    fields: Vec<HeaderMap>,
    small: Vec<BytesMut>,
    medium: Vec<BytesMut>,
    large: Vec<BytesMut>,
}

/// Room for a request's head; empty.
pub(super) fn head() -> Vec<u8> {
    let head = SPARE.with_borrow_mut(|spare| spare.heads.pop());
    head.unwrap_or_else(|| Vec::with_capacity(1024))
}

/// Of a head that was sent.
pub(super) fn keep_head(mut head: Vec<u8>) {
    if (1..=HEAD).contains(&head.capacity()) {
        head.clear();
        SPARE.with_borrow_mut(|spare| push(&mut spare.heads, head));
    }
}

/// A response's header map; empty.
pub(super) fn fields() -> HeaderMap {
    let fields = SPARE.with_borrow_mut(|spare| spare.fields.pop());
    fields.unwrap_or_default()
}

/// Takes the header map of a request that was answered, for a response. hyper does the same the other
/// way round, so that no map is made for a request or its response.
pub fn keep_fields(mut fields: HeaderMap) {
    if (1..=FIELDS).contains(&fields.capacity()) {
        fields.clear();
        SPARE.with_borrow_mut(|spare| push(&mut spare.fields, fields));
    }
}

/// An empty buffer for a head and what comes with it.
pub(super) fn small_buffer() -> BytesMut {
    SPARE.with_borrow_mut(|spare| free(&mut spare.small, SMALL))
}

/// An empty buffer for the bytes of a body.
pub(super) fn body_buffer(one_of_many: bool) -> BytesMut {
    SPARE.with_borrow_mut(|spare| match one_of_many {
        true => free(&mut spare.medium, MEDIUM),
        false => free(&mut spare.large, LARGE),
    })
}

/// Of a head and what came with it, which may still be on its way to a client.
pub(super) fn keep_small_buffer(buffer: BytesMut) {
    SPARE.with_borrow_mut(|spare| keep(&mut spare.small, buffer));
}

/// Of a body's bytes, which may still be on their way to a client.
pub(super) fn keep_body_buffer(buffer: BytesMut, one_of_many: bool) {
    SPARE.with_borrow_mut(|spare| match one_of_many {
        true => keep(&mut spare.medium, buffer),
        false => keep(&mut spare.large, buffer),
    });
}

fn push<T>(kept: &mut Vec<T>, one: T) {
    if kept.len() < KEPT {
        kept.push(one);
    }
}

fn keep(buffers: &mut Vec<BytesMut>, buffer: BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    if buffers.len() == BUFFERS {
        buffers.remove(0);
    }
    buffers.push(buffer);
}

fn free(buffers: &mut Vec<BytesMut>, size: usize) -> BytesMut {
    let free = (0..buffers.len())
        .rev()
        .find(|at| buffers[*at].try_reclaim(size));
    match free {
        Some(at) => buffers.remove(at),
        None => BytesMut::with_capacity(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_not_used_again_while_somebody_holds_what_was_read_into_it() {
        let mut buffer = small_buffer();
        let first = buffer.as_ptr();
        buffer.extend_from_slice(b"for a client that is slow");
        let held = buffer.split().freeze();
        keep_small_buffer(buffer);
        assert_ne!(small_buffer().as_ptr(), first);
        assert_eq!(held, "for a client that is slow");
        drop(held);
        let again = small_buffer();
        assert_eq!((again.as_ptr(), again.len()), (first, 0));
        assert!(again.capacity() >= SMALL);
    }

    #[test]
    fn what_is_large_is_not_kept() {
        keep_head(Vec::with_capacity(HEAD + 1));
        keep_fields(HeaderMap::with_capacity(FIELDS * 4));
        assert!(head().capacity() <= HEAD);
        assert!(fields().capacity() <= FIELDS);
    }
}
