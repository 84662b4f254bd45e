//! Patches: for each unit of the new image a frame that is decoded with ranges of an old one as its prefix. Which ranges,
//! is found by what they have in common with the unit, wherever that lies: files may move and code shifts within them.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use vigil_updater::release::patch::{BLOCKS, Block, Range, UNPACKED_BYTES, to_bytes};
use vigil_updater::release::{
    Chunking, Kind, PATCH_INDEX_BYTES, PREFIX_BYTES, Packer, Packing, Part, Patch, PatchParts, Patches,
    blob_path,
};
use vigil_updater::slot::Cutter;

use super::packed::{self, Packed};
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
/// What a frame with packed blocks decodes to, at most: both together are 14 MiB, with which an updater stays below 32 MB.
const DECODED_MOST: usize = UNPACKED_BYTES as usize;
const RANGES: usize = 512;

/// The old image as frames are made with it: its packed blocks unpacked.
struct Old<'o> {
    bytes: Cow<'o, [u8]>,
    /// In order; together they are the old image.
    pieces: Vec<Piece>,
}

/// What is taken of the old image, or not.
struct Piece {
    range: Range,
    /// Where it begins in the unpacked bytes.
    at: usize,
}

impl Piece {
    fn end(&self) -> usize {
        self.at + self.range.in_prefix() as usize
    }
}

impl<'o> Old<'o> {
    /// With these of its blocks unpacked.
    fn new(image: &'o [u8], blocks: &[Packed]) -> Self {
        let mut old = Self { bytes: Cow::Borrowed(image), pieces: Vec::new() };
        if blocks.is_empty() {
            old.take(0, image.len(), 0);
            return old;
        }
        let (mut bytes, mut begin) = (Vec::with_capacity(2 * image.len()), 0);
        for block in blocks {
            let Some(unpacked) = block.unpack(image) else { continue };
            old.take(begin, block.begin, bytes.len());
            bytes.extend_from_slice(&image[begin..block.begin]);
            let (length, unpacked_length) = (block.length as u32, unpacked.len() as u32);
            let range = Range { begin: block.begin as u64, length, unpacked: unpacked_length };
            old.pieces.push(Piece { range, at: bytes.len() });
            bytes.extend(unpacked);
            begin = block.end();
        }
        old.take(begin, image.len(), bytes.len());
        bytes.extend_from_slice(&image[begin..]);
        old.bytes = Cow::Owned(bytes);
        old
    }

    /// Takes bytes of the image as they are, in pieces.
    fn take(&mut self, begin: usize, end: usize, mut at: usize) {
        let mut begin = begin as u64;
        while begin < end as u64 {
            // So that the pieces of images without packed blocks begin at multiples of their length.
            let next = (begin / PIECE_BYTES + 1) * PIECE_BYTES;
            let length = (next.min(end as u64) - begin) as u32;
            self.pieces.push(Piece { range: Range { begin, length, unpacked: 0 }, at });
            begin += u64::from(length);
            at += length as usize;
        }
    }
}

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
    fn of(old: &Old) -> Self {
        let mut pieces: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut piece = 0;
        for (hash, end) in shingles(&old.bytes) {
            while old.pieces[piece].end() <= end {
                piece += 1;
            }
            let places = pieces.entry(hash).or_default();
            if places.len() <= PLACES && places.last() != Some(&(piece as u32)) {
                places.push(piece as u32);
            }
        }
        pieces.retain(|_, places| places.len() <= PLACES);
        Self { pieces }
    }

    /// The pieces that have most in common with `bytes`, each shingle counted once, as many as a device can hold.
    fn pieces_for(&self, bytes: &[u8], old: &Old) -> BTreeSet<u32> {
        let mut of_piece: HashMap<u32, Vec<u32>> = HashMap::new();
        for hash in shingles(bytes).map(|(hash, _)| hash).collect::<HashSet<_>>() {
            for piece in self.pieces.get(&hash).into_iter().flatten() {
                of_piece.entry(*piece).or_default().push(hash);
            }
        }
        let mut covered = HashSet::new();
        let (mut chosen, mut left) = (BTreeSet::new(), PREFIX_MOST);
        // A piece's count only falls while others are chosen: it is counted anew when its turn comes.
        let mut heap: BinaryHeap<_> =
            of_piece.iter().map(|(piece, hashes)| (hashes.len() as u32, Reverse(*piece))).collect();
        while let Some((count, Reverse(piece))) = heap.pop() {
            if count < SHINGLES_MIN {
                break;
            }
            let length = u64::from(old.pieces[piece as usize].range.in_prefix());
            if length > left {
                continue;
            }
            let hashes = &of_piece[&piece];
            let now = hashes.iter().filter(|hash| !covered.contains(*hash)).count() as u32;
            if now < count {
                heap.push((now, Reverse(piece)));
                continue;
            }
            covered.extend(hashes.iter().copied());
            chosen.insert(piece);
            left -= length;
        }
        chosen
    }
}

