//! The TUF repository as its publisher sees it: what is published, what is staged, and what the next publication
//! will say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;
use vigil_tuf::document::{Delegations, Hashes, Root, Target, Targets};
use vigil_tuf::{Role, RoleName, is_target_name, target_path};

use crate::content::check_content;
use crate::keyring::Keyring;
use crate::published::{Published, delegated_names};
use crate::sealed::Sealed;
use crate::settings::{Lifetimes, Settings};
use crate::{files, staged};

pub(crate) const SPEC_VERSION: &str = "1.0.31";

/// A repository. While one that was opened for publishing lives, no other process publishes: two would sign the same
/// version twice.
#[derive(Debug)]
pub struct Repository {
    pub(crate) directory: PathBuf,
    pub(crate) staged_directory: PathBuf,
    pub(crate) published: Published,
    pub(crate) staged: BTreeMap<RoleName, Sealed>,
    /// The root of the next publication: the staged one, or else the published one.
    pub(crate) root: Root,
    /// Targets and delegated roles of the next publication.
    pub(crate) roles: BTreeMap<RoleName, Targets>,
    /// Those that were changed since this was opened.
    pub(crate) touched: BTreeSet<RoleName>,
    pub(crate) settings: Settings,
    _lock: Option<File>,
}

impl Repository {
    /// A repository that has nothing yet but this root.
    pub(crate) fn unpublished(
        directory: &Path,
        staged_directory: PathBuf,
        root: Root,
        now: Timestamp,
    ) -> Result<Self> {
        files::make_directory(&directory.join("metadata"))?;
        files::make_directory(&directory.join("targets"))?;
        let lock = Some(lock(directory)?);
        let mut this = Self {
            directory: directory.to_owned(),
            staged_directory,
            published: Published::default(),
            staged: BTreeMap::new(),
            root,
            roles: BTreeMap::new(),
            touched: BTreeSet::new(),
            settings: Settings::default(),
            _lock: lock,
        };
        this.roles.insert(Role::Targets.into(), empty_targets(now));
        this.touched.extend([Role::Root.into(), Role::Targets.into()]);
        Ok(this)
    }

    /// Opens a repository for publishing, and waits until no other process publishes to it.
    pub fn open(directory: &Path, staged: Option<&Path>) -> Result<Self> {
        check_is_repository(directory)?;
        let lock = lock(directory)?;
        Self::read(directory, staged, Some(lock))
    }

    /// Opens a repository that may be on a read-only disk.
    pub fn open_to_read(directory: &Path, staged: Option<&Path>) -> Result<Self> {
        check_is_repository(directory)?;
        Self::read(directory, staged, None)
    }

    fn read(directory: &Path, staged: Option<&Path>, lock: Option<File>) -> Result<Self> {
        let published = Published::read(&directory.join("metadata"))?;
        let staged_directory = match staged {
            Some(path) => path.to_owned(),
            None => staged::default_directory(directory)?,
        };
        let mut staged = staged::read(&staged_directory)?;
        // What a publication that was cut off had published already.
        for (role, sealed) in std::mem::take(&mut staged) {
            let (version, before) = (sealed.version()?, published.version(&role));
            if role == Role::Root && version > before + 1 {
                bail!(
                    "the staged root is version {version}, and no device gets there from {before}; discard it"
                );
            }
            if version > before {
                staged.insert(role, sealed);
            }
        }
        let root = match (staged.get(&Role::Root.into()), &published.root) {
            (Some(sealed), _) => sealed.document::<Root>().context("the staged root")?.0,
            (None, Some(entry)) => entry.document.clone(),
            (None, None) => bail!(
                "{} has no root, neither published nor staged in {}; remove both and make it anew with `init`",
                directory.display(),
                staged_directory.display()
            ),
        };
        let mut this = Self {
            directory: directory.to_owned(),
            staged_directory,
            published,
            staged,
            root,
            roles: BTreeMap::new(),
            touched: BTreeSet::new(),
            settings: Settings::read(directory)?,
            _lock: lock,
        };
        this.read_roles()?;
        for (role, sealed) in &this.staged {
            this.check_unaltered(role, sealed)?;
        }
        Ok(this)
    }

    /// The staged document of each role or else the published one, from the top on.
    fn read_roles(&mut self) -> Result<()> {
        let listed =
            self.published.snapshot.as_ref().map(|entry| entry.document.meta.clone()).unwrap_or_default();
        let mut waiting = vec![RoleName::from(Role::Targets)];
        while let Some(role) = waiting.pop() {
            if self.roles.contains_key(&role) {
                continue;
            }
            let document = match (self.staged.get(&role), self.published.targets.get(&role)) {
                (Some(sealed), _) => {
                    let (document, _) =
                        sealed.document::<Targets>().with_context(|| format!("the staged {role}"))?;
                    document
                }
                (None, Some(entry)) => entry.document.clone(),
                (None, None) if role == Role::Targets => bail!(
                    "{} has no targets: `init` was interrupted; remove it and its keys, and make it anew",
                    self.directory.display()
                ),
                // Another tool's delegation whose role was never published.
                (None, None) => continue,
            };
            waiting.extend(delegated_names(&document, &listed).into_iter().map(RoleName::Delegated));
            self.roles.insert(role, document);
        }
        // The file of a role that nothing delegates to is of a staging that was cut off.
        let roles = &self.roles;
        self.staged.retain(|role, _| matches!(role, RoleName::Top(_)) || roles.contains_key(role));
        Ok(())
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its staged files are.
    pub fn staged_directory(&self) -> &Path {
        &self.staged_directory
    }

    /// What readers see.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// What waits for signatures.
    pub fn staged(&self) -> &BTreeMap<RoleName, Sealed> {
        &self.staged
    }

    /// The root of the next publication.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Top-level targets and delegated roles of the next publication.
    pub fn roles(&self) -> &BTreeMap<RoleName, Targets> {
        &self.roles
    }

    /// Every target of the next publication and its role.
    pub fn targets(&self) -> impl Iterator<Item = (&RoleName, &String, &Target)> {
        self.roles.iter().flat_map(|(role, document)| {
            document.targets.iter().map(move |(name, target)| (role, name, target))
        })
    }

    /// Days for this run alone.
    pub fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.settings.once(lifetimes);
    }

