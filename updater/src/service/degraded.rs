//! What is left when the updater's own state cannot be used: the disk is read-only, full or damaged. It feeds the watchdog,
//! answers with the reason, installs nothing, and tries again. A daemon that ended instead would let the watchdog reset
//! the device for ever, in either slot.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{error, warn};
use vigil_text::Sentence;
use vigil_wire::{Request, Response, SlotStatus, State, UpdateStatus, WIRE_VERSION};

use super::courier::refused;
use super::{Pause, Updater};
use crate::boot::{BootControl, Claims};
use crate::config::Config;
use crate::engine::Now;
use crate::journal::{Journal, JournalFile};

/// Between two attempts to use the state after all.
const RETRY: Duration = Duration::from_secs(60);

/// A daemon without its state.
pub(super) struct Degraded {
    config: Config,
    confined: bool,
    boot: Box<dyn BootControl>,
    reason: Sentence,
    retry_at: Duration,
    /// Not yet refilled, though the running slot is known as confirmed.
    to_refill: Option<String>,
    /// Until then the watchdog is fed; for ever where the running slot is known as confirmed.
    feed_until: Option<Duration>,
}

impl Degraded {
    /// `why` is what the attempt to use the state ended with.
    pub(super) fn new(config: Config, confined: bool, why: &str, now: Now) -> Self {
        let reason = Sentence::new(why);
        error!(%reason, "the updater's state cannot be used: nothing is installed until it can");
        let boot = crate::boot::open(&config.boot, Claims::open(&config.state).outside(config.parts()));
        let running = boot.booted().ok().map(|booted| booted.slot);
        let journal = JournalFile::new(&config.state).peek();
        let is_confirmed = match (&journal, &running) {
            (Ok(journal), Some(slot)) => is_confirmed(journal, slot),
            _ => false,
        };
        let feed_until = (!is_confirmed).then(|| now.boot + config.policy().trial_deadline);
        if feed_until.is_some() {
            warn!(
                "it is not known whether the running slot is confirmed: after the trial's time the watchdog is left alone"
            );
        }
        let to_refill = running.filter(|_| is_confirmed);
        Self { config, confined, boot, reason, retry_at: now.boot + RETRY, to_refill, feed_until }
    }

    /// Whether the watchdog is still fed.
    pub(super) fn may_feed(&self, now: Duration) -> bool {
        self.feed_until.is_none_or(|until| now < until)
    }

    /// Tries to come back to its state, when that is due.
    pub(super) fn try_again(&mut self, now: Now) -> Option<Updater> {
        if now.boot < self.retry_at {
            return None;
        }
        self.retry_at = now.boot + RETRY;
        match Updater::open(self.config.clone(), self.confined) {
            Ok(updater) => Some(updater),
            Err(error) => {
                self.reason = Sentence::new(&format!("{error:#}"));
                None
            }
        }
    }

    pub(super) fn work(&mut self) -> Pause {
        if let Some(slot) = self.to_refill.take()
            && let Err(error) = self.refill(&slot)
        {
            warn!(%error, "the tries of the running slot could not be refilled");
        }
        Pause::Until(self.feed_until.map_or(self.retry_at, |until| until.min(self.retry_at)))
    }

    fn refill(&mut self, slot: &str) -> std::io::Result<()> {
        let reading = self.boot.read()?;
        let refilled = reading.order.clone().refilled(slot);
        if !reading.made_up && refilled != reading.order {
            self.boot.write("boot.mark_good", &refilled)?;
        }
        Ok(())
    }

    /// The answer to a request: how it stands is told, and nothing is begun.
    pub(super) fn answer(&self, request: &Request) -> Response {
        match request {
            Request::Hello { version: WIRE_VERSION } => {
                Response::Hello { version: WIRE_VERSION, updater: env!("CARGO_PKG_VERSION").to_owned() }
            }
            Request::Hello { .. } => refused("version", "this updater speaks another version of the wire"),
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Follow { .. } | Request::Contact(_) => Response::Done,
            Request::Next => Response::Idle,
            Request::Witnessed => Response::Witnessed { note: None },
            Request::Events { .. } => Response::Events { events: Vec::new() },
            _ => refused("degraded", &format!("the updater's state cannot be used: {}", self.reason)),
        }
    }

    fn status(&self) -> UpdateStatus {
        let order = self.boot.read().map(|reading| reading.order).unwrap_or_default();
        let slot = |name: &str| SlotStatus { bootable: order.may_boot(name), release: None };
        let slots: BTreeMap<_, _> =
            self.config.slots.iter().map(|config| (config.name.clone(), slot(&config.name))).collect();
        UpdateStatus {
            product: self.config.device.product.clone(),
            state: State::Idle,
            running_slot: self.boot.booted().map(|booted| booted.slot).unwrap_or_default(),
            slots,
            confined: self.confined,
            degraded: Some(self.reason.clone()),
            ..UpdateStatus::default()
        }
    }
}

/// Whether what runs in `slot` is known not to be on trial: it was confirmed, or nothing was ever installed.
fn is_confirmed(journal: &Journal, slot: &str) -> bool {
    if journal.unproven {
        return false;
    }
    let Some(install) = &journal.install else { return true };
    let is_undecided = journal.state.is_under_way() && install.target == slot;
    let is_the_confirmed_one =
        journal.confirmed.is_some() && journal.contents.get(slot) == journal.confirmed.as_ref();
    !is_undecided && (install.from == slot || is_the_confirmed_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Install;
    use vigil_wire::ReleaseId;

    fn journal(state: State, target: &str) -> Journal {
        let release = ReleaseId { version: "2.0.0".into(), sequence: 2 };
        Journal {
            state,
            install: Some(Install { target: target.into(), from: "A".into(), ..Install::default() }),
            contents: [("B".to_owned(), release.clone())].into(),
            confirmed: Some(release),
            ..Journal::default()
        }
    }

    #[test]
    fn a_slot_is_confirmed_when_its_release_was_or_when_it_was_left_for_a_trial_and_never_on_one() {
        assert!(is_confirmed(&Journal::default(), "A"), "as it came from the factory");
        assert!(is_confirmed(&journal(State::Confirmed, "B"), "B"));
        assert!(is_confirmed(&journal(State::Writing, "B"), "A"));
        assert!(is_confirmed(&journal(State::RolledBack, "B"), "A"));
        for state in [State::Trial, State::Good, State::Rebooting, State::Activating] {
            assert!(!is_confirmed(&journal(state, "B"), "B"), "{}", state.name());
        }
        let mut other = journal(State::RolledBack, "B");
        other.confirmed = None;
        assert!(!is_confirmed(&other, "B"));
    }
}
