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
use crate::units::ImageParts;

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
) -> Result<ImageParts> {
    let mut frames = Blob::new(repository, "frames")?;
    let mut source = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut compressor = zstd::bulk::Compressor::new(level).context("zstd does not take this level")?;
    let (mut index, mut image_hash) = (Index::flat(), Sha256::new());
    let mut raw = Vec::with_capacity(FRAME_BYTES as usize);
    loop {
        raw.clear();
        (&mut source).take(FRAME_BYTES.into()).read_to_end(&mut raw)?;
        if raw.is_empty() {
            break;
        }
        image_hash.update(&raw);
        let compressed = compressor.compress(&raw).context("zstd failed")?;
        frames.write(&compressed)?;
        index.push_flat(&raw, &compressed);
        on_bytes(raw.len() as u64);
    }
    if index.image_size() != image.size || HEXLOWER.encode(&image_hash.finalize()) != image.sha256 {
        bail!("{} changed while it was read; add the release again when its build is done", path.display());
    }
    let index_bytes = index.to_bytes();
    if index_bytes.len() as u64 > INDEX_BYTES {
        bail!("{} is too large for a release", path.display());
    }
    let frames = frames.finish(repository)?;
    let index_part =
        Part { size: index_bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(&index_bytes)) };
    files::publish_once(&repository.join(blob_path(&index_part.sha256)), &index_bytes)?;
    Ok(ImageParts { index: index_part, frames, leaves: None })
}

/// Whether a blob is there in full size. (`vigil-publish verify` also checks its hash.)
pub(crate) fn is_there(repository: &Path, part: &Part) -> bool {
    repository.join(blob_path(&part.sha256)).metadata().is_ok_and(|metadata| metadata.len() == part.size)
}

/// A blob while it is written. It is removed unless it is finished: a full disk must not stay full of our leftovers.
pub(crate) struct Blob {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Blob {
    /// `name` keeps apart what is written at the same time. One of each is enough: the repository is locked. What a killed
    /// process left is written over.
    pub(crate) fn new(repository: &Path, name: &str) -> Result<Self> {
        files::make_directory(&repository.join("blobs"))?;
        let path = repository.join(format!("blobs/.{name}.new"));
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path);
        let file = BufWriter::new(options.with_context(|| format!("cannot write {}", path.display()))?);
        Ok(Self { path, file, hash: Sha256::new(), size: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Under the name of its content.
    pub(crate) fn finish(mut self, repository: &Path) -> Result<Part> {
        let part = Part { size: self.size, sha256: HEXLOWER.encode(&self.hash.clone().finalize()) };
        let path = repository.join(blob_path(&part.sha256));
        let mut rename = || {
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            std::fs::rename(&self.path, &path)?;
            vigil_durable::sync_directory_of(&path)
        };
        rename().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(part)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
