//! Refusals, told one by one while they are few and counted when they are many: a flood of forgeries must fill
//! neither the audit log nor the broker. Pure.

use std::time::Duration;

/// A bucket of refusals that are told one by one.
#[derive(Debug)]
pub struct Flood {
    burst: u32,
    every: Duration,
    tokens: u32,
    refilled: Duration,
    untold: u64,
}

/// What to do with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tell it, and say how many were not told since the last one.
    Tell {
        /// Refusals that were only counted.
        untold: u64,
    },
    /// Count it only.
    Count,
}

impl Flood {
    /// `burst` are told at once, and one more after each `every`.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, tokens: burst, refilled: Duration::ZERO, untold: 0 }
    }

    /// A refusal at the time `now` of a clock that only goes forward.
    pub fn on_refusal(&mut self, now: Duration) -> Verdict {
        let due = now.saturating_sub(self.refilled).as_nanos() / self.every.as_nanos().max(1);
        if due > 0 {
            self.tokens = self.tokens.saturating_add(due.min(u128::from(self.burst)) as u32).min(self.burst);
            self.refilled = now;
        }
        if self.tokens == 0 {
            self.untold += 1;
            return Verdict::Count;
        }
        self.tokens -= 1;
        Verdict::Tell { untold: std::mem::take(&mut self.untold) }
    }

    /// What was only counted so far, and is told now: for a quiet moment after a flood.
    pub fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_part_and_counted_in_whole() {
        let mut flood = Flood::new(3, Duration::from_secs(10));
        let mut told = 0;
        let mut counted = 0;
        for millis in 0..1000 {
            match flood.on_refusal(Duration::from_millis(millis)) {
                Verdict::Tell { untold } => {
                    told += 1;
                    counted += untold;
                }
                Verdict::Count => {}
            }
        }
        assert_eq!((told, counted), (3, 0));
        assert_eq!(flood.on_refusal(Duration::from_secs(11)), Verdict::Tell { untold: 997 });
        assert_eq!(flood.take_untold(), 0);
    }
}
