//! The four documents of TUF 1.0, section 4, as they are written and read. Fields that are not named here are
//! ignored; signatures are verified over the file's own JSON, never over these types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::HEXLOWER;
use jiff::Timestamp as Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};
use vigil_text::Label;

pub use crate::delegation::{Delegate, DelegatedRole, Delegations, SuccinctRoles};
pub use crate::key::Key;
use crate::target::encoded;

/// The name under which a timestamp lists the snapshot.
pub const SNAPSHOT_FILE: &str = "snapshot.json";
/// The name under which a snapshot lists the targets.
pub const TARGETS_FILE: &str = "targets.json";

/// The role of a metadata file: a top-level one, or one that targets delegate to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// One of the four.
    Top(Role),
    /// One that a targets role names.
    Delegated(String),
}

impl RoleName {
    /// Its file's name without `.json`. The name of a delegated role may be any text, `/` and `..` included, so that
    /// all but letters, digits and `-._~` is percent-encoded, as python-tuf does.
    pub fn file_stem(&self) -> String {
        match self {
            Self::Top(role) => role.name().to_owned(),
            Self::Delegated(name) => encoded(name),
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(role) => role.fmt(f),
            Self::Delegated(name) => write!(f, "delegated role \"{}\"", Label::new(name)),
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        Self::Top(role)
    }
}

impl PartialEq<Role> for RoleName {
    fn eq(&self, role: &Role) -> bool {
        *self == Self::Top(*role)
    }
}

/// A top-level role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Names the keys of all roles.
    Root,
    /// Names the current snapshot.
    Timestamp,
    /// Names the current version of the targets.
    Snapshot,
    /// Names the targets.
    Targets,
}

impl Role {
    /// The four, in the order in which they are verified.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    /// Its name in metadata and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the documents have in common.
pub trait Document: for<'de> Deserialize<'de> {
    /// The role whose document it is.
    const ROLE: Role;
    /// `_type` and `spec_version`.
    fn form(&self) -> (&str, &str);
    /// Its version.
    fn version(&self) -> u64;
    /// When it stops counting.
    fn expires(&self) -> Time;
    /// What its shape does not say by itself.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

macro_rules! document {
    ($document:ident) => {
        impl Document for $document {
            const ROLE: Role = Role::$document;
            fn form(&self) -> (&str, &str) {
                (&self.kind, &self.spec_version)
            }
            fn version(&self) -> u64 {
                self.version
            }
            fn expires(&self) -> Time {
                self.expires
            }
            fn check(&self) -> Result<(), String> {
                self.check_content()
            }
        }
    };
}

/// `root.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// `root`
    #[serde(rename = "_type")]
    pub kind: String,
    /// `1.0.x`
    pub spec_version: String,
    /// From 1.
    pub version: u64,
    /// When it stops counting.
    pub expires: Time,
    /// Whether metadata and target file names carry versions and hashes.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// By key id. An id need not be the hash of its key.
    pub keys: BTreeMap<String, Key>,
    /// By role name.
    pub roles: BTreeMap<String, RoleKeys>,
}
document!(Root);

/// Who may sign for a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Ids of keys of the same root.
    pub keyids: Vec<String>,
    /// How many of them must sign.
    pub threshold: u32,
}

impl Root {
    /// Who may sign for `role`. A root that was read has all four.
    pub fn role(&self, role: Role) -> Option<&RoleKeys> {
        self.roles.get(role.name())
    }

    /// Whether a key that could sign for `role` cannot any more in `next`: what it signed must not hold back what
    /// its successor signs (section 5.3.11). A key that is only added revokes nothing.
    pub fn revokes(&self, next: &Self, role: Role) -> bool {
        !self.key_bytes(role).is_subset(&next.key_bytes(role))
    }

    fn key_bytes(&self, role: Role) -> BTreeSet<Vec<u8>> {
        let keyids = self.role(role).map(|keys| keys.keyids.as_slice()).unwrap_or_default();
        keyids.iter().filter_map(|id| Some(self.keys.get(id)?.verifier()?.identity().to_vec())).collect()
    }