/// Pieces as ranges of the old image, and these together as the prefix; some are left out when they are too many.
fn ranges(pieces: &BTreeSet<u32>, old: &Old) -> (Vec<Range>, Vec<u8>) {
    let mut ranges: Vec<(Range, usize)> = Vec::new();
    for piece in pieces.iter().map(|piece| &old.pieces[*piece as usize]) {
        let joins = |last: &&mut (Range, usize)| {
            let is_next = last.0.begin + u64::from(last.0.length) == piece.range.begin;
            is_next && last.0.unpacked == 0 && piece.range.unpacked == 0
        };
        match ranges.last_mut().filter(joins) {
            Some(last) => last.0.length += piece.range.length,
            None => ranges.push((piece.range, piece.at)),
        }
    }
    while ranges.len() > RANGES {
        let shortest =
            ranges.iter().enumerate().min_by_key(|(_, range)| range.0.in_prefix()).map_or(0, |(at, _)| at);
        ranges.remove(shortest);
    }
    let bytes = |(range, at): &(Range, usize)| &old.bytes[*at..*at + range.in_prefix() as usize];
    let prefix = ranges.iter().flat_map(bytes).copied().collect();
    (ranges.into_iter().map(|(range, _)| range).collect(), prefix)
}

/// What a patch is made with.
struct Source<'s> {
    old_image: &'s [u8],
    old: Old<'s>,
    /// The old image's chunks, by their hashes.
    chunks: HashSet<[u8; 32]>,
    similar: Similar,
    /// The new image's packed blocks, and how devices pack them.
    blocks: Vec<Packed>,
    packing: Option<Packing>,
    level: i32,
}

impl<'s> Source<'s> {
    fn new(old_image: &'s [u8], new: &Path, chunking: Chunking, level: i32) -> Result<Self> {
        let mut chunks = HashSet::new();
        let mut cutter = Cutter::new(old_image, chunking);
        while let Some(unit) = cutter.next_unit(None)? {
            chunks.extend(unit.chunks.iter().map(|chunk| chunk.1.0));
        }
        let new_image = std::fs::read(new).with_context(|| format!("cannot read {}", new.display()))?;
        let mut blocks = packed::find(&new_image);
        let packing = packed::packing(&new_image, &blocks);
        drop(new_image);
        let old = match packing {
            Some(_) => Old::new(old_image, &packed::find(old_image)),
            None => {
                blocks.clear();
                Old::new(old_image, &[])
            }
        };
        let similar = Similar::of(&old);
        Ok(Self { old_image, old, chunks, similar, blocks, packing, level })
    }

