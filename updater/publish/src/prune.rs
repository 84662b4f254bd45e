//! Takes out of a product's manifests the patches that start from releases no longer in the field, and removes blobs that no
//! manifest names.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Serialize;
use vigil_tuf::document::Targets;
use vigil_updater::release::Manifest;

use crate::release::manifests;
use crate::repository::Repository;

/// A patch that is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The target of the release that names it.
    pub target: String,
    /// The image.
    pub image: String,
    /// SHA-256 of the image it starts from.
    pub from: String,
    /// Bytes of its index and frames.
    pub bytes: u64,
}

/// A blob that no manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unnamed {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// Patches of the product's releases that start from an image which none of its `keep` newest releases has. They leave the
/// manifests when what comes of this is signed; nothing is changed where `dry_run`.
pub fn patches(
    repository: &mut Repository,
    product: &str,
    keep: usize,
    dry_run: bool,
) -> Result<Vec<Pruned>> {
    let mut releases = manifests(repository)?;
    releases.retain(|(_, manifest)| manifest.product == product);
    anyhow::ensure!(!releases.is_empty(), "there is no release of {product}");
    releases.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifest.sequence));
    let images = releases.iter().take(keep).flat_map(|(_, manifest)| &manifest.images);
    let kept: BTreeSet<String> = images.map(|image| image.sha256.clone()).collect();
    let mut pruned = Vec::new();
    for (target, manifest) in releases {
        let before = pruned.len();
        let mut manifest = manifest;
        for image in &mut manifest.images {
            let name = image.name.clone();
            image.patches.retain(|patch| {
                let stays = kept.contains(&patch.from);
                if !stays {
                    let bytes = patch.index.size + patch.frames.size;
                    let (target, image, from) = (target.clone(), name.clone(), patch.from.clone());
                    pruned.push(Pruned { target, image, from, bytes });
                }
                stays
            });
        }
        if pruned.len() > before && !dry_run {
            repository.put_target(&target, &serde_json::to_vec_pretty(&manifest)?, None)?;
        }
    }
    Ok(pruned)
}

/// Blobs that no manifest names: neither one that readers see nor one that waits for signatures. `without` are patches that
/// are held to have left the manifests already.
pub fn unnamed(repository: &Repository, without: &[Pruned]) -> Result<Vec<Unnamed>> {
    let named = named(repository, without)?;
    let directory = repository.directory().join("blobs");
    let mut unnamed = Vec::new();
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(unnamed),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
    };
    for entry in entries {
        let entry = entry?;
        // What is no blob by its name is somebody else's.
        let name = entry.file_name().into_string().unwrap_or_default();
        let is_blob = name.len() == 64 && HEXLOWER_PERMISSIVE.decode(name.as_bytes()).is_ok();
        if is_blob && entry.file_type()?.is_file() && !named.contains(&name) {
            unnamed.push(Unnamed { path: entry.path(), bytes: entry.metadata()?.len() });
        }
    }
    unnamed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(unnamed)
}

/// Removes them.
pub fn remove(blobs: &[Unnamed]) -> Result<()> {
    for blob in blobs {
        std::fs::remove_file(&blob.path).with_context(|| format!("cannot remove {}", blob.path.display()))?;
    }
    Ok(())
}

/// SHA-256 of all that a manifest names. One that cannot be read keeps everything: it is an error.
fn named(repository: &Repository, without: &[Pruned]) -> Result<BTreeSet<String>> {
    let published = repository.published().targets.values().map(|entry| &entry.document);
    let documents: Vec<&Targets> = published.chain(repository.roles().values()).collect();
    let mut named = BTreeSet::new();
    for (name, target) in documents.into_iter().flat_map(|document| &document.targets) {
        if !name.starts_with("releases/") {
            continue;
        }
        let manifest = Manifest::parse(&repository.read_file_of(name, target)?)
            .with_context(|| format!("the target {name}"))?;
        for image in &manifest.images {
            let mut image = image.clone();
            image.patches.retain(|patch| {
                let is_out = |pruned: &Pruned| {
                    pruned.target == *name && pruned.image == image.name && pruned.from == patch.from
                };
                !without.iter().any(is_out)
            });
            named.extend(image.parts().map(|part| part.sha256.clone()));
        }
    }
    Ok(named)
}
