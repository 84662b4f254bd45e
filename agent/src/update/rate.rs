//! How long to wait so that a transfer keeps to a number of bytes per second.

use std::time::Duration;

/// A transfer may be ahead of the limit by what fits into this time: so it catches up after a pause, and no more.
const BURST: Duration = Duration::from_millis(500);

/// The limit, and when what was transferred will be within it.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: Option<u64>,
    paid_until: Duration,
}

impl Rate {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, paid_until: Duration::ZERO }
    }

    /// `bytes` were transferred at `now`: how long to wait before the next ones.
    pub(super) fn pause(&mut self, bytes: u64, now: Duration) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        self.paid_until = self.paid_until.max(now.saturating_sub(BURST))
            + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.paid_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(Rate::new(None).pause(u64::MAX, Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_passes_than_the_limit_and_one_burst(
            rate in 1_000_u64..100_000_000,
            parts in proptest::collection::vec((1_u64..600_000, 0_u64..3_000), 1..60),
        ) {
            let mut limit = Rate::new(Some(rate));
            let (mut now, mut passed) = (Duration::from_secs(100), 0);
            let begun = now;
            for (bytes, idle_millis) in parts {
                passed += bytes;
                now += limit.pause(bytes, now);
                let allowed = rate as f64 * (now.abs_diff(begun) + BURST).as_secs_f64();
                prop_assert!(passed as f64 <= allowed * 1.000_001 + 1.0, "{passed} of {allowed}");
                now += Duration::from_millis(idle_millis);
            }
        }
    }
}
