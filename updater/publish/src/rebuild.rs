//! Puts an image together again from its blobs, as a device that has nothing would.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use vigil_updater::release::{ChunkHash, INDEX_BYTES, Image, Index, Kind, Leaf, Part, blob_path};

use crate::files;

/// A file that is removed when it is of no more use.
pub(crate) struct Rebuilt(PathBuf);

impl Rebuilt {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Rebuilt {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An image's index.
pub(crate) fn index(repository: &Path, part: &Part) -> Result<Index> {
    Ok(Index::parse(&files::read(&repository.join(blob_path(&part.sha256)), INDEX_BYTES)?)?)
}

/// An image. One at a time: the repository is locked.
pub(crate) fn image(repository: &Path, image: &Image) -> Result<Rebuilt> {
    let index = index(repository, &image.index)?;
    let path = repository.join("blobs/.image.new");
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let rebuilt = Rebuilt(path);
    file.set_len(image.size)?;
    let mut frames = open(repository, &image.frames)?;
    let mut leaves = image.leaves.as_ref().map(|leaves| open(repository, leaves)).transpose()?;
    for (number, unit) in index.units().iter().enumerate() {
        let leaf = match (&mut leaves, index.chunking()) {
            (Some(leaves), Some(chunking)) => {
                leaves.seek(SeekFrom::Start(unit.leaf_offset))?;
                let bytes = take(leaves, unit.leaf_length)?;
                ensure!(ChunkHash::of(&bytes).0 == unit.leaf_sha256, "the leaf of unit {number} is damaged");
                Leaf::parse(&bytes, unit, chunking)?
            }
            _ => index.flat_leaf(number).context("an index that does not fit its manifest")?,
        };
        let bytes = decode(&leaf, unit.offset, unit.length, unit.frames_offset, &mut frames, &file)?;
        ensure!(index.matches(number, &leaf, &bytes), "unit {number} is not what its digest says");
        file.seek(SeekFrom::Start(unit.offset))?;
        file.write_all(&bytes)?;
    }
    file.rewind()?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    if HEXLOWER.encode(&hash.finalize()) != image.sha256 {
        bail!("its image is not what its manifest says");
    }
    Ok(rebuilt)
}

fn decode(
    leaf: &Leaf,
    begin: u64,
    length: u32,
    mut offset: u64,
    frames: &mut File,
    image: &File,
) -> Result<Vec<u8>> {
    let offsets: Vec<_> = leaf.offsets().map(|offset| offset as usize).collect();
    let mut bytes = vec![0; length as usize];
    let repeat = |bytes: &mut Vec<u8>, until: usize| -> Result<()> {
        for (chunk, at) in leaf.chunks.iter().zip(&offsets).take(until) {
            let Kind::Same { begin: other, .. } = chunk.kind else { continue };
            let range = *at..*at + chunk.length as usize;
            match other.checked_sub(begin) {
                Some(inside) => {
                    bytes.copy_within(inside as usize..inside as usize + range.len(), range.start);
                }
                None => image.read_exact_at(&mut bytes[range], other)?,
            }
        }
        Ok(())
    };
    let skipped = usize::from(leaf.has_whole());
    for ((number, frame), chunks) in leaf.frames.iter().enumerate().zip(leaf.frame_chunks()) {
        // The frame that holds all is enough, if there is one.
        if number == 0 || skipped == 0 {
            frames.seek(SeekFrom::Start(offset))?;
            let compressed = take(frames, frame.compressed)?;
            ensure!(ChunkHash::of(&compressed).0 == frame.sha256, "a frame is damaged");
            repeat(&mut bytes, chunks[0])?;
            let mut context = bytes[leaf.context_of(number, offsets[chunks[0]] as u32)].to_vec();
            if let Some(before) = leaf.before_of(number) {
                context.resize(before.length as usize, 0);
                image.read_exact_at(&mut context, begin - u64::from(before.length))?;
                ensure!(
                    ChunkHash::of(&context).0[..16] == before.sha256,
                    "a frame begins with something else"
                );
            }
            let size = chunks.iter().map(|at| leaf.chunks[*at].length as usize).sum();
            let mut raw = Vec::with_capacity(size);
            let mut decoder = zstd::zstd_safe::DCtx::create();
            let name = |code| anyhow::anyhow!("zstd: {}", zstd::zstd_safe::get_error_name(code));
            decoder.ref_prefix(&context).map_err(name)?;
            decoder.decompress(&mut raw, &compressed).map_err(name)?;
            let mut rest = &raw[..];
            for at in chunks {
                let (chunk, behind) = rest
                    .split_at_checked(leaf.chunks[at].length as usize)
                    .context("a frame that is too short")?;
                bytes[offsets[at]..offsets[at] + chunk.len()].copy_from_slice(chunk);
                rest = behind;
            }
        }
        offset += u64::from(frame.compressed);
    }
    repeat(&mut bytes, leaf.chunks.len())?;
    Ok(bytes)
}

fn open(repository: &Path, part: &Part) -> Result<File> {
    let path = repository.join(blob_path(&part.sha256));
    File::open(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn take(file: &mut File, length: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
