//! A configuration on trial: what an operator asked for is in use, and stays only if the broker is reached with it.
//! Until then the overlay is the former one, and a device that does not come back with the new one goes back to it, by
//! itself, also over restarts and whatever its clock says: the trial has so many starts, and each start so long.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vigil_durable::Mode;

use super::{ConfigError, FILE_BYTES, file, overlay};
use crate::store::{Loaded, Store};

/// How often a trial is started at most: power may fail once or twice while the broker is away.
const STARTS: u32 = 3;
/// An overlay's bytes at most: the file of the trial has some more.
const OVERLAY_BYTES: u64 = FILE_BYTES - 1024;

/// Settings that are tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Of the overlay that it will be.
    pub version: u64,
    /// Of the overlay that it will be.
    pub settings: Value,
    /// The command that asked for it.
    pub command: String,
    /// How long each start waits for the broker, in seconds.
    pub confirm_within_seconds: u64,
    /// Starts that are left.
    pub starts_left: u32,
}

impl Trial {
    /// How long this start waits.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.confirm_within_seconds)
    }
}

/// Why a change cannot be tried.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ChangeError {
    #[error("the configuration is at version {present}, the command expects {expected}")]
    Version { present: u64, expected: u64 },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Storage(#[from] io::Error),
}

/// What a start finds.
#[derive(Debug, PartialEq, Eq)]
pub enum TakenUp {
    /// No trial.
    None,
    /// The settings on trial are to be used; one start less is left.
    OnTrial(Trial),
    /// The trial was confirmed, and the power was cut before it was forgotten.
    Confirmed(Trial),
    /// There are no more starts, or the trial cannot be counted: the former settings are to be used.
    GivenUp(Trial),
}

/// The files of overlay and trial.
#[derive(Debug)]
pub struct Trials {
    overlay: PathBuf,
    trial: PathBuf,
    store: Store,
}

impl Trials {
    /// In the state directory.
    pub fn new(state: &Path) -> Self {
        let trial = state.join("overlay-trial.json");
        Self {
            overlay: state.join("overlay.json"),
            store: Store::new(trial.clone(), "overlay.trial", 1, FILE_BYTES * 2),
            trial,
        }
    }

    /// The file of the overlay that is in force.
    pub fn overlay(&self) -> &Path {
        &self.overlay
    }

    /// The file of the overlay on trial: it has the overlay's form and more.
    pub fn trial(&self) -> &Path {
        &self.trial
    }

    /// Takes up a trial at a start, and counts the start before anything is tried.
    pub fn take_up(&self) -> TakenUp {
        let mut trial: Trial = match self.store.load() {
            Ok(Loaded::Content(trial)) => trial,
            _ => return TakenUp::None,
        };
        if self.overlay_version() >= trial.version {
            return TakenUp::Confirmed(trial);
        }
        if trial.starts_left == 0 {
            return TakenUp::GivenUp(trial);
        }
        trial.starts_left -= 1;
        match self.store.save(&trial) {
            Ok(_) => TakenUp::OnTrial(trial),
            Err(_) => TakenUp::GivenUp(trial),
        }
    }

    /// Puts a change on trial, durably: `patch` is a merge patch over the overlay's settings, in which null gives a
    /// key back to the image's default. The next start tries it.
    pub fn begin(
        &self,
        default_path: &Path,
        patch: Value,
        expected: u64,
        command: &str,
        confirm_within: Duration,
    ) -> Result<Trial, ChangeError> {
        let (present, mut settings) = self.read_overlay();
        if present != expected {
            return Err(ChangeError::Version { present, expected });
        }
        overlay::merge(&mut settings, patch);
        let version = present + 1;
        check(default_path, version, &settings)?;
        let trial = Trial {
            version,
            settings,
            command: command.to_owned(),
            confirm_within_seconds: confirm_within.as_secs(),
            starts_left: STARTS,
        };
        self.store.save(&trial)?;
        Ok(trial)
    }

    /// The broker was reached: the settings on trial become the overlay.
    pub fn confirm(&self, trial: &Trial) -> io::Result<()> {
        let bytes = json!({ "v": 1, "version": trial.version, "settings": trial.settings }).to_string();
        vigil_durable::write("overlay.confirm", &self.overlay, bytes.as_bytes(), Mode::Private)?;
        self.forget()
    }

    /// Back to the overlay.
    pub fn forget(&self) -> io::Result<()> {
        vigil_durable::remove("overlay.trial.forget", &self.trial)
    }

    fn overlay_version(&self) -> u64 {
        self.read_overlay().0
    }

