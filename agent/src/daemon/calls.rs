//! Calls over the local socket, and diagnoses for whoever asked.

use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use vigil_protocol::command::{Kind, Reason, Status};
use vigil_protocol::diagnosis::{Layer, Outcome as Found};

use super::{Asked, AskedBy, Daemon, random};
use crate::audit::Outcome;
use crate::command::Verdict;
use crate::local::{Answer, Call, Refused, Request, error_body};
use crate::report::update_state;

/// A network test takes at most so long, whatever its probes do.
const DIAGNOSIS: Duration = Duration::from_secs(300);

impl Daemon {
    pub(super) fn on_call(&mut self, request: Request) {
        let answer: Answer = match request.call {
            Call::Status => (StatusCode::OK, self.status()),
            Call::Health => (StatusCode::OK, json!(self.health)),
            Call::Update => (StatusCode::OK, json!(update_state(self.update.as_ref()))),
            Call::Audit { first, limit } => self.audit_page(first, limit),
            Call::Diagnose => {
                let uid = request.peer.uid;
                self.record("local.diagnose", &format!("uid:{uid}"), Outcome::Success, Value::Null);
                let id = format!("local-{:08x}", random() as u32);
                if self.diagnosing {
                    (
                        StatusCode::CONFLICT,
                        error_body("busy", "a diagnosis is under way; try again in a moment"),
                    )
                } else {
                    let _ = self.start_diagnosis(&id, AskedBy::Local(request.answer));
                    return;
                }
            }
        };
        let _ = request.answer.send(answer);
    }

    pub(super) fn on_refused_call(&mut self, refused: &Refused) {
        if let Verdict::Tell { untold } = self.local_flood.on_refusal(self.elapsed()) {
            let detail = json!({ "request": refused.what, "gid": refused.peer.gid, "others_untold": untold });
            self.record("local.refused", &format!("uid:{}", refused.peer.uid), Outcome::Refused, detail);
        }
    }

    fn audit_page(&self, first: Option<u64>, limit: usize) -> Answer {
        self.audit.seal();
        let first = first.unwrap_or_else(|| self.audit.size().saturating_sub(limit as u64));
        match self.audit.read(first, limit) {
            Ok(entries) => {
                let body = json!({ "size": self.audit.size(), "checkpoint": self.audit.checkpoint(), "entries": entries });
                (StatusCode::OK, body)
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error_body("storage", &error.to_string())),
        }
    }

    fn status(&mut self) -> Value {
        let flash = self.kept.status(super::since_boot());
        json!({
            "v": 1,
            "device": self.config.device.id,
            "tenant": self.config.device.tenant,
            "product": self.config.device.product,
            "agent": env!("CARGO_PKG_VERSION"),
            "at": Timestamp::now(),
            "uptime_seconds": self.elapsed().as_secs(),
            "device_key": self.identity.public_key(),
            "broker": {
                "url": String::from(self.config.broker.url.clone()),
                "connected": self.link.granted.is_some(),
                "mqtt": self.link.version,
                "sent_to": self.link.elsewhere,
                "since": self.link.since,
                "session": self.numbers.session(),
                "granted": self.link.granted,
                "attempts": self.link.attempts,
                "last_error": self.link.last_error,
                "waiting": !self.outbox.is_empty(),
                "outbox": self.kept.account(self.outbox.ledger()),
                "flash": flash,
            },
            "operators": self.operators.as_ref().map(|list| json!({ "count": list.operators.len(), "expires": list.expires })),
            "update": update_state(self.update.as_ref()),
            "updater_confined": self.update.as_ref().map(|status| status.confined),
            "metadata": self.update.as_ref().map(|status| &status.trust.metadata),
            "trust": self.update.as_ref().map(|status| &status.trust),
            "audit": { "entries": self.audit.size(), "strangers_untold": self.audit.untold() },
            "last_diagnosis": self.last_diagnosis.as_ref().map(|diagnosis| json!({
                "at": diagnosis.at, "verdict": diagnosis.verdict,
            })),
            "problems": self.problems(),
            "warnings": self.config.warnings,
        })
    }

