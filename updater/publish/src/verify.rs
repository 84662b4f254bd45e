//! Reads a repository as a device would, through the trusted set, and checks every file that it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use vigil_tuf::{
    Fetched, MAX_STATED_BYTES, Request, Role, RoleName, Search, Source, Stored, Target, TrustedSet,
};
use vigil_updater::release::{INDEX_BYTES, Image, Index, Manifest, Part, blob_path};

use crate::content::check_content;
use crate::published::{Published, delegated_names};
use crate::{blobs, files};

/// What was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Root versions followed.
    pub root: u64,
    /// Delegated roles.
    pub delegated: usize,
    /// Targets whose file is the one that was signed.
    pub targets: usize,
    /// Blobs whose content is what their name says.
    pub blobs: usize,
    /// Their bytes.
    pub blob_bytes: u64,
}

/// Verifies a repository from its first root on: every target of every role is searched for as a device would.
pub fn repository(directory: &Path, now: Timestamp) -> Result<Verified> {
    let mut set = trusted_set(directory, now)?;
    let published = Published::read(&directory.join("metadata"))?;
    let mut verified = Verified { root: set.root().version, ..Verified::default() };
    check_roles(&published, now)?;
    let mut files = Files::new(directory);
    let mut parts = BTreeMap::new();
    for (role, entry) in &published.targets {
        verified.delegated += usize::from(matches!(role, RoleName::Delegated(_)));
        for (name, target) in &entry.document.targets {
            if find(&mut set, &mut files, name, now)? != Some(target) {
                bail!(
                    "devices do not find the target {name} of {role}: a role that they ask first has another of this \
                     name, or no delegation gives it to {role}; remove it or add it again"
                );
            }
            let path = set.target_path(name).with_context(|| format!("the target {name} has no path"))?;
            let bytes =
                files::read(&directory.join("targets").join(path), target.length.min(MAX_STATED_BYTES))?;
            set.verify_target(name, &bytes)?;
            check_content(name, &bytes)?;
            verified.targets += 1;
            if name.starts_with("releases/") {
                let manifest = Manifest::parse(&bytes).with_context(|| format!("the target {name}"))?;
                for image in &manifest.images {
                    check_index(directory, image)
                        .with_context(|| format!("image {} of {name}", image.name))?;
                    parts.extend(image.parts().map(|part| (part.sha256.clone(), part.clone())));
                }
            }
        }
    }
    for part in parts.values() {
        check_blob(directory, part)?;
        verified.blobs += 1;
        verified.blob_bytes += part.size;
    }
    Ok(verified)
}

/// Every delegated role must be good, whether or not it has targets: one that is not stops the search for others'.
fn check_roles(published: &Published, now: Timestamp) -> Result<()> {
    let snapshot = published.snapshot.as_ref().context("there is no snapshot")?;
    for (parent, entry) in &published.targets {
        let Some(delegations) = &entry.document.delegations else { continue };
        for name in delegated_names(&entry.document, &snapshot.document.meta) {
            let role = RoleName::Delegated(name.clone());
            let named =
                delegations.roles.iter().flatten().find(|role| role.name == name).map(|role| &role.keys);
            let keys = named.or_else(|| delegations.succinct_roles.as_ref().map(|bins| &bins.keys));
            let file = published
                .targets
                .get(&role)
                .with_context(|| format!("{parent} delegates to {name:?}, which was never published"))?;
            if !keys.is_some_and(|keys| file.sealed.is_complete(&delegations.keys, keys)) {
                bail!(
                    "{role} is not signed by enough of the keys that {parent} names; run `vigil-publish sign`"
                );
            }
            if file.document.expires <= now {
                bail!("{role} expired at {}; run `vigil-publish renew {name}`", file.document.expires);
            }
        }
    }
    Ok(())
}

/// A repository's files, each read once.
struct Files {
    metadata: PathBuf,
    read: BTreeMap<String, Option<Vec<u8>>>,
}

impl Files {
    fn new(directory: &Path) -> Self {
        Self { metadata: directory.join("metadata"), read: BTreeMap::new() }
    }

    fn get(&mut self, request: &Request) -> Result<Fetched<'_>> {
        // Nothing is kept: a new device has no store.
        if request.source == Source::Store {
            return Ok(Fetched::Missing);
        }
        if !self.read.contains_key(&request.path) {
            let path = self.metadata.join(&request.path);
            let bytes = vigil_durable::read_bounded(&path, request.max_len)
                .with_context(|| format!("cannot read {}", path.display()))?;
            self.read.insert(request.path.clone(), bytes);
        }
        let bytes = self.read.get(&request.path).and_then(Option::as_deref);
        Ok(bytes.map_or(Fetched::Missing, Fetched::Bytes))
    }
}

/// Searches as a device does.
fn find<'a>(
    set: &'a mut TrustedSet,
    files: &mut Files,
    name: &str,
    now: Timestamp,
) -> Result<Option<&'a Target>> {
    set.begin_search(name, Search::Online)?;
    while let Some(request) = set.next_request() {
        set.feed(files.get(&request)?, now)?;
    }
    Ok(set.target(name))
}

/// What a new device, which has the first root, would trust.
pub fn trusted_set(directory: &Path, now: Timestamp) -> Result<TrustedSet> {
    let metadata = directory.join("metadata");
    let image_root = files::read(&metadata.join("1.root.json"), vigil_tuf::MAX_ROOT_BYTES)?;
    let (mut set, _) = TrustedSet::load(&image_root, Stored::default())?;
    loop {
        let before = set.version(Role::Root);
        set.begin_refresh();
        while let Some(request) = set.next_request() {
            let path = metadata.join(&request.path);
            let file = vigil_durable::read_bounded(&path, request.max_len)
                .with_context(|| format!("cannot read {}", path.display()))?;
            set.feed(file.as_deref().map_or(Fetched::Missing, Fetched::Bytes), now)?;
        }
        // One refresh follows a bounded number of roots.
        if set.version(Role::Root) == before {
            return Ok(set);
        }
    }
}

fn check_index(directory: &Path, image: &Image) -> Result<()> {
    let index = Index::parse(&files::read(&directory.join(blob_path(&image.index.sha256)), INDEX_BYTES)?)?;
    if index.image_size() != image.size || index.frames_size() != image.frames.size {
        bail!("its index is of another image");
    }
    Ok(())
}

fn check_blob(directory: &Path, part: &Part) -> Result<()> {
    let path = directory.join(blob_path(&part.sha256));
    if blobs::hash_file(&path, &|_| ())? != *part {
        bail!("{} is damaged; remove it and add the release again", path.display());
    }
    Ok(())
}
