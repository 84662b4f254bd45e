//! A new repository: its roles, their keys and thresholds, and version 1 of everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use vigil_tuf::Role;
use vigil_tuf::document::{RoleKeys, Root};

use crate::keyring::Keyring;
use crate::passphrase::Passphrase;
use crate::public::{self, NamedKey};
use crate::repository::{Repository, SPEC_VERSION};
use crate::settings::{Lifetimes, whole_seconds};
use crate::settle::Outcome;
use crate::{keys, staged};

/// What to make.
#[derive(Clone, Debug)]
pub struct Init<'a> {
    /// The repository's directory.
    pub directory: &'a Path,
    /// Where it stages, if that is not beside it.
    pub staged: Option<PathBuf>,
    /// Where private keys are, and those that are made.
    pub keys: &'a Path,
    /// Keys of roles, as [`public::find`] takes them. A role without one gets a new key of its own name.
    pub role_keys: Vec<(Role, String)>,
    /// Thresholds that are not 1.
    pub thresholds: Vec<(Role, u32)>,
    /// Days until the root expires.
    pub root_days: u16,
    /// Of the others.
    pub lifetimes: Lifetimes,
}

/// Makes it. It is published at once if enough private keys are at hand.
pub fn init(init: Init<'_>, passphrase: &Passphrase, now: Timestamp) -> Result<(Repository, Outcome)> {
    let directory = init.directory;
    let staged_directory = match init.staged {
        Some(path) => path,
        None => staged::default_directory(directory)?,
    };
    if directory.join("metadata/1.root.json").exists() || !staged::read(&staged_directory)?.is_empty() {
        bail!("{} is a repository already; choose another directory", directory.display());
    }
    // All that can be wrong is found before the first key is made, so that a failed `init` leaves nothing half done.
    let mut given: BTreeMap<Role, Vec<NamedKey>> = BTreeMap::new();
    for (role, text) in &init.role_keys {
        given.entry(*role).or_default().push(public::find(text, Some(init.keys))?);
    }
    let mut thresholds: BTreeMap<Role, u32> = Role::ALL.map(|role| (role, 1)).into();
    thresholds.extend(init.thresholds.iter().copied());
    for (role, threshold) in &thresholds {
        let count = given.get(role).map_or(1, Vec::len);
        if *threshold == 0 || *threshold as usize > count {
            bail!(
                "{role} has {count} keys, so its threshold cannot be {threshold}; give more as --role-key {role}=KEY"
            );
        }
    }
    let to_make: Vec<_> = Role::ALL.into_iter().filter(|role| !given.contains_key(role)).collect();
    if let Some(taken) =
        to_make.iter().map(|role| keys::path(init.keys, role.name())).find(|path| path.exists())
    {
        bail!("{} exists and is not overwritten; give another directory as --keys", taken.display());
    }
    for role in to_make {
        let key = keys::create(init.keys, role.name(), passphrase)?;
        given.insert(role, vec![NamedKey::from_ed25519(role.name(), &key.verifying_key())?]);
    }

    let mut root = Root {
        kind: Role::Root.name().to_owned(),
        spec_version: SPEC_VERSION.to_owned(),
        version: 0,
        expires: now,
        consistent_snapshot: true,
        keys: BTreeMap::new(),
        roles: BTreeMap::new(),
    };
    for (role, of_role) in given {
        let mut keyids = Vec::new();
        for NamedKey { id, key } in of_role {
            if keyids.contains(&id) {
                bail!("{role} is given the same key twice: {}", public::label(&id, Some(&key)));
            }
            keyids.push(id.clone());
            root.keys.insert(id, key);
        }
        let threshold = thresholds.get(&role).copied().context("a role without a threshold")?;
        root.roles.insert(role.name().to_owned(), RoleKeys { keyids, threshold });
    }
    let mut repository = Repository::unpublished(directory, staged_directory, root, whole_seconds(now))?;
    repository.settings.days.insert(Role::Root.name().to_owned(), init.root_days);
    repository.settings.keep(init.lifetimes);
    repository.settings.write(directory)?;
    let ring = Keyring::open(init.keys, passphrase)?;
    let outcome = repository.settle(&ring, now)?;
    Ok((repository, outcome))
}
