//! Which places are this device's boot variables, proven: only there is anything written. A place is proven by a valid
//! content of exactly the configured form that was read there once, or by being blank when an install first needed it.
//! What was proven is kept, so that a copy that a power cut tore can be repaired.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use vigil_durable::Mode;

use crate::extent::{Extent, Kernel};

const FILE_BYTES: u64 = 16 * 1024;
/// A device has two places at most; the others are of configurations before.
const PLACES: usize = 32;

/// The places, each by a line that says where it is and of which form.
#[derive(Debug, Default)]
pub struct Claims {
    /// None: they are forgotten with this value.
    file: Option<PathBuf>,
    kept: RefCell<BTreeSet<String>>,
    /// Whoever has these owns the places, and need not prove it.
    owned: bool,
    /// What lies where no boot variables can be: the slots' parts, each with its name.
    others: Vec<(String, PathBuf)>,
}

impl Claims {
    /// Those that are kept in the updater's state directory. A file that cannot be read is as good as none: what is valid now
    /// is proven anew.
    pub fn open(state: &Path) -> Self {
        let file = state.join("boot-claims");
        let bytes = vigil_durable::read_bounded(&file, FILE_BYTES).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let kept = text.lines().take(PLACES).map(str::to_owned).collect();
        Self { file: Some(file), kept: RefCell::new(kept), owned: false, others: Vec::new() }
    }

    /// For a bootloader or what stands for one: the places are its own.
    pub fn owner() -> Self {
        Self { owned: true, ..Self::default() }
    }

    /// No boot variables lie in these.
    #[must_use]
    pub fn outside(self, others: Vec<(String, PathBuf)>) -> Self {
        Self { others, ..self }
    }

    /// What else lies in those bytes, if anything does that has a name.
    pub(super) fn other_in(&self, extent: &Extent, kernel: &Kernel) -> Option<String> {
        let of_ours = self
            .others
            .iter()
            .find(|(_, path)| kernel.extent(path).ok().flatten().is_some_and(|other| other.overlaps(extent)));
        let mounted = || kernel.mounted().into_iter().find(|(other, _)| other.overlaps(extent));
        match of_ours {
            Some((name, _)) => Some(format!("{name} lies there")),
            None => mounted().map(|(_, place)| format!("what is mounted at {place} lies there")),
        }
    }

    /// Whether the place was proven before.
    pub(super) fn hold(&self, place: &str) -> bool {
        self.owned || self.kept.borrow().contains(place)
    }

    /// Whether what is there now, or was once, proves that the place is ours, or nobody's.
    pub(super) fn is_proven(&self, place: &str, look: Look<'_>) -> bool {
        matches!(look, Look::Valid | Look::Blank) || self.hold(place)
    }

    /// Sees that the place is proven.
    pub(super) fn check(&self, place: &str, look: Look<'_>) -> io::Result<()> {
        match look {
            Look::Other(found) if !self.hold(place) => Err(not_ours(place, found)),
            _ => Ok(()),
        }
    }

    /// Before a write: sees that the place is proven, and keeps that.
    pub(super) fn prove(&self, place: &str, look: Look<'_>) -> io::Result<()> {
        self.check(place, look)?;
        match self.keep(place) {
            // What is valid now is proven by that, even where nothing can be kept.
            Err(_) if look == Look::Valid => Ok(()),
            kept => kept,
        }
    }

    /// Keeps that the place is ours: before it is written, and before a power cut can make it unreadable.
    pub(super) fn keep(&self, place: &str) -> io::Result<()> {
        if self.hold(place) {
            return Ok(());
        }
        let mut kept = self.kept.borrow().clone();
        while kept.len() >= PLACES {
            kept.pop_first();
        }
        kept.insert(place.to_owned());
        if let Some(file) = &self.file {
            let text: String = kept.iter().flat_map(|place| [place, "\n"]).collect();
            vigil_durable::write("boot.claims", file, text.as_bytes(), Mode::Private)?;
        }
        self.kept.replace(kept);
        Ok(())
    }
}

/// What a place looks like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look<'a> {
    /// A valid content of the configured form.
    Valid,
    /// Nobody has written there.
    Blank,
    /// Anything else, and what that is.
    Other(&'a str),
}

/// Whether nobody has written there: what is erased, or was never used.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xff)
}

/// The error for a place that is not proven.
pub(super) fn not_ours(place: &str, found: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "{place}: not written to, since nothing proves that it holds this device's boot variables: {found}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_place_is_written_also_where_nothing_can_be_kept_and_a_blank_one_is_not() {
        // A file in the directory's place: nothing can be kept.
        let file = tempfile::NamedTempFile::new().unwrap();
        let claims = Claims::open(file.path());
        claims.prove("a", Look::Valid).unwrap();
        claims.prove("a", Look::Blank).unwrap_err();
        let error = claims.prove("a", Look::Other("noise")).unwrap_err();
        assert!(error.to_string().contains("noise"), "{error}");
        let claims = Claims::default();
        claims.prove("a", Look::Blank).unwrap();
        claims.prove("a", Look::Other("torn by a power cut")).unwrap();
    }

    #[test]
    fn what_was_proven_is_known_after_a_restart_and_a_damaged_file_proves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let claims = Claims::open(directory.path());
        assert!(!claims.hold("a"));
        claims.keep("a").unwrap();
        for number in 0..100 {
            claims.keep(&format!("b{number:03}")).unwrap();
        }
        let claims = Claims::open(directory.path());
        assert!(claims.hold("b099") && !claims.hold("b000") && claims.kept.borrow().len() <= PLACES);
        std::fs::write(directory.path().join("boot-claims"), vec![b'x'; 100_000]).unwrap();
        assert!(!Claims::open(directory.path()).hold("b099"));
    }
}
