//! The TUF repository as its publisher sees it: four documents, their keys, and the order in which files appear.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vigil_tuf::canonical::Json;
use vigil_tuf::document::{
    self, Document, Hashes, Key, MetaFile, RoleKeys, Root, SNAPSHOT_FILE, Snapshot, TARGETS_FILE, Target,
    Targets,
};
use vigil_tuf::{MAX_ROOT_BYTES, MAX_STATED_BYTES, MAX_TIMESTAMP_BYTES, Role, is_target_name, target_path};

use crate::{files, keys};

const SPEC_VERSION: &str = "1.0.31";

/// For how many days what is signed often counts. The root's days are given when it is made.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Lifetimes {
    /// Days until new targets expire
    #[arg(long, default_value_t = 180, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub targets_days: u16,
    /// Days until a new snapshot expires
    #[arg(long, default_value_t = 180, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub snapshot_days: u16,
    /// The timestamp's.
    #[command(flatten)]
    pub timestamp: TimestampLifetime,
}

/// For how many days a timestamp counts.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct TimestampLifetime {
    /// Days until a new timestamp expires: the longest freeze that a hostile mirror gets away with
    #[arg(long, default_value_t = 14, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub timestamp_days: u16,
}

/// A repository. While one that was opened for publishing lives, no other process publishes: two would sign the same
/// version twice.
#[derive(Debug)]
pub struct Repository {
    directory: PathBuf,
    root: Root,
    timestamp: document::Timestamp,
    snapshot: Snapshot,
    targets: Targets,
    _lock: Option<File>,
}

impl Repository {
    /// Makes the keys of the four roles and version 1 of everything.
    pub fn init(
        directory: &Path,
        keys_in: &Path,
        root_days: u16,
        lifetimes: Lifetimes,
        now: Timestamp,
    ) -> Result<Self> {
        let metadata = directory.join("metadata");
        if metadata.join("1.root.json").exists() {
            bail!("{} is a repository already; choose another directory", directory.display());
        }
        // All four must be free before the first is made, so that a failed `init` leaves nothing half done.
        if let Some(taken) =
            Role::ALL.iter().map(|role| keys::path(keys_in, role.name())).find(|path| path.exists())
        {
            bail!("{} exists and is not overwritten; give another directory as --keys", taken.display());
        }
        let now = whole_seconds(now);
        let mut keys = BTreeMap::new();
        let mut roles = BTreeMap::new();
        let mut root_key = None;
        for role in Role::ALL {
            let key = keys::create(keys_in, role.name())?;
            let (id, public) = tuf_key(&key)?;
            roles.insert(role.name().to_owned(), RoleKeys { keyids: vec![id.clone()], threshold: 1 });
            keys.insert(id, public);
            if role == Role::Root {
                root_key = Some(key);
            }
        }
        let form = |role: Role| (role.name().to_owned(), SPEC_VERSION.to_owned());
        let (kind, spec_version) = form(Role::Root);
        let expires = in_days(root_days, now);
        let root = Root { kind, spec_version, version: 1, expires, consistent_snapshot: true, keys, roles };
        // Version 0 of these three is never published: `publish` makes it 1.
        let (kind, spec_version) = form(Role::Targets);
        let targets = Targets {
            kind,
            spec_version,
            version: 0,
            expires: now,
            targets: BTreeMap::new(),
            delegations: None,
        };
        let (kind, spec_version) = form(Role::Snapshot);
        let snapshot = Snapshot { kind, spec_version, version: 0, expires: now, meta: BTreeMap::new() };
        let (kind, spec_version) = form(Role::Timestamp);
        let meta = BTreeMap::new();
        let timestamp =
            document::Timestamp { kind, spec_version, version: 0, expires: now, issued: None, meta };

        files::make_directory(&metadata)?;
        files::make_directory(&directory.join("targets"))?;
        let lock = Some(lock(directory)?);
        let mut new =
            Self { directory: directory.to_owned(), root, timestamp, snapshot, targets, _lock: lock };
        let root_key = root_key.context("no root key was made")?;
        files::publish_once(&metadata.join("1.root.json"), &signed_file(&new.root, &root_key)?)?;
        new.publish(keys_in, lifetimes, now)?;
        Ok(new)
    }

    /// Opens a repository for publishing, and waits until no other process publishes to it.
    pub fn open(directory: &Path) -> Result<Self> {
        check_is_repository(directory)?;
        let lock = lock(directory)?;
        Self::read(directory, Some(lock))
    }

    /// Opens a repository that may be on a read-only disk.
    pub fn open_to_read(directory: &Path) -> Result<Self> {
        check_is_repository(directory)?;
        Self::read(directory, None)
    }

