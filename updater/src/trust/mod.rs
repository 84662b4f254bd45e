//! The trusted set on the disk: metadata byte for byte as received, and the operators list that it vouches for.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use vigil_durable::Mode;
use vigil_protocol::limits;
use vigil_protocol::operators::Operators;
use vigil_tuf::{Fetched, Output, Request, Role, RoleName, Stored, TrustedSet};

const METADATA_LIMIT: u64 = vigil_tuf::MAX_STATED_BYTES;
const ROLES: [Role; 4] = [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets];

/// Why nothing can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The disk.
    #[error("trust store: {0}")]
    Io(#[from] io::Error),
    /// The image's root.
    #[error("the trust root {0}: {1}")]
    Root(PathBuf, String),
    /// What was fetched is not what was signed.
    #[error("{0}")]
    Refused(#[from] vigil_tuf::Error),
}

/// The trusted set and its files.
#[derive(Debug)]
pub struct Trust {
    directory: PathBuf,
    set: TrustedSet,
    tenant: String,
    operators: Option<(Operators, Vec<u8>)>,
}

impl Trust {
    /// Reads what was stored. The second value says what was dropped and why.
    pub fn open(state: &Path, image_root: &Path, tenant: &str) -> Result<(Self, Vec<String>), TrustError> {
        let directory = state.join("trust");
        vigil_durable::create_directory(&directory)?;
        let version = directory.join("version");
        match vigil_durable::read_bounded(&version, 16)? {
            None => vigil_durable::write("trust.version", &version, b"1\n", Mode::Private)?,
            Some(text) if text == b"1\n" => {}
            Some(text) => {
                let found = String::from_utf8_lossy(&text).trim().to_owned();
                return Err(io::Error::other(format!(
                    "{}: store of version {found}, expected 1",
                    version.display()
                ))
                .into());
            }
        }
        let root = vigil_durable::read_bounded(image_root, vigil_tuf::MAX_ROOT_BYTES)?.ok_or_else(|| {
            TrustError::Root(image_root.to_owned(), "is not there; the image must bring it".to_owned())
        })?;
        let read = |name: &str| vigil_durable::read_bounded(&directory.join(name), METADATA_LIMIT);
        let floor = read("time_floor")?.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
        let stored = Stored {
            root: read("root.json")?,
            timestamp: read("timestamp.json")?,
            snapshot: read("snapshot.json")?,
            targets: read("targets.json")?,
            time_floor: floor,
        };
        let (set, mut dropped) = TrustedSet::load(&root, stored)
            .map_err(|error| TrustError::Root(image_root.to_owned(), error.to_string()))?;
        let mut trust = Self { directory, set, tenant: tenant.to_owned(), operators: None };
        if let Some(bytes) =
            vigil_durable::read_bounded(&trust.operators_file(), limits::OPERATORS_BYTES as u64)?
            && let Err(error) = trust.take_operators(bytes)
        {
            dropped.push(format!("the stored operators list was dropped: {error}"));
        }
        Ok((trust, dropped))
    }

    /// Begins a refresh.
    pub fn begin_refresh(&mut self) {
        self.set.begin_refresh();
    }

    /// What the refresh needs next; none when it is over.
    pub fn next_request(&self) -> Option<Request> {
        self.set.next_request()
    }

    /// Whether the last refresh went through to its end.
    pub fn is_refreshed(&self) -> bool {
        self.set.is_refreshed()
    }

    /// Takes a metadata file and makes durable what follows from it.
    pub fn feed(&mut self, fetched: Fetched<'_>, now: Timestamp) -> Result<(), TrustError> {
        // The set goes on only with what is on the disk: without this, a full disk would leave a newer set in memory
        // than the next start finds.
        let mut next = self.set.clone();
        let outcome = next.feed(fetched, now);
        if let Ok(outputs) = &outcome {
            for output in outputs {
                self.persist(output)?;
            }
        }
        self.set = next;
        outcome?;
        Ok(())
    }

    fn persist(&self, output: &Output) -> io::Result<()> {
        let file = |role: &RoleName| self.directory.join(format!("{}.json", role.file_stem()));
        match output {
            Output::Persist { role, bytes } => {
                vigil_durable::write(&format!("trust.{role}"), &file(role), bytes, Mode::Private)
            }
            Output::Forget { role } => vigil_durable::remove(&format!("trust.forget.{role}"), &file(role)),
            Output::TimeFloor(floor) => vigil_durable::write(
                "trust.time_floor",
                &self.directory.join("time_floor"),
                floor.to_string().as_bytes(),
                Mode::Private,
            ),
        }
    }

    /// The operators list, as verified.
    pub fn operators(&self) -> Option<&Operators> {
        self.operators.as_ref().map(|(operators, _)| operators)
    }

    /// The bytes of a target that is kept here: only the operators list of this device's tenant is.
    pub fn target_bytes(&self, name: &str) -> Option<&[u8]> {
        let (_, bytes) = self.operators.as_ref()?;
        (name == self.operators_target()).then_some(bytes.as_slice())
    }

    /// The TUF target that holds this tenant's operators.
    pub fn operators_target(&self) -> String {
        format!("operators/{}.json", self.tenant)
    }

    /// Whether the metadata vouches for another operators list than the one that is held, and it must be fetched.
    /// A list that is no longer vouched for is dropped: that is how a tenant's operators are revoked.
    pub fn wants_operators(&mut self) -> io::Result<bool> {
        let name = self.operators_target();
        let listed = self.set.target(&name).is_some();
        let held =
            self.operators.as_ref().is_some_and(|(_, bytes)| self.set.verify_target(&name, bytes).is_ok());
        if !listed && self.operators.is_some() {
            self.operators = None;
            vigil_durable::remove("trust.operators.forget", &self.operators_file())?;
        }
        Ok(listed && !held)
    }

    /// Takes the operators list, verified, and keeps it.
    pub fn store_operators(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        self.set.verify_target(&self.operators_target(), &bytes)?;
        vigil_durable::write("trust.operators", &self.operators_file(), &bytes, Mode::Private)?;
        self.take_operators(bytes)
    }

    fn take_operators(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        self.set.verify_target(&self.operators_target(), &bytes)?;
        let operators = Operators::parse(&bytes).map_err(|error| io::Error::other(error.to_string()))?;
        self.operators = Some((operators, bytes));
        Ok(())
    }

    fn operators_file(&self) -> PathBuf {
        self.directory.join("operators.json")
    }

    /// The trusted set.
    pub fn set(&self) -> &TrustedSet {
        &self.set
    }

    /// The versions of the metadata, by role.
    pub fn versions(&self) -> std::collections::BTreeMap<String, u64> {
        ROLES.iter().filter_map(|role| Some((role.name().to_owned(), self.set.version(*role)?))).collect()
    }
}
