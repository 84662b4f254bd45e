//! From changed documents to a publication: versions, signatures, and the order in which files appear.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::Serialize;
use vigil_tuf::document::{self, Hashes, MetaFile, SNAPSHOT_FILE, Snapshot, Targets};
use vigil_tuf::{Role, RoleName};

use crate::keyring::Keyring;
use crate::published::{Published, listed_file};
use crate::repository::{Repository, SPEC_VERSION};
use crate::sealed::Sealed;
use crate::settings::{name, whole_seconds};
use crate::signers::Lack;
use crate::{files, staged};

/// What became of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whether it is there for readers. (What changes nothing is, too.)
    pub published: bool,
    /// What was signed: roles and versions.
    pub roles: BTreeMap<String, u64>,
    /// What the staged files lack.
    pub lacks: Vec<Lack>,
}

type Plan = BTreeMap<RoleName, Sealed>;

impl Repository {
    /// Signs what changed and what its keys' change left without enough signatures, with the keys at hand. If that is
    /// enough it is published, otherwise it is staged.
    pub fn settle(&mut self, ring: &Keyring, now: Timestamp) -> Result<Outcome> {
        let now = whole_seconds(now);
        let mut plan = Plan::new();
        self.plan_root(&mut plan, now)?;
        self.plan_targets(&mut plan, now)?;
        self.sign_all(&mut plan, ring)?;
        if self.lacks(&plan)?.is_empty() {
            self.plan_snapshot(&mut plan, now)?;
            self.sign_all(&mut plan, ring)?;
            if self.lacks(&plan)?.is_empty() {
                self.plan_timestamp(&mut plan, now)?;
                self.sign_all(&mut plan, ring)?;
            }
        }
        let lacks = self.lacks(&plan)?;
        let roles = signed_roles(&plan)?;
        if lacks.is_empty() {
            self.publish(&plan)?;
        } else {
            staged::replace(&self.staged_directory, &plan)?;
            self.staged = plan;
        }
        self.touched.clear();
        Ok(Outcome { published: lacks.is_empty(), roles, lacks })
    }

    /// Signs the timestamp anew, and nothing else.
    pub fn settle_timestamp(&mut self, ring: &Keyring, now: Timestamp) -> Result<Outcome> {
        let now = whole_seconds(now);
        // A staged root is none of its business: the published one counts.
        let published_root = self.published.root.as_ref().map(|entry| entry.document.clone());
        let published_root = published_root
            .context("nothing is published yet; collect the signatures with `vigil-publish sign`")?;
        let staged_root = std::mem::replace(&mut self.root, published_root);
        let outcome = self.timestamp_of_published_root(ring, now);
        self.root = staged_root;
        outcome
    }

    fn timestamp_of_published_root(&mut self, ring: &Keyring, now: Timestamp) -> Result<Outcome> {
        let role = RoleName::from(Role::Timestamp);
        self.check_key(ring, &role)?;
        let entry = self.published.timestamp.as_ref().context("the repository has no timestamp yet")?;
        self.published.check_whole(&role)?;
        for role in [Role::Snapshot, Role::Targets] {
            let sealed = self.published.sealed(&role.into());
            if !sealed.is_some_and(|sealed| self.is_complete_for_published_root(role, sealed)) {
                bail!("{role} is not signed by the keys of the newest root; run `vigil-publish sign` first");
            }
        }
        let timestamp = self.new_timestamp(entry.document.meta.clone(), now);
        let mut plan = Plan::from([(role, Sealed::of(&timestamp)?)]);
        self.sign_all(&mut plan, ring)?;
        let (lacks, roles) = (self.lacks(&plan)?, signed_roles(&plan)?);
        if lacks.is_empty() {
            for sealed in plan.values() {
                files::publish(&self.directory.join("metadata/timestamp.json"), &sealed.published_bytes()?)?;
            }
            self.published = Published::read(&self.directory.join("metadata"))?;
        } else {
            self.staged.extend(plan);
            staged::replace(&self.staged_directory, &self.staged)?;
        }
        Ok(Outcome { published: lacks.is_empty(), roles, lacks })
    }

    fn plan_root(&mut self, plan: &mut Plan, now: Timestamp) -> Result<()> {
        let role = RoleName::from(Role::Root);
        if self.touched.contains(&role) {
            self.root.version = self.published.version(&role) + 1;
            self.root.expires = self.settings.expiry(&role, now);
            plan.insert(role, Sealed::of(&self.root)?);
        } else if let Some(sealed) = self.staged.get(&role) {
            plan.insert(role, sealed.clone());
        }
        Ok(())
    }

    fn plan_targets(&mut self, plan: &mut Plan, now: Timestamp) -> Result<()> {
        let roles: Vec<_> = self.roles.keys().cloned().collect();
        for role in roles {
            if !self.touched.contains(&role) {
                if let Some(sealed) = self.staged.get(&role) {
                    plan.insert(role, sealed.clone());
                    continue;
                }
                let published = self.published.sealed(&role).context("neither staged nor published")?;
                if self.is_complete(&role, published)? {
                    continue;
                }
                self.published.check_whole(&role)?;
            }
            // What an interrupted publication left is skipped: no timestamp lists it, but someone may have fetched it.
            let version = self.published.newest(&role).max(self.published.version(&role)) + 1;
            let expires = self.settings.expiry(&role, now);
            if let Some(document) = self.roles.get_mut(&role) {
                *document = Targets { version, expires, ..document.clone() };
                plan.insert(role, Sealed::of(document)?);
            }
        }
        Ok(())
    }

