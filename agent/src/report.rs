//! State messages: a body, who says it, and a sequence number that never goes back.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vigil_protocol::operators::Operators;
use vigil_protocol::state::{
    Incident, Message, Progress, ReleaseName, Severity, SlotState, Update, UpdateFailure, UpdateOutcome,
    UpdatePlan,
};
use vigil_protocol::topic::IncidentId;
use vigil_wire::{OutcomeStatus, PlanStatus, ReleaseId, State, TrustStatus, UpdateStatus};

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
    written: u64,
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
        let mut numbers =
            Self { store, device: device.to_owned(), session, used: true, count: 0, written: 0 };
        numbers.begin_session()?;
        Ok((numbers, finding))
    }

    /// Takes the next session's number, durably, unless the present one was never used.
    pub fn begin_session(&mut self) -> io::Result<()> {
        if self.used {
            self.written += self.store.save(&Counter { session: self.session + 1 })?;
            self.session += 1;
            self.count = 0;
            self.used = false;
        }
        Ok(())
    }

    /// What the flash has written since this was asked last.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
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
            plan: None,
            outcome: None,
            paused: false,
            last_failure: None,
            quarantined: Vec::new(),
            floor: 0,
            problem: None,
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
        plan: status.plan.as_ref().map(plan),
        outcome: status.outcome.as_ref().map(outcome),
        last_failure: status.last_failure.as_ref().map(|failure| UpdateFailure {
            release: failure.release.as_ref().map(name),
            cause: failure.cause.clone(),
            message: failure.message.to_string(),
            rolled_back: failure.rolled_back,
            fault: failure.fault.map(|fault| fault.name().to_owned()),
            after: failure.after.as_ref().map(ToString::to_string),
            at: Timestamp::from_second(failure.at_seconds).unwrap_or(Timestamp::UNIX_EPOCH),
        }),
        paused: status.paused,
        quarantined: status.quarantined.clone(),
        floor: status.floor,
        problem: status.degraded.as_ref().or(status.boot_problem.as_ref()).map(ToString::to_string),
    }
}

fn plan(plan: &PlanStatus) -> UpdatePlan {
    UpdatePlan {
        fetch_bytes: plan.fetch_bytes,
        requests: plan.requests,
        index_bytes: plan.index_bytes,
        metadata_bytes: plan.metadata_bytes,
        full_bytes: plan.full_bytes,
        write_bytes: plan.write_bytes,
        present_bytes: plan.present_bytes,
        running_bytes: plan.running_bytes,
        target_bytes: plan.target_bytes,
        free_bytes: plan.free_bytes,
        frame_bytes: plan.frame_bytes,
        patch_bytes: plan.patch_bytes,
        fetch_seconds: plan.fetch_seconds,
    }
}

fn outcome(outcome: &OutcomeStatus) -> UpdateOutcome {
    UpdateOutcome {
        fetch_bytes: outcome.fetch_bytes,
        requests: outcome.requests,
        index_bytes: outcome.index_bytes,
        metadata_bytes: outcome.metadata_bytes,
        write_bytes: outcome.write_bytes,
        present_bytes: outcome.present_bytes,
        running_bytes: outcome.running_bytes,
        target_bytes: outcome.target_bytes,
        free_bytes: outcome.free_bytes,
        frame_bytes: outcome.frame_bytes,
        patch_bytes: outcome.patch_bytes,
        fetch_millis: outcome.fetch_millis,
    }
}

/// What is wrong with what the device trusts, by the updater's reckoning of the time. Since when is a matter of what
/// was signed, so that a restart does not make an incident anew.
pub fn incidents(trust: Option<&TrustStatus>, operators: Option<&Operators>) -> Vec<Incident> {
    let Some(trust) = trust else { return Vec::new() };
    let incident = |id: IncidentId, title: &str, detail: &str, opened_at: Timestamp| Incident {
        id: id.name().to_owned(),
        state: "open".to_owned(),
        severity: Severity::Major,
        component: "trust".to_owned(),
        title: title.to_owned(),
        detail: detail.to_owned(),
        opened_at,
    };
    let mut open = Vec::new();
    if let Some(list) = operators.filter(|_| trust.operators_expired) {
        let detail = "Every command but those of the scope 'observe' is refused. Publish the list anew: \
                      vigil-publish operators set";
        open.push(incident(
            IncidentId::OperatorsExpired,
            "The list of operators has expired",
            detail,
            list.expires,
        ));
    }
    if let Some(fresh_until) = trust.fresh_until.filter(|_| trust.frozen) {
        let detail = "Nothing newer than this has reached the device: the repository is not tended (vigil-publish \
                      timestamp), cannot be reached, or somebody withholds what is newer. Nothing is installed.";
        let since = Timestamp::from_second(fresh_until).unwrap_or(Timestamp::UNIX_EPOCH);
        open.push(incident(
            IncidentId::RepositoryFrozen,
            "The repository's timestamp has expired",
            detail,
            since,
        ));
    }
    open
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
    fn an_expired_list_and_a_frozen_repository_are_incidents_since_they_expired() {
        let list = Operators {
            v: 1,
            tenant: "acme".to_owned(),
            expires: "2026-06-01T00:00:00Z".parse().unwrap(),
            operators: Vec::new(),
            thresholds: [].into(),
        };
        let mut trust = TrustStatus { fresh_until: Some(1_780_000_000), ..TrustStatus::default() };
        assert_eq!(incidents(Some(&trust), Some(&list)), []);
        assert_eq!(incidents(None, Some(&list)), []);
        trust.operators_expired = true;
        trust.frozen = true;
        let open = incidents(Some(&trust), Some(&list));
        let ids: Vec<_> =
            open.iter().map(|incident| (incident.id.as_str(), incident.opened_at.as_second())).collect();
        assert_eq!(ids, [("operators-expired", 1_780_272_000), ("repository-frozen", 1_780_000_000)]);
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
