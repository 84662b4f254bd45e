//! The audit log held against what others keep of it: the checkpoint that `vigil-updaterd` has, and proofs for whoever asks.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tracing::warn;
use vigil_protocol::command::{Kind, Reason, Status};
use vigil_protocol::note::Checkpoint;

use super::Daemon;
use crate::audit::{Outcome, consistency, root_at};
use crate::update::Ask;

/// Stack of a thread that reads files.
const STACK_BYTES: usize = 256 * 1024;
/// A newer checkpoint is handed to the updater this often.
const HAND_OVER: Duration = Duration::from_secs(10);

/// What a thread has found out about the log.
pub(super) enum Found {
    /// Whether it goes on from the checkpoint that the updater keeps; else what is wrong.
    Continues(Result<(), String>),
    /// A proof for the command of that id: the checkpoint that it leads to, and its hashes.
    Proof { id: String, result: Result<(String, Vec<[u8; 32]>), String> },
}

impl Daemon {
    /// The updater's checkpoint of this log, if it has one: the log is held against it, beside the loop.
    pub(super) fn on_witnessed(&mut self, note: Option<String>) {
        let Some(note) = note else {
            self.witnessed = Some(Ok(()));
            return;
        };
        let (directory, size) = (self.audit.directory(), self.audit.size());
        let origin = crate::audit::origin(&self.config.broker.prefix, &self.config.device.id);
        let key = self.identity.public_key();
        let checkpoint = match Checkpoint::verify(&note, &origin, &key) {
            Ok(checkpoint) => checkpoint,
            // Another key or another name: the device was made anew, or what is kept is another device's.
            Err(error) => {
                return self.on_found(Found::Continues(Err(format!(
                    "vigil-updaterd keeps a checkpoint of another audit log: {error}"
                ))));
            }
        };
        let look = move || {
            let (known, root) = (checkpoint.size, checkpoint.root);
            Found::Continues(if size < known {
                Err(format!(
                    "the audit log had {known} entries and has {size}: it was deleted, or put back to an old copy"
                ))
            } else {
                match root_at(&directory, known) {
                    Ok(Some(found)) if found == root => Ok(()),
                    Ok(Some(_)) => Err(format!(
                        "the audit log's first {known} entries are not those it once had: it was rewritten"
                    )),
                    // Its beginning was dropped since, as it is when a log is full.
                    Ok(None) => Ok(()),
                    Err(error) => {
                        Err(format!("the audit log could not be held against its witness: {error}"))
                    }
                }
            })
        };
        self.beside(look, |why| Found::Continues(Err(why)));
    }

    pub(super) fn begin_proof(&mut self, id: &str, from: u64) {
        self.audit.seal();
        let (directory, note, to, id) =
            (self.audit.directory(), self.audit.checkpoint(), self.audit.size(), id.to_owned());
        self.proving = true;
        let own = id.clone();
        let prove = move || {
            let result = match consistency(&directory, from, to) {
                Ok(Some(proof)) => Ok((note, proof)),
                Ok(None) => Err(format!("the log does not reach back to its entry {from} any more")),
                Err(error) => Err(error.to_string()),
            };
            Found::Proof { id: own, result }
        };
        self.beside(prove, |why| Found::Proof { id, result: Err(why) });
    }

    /// Runs what reads many files on a thread of its own; `without` says what comes of it if there is no thread to be had.
    fn beside(
        &mut self,
        work: impl FnOnce() -> Found + Send + 'static,
        without: impl FnOnce(String) -> Found,
    ) {
        let found = self.found.clone();
        let thread = std::thread::Builder::new().name("audit".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || drop(found.blocking_send(work()))) {
            self.on_found(without(format!("no thread to look at the audit log: {error}")));
        }
    }

    pub(super) fn on_found(&mut self, found: Found) {
        match found {
            Found::Continues(result) => {
                if let Err(what) = &result {
                    warn!(what, "the audit log");
                    self.record("audit.discontinued", "device", Outcome::Failure, json!({ "finding": what }));
                }
                self.witnessed = Some(result);
                self.hand_over_checkpoint();
            }
            Found::Proof { id, result } => {
                self.proving = false;
                let kind = Kind::Refresh.name();
                match result {
                    Ok((checkpoint, proof)) => {
                        let proof: Vec<_> = proof.iter().map(|hash| HEXLOWER.encode(hash)).collect();
                        let output = json!({ "audit": { "checkpoint": checkpoint, "proof": proof } });
                        self.finish(&id, kind, Status::Succeeded, Reason::Ok, "", output);
                    }
                    Err(message) => {
                        self.finish(&id, kind, Status::Failed, Reason::NotNow, &message, Value::Null);
                    }
                }
            }
        }
    }

    /// In a quiet moment: the updater keeps the newest checkpoint. Not before it is known that this log goes on from the one
    /// it has.
    pub(super) fn hand_over_checkpoint(&mut self) {
        let now = self.elapsed();
        let is_due = self
            .handed_over
            .as_ref()
            .is_none_or(|(at, size)| *size != self.audit.size() && now.saturating_sub(*at) >= HAND_OVER);
        if self.update.is_some() && matches!(self.witnessed, Some(Ok(()))) && is_due {
            // Where the courier has its hands full it is tried again in the next quiet moment.
            if self.asks.try_send(Ask::Witness(self.audit.checkpoint())).is_ok() {
                self.handed_over = Some((now, self.audit.size()));
            }
        }
    }
}
