//! Images of real content: files of this machine in a tar archive, with the two files of ours that a release needs.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// Where the release's own check lies in the image.
pub const SELF_TEST: &str = "usr/lib/vigil/self-test";
/// Where the release's version lies in the image.
const RELEASE: &str = "etc/vigil/release";
/// A file larger than this is passed over, so that an image has many.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// A check that passes.
pub const SOUND: &str = "#!/bin/sh\nexit 0\n";
/// A check that fails as a broken camera driver would make it fail.
pub const CAMERA_MISSING: &str = "#!/bin/sh\necho 'no camera: /dev/video0 is missing' >&2\nexit 1\n";

/// Writes an image of at least `bytes` bytes.
pub fn build(path: &Path, version: &str, self_test: &str, bytes: u64) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(path)?));
    append(&mut archive, SELF_TEST, self_test.as_bytes(), 0o755)?;
    append(&mut archive, RELEASE, format!("{version}\n").as_bytes(), 0o644)?;
    let mut written = 0;
    let mut directories =
        vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib"), PathBuf::from("/usr/share")];
    while written < bytes {
        let directory = directories.pop().context("this machine has too few files for an image")?;
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            let Ok(metadata) = entry.symlink_metadata() else { continue };
            if metadata.is_dir() {
                directories.insert(0, entry);
            } else if metadata.is_file() && (1..=FILE_BYTES).contains(&metadata.len()) && written < bytes {
                let Ok(content) = std::fs::read(&entry) else { continue };
                let name = entry.strip_prefix("/")?.to_owned();
                append(&mut archive, &name, &content, 0o644)?;
                written += content.len() as u64;
            }
        }
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: impl AsRef<Path>,
    content: &[u8],
    mode: u32,
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_cksum();
    archive.append_data(&mut header, name, content)?;
    Ok(())
}

/// Takes the release's own check out of the image in a slot, as mounting it would make it appear.
pub fn extract_self_test(slot: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::write(to, content(slot, SELF_TEST)?)?;
    Ok(std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
}

/// The version of the release in a slot.
pub fn version(slot: &Path) -> anyhow::Result<String> {
    Ok(String::from_utf8(content(slot, RELEASE)?)?.trim().to_owned())
}

fn content(slot: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(slot)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    anyhow::bail!("{} holds no release", slot.display())
}

/// SHA-256 of the first `length` bytes of a file.
pub fn sha256(path: &Path, length: u64) -> anyhow::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?.take(length);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..count]);
    }
}
