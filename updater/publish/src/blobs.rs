//! The blobs of an image: its frames and their index, made in bounded memory.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use vigil_updater::release::{FRAME_BYTES, INDEX_BYTES, Index, Part, blob_path};

use crate::files;

/// Size and SHA-256 of a file, in one pass.
pub(crate) fn hash_file(path: &Path, on_bytes: &dyn Fn(u64)) -> Result<Part> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; FRAME_BYTES as usize];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if count == 0 {
            return Ok(Part { size, sha256: HEXLOWER.encode(&hash.finalize()) });
        }
        hash.update(&buffer[..count]);
        size += count as u64;
        on_bytes(count as u64);
    }
}

/// Cuts an image into frames, compresses each and puts frames and index into the repository. `image` is what the
/// file held when it was hashed; another content now is an error.
pub(crate) fn make(
    repository: &Path,
    path: &Path,
    image: &Part,
    level: i32,
    on_bytes: &dyn Fn(u64),
) -> Result<[Part; 2]> {
    files::make_directory(&repository.join("blobs"))?;
    // One name is enough: the repository is locked. What a killed process left is written over.
    let unfinished = Unfinished(repository.join("blobs/.frames.new"));
    let mut frames_file = BufWriter::new(
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&unfinished.0)
            .with_context(|| format!("cannot write {}", unfinished.0.display()))?,
    );
    let mut source = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut compressor = zstd::bulk::Compressor::new(level).context("zstd does not take this level")?;
    let (mut index, mut image_hash, mut frames_hash) = (Index::new(), Sha256::new(), Sha256::new());
    let mut raw = Vec::with_capacity(FRAME_BYTES as usize);
    loop {
        raw.clear();
        (&mut source).take(FRAME_BYTES.into()).read_to_end(&mut raw)?;
        if raw.is_empty() {
            break;
        }
        image_hash.update(&raw);
        let compressed = compressor.compress(&raw).context("zstd failed")?;
        frames_hash.update(&compressed);
        frames_file
            .write_all(&compressed)
            .with_context(|| format!("cannot write {}", unfinished.0.display()))?;
        index.push(&raw, &compressed);
        on_bytes(raw.len() as u64);
    }
    if index.image_size() != image.size || HEXLOWER.encode(&image_hash.finalize()) != image.sha256 {
        bail!("{} changed while it was read; add the release again when its build is done", path.display());
    }
    let index_bytes = index.to_bytes();
    if index_bytes.len() as u64 > INDEX_BYTES {
        bail!("{} is too large for a release", path.display());
    }
    let frames = Part { size: index.frames_size(), sha256: HEXLOWER.encode(&frames_hash.finalize()) };
    let file = frames_file.into_inner().context("cannot write the frames")?;
    unfinished.finish(&file, &repository.join(blob_path(&frames.sha256)))?;

    let index_part =
        Part { size: index_bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(&index_bytes)) };
    files::publish_once(&repository.join(blob_path(&index_part.sha256)), &index_bytes)?;
    Ok([index_part, frames])
}

/// Whether a blob is there in full size. (`vigil-publish verify` also checks its hash.)
pub(crate) fn is_there(repository: &Path, part: &Part) -> bool {
    repository.join(blob_path(&part.sha256)).metadata().is_ok_and(|metadata| metadata.len() == part.size)
}

/// A file that is removed unless it is finished: a full disk must not stay full of our leftovers.
struct Unfinished(PathBuf);

impl Unfinished {
    fn finish(&self, file: &File, path: &Path) -> Result<()> {
        let rename = || {
            file.sync_all()?;
            std::fs::rename(&self.0, path)?;
            vigil_durable::sync_directory_of(path)
        };
        rename().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
