//! How far an install has come on each device: a plain value that is fed answers and retained `update` messages.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use vigil_protocol::command::{CommandResult, Reason, Status};
use vigil_protocol::state::{Update, UpdateOutcome, UpdatePlan};
use vigil_wire::State;

use crate::fleet;
use crate::text::{self, clean};

/// Devices at most; a group is never so large.
const DEVICES: usize = 100_000;

/// How it ended on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The release runs and had contact.
    Confirmed,
    /// It was given up; the release before never stopped.
    Failed,
    /// It ran and was taken back.
    RolledBack,
    /// The device did not take it up.
    Refused,
    /// Power or a restart cut it short.
    Interrupted,
}

/// Where a device stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The engine's state, or how far the command has come before it.
    pub state: String,
    /// The share of the image that is done, while it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// How it ended, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// What it fetches and writes, once the device knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<UpdatePlan>,
    /// What it fetched and wrote, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<UpdateOutcome>,
    /// Why, for a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Standing {
    fn ended(end: End, note: String) -> Self {
        let state = match end {
            End::Confirmed => "confirmed",
            End::Failed => "failed",
            End::RolledBack => "rolled back",
            End::Refused => "refused",
            End::Interrupted => "interrupted",
        };
        Self { state: state.to_owned(), end: Some(end), note: clean(&note, 300), ..Self::default() }
    }

    /// What is to be fetched, or what was.
    fn cost(&self) -> String {
        match (&self.plan, &self.outcome) {
            (Some(plan), Some(outcome)) => format!(
                ", {} fetched ({} planned)",
                text::bytes(outcome.fetch_bytes),
                text::bytes(plan.fetch_bytes)
            ),
            (Some(plan), None) if self.end.is_none() => {
                let time = plan.fetch_seconds.map_or_else(String::new, |seconds| {
                    format!(", {} at the last rate", text::about(seconds))
                });
                format!(", {} to fetch{time}", text::bytes(plan.fetch_bytes))
            }
            _ => String::new(),
        }
    }

    /// In a line, with a bar while there is a share to show.
    pub fn words(&self) -> String {
        let bar = self.percent.map_or_else(String::new, |percent| {
            let done = usize::from(percent.min(100)) / 5;
            format!("  [{}{}] {percent}%", "=".repeat(done), " ".repeat(20 - done))
        });
        let note = if self.note.is_empty() { String::new() } else { format!(": {}", self.note) };
        format!("{}{bar}{}{note}", self.state, self.cost())
    }
}

#[derive(Clone, Debug, Default)]
struct Device {
    standing: Standing,
    /// What ran when we began to look.
    before: Option<String>,
    /// The newest state from before we heard that the device has accepted. Brokers keep the order within one topic only,
    /// so it may be of afterwards.
    early: Option<Value>,
    accepted: Option<Timestamp>,
    was_under_way: bool,
    /// What it was last heard to cost.
    plan: Option<UpdatePlan>,
    outcome: Option<UpdateOutcome>,
}

/// One install on one device or many.
#[derive(Clone, Debug)]
pub struct Rollout {
    version: String,
    devices: BTreeMap<String, Device>,
}

impl Rollout {
    /// An install of `version` that nobody has answered yet.
    pub fn new(version: &str) -> Self {
        Self { version: version.to_owned(), devices: BTreeMap::new() }
    }

    /// Takes in an answer; gives where the device stands if that has changed.
    pub fn on_result(&mut self, result: &CommandResult) -> Option<&Standing> {
        let was_accepted = self.devices.get(&result.device).is_some_and(|device| device.accepted.is_some());
        let changed = self.note_result(result).is_some();
        let device = self.devices.get_mut(&result.device)?;
        if !was_accepted
            && let Some(accepted) = device.accepted
            && let Some(early) = device.early.take()
            && fleet::at(&early).is_some_and(|at| at >= accepted)
            && self.on_update(&result.device, &early).is_some()
        {
            return Some(&self.devices.get(&result.device)?.standing);
        }
        let device = self.devices.get(&result.device)?;
        changed.then_some(&device.standing)
    }

