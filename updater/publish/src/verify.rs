//! Reads a repository as a device would, through the trusted set, and checks every file that it names.

use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use vigil_tuf::{Fetched, MAX_STATED_BYTES, Role, Stored, TrustedSet};
use vigil_updater::release::{INDEX_BYTES, Image, Index, Manifest, Part, blob_path};

use crate::{blobs, files};

/// What was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Root versions followed.
    pub root: u64,
    /// Targets whose file is the one that was signed.
    pub targets: usize,
    /// Blobs whose content is what their name says.
    pub blobs: usize,
    /// Their bytes.
    pub blob_bytes: u64,
}

/// Verifies a repository from its first root on.
pub fn repository(directory: &Path, now: Timestamp) -> Result<Verified> {
    let set = trusted_set(directory, now)?;
    let mut verified = Verified { root: set.root().version, ..Verified::default() };
    let mut parts = std::collections::BTreeMap::new();
    for (name, target) in set.targets() {
        let path = set.target_path(name).with_context(|| format!("the target {name} has no path"))?;
        let bytes = files::read(&directory.join("targets").join(path), target.length.min(MAX_STATED_BYTES))?;
        set.verify_target(name, &bytes)?;
        verified.targets += 1;
        if name.starts_with("releases/") {
            let manifest = Manifest::parse(&bytes).with_context(|| format!("the target {name}"))?;
            for image in &manifest.images {
                check_index(directory, image).with_context(|| format!("image {} of {name}", image.name))?;
                parts.insert(image.index.sha256.clone(), image.index.clone());
                parts.insert(image.frames.sha256.clone(), image.frames.clone());
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
