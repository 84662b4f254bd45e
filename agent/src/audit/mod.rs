//! The audit log: an append-only RFC 6962 tree of entries, each on the disk before anything follows from it, with a
//! signed checkpoint in every quiet moment and before each digest. A sink that every floor may write to.

mod entry;
mod log;
mod prove;
mod segment;
mod verify;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use serde_json::Value;
use tracing::error;

pub use entry::{Entry, Outcome, is_strangers};
pub use log::{Finding, Log, Record};
pub use prove::{consistency, root_at};
pub use verify::{Report, VerifyError, verify};

/// The name under which a device's log is signed.
pub fn origin(prefix: &str, device: &str) -> String {
    format!("{prefix}/{device}/audit")
}

/// A handle on the log.
#[derive(Clone)]
pub struct Audit(Rc<RefCell<Log>>);

impl Audit {
    /// A handle on `log`.
    pub fn new(log: Log) -> Self {
        Self(Rc::new(RefCell::new(log)))
    }

    /// Appends an entry, durably. What must not happen unrecorded looks at the result; failing is logged anyway.
    pub fn record(&self, event: &str, actor: &str, outcome: Outcome, detail: Value) -> io::Result<u64> {
        self.record_all(vec![Record { event, actor, outcome, detail }])
    }

    /// Appends entries, durably, all of them in one write.
    pub fn record_all(&self, records: Vec<Record<'_>>) -> io::Result<u64> {
        let result = self.0.borrow_mut().append_all(records);
        if let Err(error) = &result {
            error!(%error, "audit entries could not be written; is the disk full?");
        }
        result
    }

    /// Signs a checkpoint over what was recorded since the last one. Failing is logged, and the last one stays.
    pub fn seal(&self) {
        if let Err(error) = self.0.borrow_mut().seal() {
            error!(%error, "the audit log's checkpoint could not be written; is the disk full?");
        }
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self) -> String {
        self.0.borrow().checkpoint().to_owned()
    }

    /// Where its files are.
    pub fn directory(&self) -> std::path::PathBuf {
        self.0.borrow().directory().to_owned()
    }

    /// The number of entries.
    pub fn size(&self) -> u64 {
        self.0.borrow().size()
    }

    /// Entries of strangers that found no room lately.
    pub fn untold(&self) -> u64 {
        self.0.borrow().untold()
    }

    /// At most `limit` entries from index `first` on.
    pub fn read(&self, first: u64, limit: usize) -> io::Result<Vec<Entry>> {
        self.0.borrow().read(first, limit)
    }
}