    fn plan_snapshot(&self, plan: &mut Plan, now: Timestamp) -> Result<()> {
        let role = RoleName::from(Role::Snapshot);
        let before = self.published.snapshot.as_ref();
        // A role that nothing delegates to any more stays listed: devices take a file that vanishes for a rollback.
        let mut meta = before.map(|entry| entry.document.meta.clone()).unwrap_or_default();
        for (role, sealed) in plan.iter().filter(|(role, _)| self.roles.contains_key(role)) {
            meta.insert(listed_file(role), meta_file(sealed)?);
        }
        if let Some(entry) = before
            && entry.document.meta == meta
            && self.is_complete(&role, &entry.sealed)?
        {
            return Ok(());
        }
        self.published.check_whole(&role)?;
        if let Some(sealed) = self.staged.get(&role)
            && sealed.document::<Snapshot>()?.0.meta == meta
        {
            plan.insert(role, sealed.clone());
            return Ok(());
        }
        let snapshot = Snapshot {
            kind: Role::Snapshot.name().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version: self.published.newest(&role).max(self.published.version(&role)) + 1,
            expires: self.settings.expiry(&role, now),
            meta,
        };
        plan.insert(role, Sealed::of(&snapshot)?);
        Ok(())
    }

    fn plan_timestamp(&self, plan: &mut Plan, now: Timestamp) -> Result<()> {
        let role = RoleName::from(Role::Timestamp);
        let before = self.published.timestamp.as_ref();
        let mut meta = before.map(|entry| entry.document.meta.clone()).unwrap_or_default();
        if let Some(snapshot) = plan.get(&RoleName::from(Role::Snapshot)) {
            meta.insert(SNAPSHOT_FILE.to_owned(), meta_file(snapshot)?);
        }
        if let Some(entry) = before
            && entry.document.meta == meta
            && self.is_complete(&role, &entry.sealed)?
        {
            return Ok(());
        }
        self.published.check_whole(&role)?;
        if let Some(sealed) = self.staged.get(&role)
            && sealed.document::<document::Timestamp>()?.0.meta == meta
        {
            plan.insert(role, sealed.clone());
            return Ok(());
        }
        plan.insert(role, Sealed::of(&self.new_timestamp(meta, now))?);
        Ok(())
    }

    fn new_timestamp(&self, meta: BTreeMap<String, MetaFile>, now: Timestamp) -> document::Timestamp {
        let role = RoleName::from(Role::Timestamp);
        document::Timestamp {
            kind: Role::Timestamp.name().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version: self.published.version(&role) + 1,
            expires: self.settings.expiry(&role, now),
            issued: Some(now),
            meta,
        }
    }

    fn sign_all(&self, plan: &mut Plan, ring: &Keyring) -> Result<()> {
        plan.iter_mut().try_for_each(|(role, sealed)| self.sign_at_hand(role, sealed, ring))
    }

    fn lacks(&self, plan: &Plan) -> Result<Vec<Lack>> {
        plan.iter().filter_map(|(role, sealed)| self.lack(role, sealed).transpose()).collect()
    }

    /// Files that nothing names yet come first. Then root and timestamp: if the timestamp and all that it leads to are
    /// signed by the old root's keys as well, it goes first, so that a reader at any moment finds something whole.
    /// Otherwise (a lost key cannot sign) the root must, and a reader between the two has to ask once more.
    fn publish(&mut self, plan: &Plan) -> Result<()> {
        let metadata = self.directory.join("metadata");
        let (root, timestamp) = (RoleName::from(Role::Root), RoleName::from(Role::Timestamp));
        for (role, sealed) in plan.iter().rev().filter(|(role, _)| **role != root && **role != timestamp) {
            let file = staged::file_name(role, sealed.version()?);
            files::publish_once(&metadata.join(file), &sealed.published_bytes()?)?;
        }
        let both = [Role::Timestamp, Role::Snapshot, Role::Targets].into_iter().all(|role| {
            let sealed = plan.get(&RoleName::from(role)).or_else(|| self.published.sealed(&role.into()));
            sealed.is_some_and(|sealed| self.is_complete_for_published_root(role, sealed))
        });
        let order = if both { [timestamp, root] } else { [root, timestamp] };
        for role in order {
            let Some(sealed) = plan.get(&role) else { continue };
            let bytes = sealed.published_bytes()?;
            if role == Role::Root {
                files::publish_once(&metadata.join(staged::file_name(&role, sealed.version()?)), &bytes)?;
            } else {
                files::publish(&metadata.join("timestamp.json"), &bytes)?;
            }
        }
        staged::clear(&self.staged_directory)?;
        self.staged.clear();
        self.published = Published::read(&metadata)?;
        Ok(())
    }
}

fn signed_roles(plan: &Plan) -> Result<BTreeMap<String, u64>> {
    plan.iter().map(|(role, sealed)| Ok((name(role).to_owned(), sealed.version()?))).collect()
}

fn meta_file(sealed: &Sealed) -> Result<MetaFile> {
    let bytes = sealed.published_bytes()?;
    let length = Some(bytes.len() as u64);
    Ok(MetaFile { version: sealed.version()?, length, hashes: Some(Hashes::sha256_of(&bytes)) })
}