    fn note_result(&mut self, result: &CommandResult) -> Option<&Standing> {
        let device = self.devices.entry(result.device.clone()).or_default();
        let why = || match result.reason {
            Reason::Ok => result.message.clone(),
            reason => format!("{}: {}", reason.code(), result.message),
        };
        let standing = match result.status {
            Status::Accepted => {
                device.accepted = Some(result.at);
                Standing { state: "accepted".to_owned(), ..Standing::default() }
            }
            // From then on the engine's own state says more.
            Status::Running if device.was_under_way => return None,
            Status::Running => {
                device.accepted.get_or_insert(result.at);
                Standing { state: "taken up".to_owned(), ..Standing::default() }
            }
            Status::Succeeded => Standing::ended(End::Confirmed, String::new()),
            Status::Failed if result.output["rolled_back"] == true => {
                Standing::ended(End::RolledBack, result.message.clone())
            }
            Status::Failed if result.reason == Reason::UpdateFailed => {
                Standing::ended(End::Failed, result.message.clone())
            }
            Status::Failed | Status::Rejected => Standing::ended(End::Refused, why()),
            Status::Interrupted => Standing::ended(End::Interrupted, why()),
        };
        device.change(standing)
    }

    /// Takes in a retained `update`; gives where the device stands if that has changed. Before the device has accepted,
    /// its state is an earlier install's.
    pub fn on_update(&mut self, device: &str, message: &Value) -> Option<&Standing> {
        if self.devices.len() >= DEVICES && !self.devices.contains_key(device) {
            return None;
        }
        let update: Update = serde_json::from_value(message.clone()).ok()?;
        let device = self.devices.entry(device.to_owned()).or_default();
        let running = update.running.as_ref().map(|release| release.version.clone());
        let Some(accepted) = device.accepted else {
            if device.early.replace(message.clone()).is_none() {
                device.before = running;
            }
            return None;
        };
        let state: State = serde_json::from_value(Value::String(update.state.clone())).ok()?;
        if state.is_under_way() {
            device.was_under_way = true;
            device.plan.clone_from(&update.plan);
            device.outcome.clone_from(&update.outcome);
            let is_coming = matches!(state, State::Invalidating | State::Writing);
            let plan = update.plan.filter(|_| is_coming);
            let percent =
                update.progress.as_ref().filter(|progress| progress.total_bytes > 0).map(|progress| {
                    let share = u128::from(progress.done_bytes) * 100 / u128::from(progress.total_bytes);
                    share.min(100) as u8
                });
            let paused = if update.paused { "paused, " } else { "" };
            let state = format!("{paused}{}", clean(&update.state, 24));
            return device.change(Standing { state, percent, plan, ..Standing::default() });
        }
        // The answer says the same, unless it was lost with a connection.
        let ours = running.as_ref() == Some(&self.version);
        let failure = update.last_failure.filter(|failure| {
            let release = failure.release.as_ref().is_none_or(|release| release.version == self.version);
            release && (device.was_under_way || failure.at >= accepted)
        });
        let why = |failure: &vigil_protocol::state::UpdateFailure| {
            let fault =
                failure.fault.as_ref().map_or_else(String::new, |fault| format!(" ({fault} at fault)"));
            format!("{}: {}{fault}", failure.cause, failure.message)
        };
        let standing = match (state, failure) {
            (State::Confirmed, _) if ours && (device.was_under_way || device.before != running) => {
                Standing::ended(End::Confirmed, String::new())
            }
            (State::RolledBack, Some(failure)) => Standing::ended(End::RolledBack, why(&failure)),
            (State::Failed, Some(failure)) => Standing::ended(End::Failed, why(&failure)),
            _ => return None,
        };
        device.change(standing)
    }

