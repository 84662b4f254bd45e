//! Patches: for each unit of the new image a frame that is decoded with ranges of an old one as its prefix. Which ranges,
//! is found by what they have in common with the unit, wherever that lies: files may move and code shifts within them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use vigil_updater::release::patch::to_bytes;
use vigil_updater::release::{
    Chunking, Kind, PATCH_INDEX_BYTES, PREFIX_BYTES, Part, Patch, PatchParts, blob_path,
};
use vigil_updater::slot::Cutter;

use super::{Raw, Units, batch_size, compress, in_parallel};
use crate::blobs::Blob;
use crate::files;

/// Bytes that are compared: as long as a few machine instructions.
const SHINGLE_BYTES: usize = 24;
/// One shingle of so many is remembered, chosen by its content.
const SAMPLING: u64 = 64;
/// A shingle that is at more places says nothing.
const PLACES: usize = 16;
/// The old image is taken in pieces of this size.
const PIECE_BYTES: u64 = 16 * 1024;
/// A piece that has fewer shingles in common is not worth its place in a device's memory.
const SHINGLES_MIN: u32 = 3;
/// Bytes of the old image that a frame is made with, at most: less than a device allows, so that its memory stays below 32 MB with
/// the maps of large slots.
const PREFIX_MOST: u64 = 6 << 20;
const _: () = assert!(PREFIX_MOST <= PREFIX_BYTES as u64);
const RANGES: usize = 512;

/// Shingles of an old image, by their hash: the pieces they are in.
struct Similar {
    pieces: HashMap<u32, Vec<u32>>,
}

/// The sampled shingles of `bytes`, as (hash, end).
fn shingles(bytes: &[u8]) -> impl Iterator<Item = (u32, usize)> + '_ {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    // The power of the factor with which a byte leaves the window.
    let leaving = (0..SHINGLE_BYTES).fold(1_u64, |power, _| power.wrapping_mul(FACTOR));
    let mut hash = 0_u64;
    (0..bytes.len()).filter_map(move |at| {
        hash = hash.wrapping_mul(FACTOR).wrapping_add(u64::from(bytes[at]) + 1);
        if let Some(gone) = at.checked_sub(SHINGLE_BYTES) {
            hash = hash.wrapping_sub((u64::from(bytes[gone]) + 1).wrapping_mul(leaving));
        }
        let mixed = (hash ^ hash >> 29).wrapping_mul(FACTOR);
        let is_sampled = at + 1 >= SHINGLE_BYTES && (mixed >> 32).is_multiple_of(SAMPLING);
        is_sampled.then_some((mixed as u32, at))
    })
}

impl Similar {
    fn of(old: &[u8]) -> Self {
        let mut pieces: HashMap<u32, Vec<u32>> = HashMap::new();
        for (hash, end) in shingles(old) {
            let piece = (end as u64 / PIECE_BYTES) as u32;
            let places = pieces.entry(hash).or_default();
            if places.len() <= PLACES && places.last() != Some(&piece) {
                places.push(piece);
            }
        }
        pieces.retain(|_, places| places.len() <= PLACES);
        Self { pieces }
    }

    /// The pieces that have most in common with `bytes`, each shingle counted once, as many as a device can hold.
    fn pieces_for(&self, bytes: &[u8]) -> BTreeSet<u32> {
        let mut of_piece: HashMap<u32, Vec<u32>> = HashMap::new();
        for hash in shingles(bytes).map(|(hash, _)| hash).collect::<HashSet<_>>() {
            for piece in self.pieces.get(&hash).into_iter().flatten() {
                of_piece.entry(*piece).or_default().push(hash);
            }
        }
        let mut covered = HashSet::new();
        let mut chosen = BTreeSet::new();
        // A piece's count only falls while others are chosen: it is counted anew when its turn comes.
        let mut heap: BinaryHeap<_> =
            of_piece.iter().map(|(piece, hashes)| (hashes.len() as u32, Reverse(*piece))).collect();
        while let Some((count, Reverse(piece))) = heap.pop() {
            if count < SHINGLES_MIN || chosen.len() as u64 == PREFIX_MOST / PIECE_BYTES {
                break;
            }
            let hashes = &of_piece[&piece];
            let now = hashes.iter().filter(|hash| !covered.contains(*hash)).count() as u32;
            if now < count {
                heap.push((now, Reverse(piece)));
                continue;
            }
            covered.extend(hashes.iter().copied());
            chosen.insert(piece);
        }
        chosen
    }
}

