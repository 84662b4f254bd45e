//! The newest signed checkpoint of the audit log that `vigild` handed over: a log that is deleted, shortened or put back to an
//! old copy is found by it at the next start, whoever did it had to be root here as well.
//!
//! What is in it is not verified: whoever holds `vigild` holds the log's key. It is held against what was there before: it
//! never shrinks, and it grows no faster than a log can.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vigil_durable::Mode;

/// A checkpoint's bytes at most.
const NOTE_BYTES: usize = 4096;
/// A log grows by so many entries at once, and by so many a second: far more than one ever did.
const BURST: u64 = 50_000;
const PER_SECOND: u64 = 100;
/// A new one is written after so long, or after so many entries.
const KEEP: Duration = Duration::from_secs(600);
const ENTRIES: u64 = 2_000;

/// Why a checkpoint is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no checkpoint.
    #[error("not a checkpoint of an audit log")]
    Malformed,
    /// It is over fewer entries than the one that is kept, or the same number with another root.
    #[error(
        "the audit log had {0} entries and is now another one, or shorter; root can say that this is known: vigil audit forget-witness"
    )]
    GoesBack(u64),
    /// No log grows so fast.
    #[error("no audit log grows from {0} entries to {1} in this time")]
    Implausible(u64, u64),
}

/// The file.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    note: Option<String>,
    written: Option<Duration>,
    written_size: u64,
}

impl Witness {
    /// Reads what is kept; a damaged file is as good as none.
    pub fn open(state: &Path) -> Self {
        let path = state.join("witness");
        let bytes = vigil_durable::read_bounded(&path, NOTE_BYTES as u64).ok().flatten();
        let note = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|note| head(note).is_some());
        let written_size = note.as_deref().and_then(head).map_or(0, |(size, _)| size);
        Self { path, note, written: None, written_size }
    }

    /// The newest checkpoint.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Takes a newer one, `now` of the boot clock.
    pub fn take(&mut self, note: String, now: Duration) -> io::Result<Result<(), Refused>> {
        let Some((size, root)) = head(&note) else { return Ok(Err(Refused::Malformed)) };
        if let Some((known, known_root)) = self.note.as_deref().and_then(head) {
            if size < known || (size == known && root != known_root) {
                return Ok(Err(Refused::GoesBack(known)));
            }
            let since = now.saturating_sub(self.written.unwrap_or(Duration::ZERO));
            let most = self.written_size.saturating_add(BURST + PER_SECOND.saturating_mul(since.as_secs()));
            if size > most {
                return Ok(Err(Refused::Implausible(known, size)));
            }
        } else if size > BURST.saturating_mul(100) {
            return Ok(Err(Refused::Implausible(0, size)));
        }
        let is_due = self.note.is_none()
            || self.written.is_none_or(|written| now.saturating_sub(written) >= KEEP)
            || size >= self.written_size.saturating_add(ENTRIES);
        if is_due && self.note.as_ref() != Some(&note) {
            vigil_durable::write("witness", &self.path, note.as_bytes(), Mode::Private)?;
            self.written = Some(now);
            self.written_size = size;
        }
        self.note = Some(note);
        Ok(Ok(()))
    }

    /// Forgets it.
    pub fn forget(&mut self) -> io::Result<()> {
        vigil_durable::remove("witness.forget", &self.path)?;
        (self.note, self.written, self.written_size) = (None, None, 0);
        Ok(())
    }
}

/// The number of entries and the root of a checkpoint: its second and third lines (C2SP tlog-checkpoint).
fn head(note: &str) -> Option<(u64, &str)> {
    if note.len() > NOTE_BYTES || note.chars().any(|character| character.is_control() && character != '\n') {
        return None;
    }
    let mut lines = note.lines();
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    let is_root = (40..=64).contains(&root.len()) && root.is_ascii();
    (!origin.is_empty() && is_root).then_some(())?;
    Some((size.parse().ok()?, root))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn note(size: u64, root: char) -> String {
        format!("vigil/v1/bar-1/audit\n{size}\n{}\n\n\u{2014} bar-1 sig\n", root.to_string().repeat(44))
    }

    #[test]
    fn a_log_that_is_shorter_or_another_one_is_refused_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut witness = Witness::open(directory.path());
        assert_eq!(witness.take(note(100, 'a'), SECOND).unwrap(), Ok(()));
        assert_eq!(witness.take(note(99, 'b'), SECOND).unwrap(), Err(Refused::GoesBack(100)));
        assert_eq!(witness.take(note(100, 'b'), SECOND).unwrap(), Err(Refused::GoesBack(100)));
        assert_eq!(witness.take(note(100, 'a'), SECOND).unwrap(), Ok(()));
        let mut witness = Witness::open(directory.path());
        assert_eq!(witness.note(), Some(note(100, 'a').as_str()));
        assert_eq!(witness.take(note(0, 'b'), SECOND).unwrap(), Err(Refused::GoesBack(100)));
        witness.forget().unwrap();
        assert_eq!(witness.take(note(0, 'b'), SECOND).unwrap(), Ok(()));
    }

    #[test]
    fn nobody_pins_a_size_that_no_log_reaches() {
        let directory = tempfile::tempdir().unwrap();
        let mut witness = Witness::open(directory.path());
        assert_eq!(
            witness.take(note(u64::MAX, 'a'), SECOND).unwrap(),
            Err(Refused::Implausible(0, u64::MAX))
        );
        witness.take(note(10, 'a'), SECOND).unwrap().unwrap();
        let far = 10 + BURST + PER_SECOND * 60 + 1;
        assert_eq!(witness.take(note(far, 'b'), 61 * SECOND).unwrap(), Err(Refused::Implausible(10, far)));
        assert_eq!(witness.take(note(far - 1, 'b'), 61 * SECOND).unwrap(), Ok(()));
    }

    #[test]
    fn the_flash_is_written_once_in_a_while_and_nonsense_never() {
        let directory = tempfile::tempdir().unwrap();
        let mut witness = Witness::open(directory.path());
        for size in 1..=100 {
            witness.take(note(size, 'a'), SECOND).unwrap().unwrap();
        }
        assert_eq!(Witness::open(directory.path()).note(), Some(note(1, 'a').as_str()));
        witness.take(note(101, 'a'), 700 * SECOND).unwrap().unwrap();
        assert_eq!(Witness::open(directory.path()).note(), Some(note(101, 'a').as_str()));
        for nonsense in ["", "a\nb\nc\n", &note(1, '\u{7f}'), &note(7, 'a').repeat(100)] {
            assert_eq!(witness.take(nonsense.to_owned(), SECOND).unwrap(), Err(Refused::Malformed));
        }
    }
}
