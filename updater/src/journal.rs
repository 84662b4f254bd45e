//! The journal: the one durable record of how far an update has come. It is written before anything is done that it
//! describes, and read at every start.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vigil_durable::Mode;
use vigil_protocol::replay::Replay;
use vigil_wire::{Failure, OutcomeStatus, PlanStatus, ReleaseId, State};

const VERSION: u32 = 1;
const LIMIT: u64 = 1024 * 1024;

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// Format version, 1.
    pub v: u32,
    /// Where the engine stands.
    pub state: State,
    /// The install under way, or the last one.
    pub install: Option<Install>,
    /// What each slot was last verified to hold. A slot is not listed from the moment its writing begins.
    pub contents: BTreeMap<String, ReleaseId>,
    /// The release that was last confirmed.
    pub confirmed: Option<ReleaseId>,
    /// Whether the release that was confirmed last ever had authenticated contact.
    pub had_contact: bool,
    /// The last failure or rollback.
    pub last_failure: Option<Failure>,
    /// Envelopes that were used.
    pub replay: Replay,
    /// Releases that were at fault, by their TUF target.
    #[serde(default)]
    pub faults: BTreeMap<String, Faulty>,
    /// What each slot holds for its hooks: SHA-256 by image, by slot.
    #[serde(default)]
    pub payloads: BTreeMap<String, BTreeMap<String, String>>,
    /// What each hook was last handed with success: SHA-256 by image.
    #[serde(default)]
    pub applied: BTreeMap<String, String>,
    /// The confirmed release that the bootloader left although nothing speaks against it, and is to be returned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<Returning>,
    /// Bytes a second at which the last install's frames came over the network.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
    /// The journal before was lost, and whether the running release is confirmed with it: its tries are refilled once it passes
    /// its gate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unproven: bool,
}

/// The way back to a confirmed release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returning {
    /// The slot that holds it.
    pub slot: String,
    /// For how long the device has been on since without a boot that ended badly, as of the last time it was kept.
    pub clean_millis: u64,
    /// The boot in which the restart into it was asked for.
    pub asked_from_boot: Option<String>,
}

/// A release that was at fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faulty {
    /// How often.
    pub failures: u32,
    /// The last cause.
    pub cause: String,
    /// Counts up over all of them: the lowest was last at fault longest ago.
    pub order: u64,
}

/// One install, from its acceptance on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Install {
    /// The id of the command that asked for it; none when the release's own policy did.
    pub command: Option<String>,
    /// The command's envelope: it is verified again after every refresh.
    pub envelope: Option<String>,
    /// The release's TUF target.
    pub release_target: String,
    /// The release, once its manifest is verified.
    pub release: Option<ReleaseId>,
    /// The manifest's hash, once it is verified.
    pub manifest_sha256: Option<String>,
    /// The slot that is written.
    pub target: String,
    /// The slot that runs, and is gone back to.
    pub from: String,
    /// The boot in which the restart was asked for.
    pub reboot_from_boot: Option<String>,
    /// The trial, once it has begun.
    pub trial: Option<Trial>,
    /// A rollback was decided and waits for the restart.
    pub reverting: bool,
    /// Root at the device asked for it, without a command.
    #[serde(default)]
    pub by_root: bool,
    /// A part of the release may be in the slot: it was ordered before.
    #[serde(default)]
    pub begun_before: bool,
    /// It waits for a person to let it go on.
    #[serde(default)]
    pub paused: bool,
    /// The kernel's crash records that were there before the restart: what is new after it is the release's.
    #[serde(default)]
    pub crash_records: Vec<String>,
    /// After a rollback: whose fault it was is still being found out.
    #[serde(default)]
    pub judging: bool,
    /// Counts installs, so that what is kept elsewhere of one is not taken for another's.
    #[serde(default)]
    pub number: u64,
    /// What it was first planned to fetch and write.
    #[serde(default)]
    pub plan: Option<PlanStatus>,
    /// What it has fetched and written, as of the last state; [`crate::stash::Stash::outcome`] may know of more.
    #[serde(default)]
    pub outcome: OutcomeStatus,
}