/// Pieces as ranges of the old image; some of what has least in common is left out when they are too many.
fn ranges(pieces: &BTreeSet<u32>, old_size: u64) -> Vec<(u64, u32)> {
    let mut ranges: Vec<(u64, u32)> = Vec::new();
    for piece in pieces {
        let begin = u64::from(*piece) * PIECE_BYTES;
        let length = PIECE_BYTES.min(old_size - begin) as u32;
        match ranges.last_mut().filter(|last| last.0 + u64::from(last.1) == begin) {
            Some(last) => last.1 += length,
            None => ranges.push((begin, length)),
        }
    }
    while ranges.len() > RANGES {
        let shortest = ranges.iter().enumerate().min_by_key(|(_, range)| range.1).map_or(0, |(at, _)| at);
        ranges.remove(shortest);
    }
    ranges
}

/// Makes the patch that brings a device from the image in `old` to the one in `new`, which is cut as `chunking` says.
/// None when there is nothing to gain.
pub(crate) fn make(
    repository: &Path,
    old: &Path,
    new: &Path,
    chunking: Chunking,
    level: i32,
    on_bytes: &dyn Fn(u64),
) -> Result<Option<PatchParts>> {
    let old_bytes = std::fs::read(old).with_context(|| format!("cannot read {}", old.display()))?;
    let mut chunks = HashSet::new();
    let mut cutter = Cutter::new(&old_bytes[..], chunking);
    while let Some(unit) = cutter.next_unit(None)? {
        chunks.extend(unit.chunks.iter().map(|chunk| chunk.1.0));
    }
    let similar = Similar::of(&old_bytes);
    let source = File::open(new).with_context(|| format!("cannot read {}", new.display()))?;
    let mut units = Units::new(source, chunking);
    let mut blob = Blob::new(repository, "patch")?;
    let (mut patches, mut number) = (Vec::new(), 0);
    loop {
        let mut batch = Vec::new();
        while batch.len() < batch_size() {
            let Some(raw) = units.next()? else { break };
            batch.push((number, raw));
            number += 1;
        }
        if batch.is_empty() {
            break;
        }
        let made =
            in_parallel(&batch, |(number, raw)| frame(*number, raw, &chunks, &similar, &old_bytes, level))?;
        for (patch, frame) in made.into_iter().flatten() {
            blob.write(&frame)?;
            patches.push(patch);
        }
        on_bytes(batch.iter().map(|(_, raw)| raw.bytes.len() as u64).sum());
    }
    let bytes = to_bytes(&patches);
    if patches.is_empty() || bytes.len() as u64 > PATCH_INDEX_BYTES {
        return Ok(None);
    }
    let frames = blob.finish(repository)?;
    let index = Part { size: bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(&bytes)) };
    files::publish_once(&repository.join(blob_path(&index.sha256)), &bytes)?;
    Ok(Some(PatchParts {
        from: HEXLOWER.encode(&Sha256::digest(&old_bytes)),
        from_size: old_bytes.len() as u64,
        index,
        frames,
    }))
}

/// The patch frame of a unit; none when a device with the old image lacks nothing of it.
fn frame(
    number: u32,
    raw: &Raw,
    old_chunks: &HashSet<[u8; 32]>,
    similar: &Similar,
    old: &[u8],
    level: i32,
) -> Result<Option<(Patch, Vec<u8>)>> {
    let is_lacking = |at: &usize| {
        matches!(raw.leaf.chunks[*at].kind, Kind::Data(_)) && !old_chunks.contains(&raw.cut.chunks[*at].1.0)
    };
    let lacking: Vec<usize> = (0..raw.leaf.chunks.len()).filter(is_lacking).collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    let bytes = raw.gather(&lacking);
    let ranges = ranges(&similar.pieces_for(&bytes), old.len() as u64);
    let prefix: Vec<u8> = ranges
        .iter()
        .flat_map(|(begin, length)| &old[*begin as usize..*begin as usize + *length as usize])
        .copied()
        .collect();
    let compressed = compress(&bytes, &prefix, level)?;
    let mut prefix_sha256 = [0; 16];
    prefix_sha256.copy_from_slice(&Sha256::digest(&prefix)[..16]);
    let mut chunks = vec![false; raw.leaf.chunks.len()];
    for at in &lacking {
        chunks[*at] = true;
    }
    let patch = Patch {
        unit: number,
        // Where it lies follows from the lengths of those before it.
        offset: 0,
        compressed: compressed.len() as u32,
        sha256: Sha256::digest(&compressed).into(),
        ranges,
        prefix_sha256,
        chunks,
    };
    Ok(Some((patch, compressed)))
}
