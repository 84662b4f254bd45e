//! How much may be written to the flash in a day: a bucket of bytes, half of them there at once and half coming in over
//! a day, so that no day sees more than its whole. Pure: the time is that of a clock which starts with the machine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a flush writes at least: a block of the file system.
pub const BLOCK: u64 = 4096;
/// What replacing a file costs besides its content: inode, directory, and the file system's journal of both, with a
/// descriptor and a commit for each of the two flushes.
const REPLACING: u64 = 8 * BLOCK;
const DAY_MILLIS: i128 = 24 * 3600 * 1000;

/// What writing the bytes from `start` to `end` of a preallocated file costs.
pub fn blocks_between(start: u64, end: u64) -> u64 {
    (end.div_ceil(BLOCK) - start / BLOCK) * BLOCK
}

/// What replacing a file durably by one of so many bytes costs.
pub fn replacing(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK + REPLACING
}

/// Who asks for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Incidents and results: written whatever is left.
    First,
    /// State: written while anything is left.
    State,
    /// Metrics: leave a quarter for the others.
    Metrics,
}

/// What is kept of the bucket, in every record that it allowed: it costs no write of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// What was left.
    pub available_bytes: i64,
    /// By the machine's clock of this boot.
    pub at_millis: u64,
    /// Which boot that was.
    pub boot: String,
}

/// The bucket.
#[derive(Debug)]
pub struct FlashBudget {
    daily: i64,
    available: i64,
    at: Duration,
}

impl FlashBudget {
    /// A bucket of which nothing was taken.
    pub fn new(daily_bytes: u64, now: Duration) -> Self {
        let daily = i64::try_from(daily_bytes).unwrap_or(i64::MAX / 2);
        Self { daily, available: daily / 2, at: now }
    }

    /// Goes on where another process ended. How long a machine was off nobody knows for sure: nothing came in then.
    pub fn resume(daily_bytes: u64, level: &Level, boot: &str, now: Duration) -> Self {
        let mut budget = Self::new(daily_bytes, now);
        budget.available = level.available_bytes.clamp(-budget.capacity(), budget.capacity());
        if level.boot == boot {
            budget.at = now.min(Duration::from_millis(level.at_millis));
        }
        budget
    }

    fn capacity(&self) -> i64 {
        self.daily / 2
    }

    /// What is left; below zero when what must be written was more.
    pub fn available(&mut self, now: Duration) -> i64 {
        let passed = now.saturating_sub(self.at).as_millis().cast_signed();
        let rate = i128::from(self.capacity());
        let gained = passed * rate / DAY_MILLIS;
        if gained > 0 {
            self.available =
                i128::from(self.available).saturating_add(gained).min(i128::from(self.capacity())) as i64;
            // What does not make a byte yet stays in the clock.
            self.at += Duration::from_millis((gained * DAY_MILLIS).div_euclid(rate) as u64);
        }
        self.available
    }

    /// Whether a write of so many bytes is allowed.
    pub fn allows(&mut self, priority: Priority, bytes: u64, now: Duration) -> bool {
        let left = self.available(now).saturating_sub_unsigned(bytes);
        match priority {
            Priority::First => true,
            Priority::State => left >= 0,
            Priority::Metrics => left >= self.capacity() / 4,
        }
    }

    /// So many bytes are written. What is owed is forgotten beyond a day's worth: state must be kept again some day.
    pub fn charge(&mut self, bytes: u64, now: Duration) {
        let left = self.available(now).saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.available = left.max(-self.capacity());
    }

    /// What to keep of it.
    pub fn level(&self, boot: &str) -> Level {
        let at_millis = self.at.as_millis() as u64;
        Level { available_bytes: self.available, at_millis, boot: boot.to_owned() }
    }

    /// The least that is kept durably now, by what is left.
    pub fn keeps(&mut self, now: Duration) -> Priority {
        let allowed = [Priority::Metrics, Priority::State].into_iter().find(|p| self.allows(*p, BLOCK, now));
        allowed.unwrap_or(Priority::First)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const DAILY: u64 = 100 * BLOCK;

    #[test]
    fn metrics_give_way_first_then_state_and_what_comes_first_never() {
        let mut budget = FlashBudget::new(DAILY, Duration::ZERO);
        let mut written = |priority| {
            let mut count = 0;
            while count < 1000 && budget.allows(priority, BLOCK, Duration::ZERO) {
                budget.charge(BLOCK, Duration::ZERO);
                count += 1;
            }
            (count, budget.keeps(Duration::ZERO))
        };
        assert_eq!(written(Priority::Metrics), (37, Priority::State));
        assert_eq!(written(Priority::State), (13, Priority::First));
        assert_eq!(written(Priority::First), (1000, Priority::First));
    }

    #[test]
    fn half_of_it_comes_back_in_a_day_however_often_one_looks() {
        let mut budget = FlashBudget::new(DAILY, Duration::ZERO);
        budget.charge(DAILY / 2, Duration::ZERO);
        for minute in 0..=24 * 60 {
            for look in 0..7 {
                budget.available(Duration::from_secs(minute * 60) + Duration::from_millis(look * 13));
            }
        }
        let missing = (DAILY / 2).cast_signed() - budget.available(DAY);
        assert!((0..=1).contains(&missing), "{missing}");
        assert_eq!(budget.available(DAY * 30), (DAILY / 2).cast_signed(), "and no more than fits");
    }

    #[test]
    fn a_restart_loop_gives_nothing_back_and_time_within_one_boot_does() {
        let mut budget = FlashBudget::new(DAILY, Duration::ZERO);
        budget.charge(DAILY / 2, Duration::ZERO);
        for boot in 0..100 {
            let level = budget.level(&format!("boot-{boot}"));
            // The clock of the next boot says anything.
            budget = FlashBudget::resume(DAILY, &level, &format!("boot-{}", boot + 1), DAY * boot);
            assert_eq!(budget.available(DAY * boot), 0);
        }
        let level = budget.level("same");
        let mut budget = FlashBudget::resume(DAILY, &level, "same", DAY * 1000);
        assert!(budget.available(DAY * 1000) > 0);
    }

    #[test]
    fn a_write_costs_the_blocks_that_it_touches() {
        assert_eq!(blocks_between(0, 1), BLOCK);
        assert_eq!(blocks_between(4000, 4200), 2 * BLOCK);
        assert_eq!(blocks_between(4096, 8192), BLOCK);
        assert_eq!(replacing(5000), 10 * BLOCK);
    }

    proptest! {
        #[test]
        fn no_day_sees_more_than_its_whole(
            steps in prop::collection::vec((0_u64..7_200_000, 1_u64..20, any::<bool>(), any::<bool>()), 1..300),
        ) {
            let mut now = Duration::ZERO;
            let mut budget = FlashBudget::new(DAILY, now);
            let mut writes: Vec<(Duration, u64)> = Vec::new();
            for (pause_millis, blocks, is_metric, restarts) in steps {
                now += Duration::from_millis(pause_millis);
                if restarts {
                    budget = FlashBudget::resume(DAILY, &budget.level("b"), "b", now);
                }
                let priority = if is_metric { Priority::Metrics } else { Priority::State };
                if budget.allows(priority, blocks * BLOCK, now) {
                    budget.charge(blocks * BLOCK, now);
                    writes.push((now, blocks * BLOCK));
                }
                let day: u64 = writes.iter().filter(|(at, _)| now.saturating_sub(*at) < DAY).map(|(_, bytes)| bytes).sum();
                prop_assert!(day <= DAILY, "{day}");
            }
        }
    }
}
