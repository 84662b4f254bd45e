//! One command, from the broker to its answer and its audit entry.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};
use vigil_protocol::authorize::{Authorized, Device, Refusal, authorize};
use vigil_protocol::command::{Command, CommandResult, Kind, Reason, Status};
use vigil_protocol::topic::StateTopic;

use super::{AskedBy, Daemon};
use crate::audit::{Entry, Outcome, Record};
use crate::command::Verdict;
use crate::link::{Kept, Message, diagnosis_of};
use crate::proven;
use crate::update::Ask;
use vigil_wire::{Control, Request};

/// Commands that wait until fewer answers do. A broker that sends more than we have asked for is not listened to: what
/// it has no acknowledgement for it sends again.
const UNHEARD: usize = 32;
/// Answers that are said again after a connection was lost: so many, and delivered within this time before.
const JUST_DELIVERED: (usize, Duration) = (64, Duration::from_secs(10));
/// Where the entry of the command that was admitted last is looked for after a start.
const LATEST_ENTRIES: u64 = 64;
/// How long commands wait for the operators list after a start.
const OPERATORS_PATIENCE: Duration = Duration::from_secs(10);
/// How long a configuration on trial waits for the broker, unless the command says so: in seconds.
const CONFIRM_SECONDS: u64 = 300;
const CONFIRM_RANGE: std::ops::RangeInclusive<u64> = 10..=3600;

/// What becomes of an authorized command.
enum Plan {
    /// It is answered at once; what it sets in motion follows from its kind.
    Done { status: Status, reason: Reason, message: String, output: Value },
    /// It is begun, and answered later.
    Begin,
}

impl Plan {
    fn done(output: Value) -> Self {
        Self::Done { status: Status::Succeeded, reason: Reason::Ok, message: String::new(), output }
    }

    fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::Done { status: Status::Failed, reason, message: message.into(), output: Value::Null }
    }
}

impl Daemon {
    /// A message on one of the topics for commands. While too many answers wait, it does too.
    pub(super) fn on_command(&mut self, message: Message) {
        if self.unheard.len() < UNHEARD {
            self.unheard.push_back(message);
        }
    }

    /// Takes up the commands that wait, as long as their answers find room. After a start the operators list is on its
    /// way from the updater: a command that was waiting at the broker is not refused for being faster.
    /// One at a time: between two of them the loop looks after everything else.
    pub(super) fn hear(&mut self) {
        if self.has_unheard()
            && let Some(message) = self.unheard.pop_front()
        {
            self.take_command(&message);
            // Now it is durable, or refused for good: the broker may forget it.
            if let Some(connection) = &self.connection {
                connection.acknowledge(&message);
            }
        }
    }

    /// Whether a command waits that can be taken up.
    pub(super) fn has_unheard(&self) -> bool {
        let knows_operators = self.operators.is_some() || self.elapsed() >= OPERATORS_PATIENCE;
        knows_operators && !self.outbox.is_crowded() && !self.unheard.is_empty()
    }