    fn read(directory: &Path, lock: Option<File>) -> Result<Self> {
        let metadata = directory.join("metadata");
        let newest = newest_version(&metadata, Role::Root)?;
        let root: Root = read(&metadata.join(format!("{newest}.root.json")), MAX_ROOT_BYTES)?;
        if !root.consistent_snapshot {
            bail!("{} has no consistent snapshots, which vigil-publish needs", directory.display());
        }
        let timestamp: document::Timestamp = read(&metadata.join("timestamp.json"), MAX_TIMESTAMP_BYTES)?;
        let version = listed(&timestamp.meta, SNAPSHOT_FILE)?;
        let snapshot: Snapshot = read(&metadata.join(format!("{version}.snapshot.json")), MAX_STATED_BYTES)?;
        let version = listed(&snapshot.meta, TARGETS_FILE)?;
        let targets = read(&metadata.join(format!("{version}.targets.json")), MAX_STATED_BYTES)?;
        Ok(Self { directory: directory.to_owned(), root, timestamp, snapshot, targets, _lock: lock })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its targets.
    pub fn targets(&self) -> &BTreeMap<String, Target> {
        &self.targets.targets
    }

    /// The version and expiry of a role.
    pub fn state(&self, role: Role) -> (u64, Timestamp) {
        match role {
            Role::Root => (self.root.version, self.root.expires),
            Role::Timestamp => (self.timestamp.version, self.timestamp.expires),
            Role::Snapshot => (self.snapshot.version, self.snapshot.expires),
            Role::Targets => (self.targets.version, self.targets.expires),
        }
    }

    /// Reads the file of a target.
    pub fn read_target(&self, name: &str) -> Result<Vec<u8>> {
        let target = self.targets().get(name).with_context(|| format!("there is no target {name}"))?;
        let path =
            target_path(name, target, true).with_context(|| format!("the target {name} has no path"))?;
        let bytes = files::read(&self.directory.join("targets").join(path), target.length)?;
        if bytes.len() as u64 != target.length || !target.hashes.matches(&bytes) {
            bail!("the file of the target {name} is not the one that was signed; restore it from a backup");
        }
        Ok(bytes)
    }

    /// Puts a target's file in place. Clients see it after [`Self::publish`].
    pub fn put_target(&mut self, name: &str, bytes: &[u8], custom: Option<Value>) -> Result<()> {
        if !is_target_name(name) {
            bail!("{name:?} is no name for a target");
        }
        let target = Target { length: bytes.len() as u64, hashes: Hashes::sha256_of(bytes), custom };
        let path = target_path(name, &target, true).context("a target without a hash")?;
        files::publish_once(&self.directory.join("targets").join(path), bytes)?;
        self.targets.targets.insert(name.to_owned(), target);
        Ok(())
    }

    /// Whether [`Self::publish`] has the keys that it needs: to be asked before hours of compression.
    pub fn check_keys(&self, keys_in: &Path) -> Result<()> {
        [Role::Targets, Role::Snapshot, Role::Timestamp]
            .into_iter()
            .try_for_each(|role| self.role_key(keys_in, role).map(drop))
    }

    /// Signs and publishes new targets, a new snapshot, and last the timestamp that makes them current.
    pub fn publish(&mut self, keys_in: &Path, lifetimes: Lifetimes, now: Timestamp) -> Result<()> {
        let now = whole_seconds(now);
        let [targets_key, snapshot_key, timestamp_key] =
            [Role::Targets, Role::Snapshot, Role::Timestamp].map(|role| self.role_key(keys_in, role));
        let (targets_key, snapshot_key, timestamp_key) = (targets_key?, snapshot_key?, timestamp_key?);
        let metadata = self.directory.join("metadata");

        // What an interrupted publication left is skipped: no timestamp lists it, but someone may have fetched it.
        self.targets.version = self.targets.version.max(newest_version(&metadata, Role::Targets)?) + 1;
        self.targets.expires = in_days(lifetimes.targets_days, now);
        let bytes = signed_file(&self.targets, &targets_key)?;
        files::publish_once(&metadata.join(format!("{}.targets.json", self.targets.version)), &bytes)?;
        self.snapshot.meta.insert(TARGETS_FILE.to_owned(), meta_file(self.targets.version, &bytes));

        self.snapshot.version = self.snapshot.version.max(newest_version(&metadata, Role::Snapshot)?) + 1;
        self.snapshot.expires = in_days(lifetimes.snapshot_days, now);
        let bytes = signed_file(&self.snapshot, &snapshot_key)?;
        files::publish_once(&metadata.join(format!("{}.snapshot.json", self.snapshot.version)), &bytes)?;
        self.timestamp.meta.insert(SNAPSHOT_FILE.to_owned(), meta_file(self.snapshot.version, &bytes));
        self.sign_timestamp(&timestamp_key, lifetimes.timestamp, now)
    }

    /// Signs the timestamp anew. Needs its key alone, so that the job that does it daily need not hold the others.
    pub fn publish_timestamp(
        &mut self,
        keys_in: &Path,
        lifetime: TimestampLifetime,
        now: Timestamp,
    ) -> Result<()> {
        let key = self.role_key(keys_in, Role::Timestamp)?;
        self.sign_timestamp(&key, lifetime, whole_seconds(now))
    }

    fn sign_timestamp(
        &mut self,
        key: &SigningKey,
        lifetime: TimestampLifetime,
        now: Timestamp,
    ) -> Result<()> {
        self.timestamp.version += 1;
        self.timestamp.expires = in_days(lifetime.timestamp_days, now);
        self.timestamp.issued = Some(now);
        let bytes = signed_file(&self.timestamp, key)?;
        files::publish(&self.directory.join("metadata/timestamp.json"), &bytes)
    }

    fn role_key(&self, keys_in: &Path, role: Role) -> Result<SigningKey> {
        let key = keys::load(keys_in, role.name())?;
        let public = Key::from_ed25519(&key.verifying_key());
        let role_keys = self.root.role(role).context("the root lacks a role")?;
        let known = role_keys.keyids.iter().any(|id| self.root.keys.get(id) == Some(&public));
        if !known {
            bail!(
                "{} is not a key that this repository's root names for {role}",
                keys::path(keys_in, role.name()).display()
            );
        }
        if role_keys.threshold != 1 {
            bail!("{role} needs {} signatures, vigil-publish gives one", role_keys.threshold);
        }
        Ok(key)
    }
}

/// The key as TUF lists it, under the id that securesystemslib gives it: SHA-256 of its canonical JSON.
fn tuf_key(key: &SigningKey) -> Result<(String, Key)> {
    let key = Key::from_ed25519(&key.verifying_key());
    let id = HEXLOWER.encode(&Sha256::digest(canonical(&key)?));
    Ok((id, key))
}

fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok(Json::parse(&serde_json::to_vec(value)?)?.canonical())
}

