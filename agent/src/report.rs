//! State messages: a body, who says it, and a sequence number that never goes back.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vigil_protocol::state::{Message, Progress, ReleaseName, SlotState, Update, UpdateFailure};
use vigil_wire::{ReleaseId, State, UpdateStatus};

use crate::store::{Loaded, Store};

/// Messages of one session at most; far more than one sends.
const MESSAGES: u64 = 1 << 24;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    session: u64,
}

/// Numbers sessions and messages. The session is on the disk before it is used; within it messages are only counted
/// in memory, which spares the flash a write for each and still never repeats a number.
#[derive(Debug)]
pub struct Numbers {
    store: Store,
    device: String,
    session: u64,
    used: bool,
    count: u64,
}

impl Numbers {
    /// Reads the last session's number. The second value says when it was damaged.
    pub fn open(state: &Path, device: &str, now: Timestamp) -> io::Result<(Self, Option<String>)> {
        let store = Store::new(state.join("session.json"), "session", 1, 4096);
        let (session, finding) = match store.load()? {
            Loaded::Nothing => (0, None),
            Loaded::Content(Counter { session }) => (session, None),
            // Unknown, but not below what it was: one a second is more than any device makes.
            Loaded::Damaged(finding) => (now.as_second().max(0) as u64, Some(finding)),
        };
        let mut numbers = Self { store, device: device.to_owned(), session, used: true, count: 0 };
        numbers.begin_session()?;
        Ok((numbers, finding))
    }

    /// Takes the next session's number, durably, unless the present one was never used.
    pub fn begin_session(&mut self) -> io::Result<()> {
        if self.used {
            self.store.save(&Counter { session: self.session + 1 })?;
            self.session += 1;
            self.count = 0;
            self.used = false;
        }
        Ok(())
    }

    /// The session's number was seen by the broker.
    pub fn use_session(&mut self) {
        self.used = true;
    }

    /// The session's number.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The next message's number.
    pub fn take(&mut self) -> u64 {
        self.count += 1;
        self.session * MESSAGES + self.count
    }

    /// A message around `body`, and its number.
    pub fn message<B: Serialize>(&mut self, body: B) -> serde_json::Result<(u64, Vec<u8>)> {
        let seq = self.take();
        let message = Message { v: 1, device: self.device.clone(), seq, at: Timestamp::now(), body };
        Ok((seq, serde_json::to_vec(&message)?))
    }
}

/// What is published of the updater's status.
pub fn update_state(status: Option<&UpdateStatus>) -> Update {
    let Some(status) = status else {
        return Update {
            available: false,
            state: String::new(),
            running_slot: String::new(),
            slots: [].into(),
            running: None,
            target: None,
            progress: None,
            last_failure: None,
            floor: 0,
        };
    };
    let name =
        |release: &ReleaseId| ReleaseName { version: release.version.clone(), sequence: release.sequence };
    let slots: std::collections::BTreeMap<_, _> = status
        .slots
        .iter()
        .map(|(slot, state)| {
            (slot.clone(), SlotState { bootable: state.bootable, release: state.release.as_ref().map(name) })
        })
        .collect();
    Update {
        available: true,
        state: status.state.name().to_owned(),
        running: slots.get(&status.running_slot).and_then(|slot| slot.release.clone()),
        running_slot: status.running_slot.clone(),
        slots,
        target: status.target.as_ref().filter(|_| status.state != State::Idle).map(name),
        progress: status
            .progress
            .map(|progress| Progress { done_bytes: progress.done_bytes, total_bytes: progress.total_bytes }),
        last_failure: status.last_failure.as_ref().map(|failure| UpdateFailure {
            release: failure.release.as_ref().map(name),
            cause: failure.cause.clone(),
            message: failure.message.clone(),
            rolled_back: failure.rolled_back,
            at: Timestamp::from_second(failure.at_seconds).unwrap_or(Timestamp::UNIX_EPOCH),
        }),
        floor: status.floor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_go_back_over_sessions_restarts_and_a_damaged_file() {
        let directory = tempfile::tempdir().unwrap();
        let now = "2026-06-01T12:00:00Z".parse().unwrap();
        let open = || Numbers::open(directory.path(), "bar-1", now).unwrap();
        let (mut numbers, _) = open();
        let mut last = numbers.take();
        for _ in 0..3 {
            numbers.use_session();
            numbers.begin_session().unwrap();
            assert!(numbers.take() > last);
            last = numbers.take();
        }
        let (mut numbers, _) = open();
        assert!(numbers.take() > last);
        last = numbers.take();
        std::fs::write(directory.path().join("session.json"), "{").unwrap();
        let (mut numbers, finding) = open();
        assert!(finding.is_some() && numbers.take() > last);
    }

    #[test]
    fn a_session_that_the_broker_never_saw_costs_no_write() {
        let directory = tempfile::tempdir().unwrap();
        let (mut numbers, _) = Numbers::open(directory.path(), "bar-1", Timestamp::UNIX_EPOCH).unwrap();
        let session = numbers.session();
        numbers.begin_session().unwrap();
        assert_eq!(numbers.session(), session);
    }
}