    /// What somebody has to look after, a sentence each: what is wrong, and what to do.
    fn problems(&self) -> Vec<String> {
        let update = self.update.as_ref().and_then(|status| {
            let degraded = status.degraded.as_ref().map(|why| {
                format!("vigil-updaterd cannot use its state, and installs nothing: {why}; look at the disk of its state directory")
            });
            let boot = status.boot_problem.as_ref().map(|why| {
                format!("the boot variables cannot be written, so that nothing can be installed: {why}")
            });
            degraded.or(boot)
        });
        let audit =
            self.witnessed.as_ref().and_then(|witnessed| witnessed.as_ref().err()).map(|what| {
                format!("{what}; look into who was root here, then run vigil audit forget-witness")
            });
        let trust = self.update.as_ref().map(|status| &status.trust);
        let incidents = crate::report::incidents(trust, self.operators.as_ref())
            .into_iter()
            .map(|incident| format!("{}: {}", incident.title, incident.detail));
        let is_connected = self.link.granted.is_some();
        let own = &self.config.device.id;
        self.hearing
            .problems(own, is_connected, self.elapsed())
            .into_iter()
            .chain(update)
            .chain(audit)
            .chain(incidents)
            .collect()
    }

    /// Starts a network test, one at a time. The error says why not.
    pub(super) fn start_diagnosis(&mut self, id: &str, by: AskedBy) -> Result<(), &'static str> {
        if self.diagnosing {
            return Err("another diagnosis is under way; try again in a moment");
        }
        self.diagnosing = true;
        let mut config = self.config.clone();
        config.sections.network.add_profiles(self.profiles.values());
        let sender = self.diagnoses.clone();
        let id = id.to_owned();
        let command = matches!(by, AskedBy::Command(_)).then(|| id.clone());
        let task = tokio::task::spawn_local(vigil_turns::task("diagnosis", async move {
            let diagnosis = crate::network::diagnose(&config, &id, Timestamp::now());
            let diagnosis = tokio::time::timeout(DIAGNOSIS, diagnosis).await.ok();
            let _ = sender.send(Asked { diagnosis, by }).await;
        }));
        self.diagnosis = command.map(|id| (id, task.abort_handle()));
        Ok(())
    }

    pub(super) fn on_diagnosis(&mut self, Asked { diagnosis, by }: Asked) {
        let running = self.diagnosis.take();
        if matches!(by, AskedBy::Command(_)) && running.is_none() {
            // It was stopped when it had just ended.
            return;
        }
        self.diagnosing = false;
        let Some(diagnosis) = diagnosis else { return self.on_endless_diagnosis(by) };
        let works = |layer: Layer| {
            diagnosis.evidence.iter().any(|evidence| {
                evidence.layer == layer && matches!(evidence.outcome, Found::Ok | Found::Warning)
            })
        };
        let (carrier, gateway) = (works(Layer::Interface), works(Layer::Gateway));
        self.set_contact(|contact| {
            contact.carrier = carrier;
            contact.gateway = gateway;
        });
        if !matches!(by, AskedBy::Trial)
            && let Ok(payload) = serde_json::to_vec(&diagnosis)
        {
            self.outbox.push_diagnosis(self.topics.diagnosis(&diagnosis.id), payload, diagnosis.id.clone());
        }
        match by {
            AskedBy::Trial => {}
            AskedBy::Local(answer) => drop(answer.send((StatusCode::OK, json!(diagnosis)))),
            AskedBy::Command(id) => {
                let output = json!({ "verdict": diagnosis.verdict });
                let message = diagnosis.verdict.summary.clone();
                self.finish(&id, Kind::Diagnose.name(), Status::Succeeded, Reason::Ok, &message, output);
            }
        }
        self.last_diagnosis = Some(diagnosis);
    }

    fn on_endless_diagnosis(&mut self, by: AskedBy) {
        let message = format!("the network test took longer than {} s", DIAGNOSIS.as_secs());
        match by {
            AskedBy::Trial => {}
            AskedBy::Local(answer) => {
                drop(answer.send((StatusCode::GATEWAY_TIMEOUT, error_body("timed_out", &message))));
            }
            AskedBy::Command(id) => {
                let kind = Kind::Diagnose.name();
                self.finish(&id, kind, Status::Failed, Reason::TimedOut, &message, Value::Null);
            }
        }
    }
}
