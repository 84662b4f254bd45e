//! What the courier brings home from `vigil-updaterd`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};
use vigil_protocol::command::{Kind, Reason, Status};
use vigil_protocol::operators::Operators;
use vigil_protocol::trusted::{PartnerProfile, TargetKind};
use vigil_wire::{Event, State, UpdateStatus};

use super::{AskedBy, Daemon, OrderAnswer};
use crate::audit::Outcome;
use crate::proven;
use crate::store::{Loaded, Store};
use crate::update::{ClientError, News};

#[derive(Default, Serialize, Deserialize)]
struct Recorded {
    last: u64,
}

/// The newest of the updater's events that the audit log has.
pub(super) fn last_event(store: &Store) -> u64 {
    // Unknown means all of them: an event twice in the audit log is better than one missing.
    match store.load() {
        Ok(Loaded::Content(Recorded { last })) => last,
        _ => 0,
    }
}

impl Daemon {
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Status(status) => self.on_update_status(*status),
            News::Unavailable(why) => {
                if self.update.take().is_some() {
                    self.record("updater.unavailable", "device", Outcome::Failure, json!({ "reason": why }));
                }
                self.publish_update();
            }
            News::Document(name, bytes) => self.on_document(&name, bytes.as_deref()),
            News::Events(events) => self.on_updater_events(&events),
            News::RefreshFailed(why) => {
                warn!(why, "the repository's metadata was refused or could not be fetched");
                self.record_repeated("refresh.failed", &why);
            }
            News::Witnessed(note) => self.on_witnessed(note),
            News::Refreshed => {
                self.repeats.is_over("refresh.failed");
            }
        }
    }

    fn on_update_status(&mut self, status: UpdateStatus) {
        let first = self.update.is_none();
        if let Some(at) = status.trust.proven_at {
            proven::on_proven(&self.proven_store, at);
        }
        self.follow_install(&status, first);
        // The release on trial needs to know whether the room has a network at all.
        let waits_for_contact = status.state == State::Good;
        self.update = Some(status);
        self.publish_update();
        self.publish_incidents();
        let recent = self.trial_looked.is_some_and(|at: Instant| at.elapsed() < super::TRIAL_LOOK);
        if waits_for_contact && !recent && self.start_diagnosis("trial", AskedBy::Trial).is_ok() {
            self.trial_looked = Some(Instant::now());
        }
    }

    fn follow_install(&mut self, status: &UpdateStatus, first: bool) {
        let Some(id) = self.following.clone() else { return };
        let kind = Kind::UpdateInstall.name();
        if status.command.as_ref() != Some(&id) {
            // The updater never took it up, or has forgotten it.
            if first {
                self.following = None;
                let message = "the updater does not know of it; sign a new command if it is still wanted";
                self.finish(&id, kind, Status::Interrupted, Reason::Interrupted, message, Value::Null);
            }
            return;
        }
        match status.state {
            State::Confirmed => {
                self.following = None;
                let release = status.target.as_ref().map(|release| &release.version);
                let output = json!({ "release": release, "slot": status.running_slot });
                self.finish(&id, kind, Status::Succeeded, Reason::Ok, "", output);
            }
            State::Failed | State::RolledBack => {
                self.following = None;
                let failure = status.last_failure.as_ref();
                let message = failure.map_or_else(
                    || "no cause was recorded".to_owned(),
                    |f| format!("{}: {}", f.cause, f.message),
                );
                let output = json!({ "cause": failure.map(|f| &f.cause), "rolled_back": failure.map(|f| f.rolled_back) });
                self.finish(&id, kind, Status::Failed, Reason::UpdateFailed, &message, output);
            }
            _ => {}
        }
    }

    pub(super) fn on_order_answer(&mut self, OrderAnswer { id, kind, answer }: OrderAnswer) {
        let goes_on = kind == Kind::UpdateInstall;
        let kind = kind.name();
        match answer {
            Ok(()) if goes_on => {
                self.following = Some(id.clone());
                self.progress(&id, kind, "the updater has verified the command and taken it up");
            }
            Ok(()) => self.finish(&id, kind, Status::Succeeded, Reason::Ok, "", Value::Null),
            // What was asked for is so.
            Err(ClientError::Refused { code, message }) if code == "nothing_to_do" => {
                self.finish(&id, kind, Status::Succeeded, Reason::Ok, &message, json!({ "code": code }));
            }
            Err(ClientError::Refused { code, message }) => {
                let reason =
                    serde_json::from_value(Value::String(code.clone())).unwrap_or(Reason::UpdaterRefused);
                let message = format!("the updater refused: {message}");
                self.finish(&id, kind, Status::Failed, reason, &message, json!({ "code": code }));
            }
            Err(error) => {
                let message = error.to_string();
                self.finish(&id, kind, Status::Failed, Reason::UpdaterUnavailable, &message, Value::Null);
            }
        }
    }

    fn on_document(&mut self, name: &str, bytes: Option<&[u8]>) {
        match TargetKind::of(name) {
            TargetKind::Operators(tenant) if tenant == self.config.device.tenant => self.on_operators(bytes),
            TargetKind::Partner(partner) => {
                let profile = bytes.and_then(|bytes| {
                    PartnerProfile::parse(bytes)
                        .inspect_err(|error| warn!(%error, partner, "the partner's profile cannot be read"))
                        .ok()
                });
                let detail =
                    json!({ "partner": partner, "endpoints": profile.as_ref().map(|p| p.endpoints.len()) });
                self.record("partner.changed", "vigil-updaterd", Outcome::Success, detail);
                match profile {
                    Some(profile) => self.profiles.insert(partner, profile),
                    None => self.profiles.remove(&partner),
                };
            }
            _ => {}
        }
    }

    fn on_operators(&mut self, bytes: Option<&[u8]>) {
        let operators = bytes.and_then(|bytes| {
            Operators::parse(bytes)
                .inspect_err(|error| warn!(%error, "the operators list cannot be read"))
                .ok()
        });
        if operators != self.operators {
            let names: Vec<_> = operators
                .iter()
                .flat_map(|list| &list.operators)
                .map(|operator| operator.name.clone())
                .collect();
            info!(?names, "operators");
            self.record(
                "operators.changed",
                "vigil-updaterd",
                Outcome::Success,
                json!({ "operators": names }),
            );
            // Incidents follow with the status that comes next: the one that is held was made for the list before.
            self.operators = operators;
        }
    }

    fn on_updater_events(&mut self, events: &[Event]) {
        for event in events {
            let detail =
                json!({ "number": event.number, "message": event.message, "at_seconds": event.at_seconds });
            match event.kind.as_str() {
                "witness.forgotten" => self.witnessed = Some(Ok(())),
                "time.forgotten" | "time.reset" => proven::forget(&self.proven_store),
                _ => {}
            }
            let outcome = match event.kind.as_str() {
                "install.refused" | "control.refused" | "peer.refused" | "metadata.refused" => {
                    Outcome::Refused
                }
                "state.failed" | "state.rolled_back" | "rolling_back" | "fetch.failed" | "hook.failed"
                | "journal.damaged" | "boot.damaged" => Outcome::Failure,
                _ => Outcome::Success,
            };
            self.record(&format!("updater.{}", event.kind), "vigil-updaterd", outcome, detail);
        }
        if let Some(last) = events.last()
            && let Err(error) = self.updater_events.save(&Recorded { last: last.number })
        {
            warn!(%error, "the updater's events will be recorded twice");
        }
    }
}
