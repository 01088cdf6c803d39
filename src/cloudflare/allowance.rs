//! How often Cloudflare may be asked: budgets that refill evenly, set below what is documented, so
//! that the account's limits are never met however many bans there are. Pure.

use crate::time::Millis;

/// A budget that refills evenly up to its burst.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    burst: f64,
    per_milli: f64,
    left: f64,
    at: Millis,
}

impl Allowance {
    /// Full now. In any `window` it gives out at most `burst + amount`.
    pub fn new(burst: u32, amount: u32, window: Millis, now: Millis) -> Self {
        Self {
            burst: f64::from(burst),
            per_milli: f64::from(amount) / window as f64,
            left: f64::from(burst),
            at: now,
        }
    }

    /// Takes so much (at most the burst) and answers how long to wait before using it.
    pub fn take(&mut self, amount: usize, now: Millis) -> Millis {
        let passed = now.saturating_sub(self.at) as f64;
        self.left = (self.left + passed * self.per_milli).min(self.burst);
        self.at = now;
        self.left -= (amount as f64).min(self.burst);
        (-self.left / self.per_milli).max(0.0).ceil() as Millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_ever_gives_out_more_than_burst_and_amount() {
        let (burst, amount, window) = (100, 900, 300_000);
        let mut allowance = Allowance::new(burst, amount, window, 0);
        let mut now = 0;
        let mut given: Vec<Millis> = Vec::new();
        for _ in 0..5000 {
            now += allowance.take(1, now);
            given.push(now);
            let recent = given.iter().filter(|at| **at + window > now).count();
            assert!(recent <= 1001, "{recent} in the window ending at {now}");
        }
        assert!(now > 1_500_000, "5000 in {now} ms");
    }

    #[test]
    fn an_idle_budget_refills_to_its_burst_only() {
        let mut allowance = Allowance::new(10, 10, 1000, 0);
        assert_eq!(allowance.take(10, 0), 0);
        assert_eq!(allowance.take(5, 0), 500);
        assert_eq!(allowance.take(10, 1_000_000), 0);
        assert_eq!(allowance.take(1, 1_000_000), 100);
        assert_eq!(
            allowance.take(50, 2_000_000),
            0,
            "more than a burst is a burst"
        );
    }
}
