//! The files: metadata byte for byte as received, delegated roles, documents, and the floor under the clock.
//!
//! `trust/{root,timestamp,snapshot,targets}.json`, `trust/time_floor`, `trust/delegated/{role}.json`,
//! `trust/documents/{target}`; names of roles and targets are percent-encoded.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use vigil_durable::Mode;
use vigil_protocol::trusted::TargetKind;
use vigil_tuf::{MAX_STATED_BYTES, Output, Request, RoleName, Stored, TrustedSet, encoded};

const VERSION: &[u8] = b"1\n";
/// Files in one directory that are looked at: far more than there are ever of ours.
const FILES: usize = 10_000;

/// The directory of the trust store.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("trust");
        for path in [&directory, &directory.join("delegated"), &directory.join("documents")] {
            vigil_durable::create_directory(path)?;
        }
        let version = directory.join("version");
        match vigil_durable::read_bounded(&version, 16)? {
            None => vigil_durable::write("trust.version", &version, VERSION, Mode::Private)?,
            Some(text) if text == VERSION => {}
            Some(text) => {
                let found = String::from_utf8_lossy(&text).trim().to_owned();
                let message = format!("{}: store of version {found}, expected 1", version.display());
                return Err(io::Error::other(message));
            }
        }
        Ok(Self { directory })
    }

    pub(super) fn read_metadata(&self, time_floor: Option<Timestamp>) -> io::Result<Stored> {
        let read = |name: &str| vigil_durable::read_bounded(&self.directory.join(name), MAX_STATED_BYTES);
        Ok(Stored {
            root: read("root.json")?,
            timestamp: read("timestamp.json")?,
            snapshot: read("snapshot.json")?,
            targets: read("targets.json")?,
            time_floor,
        })
    }

    /// The floor, and for how long the device had been on since it was signed. Damaged is as good as none: the stored
    /// timestamp says again when it was issued.
    pub(super) fn read_floor(&self) -> io::Result<Option<(Timestamp, Duration)>> {
        let bytes = vigil_durable::read_bounded(&self.directory.join("time_floor"), 128)?;
        let parse = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).ok()?;
            let (floor, powered) = text.trim().split_once(' ')?;
            Some((floor.parse().ok()?, Duration::from_secs(powered.parse().ok()?)))
        };
        Ok(bytes.and_then(parse))
    }

    pub(super) fn write_floor(&self, floor: Timestamp, powered: Duration) -> io::Result<()> {
        let text = format!("{floor} {}\n", powered.as_secs());
        vigil_durable::write(
            "trust.time_floor",
            &self.directory.join("time_floor"),
            text.as_bytes(),
            Mode::Private,
        )
    }

    /// Makes one output durable; the floor is handed back, for it is written with the time since.
    pub(super) fn apply(&self, output: &Output) -> io::Result<Option<Timestamp>> {
        match output {
            Output::Persist { role, bytes } => {
                vigil_durable::write(&point("trust", role), &self.metadata(role), bytes, Mode::Private)?;
            }
            Output::Forget { role } => {
                vigil_durable::remove(&point("trust.forget", role), &self.metadata(role))?;
            }
            Output::TimeFloor(floor) => return Ok(Some(*floor)),
        }
        Ok(None)
    }

    fn metadata(&self, role: &RoleName) -> PathBuf {
        let name = format!("{}.json", role.file_stem());
        match role {
            RoleName::Top(_) => self.directory.join(name),
            RoleName::Delegated(_) => self.directory.join("delegated").join(name),
        }
    }

    pub(super) fn read_delegated(&self, request: &Request) -> io::Result<Option<Vec<u8>>> {
        vigil_durable::read_bounded(&self.metadata(&request.role), request.max_len)
    }

    /// Removes what is stored of roles that the snapshot does not list.
    pub(super) fn tidy_delegated(&self, set: &TrustedSet) -> io::Result<()> {
        for (name, path) in self.list("delegated")? {
            let listed = name
                .strip_suffix(".json")
                .is_some_and(|role| set.lists(&RoleName::Delegated(role.to_owned())));
            if !listed {
                vigil_durable::remove("trust.forget.delegated", &path)?;
            }
        }
        Ok(())
    }

    /// The target names of the documents that are stored.
    pub(super) fn kept_names(&self) -> io::Result<Vec<String>> {
        let names = self.list("documents")?.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| TargetKind::of(name).limit().is_some()).collect())
    }

    pub(super) fn read_kept(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let limit = TargetKind::of(name).limit().unwrap_or(0);
        vigil_durable::read_bounded(&self.kept(name), limit)
    }

    pub(super) fn write_kept(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        vigil_durable::write(document_point(name), &self.kept(name), bytes, Mode::Private)
    }

    pub(super) fn remove_kept(&self, name: &str) -> io::Result<()> {
        vigil_durable::remove("trust.document.forget", &self.kept(name))
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.directory.join("documents").join(encoded(name))
    }

    /// The files of a directory, their names decoded.
    fn list(&self, name: &str) -> io::Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.directory.join(name))?.take(FILES) {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str()
                && let Ok(name) = percent_decode_str(name).decode_utf8()
            {
                found.push((name.into_owned(), entry.path()));
            }
        }
        Ok(found)
    }
}

/// Crash points are named by role; delegated roles share one.
fn point(what: &str, role: &RoleName) -> String {
    match role {
        RoleName::Top(role) => format!("{what}.{role}"),
        RoleName::Delegated(_) => format!("{what}.delegated"),
    }
}

fn document_point(name: &str) -> &'static str {
    match TargetKind::of(name) {
        TargetKind::Operators(_) => "trust.operators",
        _ => "trust.document",
    }
}