    /// The patch frame of the unit that begins at `begin`; none when a device with the old image lacks nothing of it.
    fn frame(&self, number: u32, begin: usize, raw: &Raw) -> Result<Option<(Patch, Vec<u8>)>> {
        let is_lacking = |at: &usize| {
            let chunk = raw.leaf.chunks[*at];
            matches!(chunk.kind, Kind::Data(_)) && !self.chunks.contains(&raw.cut.chunks[*at].1.0)
        };
        let lacking: Vec<usize> = (0..raw.leaf.chunks.len()).filter(is_lacking).collect();
        if lacking.is_empty() {
            return Ok(None);
        }
        let (bytes, blocks) = self.unpack(begin, raw, &lacking)?;
        let (ranges, prefix) = ranges(&self.similar.pieces_for(&bytes, &self.old), &self.old);
        let compressed = compress(&bytes, &prefix, self.level)?;
        let mut hasher = Sha256::new();
        for range in &ranges {
            hasher.update(&self.old_image[range.begin as usize..][..range.length as usize]);
        }
        let mut prefix_sha256 = [0; 16];
        prefix_sha256.copy_from_slice(&hasher.finalize()[..16]);
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
            blocks,
        };
        Ok(Some((patch, compressed)))
    }

    /// The chunks with these positions, put together, and the packed blocks in them that are unpacked there: those that
    /// devices pack to the same bytes, as many as they have memory for.
    fn unpack(&self, begin: usize, raw: &Raw, lacking: &[usize]) -> Result<(Vec<u8>, Vec<Block>)> {
        let gathered = raw.gather(lacking);
        let Some(packing) = self.packing else { return Ok((gathered, vec![])) };
        let mut packer = Packer::new(packing.level).map_err(anyhow::Error::msg)?;
        let runs = runs(raw, lacking);
        let mut left = DECODED_MOST.saturating_sub(gathered.len());
        let (mut bytes, mut blocks, mut taken) = (Vec::new(), Vec::new(), 0);
        let first = self.blocks.partition_point(|block| block.begin < begin);
        let inside = |block: &&Packed| block.end() <= begin + raw.bytes.len();
        for block in self.blocks[first..].iter().take_while(inside) {
            let block = Packed { begin: block.begin - begin, ..*block };
            let run = runs[..runs.partition_point(|run| run.in_unit <= block.begin)].last();
            let Some(run) = run.filter(|run| block.end() <= run.in_unit + run.length) else { continue };
            let grows = block.unpacked.saturating_sub(block.length);
            if grows > left || blocks.len() == BLOCKS as usize {
                continue;
            }
            let Some(unpacked) = block.unpack(&raw.bytes) else { continue };
            let packed = packer.pack(&unpacked).map_err(anyhow::Error::msg)?;
            if packed != &raw.bytes[block.begin..block.end()] {
                continue;
            }
            let place = run.gathered + (block.begin - run.in_unit);
            bytes.extend_from_slice(&gathered[taken..place]);
            bytes.extend_from_slice(&unpacked);
            blocks.push(Block {
                before: (place - taken) as u32,
                unpacked: block.unpacked as u32,
                packed: block.length as u32,
            });
            taken = place + block.length;
            left -= grows;
        }
        bytes.extend_from_slice(&gathered[taken..]);
        Ok((bytes, blocks))
    }
}

/// Chunks that lie one behind the other.
struct Run {
    /// Where they begin in the unit.
    in_unit: usize,
    /// Where they begin in what is gathered of it.
    gathered: usize,
    length: usize,
}

/// The chunks with these positions as runs, in order.
fn runs(raw: &Raw, positions: &[usize]) -> Vec<Run> {
    let (mut runs, mut gathered): (Vec<Run>, usize) = (Vec::new(), 0);
    for at in positions {
        let (in_unit, length) = (raw.offsets[*at] as usize, raw.leaf.chunks[*at].length as usize);
        match runs.last_mut().filter(|last| last.in_unit + last.length == in_unit) {
            Some(last) => last.length += length,
            None => runs.push(Run { in_unit, gathered, length }),
        }
        gathered += length;
    }
    runs
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
    let old_image = std::fs::read(old).with_context(|| format!("cannot read {}", old.display()))?;
    let source = Source::new(&old_image, new, chunking, level)?;
    let file = File::open(new).with_context(|| format!("cannot read {}", new.display()))?;
    let mut units = Units::new(file, chunking);
    let mut blob = Blob::new(repository, "patch")?;
    let (mut frames, mut number, mut begin) = (Vec::new(), 0, 0);
    loop {
        let mut batch = Vec::new();
        while batch.len() < batch_size() {
            let Some(raw) = units.next()? else { break };
            let length = raw.bytes.len();
            batch.push((number, begin, raw));
            number += 1;
            begin += length;
        }
        if batch.is_empty() {
            break;
        }
        let made = in_parallel(&batch, |(number, begin, raw)| source.frame(*number, *begin, raw))?;
        for (patch, frame) in made.into_iter().flatten() {
            blob.write(&frame)?;
            frames.push(patch);
        }
        on_bytes(batch.iter().map(|(_, _, raw)| raw.bytes.len() as u64).sum());
    }
    // Where nothing came of it, updaters of before can use the patch, too.
    let is_packed =
        |patch: &Patch| !patch.blocks.is_empty() || patch.ranges.iter().any(|range| range.unpacked > 0);
    let packing = source.packing.filter(|_| frames.iter().any(is_packed));
    let patches = Patches { packing, frames };
    let bytes = to_bytes(&patches);
    if patches.frames.is_empty() || bytes.len() as u64 > PATCH_INDEX_BYTES {
        return Ok(None);
    }
    let frames = blob.finish(repository)?;
    let index = Part { size: bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(&bytes)) };
    files::publish_once(&repository.join(blob_path(&index.sha256)), &bytes)?;
    Ok(Some(PatchParts {
        from: HEXLOWER.encode(&Sha256::digest(&old_image)),
        from_size: old_image.len() as u64,
        index,
        frames,
    }))
}