    /// Reads the file of a target.
    pub fn read_target(&self, name: &str) -> Result<Vec<u8>> {
        let found = self.targets().find(|(_, other, _)| *other == name);
        let (_, _, target) = found.with_context(|| format!("there is no target {name}"))?;
        self.read_file_of(name, target)
    }

    /// Reads the file of a target as it is described.
    pub fn read_file_of(&self, name: &str, target: &Target) -> Result<Vec<u8>> {
        let path =
            target_path(name, target, true).with_context(|| format!("the target {name} has no path"))?;
        let bytes = files::read(&self.directory.join("targets").join(path), target.length)?;
        if bytes.len() as u64 != target.length || !target.hashes.matches(&bytes) {
            bail!("the file of the target {name} is not the one that was signed; restore it from a backup");
        }
        Ok(bytes)
    }

    /// The role that signs a target of this name: the first that the delegations give it to, or else the top-level
    /// targets.
    pub fn responsible(&self, name: &str) -> RoleName {
        let top = self.roles.get(&Role::Targets.into());
        let delegations = top.and_then(|targets| targets.delegations.as_ref());
        let first = delegations.and_then(|delegations| delegations.delegates(name).into_iter().next());
        first.map_or_else(|| Role::Targets.into(), |delegate| RoleName::Delegated(delegate.name))
    }

    /// Puts a target's file in place and into the role that is responsible for it. Clients see it once that is
    /// published.
    pub fn put_target(&mut self, name: &str, bytes: &[u8], custom: Option<Value>) -> Result<RoleName> {
        if !is_target_name(name) {
            bail!("{name:?} is no name for a target");
        }
        check_content(name, bytes)?;
        let role = self.responsible(name);
        self.role_to_change(&role)?;
        let target = Target { length: bytes.len() as u64, hashes: Hashes::sha256_of(bytes), custom };
        let path = target_path(name, &target, true).context("a target without a hash")?;
        files::publish_once(&self.directory.join("targets").join(path), bytes)?;
        // Top-level targets are asked first: what they still list would hide the new one.
        if role != Role::Targets
            && self.roles.get(&Role::Targets.into()).is_some_and(|top| top.targets.contains_key(name))
        {
            self.role_to_change(&Role::Targets.into())?.targets.remove(name);
        }
        self.role_to_change(&role)?.targets.insert(name.to_owned(), target);
        Ok(role)
    }

    /// Takes a target out of every role that lists it.
    pub fn remove_target(&mut self, name: &str) -> Result<()> {
        let holders: Vec<_> =
            self.targets().filter(|(_, other, _)| *other == name).map(|(role, _, _)| role.clone()).collect();
        if holders.is_empty() {
            bail!("there is no target {name}; `vigil-publish show` lists them");
        }
        for role in holders {
            self.role_to_change(&role)?.targets.remove(name);
        }
        Ok(())
    }

    /// Forgets what is staged; how many files it was.
    pub fn discard(&mut self) -> Result<usize> {
        self.staged.clear();
        staged::clear(&self.staged_directory)
    }

    /// A role's document, to be signed anew.
    pub(crate) fn role_to_change(&mut self, role: &RoleName) -> Result<&mut Targets> {
        self.published.check_whole(role)?;
        let document =
            self.roles.get_mut(role).with_context(|| format!("the {role} metadata was never published"))?;
        self.touched.insert(role.clone());
        Ok(document)
    }

    /// The delegations of the top-level targets, to be changed.
    pub(crate) fn delegations_to_change(&mut self) -> Result<&mut Delegations> {
        let none = Delegations { keys: BTreeMap::new(), roles: Some(Vec::new()), succinct_roles: None };
        let delegations = self.role_to_change(&Role::Targets.into())?.delegations.get_or_insert(none);
        if delegations.roles.is_none() {
            bail!(
                "the top-level targets delegate to bins without names (TAP 15), which vigil-publish does not change"
            );
        }
        Ok(delegations)
    }

    /// The root, to be signed anew.
    pub(crate) fn root_to_change(&mut self) -> Result<&mut Root> {
        self.published.check_whole(&Role::Root.into())?;
        self.touched.insert(Role::Root.into());
        Ok(&mut self.root)
    }

    /// That of each role that a new target of this name changes, some key is at hand: to be asked before hours of
    /// compression.
    pub fn check_keys(&self, ring: &Keyring, target: &str) -> Result<()> {
        for role in [self.responsible(target), Role::Snapshot.into(), Role::Timestamp.into()] {
            self.check_key(ring, &role)?;
        }
        Ok(())
    }

    /// That some key of a role is at hand.
    pub(crate) fn check_key(&self, ring: &Keyring, role: &RoleName) -> Result<()> {
        let signers = self.signers(role)?;
        let signers = signers.first().context("nobody signs for it")?;
        ring.check_any(crate::settings::name(role), signers.keys, signers.role)
    }
}

/// Version 0 is never published: signing makes it 1.
pub(crate) fn empty_targets(now: Timestamp) -> Targets {
    Targets {
        kind: Role::Targets.name().to_owned(),
        spec_version: SPEC_VERSION.to_owned(),
        version: 0,
        expires: now,
        targets: BTreeMap::new(),
        delegations: None,
    }
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