    fn check_content(&self) -> Result<(), String> {
        for role in Role::ALL {
            let keys = self.role(role).ok_or_else(|| format!("it has no keys for {role}"))?;
            if keys.threshold == 0 {
                return Err(format!("the threshold of {role} is 0"));
            }
        }
        Ok(())
    }
}

/// `timestamp.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// `timestamp`
    #[serde(rename = "_type")]
    pub kind: String,
    /// `1.0.x`
    pub spec_version: String,
    /// From 1.
    pub version: u64,
    /// When it stops counting.
    pub expires: Time,
    /// When it was signed; Vigil's own field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Time>,
    /// `snapshot.json` alone.
    pub meta: BTreeMap<String, MetaFile>,
}
document!(Timestamp);

impl Timestamp {
    fn check_content(&self) -> Result<(), String> {
        // A floor above the file's own expiry could only be meant to stop clocks from ever being right again.
        if self.issued.is_some_and(|issued| issued >= self.expires) {
            return Err("it was issued after it expired".to_owned());
        }
        check_meta(&self.meta, SNAPSHOT_FILE)
    }
}

/// `snapshot.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `snapshot`
    #[serde(rename = "_type")]
    pub kind: String,
    /// `1.0.x`
    pub spec_version: String,
    /// From 1.
    pub version: u64,
    /// When it stops counting.
    pub expires: Time,
    /// `targets.json` and any delegated targets.
    pub meta: BTreeMap<String, MetaFile>,
}
document!(Snapshot);

impl Snapshot {
    fn check_content(&self) -> Result<(), String> {
        check_meta(&self.meta, TARGETS_FILE)
    }
}

fn check_meta(meta: &BTreeMap<String, MetaFile>, needed: &str) -> Result<(), String> {
    if !meta.contains_key(needed) {
        return Err(format!("it does not list {needed}"));
    }
    match meta.iter().find(|(_, file)| file.version == 0) {
        Some((name, _)) if name == needed => Err(format!("it lists {needed} at version 0")),
        Some(_) => Err("it lists a file at version 0".to_owned()),
        None => Ok(()),
    }
}

/// What one metadata file says of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFile {
    /// From 1.
    pub version: u64,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Of the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Hashes>,
}

/// `targets.json`, and the file of any delegated role
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// `targets`
    #[serde(rename = "_type")]
    pub kind: String,
    /// `1.0.x`
    pub spec_version: String,
    /// From 1.
    pub version: u64,
    /// When it stops counting.
    pub expires: Time,
    /// By target name.
    pub targets: BTreeMap<String, Target>,
    /// Who else may sign targets, and which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
}
document!(Targets);

impl Targets {
    fn check_content(&self) -> Result<(), String> {
        self.delegations.as_ref().map_or(Ok(()), Delegations::check)
    }
}

/// What is signed about a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// In bytes.
    pub length: u64,
    /// Of the whole file.
    pub hashes: Hashes,
    /// Whatever the publisher adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
}

impl Target {
    /// SHA-256 in hex, if that is among the hashes.
    pub fn sha256(&self) -> Option<&str> {
        self.hashes.0.get("sha256").map(String::as_str)
    }
}

/// Hashes in hex by algorithm. SHA-256 and SHA-512 are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes(pub BTreeMap<String, String>);

impl Hashes {
    /// The SHA-256 of `bytes`.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self([("sha256".to_owned(), HEXLOWER.encode(&Sha256::digest(bytes)))].into_iter().collect())
    }

    /// Whether `bytes` have every known hash that is listed; `false` when none is known.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let sha256 = self.0.get("sha256").map(|hash| *hash == HEXLOWER.encode(&Sha256::digest(bytes)));
        let sha512 = self.0.get("sha512").map(|hash| *hash == HEXLOWER.encode(&Sha512::digest(bytes)));
        (sha256.is_some() || sha512.is_some()) && sha256 != Some(false) && sha512 != Some(false)
    }
}
