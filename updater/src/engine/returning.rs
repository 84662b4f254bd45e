//! Back to a confirmed release that the bootloader left: the power failed again and again before the updater ran, say, and
//! its tries were spent. Nothing speaks against the release, so that it is not at fault, and the device returns to it by
//! itself, once, after a day without a boot that ended badly.

use std::time::Duration;

use vigil_wire::State;

use super::{Engine, Now, Output, Step, cause};
use crate::journal::Returning;

/// So long the device must have been on, over all clean boots, before it tries the release once more.
const CLEAN: Duration = Duration::from_secs(24 * 3600);
/// How often the time so far is kept.
const KEEP: Duration = Duration::from_secs(3600);

impl Engine {
    /// The confirmed release was left. With evidence against it, it is gone back from as from any other.
    pub(super) fn confirmed_was_left(&mut self, now: Now) -> Vec<Output> {
        let ended = self.how_the_last_boot_ended();
        if matches!(ended, Some((cause::PANIC | cause::HANG, _))) {
            return self.bootloader_went_back(now);
        }
        let Some(install) = &self.journal.install else { return vec![] };
        let slot = install.target.clone();
        let (cause, how) = ended.unwrap_or((cause::BOOT_FAILED, "; nothing says why".to_owned()));
        let message = format!(
            "the bootloader went back to the slot before the confirmed release{how}; it is returned to after a day without \
             a boot that ends badly"
        );
        self.record_failure(now, cause, &message, true);
        self.journal.returning = Some(Returning { slot, ..Returning::default() });
        self.enter(State::RolledBack, &message)
    }

    /// At a start in the state `RolledBack`.
    pub(super) fn take_up_return(&mut self) -> Vec<Output> {
        let Some(returning) = &mut self.journal.returning else { return vec![] };
        if self.boot.slot == returning.slot {
            self.journal.returning = None;
            return self.enter(State::Confirmed, "the confirmed release runs again");
        }
        if returning.asked_from_boot.as_ref().is_some_and(|boot| *boot != self.boot.id) {
            // Once: what fails again is for a person to look at.
            self.journal.returning = None;
            let message =
                "the confirmed release did not start when it was returned to; an operator decides".to_owned();
            return vec![Output::Save, Output::Note { kind: "return.failed".to_owned(), message }];
        }
        let last = &self.boot.last;
        if last.panic.is_some() || last.watchdog || last.power {
            returning.clean_millis = 0;
            return vec![Output::Save];
        }
        vec![]
    }

    fn clean_time(&self, returning: &Returning, now: Now) -> Duration {
        Duration::from_millis(returning.clean_millis) + now.boot.saturating_sub(self.clean_since)
    }

    pub(super) fn next_of_return(&self, now: Now) -> Step {
        let Some(returning) = &self.journal.returning else { return Step::Rest };
        if returning.asked_from_boot.is_some() {
            return self.unless_waiting(now, Step::Reboot);
        }
        if self.clean_time(returning, now) >= CLEAN {
            return Step::PutFirst { slot: returning.slot.clone() };
        }
        Step::Rest
    }

    /// It is first in the boot order again.
    pub(super) fn on_put_first_again(&mut self) -> Vec<Output> {
        let boot = self.boot.id.clone();
        let Some(returning) = &mut self.journal.returning else { return vec![] };
        returning.asked_from_boot = Some(boot);
        let message =
            "a day has passed without a boot that ended badly: restarting into the confirmed release"
                .to_owned();
        vec![Output::Save, Output::Note { kind: "return.begun".to_owned(), message }]
    }

    /// Keeps how much of the day has passed, once in a while.
    pub(super) fn keep_clean_time(&mut self, now: Now) -> Vec<Output> {
        let passed = now.boot.saturating_sub(self.clean_since);
        let Some(returning) = self.journal.returning.as_mut().filter(|_| passed >= KEEP) else {
            return vec![];
        };
        returning.clean_millis = returning.clean_millis.saturating_add(passed.as_millis() as u64);
        self.clean_since = now.boot;
        vec![Output::Save]
    }

