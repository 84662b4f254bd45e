//! One command, from the broker to its answer and its audit entry.

use jiff::Timestamp;
use rumqttc::v5::mqttbytes::v5::Publish;
use serde_json::{Value, json};
use tracing::{info, warn};
use vigil_protocol::authorize::{Authorized, Device, Refusal, authorize};
use vigil_protocol::command::{CommandResult, Kind, Reason, Status};

use super::{AskedBy, Daemon};
use crate::audit::Outcome;
use crate::command::Verdict;
use crate::update::Ask;
use vigil_wire::{Control, Request};

/// The kinds that this agent knows by name alone are answered `unsupported`, to those who might send them.
fn is_carried_out(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Ping
            | Kind::Diagnose
            | Kind::UpdateInstall
            | Kind::UpdatePause
            | Kind::UpdateResume
            | Kind::UpdateCancel
            | Kind::UpdateRollback
    )
}

impl Daemon {
    pub(super) fn on_command(&mut self, message: &Publish) {
        let now = Timestamp::now();
        let device = &self.config.device;
        let device = Device {
            nonce: Some(&self.nonce),
            clock_doubtful: self.update.as_ref().is_some_and(|status| status.trust.clock_behind),
            ..Device::new(&device.id, &device.tenant, &device.groups)
        };
        match authorize(&message.payload, self.operators.as_ref(), &device, now) {
            Ok(authorized) if !is_carried_out(authorized.kind) => self.refuse(&Refusal {
                reason: Reason::Unsupported,
                message: format!("this agent does not carry out {} yet", authorized.kind.name()),
                claimed_id: Some(authorized.command.id),
                claimed_kind: Some(authorized.command.kind),
            }),
            Ok(authorized) => self.admit(&authorized, now, message),
            Err(refusal) => self.refuse(&refusal),
        }
        // Now it is durable, or refused for good: the broker may forget it.
        if let Some(connection) = &self.connection {
            connection.acknowledge(message);
        }
    }

    fn admit(&mut self, authorized: &Authorized, now: Timestamp, message: &Publish) {
        let command = &authorized.command;
        let accepted = self.result(&command.id, &command.kind, Status::Accepted, Reason::Ok, "");
        let actor = format!("operator:{}", authorized.operator);
        let recorded = json!({ "id": command.id, "kind": command.kind, "args": command.args });
        let admitted = self.commands.admit(command, &accepted, now).and_then(|()| {
            // What cannot be recorded does not happen.
            self.audit
                .record("command.accepted", &actor, Outcome::Success, recorded)
                .map_err(|error| (Reason::Storage, format!("the audit log cannot be written: {error}")))
        });
        if let Err((reason, message)) = admitted {
            return self.refuse(&Refusal {
                reason,
                message,
                claimed_id: Some(command.id.clone()),
                claimed_kind: Some(command.kind.clone()),
            });
        }
        info!(id = command.id, kind = command.kind, actor, "command accepted");
        self.say(&accepted);
        match authorized.kind {
            Kind::Ping => {
                let output =
                    json!({ "agent": env!("CARGO_PKG_VERSION"), "uptime_seconds": self.elapsed().as_secs() });
                self.finish(&command.id, &command.kind, Status::Succeeded, Reason::Ok, "", output);
            }
            Kind::Diagnose => {
                let by = AskedBy::Command(command.id.clone());
                if let Err(message) = self.start_diagnosis(&command.id, by) {
                    self.finish(
                        &command.id,
                        &command.kind,
                        Status::Failed,
                        Reason::Busy,
                        message,
                        Value::Null,
                    );
                }
            }
            kind @ (Kind::UpdateInstall
            | Kind::UpdatePause
            | Kind::UpdateResume
            | Kind::UpdateCancel
            | Kind::UpdateRollback) => self.order_of_updater(&command.id, kind, &message.payload),
            // Refused as unsupported before it came here.
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
            _ => Request::Install { envelope, release: None },
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
            // A replay must not overwrite the answer that the first one got.
            let rejected = self.result(id, &kind, Status::Rejected, refusal.reason, &refusal.message);
            self.say(&rejected);
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
            message: message.to_owned(),
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
        let result = self.result(id, kind, Status::Running, Reason::Ok, message);
        if let Err(error) = self.commands.answer(&result) {
            warn!(%error, id, "the answer is not durable");
        }
        self.say(&result);
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
        let outcome = if status == Status::Succeeded { Outcome::Success } else { Outcome::Failure };
        let detail =
            json!({ "id": id, "kind": kind, "status": status, "reason": reason, "message": message });
        self.record("command.finished", "device", outcome, detail);
        self.say(&result);
    }

    /// After a start: what was cut short is said to be interrupted, and never run again unasked.
    pub(super) fn take_up_commands(&mut self) {
        for pending in self.commands.pending() {
            let CommandResult { id, kind, .. } = pending.result;
            if pending.goes_on {
                self.following = Some(id);
            } else {
                let message = "the device restarted while it ran; sign a new command if it is still wanted";
                self.finish(&id, &kind, Status::Interrupted, Reason::Interrupted, message, Value::Null);
            }
        }
    }

    /// After connecting: final answers that the broker does not have.
    pub(super) fn say_undelivered(&mut self) {
        for result in self.commands.undelivered() {
            if !self.outbox.holds(&result.id) {
                self.say(&result);
            }
        }
    }
}
