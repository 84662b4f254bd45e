//! A configuration on trial, from the command to its end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};
use vigil_protocol::command::{Command, Kind, Reason, Status};

use super::commands::confirm_seconds;
use super::{ConfigTrial, Daemon};
use crate::audit::Outcome;
use crate::config::{ChangeError, TakenUp, Trials};

impl Daemon {
    /// Puts the change on trial and asks for the restart of all that hangs on the configuration.
    pub(super) fn begin_config_trial(&mut self, command: &Command) {
        let patch = command.args.get("patch").cloned().unwrap_or_default();
        let expected = command.args.get("expected_version").and_then(Value::as_u64).unwrap_or_default();
        let patience = Duration::from_secs(confirm_seconds(&command.args).unwrap_or_default());
        let trials = Trials::new(&self.config.paths.state);
        match trials.begin(&self.config_path, patch, expected, &command.id, patience) {
            Ok(trial) => {
                info!(version = trial.version, "a configuration is on trial");
                let detail = json!({ "version": trial.version, "settings": trial.settings });
                self.record("config.trial", "device", Outcome::Success, detail);
                let message = "the new settings are tried; they stay if the broker is reached with them";
                self.progress(&command.id, &command.kind, message);
                self.reload = true;
            }
            Err(error) => {
                let reason = match &error {
                    ChangeError::Version { .. } => Reason::VersionConflict,
                    ChangeError::Invalid(_) => Reason::BadArgument,
                    ChangeError::Storage(_) => Reason::Storage,
                };
                let (id, kind) = (&command.id, &command.kind);
                self.finish(id, kind, Status::Failed, reason, &error.to_string(), Value::Null);
            }
        }
    }

    /// What the start found of a trial.
    pub(super) fn take_up_trial(&mut self, found: TakenUp) {
        match found {
            TakenUp::None => {}
            TakenUp::OnTrial(settings) => {
                let deadline = Instant::now() + settings.patience();
                self.trial = Some(ConfigTrial { settings, deadline });
            }
            TakenUp::Confirmed(trial) => {
                if let Err(error) = Trials::new(&self.config.paths.state).forget() {
                    warn!(%error, "the trial's file stays");
                }
                self.config_confirmed(&trial.command, trial.version);
            }
            TakenUp::GivenUp(trial) => self.give_up_trial(&trial.command, trial.version),
        }
    }

    /// The broker was reached.
    pub(super) fn confirm_trial(&mut self) {
        let Some(ConfigTrial { settings, .. }) = self.trial.take() else { return };
        match Trials::new(&self.config.paths.state).confirm(&settings) {
            Ok(()) => self.config_confirmed(&settings.command, settings.version),
            Err(error) => {
                warn!(%error, "the configuration could not be made durable");
                self.give_up_trial(&settings.command, settings.version);
                self.reload = true;
            }
        }
    }

    /// The deadline has come, and the broker was not reached.
    pub(super) fn end_trial(&mut self) {
        if let Some(ConfigTrial { settings, .. }) = self.trial.take() {
            self.give_up_trial(&settings.command, settings.version);
            self.reload = true;
        }
    }

    fn config_confirmed(&mut self, command: &str, version: u64) {
        self.record("config.confirmed", "device", Outcome::Success, json!({ "version": version }));
        let output = json!({ "overlay_version": version });
        self.finish(command, Kind::ConfigApply.name(), Status::Succeeded, Reason::Ok, "", output);
    }

    fn give_up_trial(&mut self, command: &str, version: u64) {
        if let Err(error) = Trials::new(&self.config.paths.state).forget() {
            // The next starts count it down.
            warn!(%error, "the trial's file stays");
        }
        let message = match &self.link.last_error {
            Some(error) => format!("the broker was not reached with the new settings: {error}"),
            None => "the broker was not reached with the new settings".to_owned(),
        };
        let detail = json!({ "version": version, "reason": message });
        self.record("config.reverted", "device", Outcome::Failure, detail);
        let output = json!({ "overlay_version": version.saturating_sub(1) });
        let kind = Kind::ConfigApply.name();
        self.finish(command, kind, Status::Failed, Reason::Reverted, &message, output);
    }
}