    /// Where each device stands that has answered.
    pub fn standings(&self) -> impl Iterator<Item = (&str, &Standing)> {
        let answered = self.devices.iter().filter(|(_, device)| !device.standing.state.is_empty());
        answered.map(|(name, device)| (name.as_str(), &device.standing))
    }

    /// Devices on which it has ended.
    pub fn ended(&self) -> usize {
        self.standings().filter(|(_, standing)| standing.end.is_some()).count()
    }

    /// Devices on which it has ended otherwise than it should.
    pub fn failed(&self) -> usize {
        self.standings().filter(|(_, standing)| standing.end.is_some_and(|end| end != End::Confirmed)).count()
    }
}

impl Device {
    fn change(&mut self, mut standing: Standing) -> Option<&Standing> {
        if standing.end.is_some() {
            standing.plan.clone_from(&self.plan);
            standing.outcome.clone_from(&self.outcome);
        }
        // The end is the end: what comes late is an earlier word.
        if self.standing.end.is_some() || self.standing == standing {
            return None;
        }
        self.standing = standing;
        Some(&self.standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(status: &str, reason: &str, output: Value) -> CommandResult {
        serde_json::from_value(json!({"v": 1, "device": "bar-1", "id": "c-1", "kind": "update.install",
            "status": status, "reason": reason, "message": "said so", "output": output, "at": "2026-06-01T12:00:00Z"}))
        .unwrap()
    }
    fn update(state: &str, running: &str) -> Value {
        json!({"available": true, "state": state, "running": {"version": running, "sequence": 1}, "floor": 0})
    }
    fn failure(state: &str, at: &str) -> Value {
        let mut update = update(state, "1.0.0");
        update["last_failure"] = json!({"release": {"version": "2.0.0", "sequence": 2}, "cause": "gate",
            "message": "no camera", "rolled_back": true, "fault": "room", "at": at});
        update
    }
    fn accepted() -> Rollout {
        let mut rollout = Rollout::new("2.0.0");
        assert!(rollout.on_update("bar-1", &failure("rolled_back", "2026-06-01T11:00:00Z")).is_none());
        assert_eq!(rollout.on_result(&result("accepted", "ok", Value::Null)).unwrap().state, "accepted");
        rollout
    }
    fn end(rollout: &Rollout) -> Option<End> {
        rollout.standings().next().unwrap().1.end
    }

    #[test]
    fn what_an_install_is_to_fetch_is_told_before_and_what_it_fetched_after() {
        let mut rollout = accepted();
        rollout.on_result(&result("running", "ok", Value::Null));
        let mut message = update("writing", "1.0.0");
        message["plan"] = json!({"fetch_bytes": 2_097_152, "fetch_seconds": 61, "of_a_later_release": 1});
        let standing = rollout.on_update("bar-1", &message).unwrap();
        assert_eq!(standing.words(), "writing, 2.0 MiB to fetch, about 2 min at the last rate");
        message["state"] = "trial".into();
        message["outcome"] = json!({"fetch_bytes": 3_145_728});
        assert_eq!(rollout.on_update("bar-1", &message).unwrap().words(), "trial");
        let standing = rollout.on_result(&result("succeeded", "ok", Value::Null)).unwrap();
        assert_eq!(standing.words(), "confirmed, 3.0 MiB fetched (2.0 MiB planned)");
    }

    #[test]
    fn an_install_is_followed_from_acceptance_to_confirmation() {
        let mut rollout = accepted();
        assert_eq!(rollout.on_result(&result("running", "ok", Value::Null)).unwrap().state, "taken up");
        let mut writing = update("writing", "1.0.0");
        writing["progress"] = json!({"done_bytes": 50, "total_bytes": 200});
        let standing = rollout.on_update("bar-1", &writing).unwrap();
        assert_eq!(
            (standing.percent, standing.words()),
            (Some(25), format!("writing  [{}{}] 25%", "=".repeat(5), " ".repeat(15)))
        );
        assert!(rollout.on_update("bar-1", &writing).is_none(), "nothing has changed");
        assert_eq!(rollout.on_update("bar-1", &update("trial", "2.0.0")).unwrap().state, "trial");
        assert_eq!((rollout.ended(), rollout.failed()), (0, 0));
        rollout.on_result(&result("succeeded", "ok", json!({"release": "2.0.0"})));
        assert_eq!((end(&rollout), rollout.ended(), rollout.failed()), (Some(End::Confirmed), 1, 0));
    }

    #[test]
    fn the_state_of_an_earlier_install_ends_nothing() {
        let mut rollout = accepted();
        assert!(rollout.on_update("bar-1", &failure("rolled_back", "2026-06-01T11:00:00Z")).is_none());
        assert!(rollout.on_update("bar-1", &update("confirmed", "1.0.0")).is_none());
        assert_eq!(end(&rollout), None);
    }

    #[test]
    fn a_state_that_overtook_the_acceptance_counts_and_one_from_before_it_does_not() {
        for (at, wanted) in [("2026-06-01T12:00:01Z", "trial"), ("2026-06-01T11:59:59Z", "accepted")] {
            let mut rollout = Rollout::new("2.0.0");
            rollout.on_update("bar-1", &update("confirmed", "1.0.0"));
            let mut early = update("trial", "2.0.0");
            early["at"] = at.into();
            assert!(rollout.on_update("bar-1", &early).is_none());
            assert_eq!(rollout.on_result(&result("accepted", "ok", Value::Null)).unwrap().state, wanted);
        }
    }

    #[test]
    fn an_answer_that_was_lost_is_made_up_for_by_the_retained_state() {
        let mut rollout = accepted();
        let standing = rollout.on_update("bar-1", &failure("rolled_back", "2026-06-01T12:30:00Z")).unwrap();
        assert_eq!(standing.end, Some(End::RolledBack));
        assert_eq!(standing.note, "gate: no camera (room at fault)");
        let mut rollout = accepted();
        assert_eq!(
            rollout.on_update("bar-1", &update("confirmed", "2.0.0")).unwrap().end,
            Some(End::Confirmed)
        );
    }

    #[test]
    fn a_release_that_ran_before_is_confirmed_only_after_it_was_under_way() {
        let mut rollout = Rollout::new("2.0.0");
        rollout.on_update("bar-1", &update("confirmed", "2.0.0"));
        rollout.on_result(&result("accepted", "ok", Value::Null));
        assert!(rollout.on_update("bar-1", &update("confirmed", "2.0.0")).is_none());
        rollout.on_update("bar-1", &update("writing", "2.0.0"));
        assert_eq!(
            rollout.on_update("bar-1", &update("confirmed", "2.0.0")).unwrap().end,
            Some(End::Confirmed)
        );
    }

    #[test]
    fn each_way_to_end_badly_has_its_name_and_stays() {
        for (status, reason, output, wanted) in [
            ("rejected", "not_permitted", Value::Null, End::Refused),
            ("failed", "quarantined", Value::Null, End::Refused),
            ("failed", "update_failed", json!({"rolled_back": false}), End::Failed),
            ("failed", "update_failed", json!({"rolled_back": true}), End::RolledBack),
            ("interrupted", "interrupted", Value::Null, End::Interrupted),
        ] {
            let mut rollout = Rollout::new("2.0.0");
            rollout.on_result(&result(status, reason, output));
            assert_eq!((end(&rollout), rollout.failed()), (Some(wanted), 1), "{status} {reason}");
            assert!(rollout.on_result(&result("succeeded", "ok", Value::Null)).is_none());
        }
    }

    #[test]
    fn nonsense_is_passed_over() {
        let mut rollout = accepted();
        for message in [json!({}), json!({"state": "dancing", "available": true}), json!({"progress": "x"})] {
            assert!(rollout.on_update("bar-1", &message).is_none(), "{message}");
        }
    }
}
