//! Verifies a log as a stranger would: from its files and the device's public key alone.

use std::io;
use std::path::Path;

use data_encoding::HEXLOWER;
use vigil_protocol::keys::PublicKey;
use vigil_protocol::merkle::{CompactRange, leaf_hash};
use vigil_protocol::note::{CHECKPOINT_BYTES, Checkpoint, NoteError};

use super::segment::{self, Line, Lines};

/// Why a log is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no checkpoint.
    #[error("there is no checkpoint in {0}: this is no audit log")]
    NoCheckpoint(String),
    /// The checkpoint is not signed by the device.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// An entry was changed, removed or put in.
    #[error(
        "the entries do not have the signed root: an entry before number {size} was changed, removed or put in"
    )]
    Changed {
        /// Entries that the checkpoint is over.
        size: u64,
    },
    /// Entries are missing at the end.
    #[error("the checkpoint is signed over {signed} entries, the log has {found}: entries were cut off")]
    Missing {
        /// Entries that the checkpoint is over.
        signed: u64,
        /// Entries found.
        found: u64,
    },
    /// A segment does not continue the one before it.
    #[error("{0} does not continue the segment before it")]
    Gap(String),
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The log's name.
    pub origin: String,
    /// The first entry that is still kept.
    pub first: u64,
    /// The number of entries that the signed checkpoint is over.
    pub size: u64,
    /// The signed root, lower-case hex.
    pub root: String,
    /// Entries after the checkpoint: a power cut came before it was signed, or the device is writing just now.
    pub unsigned: u64,
}

/// Verifies the log in `directory`.
pub fn verify(directory: &Path, origin: &str, key: &PublicKey) -> Result<Report, VerifyError> {
    let note = vigil_durable::read_bounded(&directory.join("checkpoint"), CHECKPOINT_BYTES as u64)?
        .ok_or_else(|| VerifyError::NoCheckpoint(directory.display().to_string()))?;
    let checkpoint = Checkpoint::verify(&String::from_utf8_lossy(&note), origin, key)?;
    let mut first = None;
    let mut tree: Option<CompactRange> = None;
    let mut matched = false;
    for (_, path) in segment::list(directory)? {
        let (start, mut lines) = Lines::open(&path)?;
        if tree.as_ref().is_some_and(|tree| *tree != start) {
            return Err(VerifyError::Gap(path.display().to_string()));
        }
        first.get_or_insert(start.size());
        let mut range = start;
        loop {
            if range.size() == checkpoint.size {
                if range.root() != checkpoint.root {
                    return Err(VerifyError::Changed { size: checkpoint.size });
                }
                matched = true;
            }
            let Some(Line::Whole(line)) = lines.next()? else { break };
            range.append(leaf_hash(&line));
        }
        tree = Some(range);
    }
    let found = tree.map_or(0, |tree| tree.size());
    if !matched {
        return Err(VerifyError::Missing { signed: checkpoint.size, found });
    }
    Ok(Report {
        origin: checkpoint.origin,
        first: first.unwrap_or(0),
        size: checkpoint.size,
        root: HEXLOWER.encode(&checkpoint.root),
        unsigned: found - checkpoint.size,
    })
}
