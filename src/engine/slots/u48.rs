//! Numbers and moments in six bytes, so that a million bans take eight megabytes less.

/// The highest stands for `u64::MAX`, and so for everything above: the others last for 8,900 years of
/// milliseconds, or of a thousand changes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct U48([u16; 3]);

impl U48 {
    pub(super) const ZERO: Self = Self([0; 3]);
    pub(super) const MAX: Self = Self([u16::MAX; 3]);

    pub(super) fn new(number: u64) -> Self {
        match number >> 48 {
            0 => Self([(number >> 32) as u16, (number >> 16) as u16, number as u16]),
            _ => Self::MAX,
        }
    }

    pub(super) fn get(self) -> u64 {
        let [high, middle, low] = self.0.map(u64::from);
        match self {
            Self::MAX => u64::MAX,
            _ => high << 32 | middle << 16 | low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_the_highest_is_all_above() {
        let last = (1 << 48) - 2;
        for number in [0, 1, 0xffff, 0x1_0000, 0x1234_5678_9abc, last, u64::MAX] {
            assert_eq!(U48::new(number).get(), number);
        }
        assert_eq!(U48::new(last + 1), U48::MAX);
        assert_eq!(U48::new(1 << 48), U48::MAX);
        assert_eq!(U48::new(0), U48::ZERO);
    }
}