    pub(super) fn return_deadline(&self) -> Option<Duration> {
        let returning =
            self.journal.returning.as_ref().filter(|returning| returning.asked_from_boot.is_none())?;
        let left = CLEAN.saturating_sub(Duration::from_millis(returning.clean_millis));
        Some(self.clean_since + left.min(KEEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Boot, Event, LastBoot, Policy};
    use crate::journal::{Install, Journal};
    use jiff::Timestamp;
    use vigil_wire::ReleaseId;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(boot: Duration) -> Now {
        Now { wall: Timestamp::UNIX_EPOCH, boot }
    }

    fn confirmed() -> Journal {
        let release = ReleaseId { version: "2.0.0".into(), sequence: 2 };
        Journal {
            state: State::Confirmed,
            install: Some(Install {
                target: "B".into(),
                from: "A".into(),
                release: Some(release.clone()),
                release_target: "releases/bar/2.0.0.json".into(),
                ..Install::default()
            }),
            contents: [("B".to_owned(), release.clone())].into(),
            confirmed: Some(release),
            ..Journal::default()
        }
    }

    fn start(journal: Journal, slot: &str, id: u32, last: LastBoot) -> Engine {
        let boot = Boot { slot: slot.into(), id: id.to_string(), last };
        Engine::start(Policy::default(), journal, 2, boot, at(Duration::ZERO)).0
    }

    /// The device is on for so long; what it does at the end, besides refilling its tries.
    fn on_for(engine: &mut Engine, hours: u32) -> Step {
        let _ = engine.on(at(Duration::ZERO), Event::MarkedGood);
        for hour in 1..=hours {
            let _ = engine.on(at(hour * HOUR), Event::Tick);
        }
        engine.next(at(hours * HOUR))
    }

    #[test]
    fn power_cuts_before_the_updater_starts_are_no_fault_of_a_confirmed_release() {
        for last in [LastBoot::default(), LastBoot { power: true, ..LastBoot::default() }] {
            let engine = start(confirmed(), "A", 1, last);
            let journal = engine.journal();
            assert_eq!((journal.state, journal.faults.len()), (State::RolledBack, 0));
            assert_eq!(journal.last_failure.as_ref().unwrap().fault, None);
            assert_eq!(journal.contents["B"].version, "2.0.0");
            assert_eq!(journal.install.as_ref().map(|install| install.reverting), Some(false));
        }
    }

    #[test]
    fn evidence_against_a_confirmed_release_counts_as_before() {
        let engine =
            start(confirmed(), "A", 1, LastBoot { panic: Some("VFS".into()), ..LastBoot::default() });
        assert!(engine.is_reverting() && engine.journal().returning.is_none());
    }

    #[test]
    fn the_device_returns_by_itself_once_after_a_clean_day_over_restarts() {
        let mut engine = start(confirmed(), "A", 1, LastBoot::default());
        assert_eq!(on_for(&mut engine, 13), Step::Rest);
        let mut engine = start(engine.journal().clone(), "A", 2, LastBoot::default());
        assert_eq!(on_for(&mut engine, 10), Step::Rest);
        assert_eq!(engine.next(at(11 * HOUR)), Step::PutFirst { slot: "B".into() });
        let _ = engine.on(at(11 * HOUR), Event::PutFirst);
        assert_eq!(engine.next(at(11 * HOUR)), Step::Reboot);
        let asked = engine.journal().clone();
        let engine = start(asked.clone(), "B", 3, LastBoot::default());
        assert_eq!((engine.journal().state, &engine.journal().returning), (State::Confirmed, &None));
        // It did not start: a person decides.
        let mut engine = start(asked, "A", 3, LastBoot::default());
        assert_eq!(on_for(&mut engine, 100), Step::Rest);
        assert_eq!(engine.journal().state, State::RolledBack);
    }

    #[test]
    fn a_boot_that_ended_badly_begins_the_day_anew() {
        let mut engine = start(confirmed(), "A", 1, LastBoot::default());
        let _ = on_for(&mut engine, 23);
        let mut engine =
            start(engine.journal().clone(), "A", 2, LastBoot { power: true, ..LastBoot::default() });
        assert_eq!(on_for(&mut engine, 23), Step::Rest);
        assert_eq!(engine.next(at(24 * HOUR)), Step::PutFirst { slot: "B".into() });
    }

    #[test]
    fn authentic_metadata_that_has_expired_confirms_a_good_release() {
        let mut journal = confirmed();
        journal.state = State::Good;
        journal.confirmed = None;
        let mut engine = start(journal, "B", 1, LastBoot::default());
        let _ = engine.on(at(Duration::from_secs(60)), Event::Authentic);
        assert_eq!(engine.journal().state, State::Confirmed);
    }
}
