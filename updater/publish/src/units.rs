//! The blobs of an image of format 2: index, leaves and frames. And patches, made with ranges of an image of before.

mod packed;
mod patches;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use vigil_updater::release::{
    BEFORE_BYTES, Before, Chunk, ChunkHash, Chunking, Frame, INDEX_BYTES, Index, Kind, LEAF_BYTES, Leaf,
    Part, blob_path,
};
use vigil_updater::slot::{CutUnit, Cutter};

use crate::blobs::Blob;
use crate::files;

pub(crate) use patches::make as make_patch;

/// An image whose blocks zstd makes so little smaller is compressed already: its files begin anywhere.
const COMPRESSED_ALREADY: f64 = 0.9;
const SAMPLE_BYTES: u64 = 1 << 20;
const SAMPLES: u64 = 16;
/// Where files begin at blocks, a block that ends with so many zeros is often the last one of its file.
const FILE_END_ZEROS: usize = 8;

/// How chunks are put together into frames. Small ones bring little that is not needed; their context makes up for most of
/// what they compress worse.
#[derive(Clone, Copy, Debug)]
struct Framing {
    /// A frame that has so many bytes ends where a file may end.
    enough: usize,
    /// A frame has so many bytes at most.
    most: usize,
    /// Bytes before it that it is compressed with.
    context: u32,
    /// Whether there is one frame more that holds all, compressed with what is before the unit.
    whole: bool,
}

fn framing(chunking: Chunking) -> Framing {
    match chunking {
        Chunking::Aligned(_) => Framing { enough: 16 << 10, most: 64 << 10, context: 256 << 10, whole: true },
        // What is compressed already does not compress better together.
        Chunking::Content(_) => Framing { enough: 0, most: 32 << 10, context: 0, whole: false },
    }
}

/// The three blobs.
#[derive(Clone, Debug)]
pub(crate) struct ImageParts {
    pub(crate) index: Part,
    pub(crate) frames: Part,
    pub(crate) leaves: Option<Part>,
}

/// How an image is best cut: by its content when it is compressed already, in blocks otherwise; in larger ones when there
/// would be more than a device takes.
pub(crate) fn chunking(path: &Path, size: u64) -> Result<Chunking> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut raw, mut compressed) = (0, 0);
    for sample in 0..SAMPLES {
        let mut bytes = Vec::new();
        let mut reader = &file;
        std::io::Seek::seek(&mut reader, std::io::SeekFrom::Start(size / SAMPLES * sample))?;
        reader.take(SAMPLE_BYTES).read_to_end(&mut bytes)?;
        raw += bytes.len();
        compressed += zstd::bulk::compress(&bytes, 3)?.len();
    }
    let mut mean = 4096;
    while size / u64::from(mean) >= u64::from(vigil_updater::release::CHUNKS) / 2 {
        mean *= 2;
    }
    let chunking = if compressed as f64 > raw as f64 * COMPRESSED_ALREADY {
        Chunking::Content(mean)
    } else {
        Chunking::Aligned(mean)
    };
    chunking.checked().with_context(|| format!("{} is too large for a release", path.display()))
}

/// A unit with its bytes.
struct Raw {
    cut: CutUnit,
    bytes: Vec<u8>,
    /// The bytes of the image before it that its leaf tells of.
    before: Vec<u8>,
    leaf: Leaf,
    /// The chunks of each frame, by position.
    frames: Vec<Vec<usize>>,
    offsets: Vec<u32>,
}

impl Raw {
    /// The chunks with these positions, put together.
    fn gather(&self, positions: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for at in positions {
            let begin = self.offsets[*at] as usize;
            bytes.extend_from_slice(&self.bytes[begin..begin + self.leaf.chunks[*at].length as usize]);
        }
        bytes
    }

    /// What the frame of these chunks is compressed with.
    fn context(&self, chunks: &[usize]) -> &[u8] {
        if self.frames.len() > 1 && chunks.len() == self.frames[0].len() {
            return &self.before;
        }
        let begin = self.offsets[chunks[0]];
        &self.bytes[begin.saturating_sub(self.leaf.context) as usize..begin as usize]
    }
}

/// Cuts an image into units and finds what repeats.
struct Units<R> {
    cutter: Cutter<R>,
    chunking: Chunking,
    /// Where each chunk of the image so far lies first.
    seen: HashMap<[u8; 32], u64>,
    offset: u64,
    /// The last bytes of the image so far.
    tail: Vec<u8>,
}