    /// An overlay that cannot be read is ignored, and so it is as if there were none.
    fn read_overlay(&self) -> (u64, Value) {
        let bytes = vigil_durable::read_bounded(&self.overlay, FILE_BYTES).ok().flatten();
        let overlay: Option<Value> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut overlay = overlay.unwrap_or_default();
        (overlay["version"].as_u64().unwrap_or(0), overlay["settings"].take())
    }
}

/// Whether the settings make a configuration, over the image's default.
fn check(default_path: &Path, version: u64, settings: &Value) -> Result<(), ChangeError> {
    let invalid = |problems: Vec<String>| ChangeError::Invalid(problems.join("; "));
    let bytes = json!({ "v": 1, "version": version, "settings": settings }).to_string();
    if bytes.len() as u64 > OVERLAY_BYTES {
        return Err(ChangeError::Invalid(format!("the overlay would have more than {OVERLAY_BYTES} bytes")));
    }
    let read = |source| ConfigError::Read { path: default_path.to_owned(), source };
    let default = vigil_durable::read_bounded(default_path, FILE_BYTES)
        .and_then(|default| default.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| invalid(vec![read(error).to_string()]))?;
    let default = file::parse(&default_path.display().to_string(), &default).map_err(invalid)?;
    overlay::apply_bytes(bytes.as_bytes(), default.tree).map(drop).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "[device]\nid = \"bar-1\"\ntenant = \"acme\"\nproduct = \"videobar\"\n\
                           [broker]\nurl = \"mqtts://one.example.com\"\n";

    struct Room {
        directory: tempfile::TempDir,
        trials: Trials,
    }

    impl Room {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("vigil.toml"), DEFAULT).unwrap();
            let trials = Trials::new(directory.path());
            Self { directory, trials }
        }

        fn begin(&self, patch: Value, expected: u64) -> Result<Trial, ChangeError> {
            let path = self.directory.path().join("vigil.toml");
            self.trials.begin(&path, patch, expected, "c-1", Duration::from_mins(5))
        }
    }

    #[test]
    fn a_confirmed_change_is_the_next_overlay_and_null_gives_a_key_back() {
        let room = Room::new();
        let trial =
            room.begin(json!({ "broker": { "url": "mqtts://two.example.com", "keep_alive": "90s" } }), 0);
        room.trials.confirm(&trial.unwrap()).unwrap();
        assert_eq!(room.trials.take_up(), TakenUp::None);
        let trial = room.begin(json!({ "broker": { "keep_alive": null } }), 1).unwrap();
        assert_eq!(trial.version, 2);
        assert_eq!(trial.settings, json!({ "broker": { "url": "mqtts://two.example.com" } }));
    }

    #[test]
    fn a_change_that_makes_no_configuration_or_expects_another_version_is_refused() {
        let room = Room::new();
        for patch in [
            json!({ "broker": { "url": "mqtt://plain.example.com" } }),
            json!({ "broker": { "keep_alive": "1s" } }),
            json!({ "nonsense": {} }),
            json!({ "device": { "tenant": "rival" } }),
            json!({ "room": { "reboot": ["/bin/sh", "-c", "evil"] } }),
            json!("text"),
            json!({ "log": { "level": "x".repeat(70_000) } }),
        ] {
            assert!(matches!(room.begin(patch.clone(), 0), Err(ChangeError::Invalid(_))), "{patch}");
        }
        let refused = room.begin(json!({ "log": { "level": "debug" } }), 7);
        assert!(matches!(refused, Err(ChangeError::Version { present: 0, expected: 7 })));
        assert_eq!(room.trials.take_up(), TakenUp::None);
    }

    #[test]
    fn a_trial_that_is_never_confirmed_has_three_starts() {
        let room = Room::new();
        room.begin(json!({ "log": { "level": "debug" } }), 0).unwrap();
        for left in [2, 1, 0] {
            assert!(matches!(room.trials.take_up(), TakenUp::OnTrial(trial) if trial.starts_left == left));
        }
        assert!(matches!(room.trials.take_up(), TakenUp::GivenUp(_)));
        room.trials.forget().unwrap();
        assert_eq!(room.trials.take_up(), TakenUp::None);
    }

    #[test]
    fn a_power_cut_between_confirming_and_forgetting_is_seen() {
        let room = Room::new();
        let trial = room.begin(json!({ "log": { "level": "debug" } }), 0).unwrap();
        let kept = std::fs::read(room.trials.trial()).unwrap();
        room.trials.confirm(&trial).unwrap();
        std::fs::write(room.trials.trial(), kept).unwrap();
        assert_eq!(room.trials.take_up(), TakenUp::Confirmed(trial));
    }
}
