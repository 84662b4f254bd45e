//! Files of a repository, which everyone may read.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use vigil_durable::Mode;

/// Makes a directory that everyone may read, and its parents.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    let make = || {
        std::fs::create_dir(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        vigil_durable::sync_directory_of(path)
    };
    make().with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Publishes a file whose name says its content: once there, it is never replaced by another.
pub(crate) fn publish_once(path: &Path, bytes: &[u8]) -> Result<()> {
    match std::fs::read(path) {
        Ok(there) if there == bytes => return Ok(()),
        Ok(_) => bail!(
            "{} is there with other content and is not replaced: clients may have it; move the damaged file away",
            path.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    publish(path, bytes)
}

/// Publishes a file in place of the one before.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    vigil_durable::write("publish.file", path, bytes, Mode::Public)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a file that must be there.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    vigil_durable::read_bounded(path, limit)
        .with_context(|| format!("cannot read {}", path.display()))?
        .with_context(|| format!("{} is not there", path.display()))
}
