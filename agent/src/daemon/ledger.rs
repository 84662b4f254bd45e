//! The ledger's file, on a file system in memory: it survives the process, and costs the flash nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use tracing::warn;

use crate::link::Ledger;

/// The file's bytes: one write replaces all of them, which a kill cannot cut in two.
const FILE_BYTES: usize = 1024;

/// The file.
pub(super) struct LedgerFile {
    file: Option<File>,
    kept: Ledger,
}

impl LedgerFile {
    /// Opens the file in the run directory. Without it the account is kept in memory alone.
    pub(super) fn open(run: &Path) -> Self {
        let path = run.join("ledger.json");
        let file = vigil_durable::open(
            &path,
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600),
        );
        let file = file.inspect_err(|error| warn!(%error, path = %path.display(), "no ledger")).ok();
        let mut bytes = vec![0; FILE_BYTES];
        let count = file.as_ref().and_then(|file| file.read_at(&mut bytes, 0).ok()).unwrap_or(0);
        let kept = serde_json::from_slice(&bytes[..count]).unwrap_or_default();
        Self { file, kept }
    }

    /// The account as the last process left it.
    pub(super) fn load(&self) -> Ledger {
        self.kept
    }

    /// Keeps the account, if it has changed.
    pub(super) fn save(&mut self, ledger: Ledger) {
        let Some(file) = self.file.as_ref().filter(|_| ledger != self.kept) else { return };
        let Ok(mut bytes) = serde_json::to_vec(&ledger) else { return };
        bytes.resize(FILE_BYTES, b' ');
        if file.write_all_at(&bytes, 0).is_ok() {
            self.kept = ledger;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Account;

    #[test]
    fn an_account_is_there_after_a_restart_and_a_damaged_one_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let messages = Account { produced: u64::MAX, acknowledged: 7, ..Account::default() };
        let ledger = Ledger { messages, states: messages };
        LedgerFile::open(directory.path()).save(ledger);
        assert_eq!(LedgerFile::open(directory.path()).load(), ledger);
        std::fs::write(directory.path().join("ledger.json"), "{").unwrap();
        assert_eq!(LedgerFile::open(directory.path()).load(), Ledger::default());
    }
}