impl<R: Read> Units<R> {
    fn new(reader: R, chunking: Chunking) -> Self {
        Self {
            cutter: Cutter::new(reader, chunking),
            chunking,
            seen: HashMap::new(),
            offset: 0,
            tail: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<Option<Raw>> {
        let mut bytes = Vec::new();
        let Some(cut) = self.cutter.next_unit(Some(&mut bytes))? else { return Ok(None) };
        let mut chunks = Vec::with_capacity(cut.chunks.len());
        for (length, hash, is_zero) in &cut.chunks {
            let begin = self.offset;
            self.offset += u64::from(*length);
            let kind = if *is_zero {
                Kind::Zero
            } else {
                match self.seen.get(&hash.0) {
                    Some(other) => Kind::Same { hash: hash.short(), begin: *other },
                    None => {
                        self.seen.insert(hash.0, begin);
                        Kind::Data(hash.short())
                    }
                }
            };
            chunks.push(Chunk { length: *length, kind });
        }
        let framing = framing(self.chunking);
        let mut leaf = Leaf { context: framing.context, before: None, frames: Vec::new(), chunks };
        let mut frames = group(&leaf, &bytes, framing);
        let mut before = Vec::new();
        if framing.whole && frames.len() > 1 {
            frames.insert(0, frames.concat());
            before.clone_from(&self.tail);
            leaf.before = before_of(&before);
        }
        self.tail.extend_from_slice(&bytes);
        self.tail.drain(..self.tail.len().saturating_sub(BEFORE_BYTES as usize));
        let offsets = leaf.offsets().collect();
        Ok(Some(Raw { cut, bytes, before, leaf, frames, offsets }))
    }
}

fn before_of(bytes: &[u8]) -> Option<Before> {
    let mut sha256 = [0; 16];
    sha256.copy_from_slice(&ChunkHash::of(bytes).0[..16]);
    (!bytes.is_empty()).then_some(Before { length: bytes.len() as u32, sha256 })
}

/// Puts the chunks of data together into frames.
fn group(leaf: &Leaf, bytes: &[u8], framing: Framing) -> Vec<Vec<usize>> {
    let mut frames: Vec<Vec<usize>> = Vec::new();
    let mut length = usize::MAX;
    let mut may_end = true;
    for ((at, chunk), offset) in leaf.chunks.iter().enumerate().zip(leaf.offsets()) {
        if !matches!(chunk.kind, Kind::Data(_)) {
            may_end = true;
            continue;
        }
        let chunk_length = chunk.length as usize;
        let ends =
            length.saturating_add(chunk_length) > framing.most || may_end && length >= framing.enough.max(1);
        match frames
            .last_mut()
            .filter(|_| !ends || framing.enough == 0 && length + chunk_length <= framing.most)
        {
            Some(frame) => {
                frame.push(at);
                length += chunk_length;
            }
            None => {
                frames.push(vec![at]);
                length = chunk_length;
            }
        }
        may_end = bytes[offset as usize..][..chunk_length].ends_with(&[0; FILE_END_ZEROS]);
    }
    frames
}

/// Does `work` for each of `items` on all processors, in batches; hands the results on in order.
fn in_parallel<T: Sync, U: Send>(items: &[T], work: impl Fn(&T) -> Result<U> + Sync) -> Result<Vec<U>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<U>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((number, item)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    items.get(number).map(|item| (number, item))
                } {
                    let result = work(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn batch_size() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Cuts an image and puts index, leaves and frames into the repository. `image` is what the file held when it was hashed;
/// another content now is an error.
pub(crate) fn make(
    repository: &Path,
    path: &Path,
    image: &Part,
    chunking: Chunking,
    level: i32,
    on_bytes: &dyn Fn(u64),
) -> Result<ImageParts> {
    let mut frames_blob = Blob::new(repository, "frames")?;
    let mut leaves_blob = Blob::new(repository, "leaves")?;
    let source = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut units = Units::new(source, chunking);
    let mut index = Index::new(chunking);
    loop {
        let mut batch = Vec::new();
        while batch.len() < batch_size() {
            let Some(raw) = units.next()? else { break };
            batch.push(raw);
        }
        if batch.is_empty() {
            break;
        }
        let compressed = in_parallel(&batch, |raw| {
            let frames =
                raw.frames.iter().map(|chunks| compress(&raw.gather(chunks), raw.context(chunks), level));
            frames.collect::<Result<Vec<_>>>()
        })?;
        for (raw, frames) in batch.iter().zip(compressed) {
            let mut leaf = raw.leaf.clone();
            for (chunks, frame) in raw.frames.iter().zip(&frames) {
                leaf.frames.push(Frame {
                    compressed: frame.len() as u32,
                    sha256: ChunkHash::of(frame).0,
                    chunks: chunks.len() as u32,
                });
                frames_blob.write(frame)?;
            }
            let bytes = leaf.to_bytes(chunking);
            if bytes.len() > LEAF_BYTES as usize {
                bail!("a unit of {} has too many chunks for a device", path.display());
            }
            leaves_blob.write(&bytes)?;
            index.push(&leaf, &bytes, raw.cut.digest());
            on_bytes(raw.bytes.len() as u64);
        }
    }
    if index.image_size() != image.size || HEXLOWER.encode(&units.cutter.image_sha256()) != image.sha256 {
        bail!("{} changed while it was read; add the release again when its build is done", path.display());
    }
    let bytes = index.to_bytes();
    if bytes.len() as u64 > INDEX_BYTES {
        bail!("{} is too large for a release", path.display());
    }
    Index::parse(&bytes).context("devices would refuse this index")?;
    let index = Part { size: bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(&bytes)) };
    let (frames, leaves) = (frames_blob.finish(repository)?, leaves_blob.finish(repository)?);
    files::publish_once(&repository.join(blob_path(&index.sha256)), &bytes)?;
    Ok(ImageParts { index, frames, leaves: Some(leaves) })
}

/// One frame, with `prefix` before it that the decoder will have as well.
fn compress(raw: &[u8], prefix: &[u8], level: i32) -> Result<Vec<u8>> {
    use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};
    let name = |code| anyhow::anyhow!("zstd failed: {}", get_error_name(code));
    let mut context = CCtx::create();
    let window = (raw.len() + prefix.len()).next_power_of_two().ilog2().clamp(10, 27);
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(name)?;
    context.set_parameter(CParameter::WindowLog(window)).map_err(name)?;
    context.set_parameter(CParameter::ChecksumFlag(false)).map_err(name)?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(name)?;
    }
    let mut frame = Vec::with_capacity(compress_bound(raw.len()));
    context.compress2(&mut frame, raw).map_err(name)?;
    Ok(frame)
}
