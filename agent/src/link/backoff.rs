//! How long to wait before the next attempt: exponential with full jitter, so that a fleet does not come back all at
//! once after a broker's restart. Pure.

use std::time::Duration;

/// A connection that has lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(60);

/// Counts failed attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// The first wait is up to `min`, and they double up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0 }
    }

    /// The wait after one more failed attempt; `random` is uniform over all values. When the broker refused who we
    /// are, trying again soon will not help: the wait is at once the longest.
    pub fn next(&mut self, refused: bool, random: u64) -> Duration {
        let ceiling = if refused {
            self.max
        } else {
            self.min.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.max)
        };
        self.attempts = self.attempts.saturating_add(1).min(30);
        let share = random as f64 / u64::MAX as f64;
        ceiling.mul_f64(share).max(Duration::from_millis(50))
    }

    /// A connection has ended that lasted so long. Only a steady one lets the waits begin anew: a broker that accepts and
    /// closes would otherwise be asked twice a second, and every time is written to the flash.
    pub fn lasted(&mut self, duration: Duration) {
        if duration >= STEADY {
            self.attempts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_steady_connection() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let longest: Vec<_> = (0..6).map(|_| backoff.next(false, u64::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 10, 10]);
        backoff.lasted(Duration::from_secs(1));
        assert_eq!(backoff.next(false, u64::MAX).as_secs(), 10, "accepted and closed is no success");
        backoff.lasted(STEADY);
        assert_eq!(backoff.next(false, u64::MAX).as_secs(), 1);
        assert_eq!(backoff.next(true, u64::MAX).as_secs(), 10);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));
        assert_eq!(backoff.next(false, 0), Duration::from_millis(50));
        assert_eq!(backoff.next(false, u64::MAX / 2), Duration::from_secs(4));
    }
}
