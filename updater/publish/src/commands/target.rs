//! Targets: operators' lists, releases and any other files.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::json;
use vigil_protocol::operators::Operators;
use vigil_publish::release::Release;
use vigil_publish::repository::Repository;
use vigil_publish::{operators, prune, release};
use vigil_updater::release::{InstallPolicy, target_name};

use super::{Said, said};
use crate::cli::{AddRelease, Policy, Prune, Publish, SetOperators};

pub(super) fn set_operators(set: SetOperators, now: Timestamp) -> Result<Said> {
    let SetOperators { publish, tenant, operator, threshold, file, list_days } = set;
    let list = match file {
        Some(path) => {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Operators::parse(&bytes).with_context(|| path.display().to_string())?
        }
        None => operators::list(&tenant, &operator, &threshold, list_days, now)?,
    };
    let (mut repository, ring) = publish.open(&[&operators::target_name(&tenant)])?;
    let target = operators::put(&mut repository, &tenant, &list)?;
    let outcome = repository.settle(&ring, now)?;
    let done = format!("Published {target}: {} operators, until {}.", list.operators.len(), list.expires);
    Ok(said(&repository, &outcome, done, json!({"target": target})))
}

pub(super) fn add_release(add: AddRelease, now: Timestamp) -> Result<Said> {
    let name = target_name(&add.product, &add.version.to_string());
    let (mut repository, ring) = add.publish.open(&[&name])?;
    let release = Release {
        product: add.product,
        version: add.version,
        sequence: add.sequence,
        hardware: add.hardware,
        images: add.image,
        install: match add.install_policy {
            Policy::Operator => InstallPolicy::Operator,
            Policy::Automatic => InstallPolicy::Automatic,
        },
        allow_lower: add.allow_lower,
        level: add.level,
        format: add.format,
        chunking: None,
        patches: add.patches,
    };
    let added = release::add(&mut repository, &release)?;
    let mut text = String::new();
    for image in &added.manifest.images {
        let to_fetch = image.frames.size + image.index.size;
        let _ = writeln!(text, "{}: {} bytes, {to_fetch} to fetch", image.name, image.size);
    }
    let outcome = repository.settle(&ring, now)?;
    if added.unchanged {
        let _ = write!(text, "{} was published before, with the same content.", added.target);
    } else {
        let _ = write!(text, "Published {}.", added.target);
    }
    let value = json!({"target": added.target, "manifest": added.manifest, "unchanged": added.unchanged});
    Ok(said(&repository, &outcome, text, value))
}

pub(super) fn prune(prune: &Prune, now: Timestamp) -> Result<Said> {
    let Prune { publish, product, keep, dry_run } = prune;
    let (patches, outcome, repository) = if *dry_run {
        let place = &publish.change.place;
        let mut repository = Repository::open_to_read(&place.repo, place.staged.as_deref())?;
        (prune::patches(&mut repository, product, *keep, true)?, None, repository)
    } else {
        let (mut repository, ring) = publish.open(&[&target_name(product, "0.0.0")])?;
        let patches = prune::patches(&mut repository, product, *keep, false)?;
        let outcome = repository.settle(&ring, now)?;
        (patches, Some(outcome), repository)
    };
    // What waits for signatures is named by what is published still, and stays.
    let blobs = prune::unnamed(&repository, if *dry_run { &patches } else { &[] })?;
    let freed: u64 = blobs.iter().map(|blob| blob.bytes).sum();
    if !dry_run {
        prune::remove(&blobs)?;
    }
    let mut text = String::new();
    for patch in &patches {
        let _ = writeln!(
            text,
            "{}: {} from {:.12}, {} bytes",
            patch.target, patch.image, patch.from, patch.bytes
        );
    }
    let done = if *dry_run { "Would remove" } else { "Removed" };
    let _ = write!(text, "{done} {} patches and {} blobs of {freed} bytes.", patches.len(), blobs.len());
    let value = json!({"dry_run": dry_run, "patches": patches, "blobs": blobs, "freed_bytes": freed});
    Ok(match outcome {
        Some(outcome) => said(&repository, &outcome, text, value),
        None => (text, value),
    })
}

pub(super) fn add(publish: &Publish, target: &str, path: &Path, now: Timestamp) -> Result<Said> {
    let mut files = Vec::new();
    if path.is_dir() {
        walk(path, target.trim_end_matches('/'), &mut files)?;
        if files.is_empty() {
            bail!("there are no files in {}", path.display());
        }
    } else {
        files.push((target.to_owned(), path.to_owned()));
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    let (mut repository, ring) = publish.open(&names)?;
    let mut roles = std::collections::BTreeSet::new();
    for (name, path) in &files {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        roles.insert(repository.put_target(name, &bytes, None)?.file_stem());
    }
    let outcome = repository.settle(&ring, now)?;
    let done = match files.as_slice() {
        [(name, _)] => format!("Published {name}."),
        files => format!("Published {} targets.", files.len()),
    };
    Ok(said(&repository, &outcome, done, json!({"targets": names, "roles": roles})))
}

pub(super) fn remove(publish: &Publish, target: &str, now: Timestamp) -> Result<Said> {
    let (mut repository, ring) = publish.open(&[target])?;
    repository.remove_target(target)?;
    let outcome = repository.settle(&ring, now)?;
    Ok(said(&repository, &outcome, format!("Removed {target}."), json!({"target": target})))
}

fn walk(directory: &Path, beginning: &str, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let part = path.file_name().and_then(|name| name.to_str());
        let part = part.with_context(|| format!("{} is no name for a target", path.display()))?;
        let name = if beginning.is_empty() { part.to_owned() } else { format!("{beginning}/{part}") };
        if path.is_dir() { walk(&path, &name, files)? } else { files.push((name, path)) }
    }
    files.sort();
    Ok(())
}
