//! The staging directory: metadata that waits for signatures, beside the repository and not served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vigil_durable::Mode;
use vigil_tuf::{MAX_STATED_BYTES, Role, RoleName};

use crate::files;
use crate::sealed::Sealed;

/// Where the staged files of a repository are, unless it is said.
pub(crate) fn default_directory(repository: &Path) -> Result<PathBuf> {
    let path =
        std::path::absolute(repository).with_context(|| format!("there is no {}", repository.display()))?;
    let mut name = path.file_name().with_context(|| format!("{} has no name", path.display()))?.to_owned();
    name.push(".staged");
    Ok(path.with_file_name(name))
}

/// The name of a staged file.
pub(crate) fn file_name(role: &RoleName, version: u64) -> String {
    format!("{version}.{}.json", role.file_stem())
}

/// Whose file that is, by its name.
pub fn role_of(path: &Path) -> Option<RoleName> {
    let (version, stem) = path.file_name()?.to_str()?.strip_suffix(".json")?.split_once('.')?;
    version.parse::<u64>().ok()?;
    let name = percent_encoding::percent_decode_str(stem).decode_utf8().ok()?.into_owned();
    let top = Role::ALL.into_iter().find(|role| role.name() == name);
    Some(top.map_or_else(|| RoleName::Delegated(name), RoleName::Top))
}

/// Reads what is staged.
pub(crate) fn read(directory: &Path) -> Result<BTreeMap<RoleName, Sealed>> {
    let mut staged: BTreeMap<RoleName, Sealed> = BTreeMap::new();
    for (role, path) in paths(directory)? {
        let sealed = read_file(&path)?;
        let version = sealed.version()?;
        // Two are there if a power cut kept the older from being removed.
        let newer = staged.get(&role).map(Sealed::version).transpose()?.is_none_or(|other| other < version);
        if newer {
            staged.insert(role, sealed);
        }
    }
    Ok(staged)
}

/// Reads one staged file.
pub(crate) fn read_file(path: &Path) -> Result<Sealed> {
    Sealed::parse(&files::read(path, MAX_STATED_BYTES)?)
        .with_context(|| format!("{} is no metadata", path.display()))
}

/// Writes one staged file.
pub(crate) fn write_file(path: &Path, sealed: &Sealed) -> Result<()> {
    vigil_durable::write("publish.stage", path, &sealed.staged_bytes()?, Mode::Public)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Stages this and nothing else. What is delegated to comes before what delegates to it, so that a staged delegation
/// always finds its role, wherever a power cut falls.
pub(crate) fn replace(directory: &Path, staged: &BTreeMap<RoleName, Sealed>) -> Result<()> {
    files::make_directory(directory)?;
    let mut names = Vec::new();
    for (role, sealed) in staged.iter().rev() {
        let name = file_name(role, sealed.version()?);
        let path = directory.join(&name);
        if vigil_durable::read_bounded(&path, MAX_STATED_BYTES)?.as_deref() != Some(&sealed.staged_bytes()?) {
            write_file(&path, sealed)?;
        }
        names.push(path);
    }
    for (_, path) in paths(directory)? {
        if !names.contains(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes all that is staged; how many files it was.
pub(crate) fn clear(directory: &Path) -> Result<usize> {
    let paths = paths(directory)?;
    // What delegates goes before what it delegates to: see `replace`.
    for (_, path) in &paths {
        remove(path)?;
    }
    if directory.is_dir() {
        // Something else may lie in it; then it stays.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(paths.len())
}

fn remove(path: &Path) -> Result<()> {
    vigil_durable::remove("publish.unstage", path)
        .with_context(|| format!("cannot remove {}", path.display()))
}

/// Staged files, those of the top-level roles first.
fn paths(directory: &Path) -> Result<Vec<(RoleName, PathBuf)>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(role) = role_of(&path) {
            paths.push((role, path));
        }
    }
    paths.sort();
    Ok(paths)
}