    fn take_command(&mut self, message: &Message) {
        let now = proven::wall();
        let device = &self.config.device;
        let device = Device {
            nonce: Some(&self.nonce),
            clock_doubtful: self.is_clock_doubtful(),
            ..Device::new(&device.id, &device.tenant, &device.groups)
        };
        let authorized = authorize(&message.payload, self.operators.as_ref(), &device, now);
        match authorized.and_then(|authorized| self.permit(authorized)) {
            Ok(authorized) => self.admit(&authorized, now, message),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// What this device can do at all, and how often one operator may ask.
    fn permit(&mut self, authorized: Authorized) -> Result<Authorized, Refusal> {
        let (reason, message) = if !self.is_carried_out(authorized.kind) {
            let message = format!("this device does not carry out {}", authorized.kind.name());
            (Reason::Unsupported, message)
        } else if !self.command_rate.take(&authorized.operator, self.started.elapsed()) {
            let limit = self.config.broker.max_commands_per_minute;
            let message = format!("more than {limit} commands of {} in a minute; wait", authorized.operator);
            (Reason::RateLimited, message)
        } else {
            return Ok(authorized);
        };
        let Command { id, kind, .. } = authorized.command;
        Err(Refusal { reason, message, claimed_id: Some(id), claimed_kind: Some(kind) })
    }

    /// Kinds whose rooms come later, or for which the image has no program, are answered by name.
    fn is_carried_out(&self, kind: Kind) -> bool {
        match kind {
            Kind::Reboot | Kind::RestartApp | Kind::Locate => self.program(kind).is_some(),
            Kind::Ping
            | Kind::Refresh
            | Kind::Diagnose
            | Kind::Cancel
            | Kind::ConfigApply
            | Kind::UpdateCheck
            | Kind::UpdateInstall
            | Kind::UpdatePause
            | Kind::UpdateResume
            | Kind::UpdateCancel
            | Kind::UpdateRollback => true,
            Kind::ReportUpload
            | Kind::IncidentAcknowledge
            | Kind::IncidentSuppress
            | Kind::IncidentResolve
            | Kind::CaseUpdate
            | Kind::IdentityRenew
            | Kind::AuditAcknowledge
            | Kind::FactoryReset => false,
        }
    }

    /// The answer to what can be answered at once. Decides only; nothing has happened yet.
    fn plan(&self, authorized: &Authorized) -> Plan {
        let args = &authorized.command.args;
        match authorized.kind {
            Kind::Ping => Plan::done(
                json!({ "agent": env!("CARGO_PKG_VERSION"), "uptime_seconds": self.elapsed().as_secs() }),
            ),
            Kind::Refresh => match args.get("audit_from") {
                None => Plan::done(Value::Null),
                Some(from) if from.as_u64().is_none_or(|from| from > self.audit.size()) => Plan::failed(
                    Reason::BadArgument,
                    "audit_from: a number of entries that the audit log has had",
                ),
                Some(_) if self.proving => {
                    Plan::failed(Reason::Busy, "another proof is being made; try again")
                }
                Some(_) => Plan::Begin,
            },
            Kind::UpdateCheck => Plan::done(Value::Null),
            Kind::Cancel => match args.get("command").and_then(Value::as_str) {
                None => Plan::failed(Reason::BadArgument, "command: the id of the command to stop"),
                Some(id) if self.can_stop(id) => Plan::done(Value::Null),
                Some(id) if self.following.as_deref() == Some(id) => {
                    Plan::failed(Reason::NotNow, "an update is stopped with update.cancel")
                }
                Some(_) => Plan::failed(Reason::NotNow, "no such command is under way"),
            },
            Kind::Diagnose if self.diagnosing => {
                Plan::failed(Reason::Busy, "another diagnosis is under way; try again in a moment")
            }
            Kind::ConfigApply => self.plan_config(args),
            _ => Plan::Begin,
        }
    }

    fn plan_config(&self, args: &BTreeMap<String, Value>) -> Plan {
        let bad = |message: &str| Plan::failed(Reason::BadArgument, message);
        if self.trial.is_some() {
            return Plan::failed(Reason::Busy, "another configuration is on trial");
        }
        if !args.get("patch").is_some_and(Value::is_object) {
            return bad("patch: an object, the merge patch over the overlay");
        }
        if args.get("expected_version").and_then(Value::as_u64).is_none() {
            return bad("expected_version: the version of the overlay, as the device publishes it");
        }
        match confirm_seconds(args) {
            Some(_) => Plan::Begin,
            None => bad("confirm_within: seconds, 10 to 3600"),
        }
    }

    fn admit(&mut self, authorized: &Authorized, now: Timestamp, message: &Message) {
        let command = &authorized.command;
        let plan = self.plan(authorized);
        let answer = match &plan {
            Plan::Begin => self.result(&command.id, &command.kind, Status::Accepted, Reason::Ok, ""),
            Plan::Done { status, reason, message, output } => CommandResult {
                output: output.clone(),
                ..self.result(&command.id, &command.kind, *status, *reason, message)
            },
        };
        let actor = format!("operator:{}", authorized.operator);
        if let Err((reason, message)) = self.commands.admit(command, &answer, &actor, now) {
            return self.refuse(&Refusal {
                reason,
                message,
                claimed_id: Some(command.id.clone()),
                claimed_kind: Some(command.kind.clone()),
            });
        }
        let accepted = json!({ "id": command.id, "kind": command.kind, "args": command.args });
        let mut records = vec![Record {
            event: "command.accepted",
            actor: &actor,
            outcome: Outcome::Success,
            detail: accepted,
        }];
        if let Plan::Done { .. } = plan {
            records.push(finished(&answer));
        }
        if let Err(error) = self.audit.record_all(records) {
            // What cannot be recorded does not happen.
            let message = format!("the audit log cannot be written: {error}");
            let (id, kind) = (&command.id, &command.kind);
            return self.finish(id, kind, Status::Failed, Reason::Storage, &message, Value::Null);
        }
        info!(id = command.id, kind = command.kind, actor, "command accepted");
        self.say(&answer);
        if answer.status != Status::Failed {
            self.begin(authorized, message);
        }
    }

    /// Sets in motion what was admitted and recorded.
    fn begin(&mut self, authorized: &Authorized, message: &Message) {
        let Authorized { command, kind, .. } = authorized;
        match kind {
            Kind::Refresh => {
                self.say_everything();
                if let Some(from) = command.args.get("audit_from").and_then(Value::as_u64) {
                    self.begin_proof(&command.id, from);
                }
            }
            Kind::UpdateCheck => drop(self.asks.try_send(Ask::Refresh)),
            Kind::Cancel => {
                if let Some(id) = command.args.get("command").and_then(Value::as_str) {
                    self.stop_command(id, &authorized.operator);
                }
            }
            Kind::Diagnose => {
                if let Err(message) = self.start_diagnosis(&command.id, AskedBy::Command(command.id.clone()))
                {
                    let (id, kind) = (&command.id, &command.kind);
                    self.finish(id, kind, Status::Failed, Reason::Busy, message, Value::Null);
                }
            }
            Kind::ConfigApply => self.begin_config_trial(command),
            Kind::Reboot | Kind::RestartApp | Kind::Locate => self.begin_action(command, *kind),
            Kind::UpdateInstall
            | Kind::UpdatePause
            | Kind::UpdateResume
            | Kind::UpdateCancel
            | Kind::UpdateRollback => self.order_of_updater(&command.id, *kind, &message.payload),
            // Answered already, or never admitted.
            _ => {}
        }
    }

    /// Hands on what only the updater may do, envelope and all: it verifies it again.
    fn order_of_updater(&mut self, id: &str, kind: Kind, envelope: &[u8]) {
        let envelope = Some(String::from_utf8_lossy(envelope).into_owned());
        let request = match kind {
            Kind::UpdatePause => Request::Control { control: Control::Pause, envelope },
            Kind::UpdateResume => Request::Control { control: Control::Resume, envelope },
            Kind::UpdateCancel => Request::Control { control: Control::Cancel, envelope },
            Kind::UpdateRollback => Request::Control { control: Control::Rollback, envelope },
            _ => Request::Install { envelope, release: None, reinstall: false },
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        if self.asks.try_send(Ask::Order(request, sender)).is_err() {
            let message = "the courier is busy; try again";
            return self.finish(id, kind.name(), Status::Failed, Reason::Busy, message, Value::Null);
        }
        let answers = self.order_answers.clone();
        let id = id.to_owned();
        tokio::task::spawn_local(async move {
            let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
            let answer = receiver.await.unwrap_or_else(|_| Err(gone()));
            let _ = answers.send(super::OrderAnswer { id, kind, answer }).await;
        });
    }

    /// A refusal is recorded and answered with its reason, unless there are too many: then they are counted.
    fn refuse(&mut self, refusal: &Refusal) {
        let Verdict::Tell { untold } = self.command_flood.on_refusal(self.elapsed()) else { return };
        warn!(reason = refusal.reason.code(), message = refusal.message, "command refused");
        self.record(
            "command.refused",
            "broker",
            Outcome::Refused,
            json!({
                "reason": refusal.reason, "message": refusal.message,
                "claimed_id": refusal.claimed_id, "claimed_kind": refusal.claimed_kind,
                "others_untold": untold,
            }),
        );
        // Only who knows an id waits for an answer.
        if let Some(id) = &refusal.claimed_id {
            let kind = refusal.claimed_kind.clone().unwrap_or_default();
            let rejected = self.result(id, &kind, Status::Rejected, refusal.reason, &refusal.message);
            self.say(&rejected);
            // Who asks again may have missed the answer: it is the same.
            if refusal.reason == Reason::Replayed {
                self.say_repeated(id);
            }
        }
    }

    /// In a quiet moment: what a flood left untold.
    pub(super) fn tell_untold(&mut self) {
        for (flood, event) in
            [(&mut self.command_flood, "command.refused"), (&mut self.local_flood, "local.refused")]
        {
            let untold = flood.take_untold();
            if untold > 0 {
                let detail = json!({ "others_untold": untold });
                let _ = self.audit.record(event, "unknown", Outcome::Refused, detail);
            }
        }
    }

    pub(super) fn result(
        &self,
        id: &str,
        kind: &str,
        status: Status,
        reason: Reason,
        message: &str,
    ) -> CommandResult {
        CommandResult {
            v: 1,
            device: self.config.device.id.clone(),
            id: id.to_owned(),
            kind: kind.to_owned(),
            status,
            reason,
            message: vigil_text::Sentence::new(message).to_string(),
            output: Value::Null,
            at: Timestamp::now(),
        }
    }

    fn say(&mut self, result: &CommandResult) {
        match serde_json::to_vec(result) {
            Ok(payload) => {
                let topic = self.topics.result(&result.id);
                self.outbox.push(topic, payload, result.id.clone(), result.status.is_final());
            }
            Err(error) => warn!(%error, id = result.id, "the answer cannot be said"),
        }
    }

    /// An answer on the way to the last one.
    pub(super) fn progress(&mut self, id: &str, kind: &str, message: &str) {
        self.tell_progress(&self.result(id, kind, Status::Running, Reason::Ok, message));
    }

    /// Keeps and says an answer on the way to the last one.
    pub(super) fn tell_progress(&mut self, result: &CommandResult) {
        if let Err(error) = self.commands.answer(result) {
            warn!(%error, id = result.id, "the answer is not durable");
        }
        self.say(result);
    }

    /// The last answer: durable, then recorded, then said.
    pub(super) fn finish(
        &mut self,
        id: &str,
        kind: &str,
        status: Status,
        reason: Reason,
        message: &str,
        output: Value,
    ) {
        let result = CommandResult { output, ..self.result(id, kind, status, reason, message) };
        if let Err(error) = self.commands.answer(&result) {
            warn!(%error, id, "the answer is not durable");
        }
        let _ = self.audit.record_all(vec![finished(&result)]);
        self.say(&result);
    }

    /// After a start: the account goes on, and so do the final answers that the broker does not have.
    pub(super) fn take_up_outbox(&mut self) {
        let undelivered = self.commands.undelivered();
        let kept = self.kept.entries().clone();
        let topic_of = |key: &str| StateTopic::ALL.into_iter().find(|topic| topic.level() == key);
        let states = kept.keys().filter(|key| topic_of(key).is_some()).count();
        let diagnoses = kept.keys().filter(|key| diagnosis_of(key).is_some()).count();
        self.outbox.resume(self.ledger.load(), undelivered.len() + diagnoses, states);
        for (key, Kept { seq, payload }) in kept {
            if let Some(topic) = topic_of(&key) {
                self.outbox.set_state_again(topic, seq, payload.into_bytes());
            } else if let Some(id) = diagnosis_of(&key) {
                let topic = self.topics.diagnosis(id);
                self.outbox.push_diagnosis_again(topic, payload.into_bytes(), id.to_owned());
            }
        }
        for result in undelivered {
            if let Ok(payload) = serde_json::to_vec(&result) {
                self.outbox.push_again(self.topics.result(&result.id), payload, result.id.clone());
            }
        }
    }

    /// After a start: the process may have ended between a command's two durable records. Before its answer is said, it
    /// is in the audit log.
    pub(super) fn record_last_admitted(&self) {
        let Some((id, actor)) = self.commands.last_admitted() else { return };
        let size = self.audit.size();
        let entries = self.audit.read(size.saturating_sub(LATEST_ENTRIES), LATEST_ENTRIES as usize);
        let is_known = |entries: Vec<Entry>| {
            entries.iter().any(|entry| entry.event == "command.accepted" && entry.detail["id"] == id)
        };
        if entries.is_ok_and(is_known) {
            return;
        }
        let answer = self.commands.answer_to(id);
        let kind = answer.as_ref().map(|answer| answer.kind.clone());
        let detail = json!({ "id": id, "kind": kind, "recovered": true });
        let mut records =
            vec![Record { event: "command.accepted", actor, outcome: Outcome::Success, detail }];
        records.extend(answer.filter(|answer| answer.status.is_final()).as_ref().map(finished));
        let _ = self.audit.record_all(records);
    }

    /// After a start: what was cut short is said to be interrupted, and never run again unasked.
    pub(super) fn take_up_commands(&mut self) {
        for pending in self.commands.pending() {
            let CommandResult { id, kind, output, .. } = pending.result;
            if pending.goes_on {
                self.following = Some(id);
            } else if self.trial.as_ref().is_some_and(|trial| trial.settings.command == id) {
                // It is answered when the trial has ended.
            } else if output["boot"].is_string() && output["boot"] != Value::String(super::boot_id()) {
                self.finish(&id, &kind, Status::Succeeded, Reason::Ok, "", Value::Null);
            } else {
                let message = "the device restarted while it ran; sign a new command if it is still wanted";
                self.finish(&id, &kind, Status::Interrupted, Reason::Interrupted, message, Value::Null);
            }
        }
    }

    /// After connecting: final answers that the broker does not have and that do not wait; and those that it had only
    /// just acknowledged when it went away, since it may have lost them with its memory.
    pub(super) fn say_undelivered(&mut self) {
        for result in self.commands.undelivered() {
            if !self.outbox.holds(&result.id) {
                self.say(&result);
            }
        }
        for (_, id) in std::mem::take(&mut self.just_delivered) {
            self.say_repeated(&id);
        }
    }

    /// Says a final answer again that the broker has acknowledged before, as long as it is kept.
    fn say_repeated(&mut self, id: &str) {
        let result = self.commands.answer_to(id).filter(|result| result.status.is_final());
        if let Some(result) = result.filter(|_| !self.outbox.holds(id))
            && let Ok(payload) = serde_json::to_vec(&result)
        {
            self.outbox.push_repeated(self.topics.result(id), payload, id.to_owned());
        }
    }

    /// The broker has a final answer.
    pub(super) fn on_delivered(&mut self, id: &str) {
        if let Err(error) = self.commands.delivered(id) {
            warn!(%error, "the answer is said again after the next start");
        }
        let now = Instant::now();
        while self.just_delivered.front().is_some_and(|(at, _)| {
            self.just_delivered.len() >= JUST_DELIVERED.0 || now.duration_since(*at) > JUST_DELIVERED.1
        }) {
            self.just_delivered.pop_front();
        }
        self.just_delivered.push_back((now, id.to_owned()));
    }

    /// The connection is gone: only what was delivered shortly before may have gone with it.
    pub(super) fn forget_delivered(&mut self) {
        let now = Instant::now();
        self.just_delivered.retain(|(at, _)| now.duration_since(*at) <= JUST_DELIVERED.1);
    }
}

/// The argument `confirm_within` of `config.apply`.
pub(super) fn confirm_seconds(args: &BTreeMap<String, Value>) -> Option<u64> {
    match args.get("confirm_within") {
        None => Some(CONFIRM_SECONDS),
        Some(value) => value.as_u64().filter(|seconds| CONFIRM_RANGE.contains(seconds)),
    }
}

/// The entry of a final answer.
fn finished(result: &CommandResult) -> Record<'static> {
    let CommandResult { id, kind, status, reason, message, .. } = result;
    let outcome = if *status == Status::Succeeded { Outcome::Success } else { Outcome::Failure };
    let detail = json!({ "id": id, "kind": kind, "status": status, "reason": reason, "message": message });
    Record { event: "command.finished", actor: "device", outcome, detail }
}
