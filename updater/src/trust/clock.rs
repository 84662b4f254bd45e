//! What time it is at least. The wall clock may say 1970; signatures say when they were made, and the device knows
//! how long it has been on since.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::engine::Now;

/// The time since the floor is put down this often: four small writes a day.
const KEEP: Duration = Duration::from_secs(6 * 3600);

/// The floor, and the time that has passed since it was signed as far as this device knows: never more than has
/// really passed, because only time with the power on counts.
#[derive(Clone, Debug)]
pub(super) struct FloorClock {
    floor: Timestamp,
    powered: Duration,
    /// Boot clock when `powered` was true.
    since: Duration,
    kept_at: Duration,
}

impl FloorClock {
    pub(super) fn new(floor: Timestamp, powered: Duration, boot: Duration) -> Self {
        Self { floor, powered, since: boot, kept_at: boot }
    }

    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    pub(super) fn powered(&self, boot: Duration) -> Duration {
        self.powered + boot.saturating_sub(self.since)
    }

    pub(super) fn wall(&self, now: Now) -> Timestamp {
        now.wall.max(self.least(now.boot))
    }

    /// The floor and the time with the power on since.
    pub(super) fn least(&self, boot: Duration) -> Timestamp {
        // Without a floor there is nothing to count from.
        if self.floor == Timestamp::UNIX_EPOCH {
            return self.floor;
        }
        let powered = SignedDuration::try_from(self.powered(boot)).unwrap_or(SignedDuration::ZERO);
        self.floor.checked_add(powered).unwrap_or(self.floor)
    }

    /// A newer floor does not set the time back: what has passed since the older one has passed. An older floor is a
    /// reset, after the keys that vouched for the newer one were revoked.
    pub(super) fn set_floor(&mut self, floor: Timestamp, boot: Duration) {
        let least = self.least(boot);
        self.powered = if floor < self.floor {
            Duration::ZERO
        } else {
            Duration::try_from(least.duration_since(floor)).unwrap_or(Duration::ZERO)
        };
        self.floor = floor;
        self.since = boot;
        self.kept_at = boot;
    }

    /// The time to put down, when that is due.
    pub(super) fn due(&self, boot: Duration) -> Option<Duration> {
        let due = self.floor != Timestamp::UNIX_EPOCH && boot.saturating_sub(self.kept_at) >= KEEP;
        due.then(|| self.powered(boot))
    }

    pub(super) fn kept(&mut self, boot: Duration) {
        self.kept_at = boot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn wall(clock: &FloorClock, boot: Duration) -> Timestamp {
        clock.wall(Now { wall: Timestamp::UNIX_EPOCH, boot })
    }

    #[test]
    fn a_clock_in_1970_still_moves_on_from_the_floor_over_restarts() {
        let mut clock = FloorClock::new(at("2026-06-01T00:00:00Z"), Duration::ZERO, HOUR);
        assert_eq!(wall(&clock, 3 * HOUR), at("2026-06-01T02:00:00Z"));
        assert_eq!(clock.due(6 * HOUR), None);
        let kept = clock.due(7 * HOUR).unwrap();
        clock.kept(7 * HOUR);
        assert_eq!((kept, clock.due(8 * HOUR)), (6 * HOUR, None));
        let clock = FloorClock::new(clock.floor(), kept, Duration::ZERO);
        assert_eq!(wall(&clock, HOUR), at("2026-06-01T07:00:00Z"));
    }

    #[test]
    fn a_good_clock_is_taken_as_it_is() {
        let clock = FloorClock::new(at("2026-06-01T00:00:00Z"), Duration::ZERO, HOUR);
        let now = Now { wall: at("2026-06-02T00:00:00Z"), boot: 2 * HOUR };
        assert_eq!(clock.wall(now), now.wall);
    }

    #[test]
    fn a_newer_floor_never_sets_the_time_back_and_a_reset_does() {
        let mut clock = FloorClock::new(at("2026-06-01T00:00:00Z"), 100 * HOUR, Duration::ZERO);
        clock.set_floor(at("2026-06-02T00:00:00Z"), HOUR);
        assert_eq!(wall(&clock, HOUR), at("2026-06-05T05:00:00Z"));
        clock.set_floor(at("2026-07-01T00:00:00Z"), 2 * HOUR);
        assert_eq!(wall(&clock, 2 * HOUR), at("2026-07-01T00:00:00Z"));
        clock.set_floor(at("2026-06-20T00:00:00Z"), 3 * HOUR);
        assert_eq!(wall(&clock, 3 * HOUR), at("2026-06-20T00:00:00Z"));
    }

    #[test]
    fn without_a_floor_nothing_is_known_and_nothing_is_put_down() {
        let clock = FloorClock::new(Timestamp::UNIX_EPOCH, Duration::ZERO, Duration::ZERO);
        assert_eq!(wall(&clock, 1000 * HOUR), Timestamp::UNIX_EPOCH);
        assert_eq!(clock.due(1000 * HOUR), None);
    }
}
