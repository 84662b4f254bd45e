//! Whether a mirror is worth waiting for: one that drips a byte now and then is never silent for long, and never done. Pure.

use std::time::Duration;

/// Over so long a time of waiting …
const WINDOW: Duration = Duration::from_secs(60);
/// … so many bytes a second must have come.
const LEAST_PER_SECOND: u64 = 16 * 1024;

/// What came in the window that is open, and how long it was waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// `bytes` came after `waited`. Whether the mirror is too slow: then the next one is asked.
    pub(super) fn is_too_slow(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < WINDOW {
            return false;
        }
        let is_too_slow = self.bytes < (LEAST_PER_SECOND as f64 * self.waited.as_secs_f64()) as u64;
        *self = Self::default();
        is_too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_each_two_seconds_is_left_after_a_minute_and_a_slow_line_is_not() {
        let mut drip = Pace::default();
        let left = (1..100).find(|_| drip.is_too_slow(1, 2 * SECOND));
        assert_eq!(left, Some(30));
        let mut slow = Pace::default();
        assert!((0..1000).all(|_| !slow.is_too_slow(LEAST_PER_SECOND, SECOND)));
        assert!((0..60).any(|_| slow.is_too_slow(LEAST_PER_SECOND - 1, SECOND)));
    }

    #[test]
    fn a_mirror_that_becomes_slow_is_not_kept_for_what_it_was_before() {
        let mut pace = Pace::default();
        assert!(!pace.is_too_slow(100 << 20, 59 * SECOND));
        assert!(!pace.is_too_slow(1, SECOND));
        assert_eq!((1..100).find(|_| pace.is_too_slow(1, SECOND)), Some(60));
    }
}