/// Whether it is not set: then it is not written, and a release that does not know it reads on.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The trial of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The boot that the times below belong to.
    pub boot_id: String,
    /// How often the release was booted on trial.
    pub boots: u32,
    /// When this boot's trial began, in milliseconds of the boot clock.
    pub began_millis: u64,
    /// When the gate was passed, in milliseconds of the boot clock.
    pub good_millis: Option<u64>,
    /// Boots that ended because the power failed; they are not counted as the release's.
    #[serde(default)]
    pub power_cuts: u32,
}

/// Where the journal lies.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
}

/// What was found at the start.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// The journal, or a new one where there was none.
    Journal(Box<Journal>),
    /// There is none, though a release was confirmed here once.
    Gone,
    /// A file that is no journal of this version was put aside; the journal begins anew.
    Damaged {
        /// Where the file is now.
        aside: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

impl JournalFile {
    /// The journal in the updater's state directory.
    pub fn new(state: &Path) -> Self {
        Self { path: state.join("journal.json") }
    }

    /// Reads it.
    pub fn load(&self) -> io::Result<Found> {
        let read = vigil_durable::read_bounded(&self.path, LIMIT);
        let had_one = || self.path.with_file_name("floor").exists();
        let why = match read {
            Ok(None) if had_one() => return Ok(Found::Gone),
            Ok(None) => return Ok(Found::Journal(Box::new(Journal { v: VERSION, ..Journal::default() }))),
            Ok(Some(bytes)) => match serde_json::from_slice::<Journal>(&bytes) {
                Ok(journal) if journal.v == VERSION => return Ok(Found::Journal(Box::new(journal))),
                Ok(journal) => format!("format {}, this updater reads {VERSION}", journal.v),
                Err(error) => vigil_text::json_fault(&error),
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
            Err(error) => return Err(error),
        };
        let aside = vigil_durable::set_aside("journal.aside", &self.path)?;
        Ok(Found::Damaged { aside, why })
    }

    /// Reads it and changes nothing, for whoever may not write. An empty one where there is none.
    pub(crate) fn peek(&self) -> io::Result<Journal> {
        match vigil_durable::read_bounded(&self.path, LIMIT)? {
            None => {
                let unproven = self.path.with_file_name("floor").exists();
                Ok(Journal { v: VERSION, unproven, ..Journal::default() })
            }
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
        }
    }

    /// Makes the journal durable. The crash point carries the state's name.
    pub fn save(&self, journal: &Journal) -> io::Result<()> {
        let bytes = serde_json::to_vec(journal)?;
        // What could not be read again must not be written: the next start would put it aside, used envelopes and all.
        if bytes.len() as u64 > LIMIT {
            let message = format!("the journal would have {} bytes, {LIMIT} are allowed", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let reverting = journal.install.as_ref().is_some_and(|install| install.reverting);
        let name = if reverting { "reverting" } else { journal.state.name() };
        vigil_durable::write(&format!("journal.{name}"), &self.path, &bytes, Mode::Private)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_is_gone_where_a_release_was_confirmed_is_told_from_a_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::new(directory.path());
        assert!(matches!(file.load().unwrap(), Found::Journal(_)));
        std::fs::write(directory.path().join("floor"), "1 7\n").unwrap();
        assert_eq!(file.load().unwrap(), Found::Gone);
        assert!(file.peek().unwrap().unproven);
    }

    #[test]
    fn a_truncated_or_foreign_journal_is_put_aside_and_a_new_one_begins() {
        for content in ["{\"v\":1,\"state\":\"wri", "{\"v\":99}", ""] {
            let directory = tempfile::tempdir().unwrap();
            let file = JournalFile::new(directory.path());
            std::fs::write(&file.path, content).unwrap();
            assert!(matches!(file.load().unwrap(), Found::Damaged { .. }), "{content}");
            assert!(directory.path().join("journal.json.damaged").exists());
            let Found::Journal(journal) = file.load().unwrap() else { panic!("still damaged") };
            assert_eq!(journal.state, State::Idle);
        }
    }
}
