//! What readers of a repository see: the newest root, and what the timestamp leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use vigil_tuf::document::{
    Delegations, Document, MetaFile, Root, SNAPSHOT_FILE, Snapshot, TARGETS_FILE, Targets, Timestamp,
};
use vigil_tuf::{MAX_ROOT_BYTES, MAX_STATED_BYTES, MAX_TIMESTAMP_BYTES, Role, RoleName};

use crate::files;
use crate::sealed::Sealed;
use crate::settings::name;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Entry<D> {
    /// What it says.
    pub document: D,
    /// What is signed, and by whom.
    pub sealed: Sealed,
    /// Whether it can be signed anew without a loss: another tool may have written fields that we do not know.
    pub whole: bool,
}

/// The published metadata. A repository whose first root still waits for signatures has none.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The newest.
    pub root: Option<Entry<Root>>,
    /// The current one.
    pub timestamp: Option<Entry<Timestamp>>,
    /// That which the timestamp names.
    pub snapshot: Option<Entry<Snapshot>>,
    /// Top-level targets and every delegated role that the snapshot lists.
    pub targets: BTreeMap<RoleName, Entry<Targets>>,
    newest: BTreeMap<String, u64>,
}

impl Published {
    pub(crate) fn read(metadata: &Path) -> Result<Self> {
        let newest = newest_versions(metadata)?;
        let mut this = Self { newest, ..Self::default() };
        let version = this.newest(&Role::Root.into());
        if version == 0 {
            return Ok(this);
        }
        let root: Entry<Root> = read(&metadata.join(format!("{version}.root.json")), MAX_ROOT_BYTES)?;
        if !root.document.consistent_snapshot {
            bail!("{} has no consistent snapshots, which vigil-publish needs", metadata.display());
        }
        this.root = Some(root);
        let path = metadata.join("timestamp.json");
        if !path.exists() {
            return Ok(this);
        }
        let timestamp: Entry<Timestamp> = read(&path, MAX_TIMESTAMP_BYTES)?;
        let version = listed(&timestamp.document.meta, SNAPSHOT_FILE)?;
        this.timestamp = Some(timestamp);
        let snapshot: Entry<Snapshot> =
            read(&metadata.join(format!("{version}.snapshot.json")), MAX_STATED_BYTES)?;
        let version = listed(&snapshot.document.meta, TARGETS_FILE)?;
        let top = read(&metadata.join(format!("{version}.targets.json")), MAX_STATED_BYTES)?;
        this.read_delegated(metadata, &snapshot.document, top)?;
        this.snapshot = Some(snapshot);
        Ok(this)
    }

    fn read_delegated(&mut self, metadata: &Path, snapshot: &Snapshot, top: Entry<Targets>) -> Result<()> {
        let mut waiting = delegated_names(&top.document, &snapshot.meta);
        self.targets.insert(Role::Targets.into(), top);
        let mut seen = BTreeSet::new();
        while let Some(delegated) = waiting.pop() {
            let role = RoleName::Delegated(delegated.clone());
            let Some(listed) = snapshot.meta.get(&format!("{delegated}.json")) else { continue };
            if !seen.insert(delegated) {
                continue;
            }
            let file = format!("{}.{}.json", listed.version, role.file_stem());
            let entry: Entry<Targets> = read(&metadata.join(file), MAX_STATED_BYTES)?;
            waiting.extend(delegated_names(&entry.document, &snapshot.meta));
            self.targets.insert(role, entry);
        }
        Ok(())
    }

    /// The highest version on the disk; 0 when there is none. It may be one that was never seen, of an interrupted
    /// publication; but someone may have fetched it.
    pub(crate) fn newest(&self, role: &RoleName) -> u64 {
        self.newest.get(&role.file_stem()).copied().unwrap_or(0)
    }

    /// The published version of a role; 0 when there is none.
    pub fn version(&self, role: &RoleName) -> u64 {
        self.sealed(role).and_then(|sealed| sealed.version().ok()).unwrap_or(0)
    }

    /// The published file of a role.
    pub fn sealed(&self, role: &RoleName) -> Option<&Sealed> {
        match role {
            RoleName::Top(Role::Root) => self.root.as_ref().map(|entry| &entry.sealed),
            RoleName::Top(Role::Timestamp) => self.timestamp.as_ref().map(|entry| &entry.sealed),
            RoleName::Top(Role::Snapshot) => self.snapshot.as_ref().map(|entry| &entry.sealed),
            RoleName::Top(Role::Targets) | RoleName::Delegated(_) => {
                self.targets.get(role).map(|entry| &entry.sealed)
            }
        }
    }

    /// That signing a role anew loses nothing.
    pub(crate) fn check_whole(&self, role: &RoleName) -> Result<()> {
        let whole = match role {
            RoleName::Top(Role::Root) => self.root.as_ref().is_none_or(|entry| entry.whole),
            RoleName::Top(Role::Timestamp) => self.timestamp.as_ref().is_none_or(|entry| entry.whole),
            RoleName::Top(Role::Snapshot) => self.snapshot.as_ref().is_none_or(|entry| entry.whole),
            RoleName::Top(Role::Targets) | RoleName::Delegated(_) => {
                self.targets.get(role).is_none_or(|entry| entry.whole)
            }
        };
        if !whole {
            bail!(
                "the {role} metadata was written by another tool, and some of its fields would be lost here; change it \
                 with that tool"
            );
        }
        Ok(())
    }
}

/// The roles that a document delegates to directly. Bins without names of their own are those that the snapshot has.
pub(crate) fn delegated_names(targets: &Targets, listed: &BTreeMap<String, MetaFile>) -> Vec<String> {
    let Some(Delegations { roles, succinct_roles, .. }) = &targets.delegations else { return Vec::new() };
    let named = roles.iter().flatten().map(|role| role.name.clone());
    let bins = succinct_roles.iter().flat_map(|bins| {
        let prefix = format!("{}-", bins.name_prefix);
        let names = listed.keys().filter_map(|file| file.strip_suffix(".json"));
        names.filter(move |name| name.starts_with(&prefix)).map(str::to_owned)
    });
    named.chain(bins).collect()
}

pub(crate) fn listed_file(role: &RoleName) -> String {
    format!("{}.json", name(role))
}

fn listed(meta: &BTreeMap<String, MetaFile>, name: &str) -> Result<u64> {
    Ok(meta.get(name).with_context(|| format!("the metadata does not list {name}"))?.version)
}

fn newest_versions(metadata: &Path) -> Result<BTreeMap<String, u64>> {
    let mut newest = BTreeMap::new();
    let entries =
        std::fs::read_dir(metadata).with_context(|| format!("cannot list {}", metadata.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        let parts = name.to_str().and_then(|name| name.strip_suffix(".json")?.split_once('.'));
        let Some((Ok(version), stem)) = parts.map(|(version, stem)| (version.parse::<u64>(), stem)) else {
            continue;
        };
        let known: &mut u64 = newest.entry(stem.to_owned()).or_insert(0);
        *known = version.max(*known);
    }
    Ok(newest)
}

fn read<D: Document + Serialize>(path: &Path, limit: u64) -> Result<Entry<D>> {
    entry(&files::read(path, limit)?)
        .with_context(|| format!("{} cannot be read as {} metadata", path.display(), D::ROLE))
}

fn entry<D: Document + Serialize>(bytes: &[u8]) -> Result<Entry<D>> {
    let sealed = Sealed::parse(bytes)?;
    let (document, whole) = sealed.document()?;
    Ok(Entry { document, sealed, whole })
}
