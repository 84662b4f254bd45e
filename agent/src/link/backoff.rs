//! How long to wait before the next attempt: exponential with full jitter, and after a connection that was up spread so
//! that a whole fleet comes back within the rate that its broker takes. Pure.

use std::time::Duration;

/// A connection that has lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(60);
/// Standard deviations between the mean of the attempts in a second and the rate that they must stay within.
const SIGMAS: f64 = 6.0;
/// However large the fleet and slow its broker are said to be: a device that waits for years is lost to both.
const WIDEST: Duration = Duration::from_secs(3600);
/// Full jitter alone is calm enough from so many windows on: if all begin at once, its attempts come at up to e times
/// the fleet over the wait, never more.
const CALM: u32 = 3;

/// The window over which `fleet` devices spread their attempts, so that no second sees more than `per_second`: many
/// devices that choose independently make Poisson's distribution, and its mean m is such that m + 6 sqrt(m) is the
/// rate. Rates below about 10 are too small for that: a second in some thousands sees one more.
pub fn spread(fleet: u32, per_second: u32) -> Duration {
    let deviation = ((SIGMAS * SIGMAS + 4.0 * f64::from(per_second.max(1))).sqrt() - SIGMAS) / 2.0;
    Duration::from_secs_f64(f64::from(fleet) / (deviation * deviation))
}

/// Counts failed attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
    /// What the fleet spreads its attempts over, if it is known.
    window: Option<Duration>,
    /// A connection was up and is gone: everybody else's may be as well.
    is_lost: bool,
    /// What is left of the window of the last attempt.
    left: Duration,
}

impl Backoff {
    /// The first wait is up to `min`, and they double up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0, window: None, is_lost: false, left: Duration::ZERO }
    }

    /// One of `fleet` devices at a broker that takes `per_second` connections: no wait after a lost connection is chosen
    /// from less than their window, however short `max` is.
    #[must_use]
    pub fn for_fleet(mut self, fleet: u32, per_second: u32) -> Self {
        let window = spread(fleet, per_second).min(WIDEST);
        self.max = self.max.max(window);
        self.window = Some(window);
        self
    }

    /// The wait after one more failed attempt; `random` is uniform over all values. When the broker refused who we
    /// are, trying again soon will not help: the wait is at once the longest.
    pub fn next(&mut self, refused: bool, random: u64) -> Duration {
        let mut ceiling = if refused {
            self.max
        } else {
            self.min.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.max)
        };
        self.attempts = self.attempts.saturating_add(1).min(30);
        let mut is_shared = false;
        if let Some(window) = self.window {
            if self.is_lost {
                ceiling = ceiling.max(window);
            }
            is_shared = ceiling >= window && ceiling < window * CALM;
        }
        let share = random as f64 / u64::MAX as f64;
        let jitter = ceiling.mul_f64(share);
        let wait = self.left + jitter;
        // Windows follow each other, and each has one attempt of everybody, anywhere in it. If the next one began with
        // the attempt, as with full jitter, retries would come on top of others' first attempts: up to e times as many.
        self.left = if is_shared { ceiling.saturating_sub(jitter) } else { Duration::ZERO };
        wait.max(Duration::from_millis(50))
    }

    /// A connection that was up is gone, and with a restart of the broker all others at once: from here to the next
    /// steady connection attempts are spread.
    pub fn lost(&mut self) {
        self.is_lost = true;
    }

    /// A connection has ended that lasted so long. Only a steady one lets the waits begin anew: a broker that accepts and
    /// closes would otherwise be asked twice a second, and every time is written to the flash.
    /// Says whether it was one.
    pub fn lasted(&mut self, duration: Duration) -> bool {
        let is_steady = duration >= STEADY;
        if is_steady {
            self.attempts = 0;
            self.is_lost = false;
            self.left = Duration::ZERO;
        }
        is_steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

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
    fn no_number_in_a_configuration_keeps_a_device_away_for_more_than_an_hour_or_two() {
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).for_fleet(10_000_000, 1);
        backoff.lost();
        for _ in 0..40 {
            assert!(backoff.next(false, u64::MAX) <= 2 * WIDEST);
        }
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));
        assert_eq!(backoff.next(false, 0), Duration::from_millis(50));
        assert_eq!(backoff.next(false, u64::MAX / 2), Duration::from_secs(4));
    }

    #[test]
    fn a_lost_connection_is_waited_for_up_to_the_window_and_a_first_attempt_that_fails_is_not() {
        let window = spread(100_000, 1000);
        assert_eq!(window.as_secs(), 120);
        let mut backoff = Backoff::new(SECOND, 5 * SECOND).for_fleet(100_000, 1000);
        assert_eq!(backoff.next(false, u64::MAX), SECOND);
        backoff.lasted(STEADY);
        backoff.lost();
        assert_eq!(backoff.next(false, u64::MAX), window);
    }

    #[test]
    fn the_next_attempt_is_in_the_next_window() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND).for_fleet(100_000, 1000);
        let window = spread(100_000, 1000);
        backoff.lost();
        let early = backoff.next(false, u64::MAX / 10);
        assert_eq!(early + backoff.next(false, 0), window);
        assert_eq!(backoff.next(false, u64::MAX / 2), window.mul_f64(1.5));
    }

    #[test]
    fn whom_the_broker_refuses_waits_the_longest_at_once() {
        let mut backoff = Backoff::new(SECOND, 600 * SECOND).for_fleet(1000, 100);
        backoff.lost();
        assert_eq!(backoff.next(true, u64::MAX), 600 * SECOND);
    }

    #[test]
    fn a_small_fleet_waits_as_if_it_were_none() {
        let mut alone = Backoff::new(SECOND, 10 * SECOND);
        let mut small = Backoff::new(SECOND, 10 * SECOND).for_fleet(10, 100);
        small.lost();
        for random in [u64::MAX, 0, u64::MAX / 3, u64::MAX, u64::MAX / 7] {
            assert_eq!(small.next(false, random), alone.next(false, random));
        }
    }

    /// The most attempts in any second, of a fleet that lost its broker for `away`, until all are back.
    fn peak(fleet: u32, per_second: u32, max: Duration, away: Duration, seed: u64) -> usize {
        let mut state = seed;
        // SplitMix64.
        let mut random = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let mut attempts = Vec::new();
        for _ in 0..fleet {
            let mut backoff = Backoff::new(SECOND, max).for_fleet(fleet, per_second);
            backoff.lost();
            let mut now = Duration::ZERO;
            loop {
                now += backoff.next(false, random());
                attempts.push(now);
                if now >= away {
                    break;
                }
            }
        }
        attempts.sort_unstable();
        let mut first = 0;
        let counts = attempts.iter().enumerate().map(|(last, at)| {
            while attempts[first] + SECOND <= *at {
                first += 1;
            }
            last - first + 1
        });
        counts.max().unwrap_or(0)
    }

    #[test]
    fn no_second_sees_more_attempts_than_the_rate_however_large_the_fleet_and_long_the_outage() {
        for (fleet, per_second) in [(1000, 100), (20_000, 1000), (50_000, 400), (5000, 25), (300, 2000)] {
            let window = spread(fleet, per_second);
            for max in [SECOND, 2 * window, 4 * window + SECOND] {
                for away in [Duration::ZERO, window / 3, window, window * 5 / 2, window * 8] {
                    let peak = peak(fleet, per_second, max, away, u64::from(fleet + per_second));
                    assert!(
                        peak <= per_second as usize,
                        "{fleet} at {per_second}/s, away for {away:?}, at most {max:?}: {peak}"
                    );
                }
            }
        }
    }
}