fn signed_file<D: Document + Serialize>(document: &D, key: &SigningKey) -> Result<Vec<u8>> {
    let signature = HEXLOWER.encode(&key.sign(&canonical(document)?).to_bytes());
    let (keyid, _) = tuf_key(key)?;
    let file = json!({"signatures": [{"keyid": keyid, "sig": signature}], "signed": document});
    let mut bytes = serde_json::to_vec_pretty(&file)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn meta_file(version: u64, bytes: &[u8]) -> MetaFile {
    MetaFile { version, length: Some(bytes.len() as u64), hashes: Some(Hashes::sha256_of(bytes)) }
}

fn listed(meta: &BTreeMap<String, MetaFile>, name: &str) -> Result<u64> {
    Ok(meta.get(name).with_context(|| format!("the metadata does not list {name}"))?.version)
}

/// The highest version on the disk; 0 when there is none.
fn newest_version(metadata: &Path, role: Role) -> Result<u64> {
    let entries =
        std::fs::read_dir(metadata).with_context(|| format!("cannot list {}", metadata.display()))?;
    let suffix = format!(".{role}.json");
    let versions =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(&suffix)?.parse().ok());
    Ok(versions.max().unwrap_or(0))
}

/// Reads a document, and refuses one with fields that would be lost when it is signed again.
fn read<D: Document + Serialize>(path: &Path, limit: u64) -> Result<D> {
    let parse = |bytes: &[u8]| -> Result<(D, bool)> {
        let Json::Object(mut members) = Json::parse(bytes)? else { bail!("it is not a JSON object") };
        let signed = members.remove("signed").context("it has no `signed`")?.canonical();
        let mut file: Value = serde_json::from_slice(bytes)?;
        let document: D = serde_json::from_value(file["signed"].take())?;
        let whole = canonical(&document)? == signed;
        Ok((document, whole))
    };
    let (document, whole) = parse(&files::read(path, limit)?)
        .with_context(|| format!("{} cannot be read as {} metadata", path.display(), D::ROLE))?;
    if !whole && D::ROLE != Role::Root {
        bail!("{} was written by another tool, and some of its fields would be lost here", path.display());
    }
    Ok(document)
}

fn check_is_repository(directory: &Path) -> Result<()> {
    if !directory.join("metadata").is_dir() {
        bail!("{} is not a repository; make one with `vigil-publish init`", directory.display());
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn in_days(days: u16, now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX)
}

/// python-tuf and others read whole seconds only.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
