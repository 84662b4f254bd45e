//! The index of a patch: frames that bring a device from one known image to another.
//!
//! `"VIGP"`, version, number of frames (each u32), then for each, in the order of the units: the unit's number, its
//! compressed bytes (each u32), SHA-256 of these, the number of ranges of the old image (u32), for each its begin (u64)
//! and length (u32), the first sixteen bytes of the SHA-256 of those ranges put together, and a bit for each chunk of the
//! unit that it decodes to, the first in the lowest bit of the first byte. Little-endian throughout.
//!
//! A frame is zstd with the ranges put together as its raw prefix, and decodes to its chunks put together.
//!
//! Version 2 is for images that hold zstd frames themselves, as squashfs does: these packed blocks have nothing in common
//! with those of before, however little changed in them. They are unpacked in ranges and in what a frame decodes to, and
//! packed again on the device. Behind the number of frames are the version of zstd that packs them to the same bytes, and
//! its level (each u32); behind the length of each range what it unpacks to, 0 for one that is taken as it is (u32); and
//! at the end of each frame's entry the number of its packed blocks (u32), and for each the bytes before it that are taken
//! as they are, its bytes unpacked and packed (each u32).

use super::index::{Index, IndexError, hash, word};
use super::leaf::most_compressed;
use super::packing::{LEVELS, PACKED_BYTES, Packing};

/// What the ranges of one frame may have together: the device holds them in memory.
pub const PREFIX_BYTES: u32 = 8 * 1024 * 1024;
/// What the packed blocks of one frame may have together when they are unpacked.
pub const UNPACKED_BYTES: u32 = 8 * 1024 * 1024;
/// A patch index's bytes at most.
pub const PATCH_INDEX_BYTES: u64 = 4 * 1024 * 1024;

const MAGIC: &[u8; 4] = b"VIGP";
const RANGES: u32 = 512;
/// Packed blocks of one frame at most.
pub const BLOCKS: u32 = 4096;

/// Bytes of an old image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where they begin.
    pub begin: u64,
    /// How many.
    pub length: u32,
    /// How many they unpack to; 0 when they are taken as they are.
    pub unpacked: u32,
}

impl Range {
    /// Its bytes in the prefix.
    pub fn in_prefix(&self) -> u32 {
        if self.unpacked == 0 { self.length } else { self.unpacked }
    }
}

/// A part of what a frame decodes to that is packed on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The bytes before it, from the block before on, that are taken as they are.
    pub before: u32,
    /// Its bytes in what the frame decodes to.
    pub unpacked: u32,
    /// Its bytes in the image.
    pub packed: u32,
}

/// A frame that needs ranges of an old image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The unit of the new image.
    pub unit: u32,
    /// Where it begins in the patch's frames' file.
    pub offset: u64,
    /// Its bytes there.
    pub compressed: u32,
    /// SHA-256 of these.
    pub sha256: [u8; 32],
    /// The old image's ranges.
    pub ranges: Vec<Range>,
    /// The first half of the SHA-256 of the ranges put together.
    pub prefix_sha256: [u8; 16],
    /// For each chunk of the unit, whether it comes of this frame.
    pub chunks: Vec<bool>,
    /// The packed blocks in what it decodes to, in order.
    pub blocks: Vec<Block>,
}

impl Patch {
    /// The bytes of its ranges together, as they are in the old image.
    pub fn ranges_length(&self) -> u32 {
        self.ranges.iter().map(|range| range.length).sum()
    }

    /// The bytes of its prefix.
    pub fn prefix_length(&self) -> u32 {
        self.ranges.iter().map(Range::in_prefix).sum()
    }

    /// What the frame decodes to for chunks of `length` bytes together. None when the packed blocks do not fit into them.
    pub fn decoded_length(&self, length: u32) -> Option<u32> {
        let used = self.blocks.iter().try_fold(0_u32, |used, block| {
            used.checked_add(block.before)?.checked_add(block.packed).filter(|used| *used <= length)
        })?;
        let unpacked: u32 = self.blocks.iter().map(|block| block.before + block.unpacked).sum();
        Some(length - used + unpacked)
    }
}

/// Patch frames, and how what is packed in them is packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patches {
    /// None when nothing is.
    pub packing: Option<Packing>,
    /// In the order of their units.
    pub frames: Vec<Patch>,
}

/// The index of a patch as it is published: of version 1 where nothing is packed, for updaters of before.
pub fn to_bytes(patches: &Patches) -> Vec<u8> {
    let is_packed = patches.packing.is_some();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(1 + u32::from(is_packed)).to_le_bytes());
    bytes.extend_from_slice(&(patches.frames.len() as u32).to_le_bytes());
    if let Some(packing) = &patches.packing {
        bytes.extend_from_slice(&packing.version.to_le_bytes());
        bytes.extend_from_slice(&packing.level.to_le_bytes());
    }
    for patch in &patches.frames {
        bytes.extend_from_slice(&patch.unit.to_le_bytes());
        bytes.extend_from_slice(&patch.compressed.to_le_bytes());
        bytes.extend_from_slice(&patch.sha256);
        bytes.extend_from_slice(&(patch.ranges.len() as u32).to_le_bytes());
        for range in &patch.ranges {
            bytes.extend_from_slice(&range.begin.to_le_bytes());
            bytes.extend_from_slice(&range.length.to_le_bytes());
            if is_packed {
                bytes.extend_from_slice(&range.unpacked.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&patch.prefix_sha256);
        for eight in patch.chunks.chunks(8) {
            bytes.push(
                eight.iter().enumerate().fold(0, |byte, (place, is_held)| byte | u8::from(*is_held) << place),
            );
        }
        if is_packed {
            bytes.extend_from_slice(&(patch.blocks.len() as u32).to_le_bytes());
            for number in patch.blocks.iter().flat_map(|block| [block.before, block.unpacked, block.packed]) {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
    bytes
}

/// Reads the index of a patch from an image of `old_size` bytes to that of `index`. Its hash was checked before; its shape
/// is checked all the same.
pub fn parse(bytes: &[u8], index: &Index, old_size: u64) -> Result<Patches, IndexError> {
    let mut rest = bytes;
    let mut take = |length: usize| {
        let (taken, behind) =
            rest.split_at_checked(length).ok_or(IndexError("a patch index that is too short"))?;
        rest = behind;
        Ok::<_, IndexError>(taken)
    };
    let header = take(12)?;
    if &header[..4] != MAGIC {
        return Err(IndexError("not a patch index: it does not begin with VIGP"));
    }
    let packing = match word(header, 4) {
        1 => None,
        2 => {
            let packing = take(8)?;
            Some(Packing { version: word(packing, 0), level: word(packing, 4) })
        }
        _ => return Err(IndexError("a patch index of a version that this updater does not know")),
    };
    if packing.is_some_and(|packing| !LEVELS.contains(&packing.level)) {
        return Err(IndexError("a patch that is packed with an impossible level"));
    }
    let mut frames: Vec<Patch> = Vec::new();
    let mut offset = 0;
    for _ in 0..word(header, 8) {
        let entry = take(44)?;
        let number = word(entry, 0);
        let unit =
            index.units().get(number as usize).ok_or(IndexError("a patch of a unit that is not there"))?;
        if frames.last().is_some_and(|before| before.unit >= number) {
            return Err(IndexError("a patch index that is out of order"));
        }
        let (compressed, count) = (word(entry, 4), word(entry, 40));
        if count > RANGES || !(1..=most_compressed(unit.length)).contains(&compressed) {
            return Err(IndexError("a patch of an impossible size"));
        }
        let range_bytes = if packing.is_some() { 16 } else { 12 };
        let ranges: Vec<_> = take(count as usize * range_bytes)?
            .chunks_exact(range_bytes)
            .map(|range| Range {
                begin: u64::from(word(range, 0)) | u64::from(word(range, 4)) << 32,
                length: word(range, 8),
                unpacked: if packing.is_some() { word(range, 12) } else { 0 },
            })
            .collect();
        if !ranges_fit(&ranges, old_size) {
            return Err(IndexError("a patch with impossible ranges"));
        }
        let mut prefix_sha256 = [0; 16];
        prefix_sha256.copy_from_slice(take(16)?);
        let bits = take((unit.chunks as usize).div_ceil(8))?;
        let chunks = (0..unit.chunks as usize).map(|at| bits[at / 8] >> (at % 8) & 1 == 1).collect();
        let mut blocks = Vec::new();
        if packing.is_some() {
            let count = word(take(4)?, 0);
            if count > BLOCKS {
                return Err(IndexError("a patch with too many packed blocks"));
            }
            let block = |block: &[u8]| Block {
                before: word(block, 0),
                unpacked: word(block, 4),
                packed: word(block, 8),
            };
            blocks.extend(take(count as usize * 12)?.chunks_exact(12).map(block));
        }
        if !blocks_fit(&blocks, unit.length) {
            return Err(IndexError("a patch with impossible packed blocks"));
        }
        let sha256 = hash(entry, 8);
        frames.push(Patch {
            unit: number,
            offset,
            compressed,
            sha256,
            ranges,
            prefix_sha256,
            chunks,
            blocks,
        });
        offset += u64::from(compressed);
    }
    if !rest.is_empty() {
        return Err(IndexError("a patch index with something behind its end"));
    }
    Ok(Patches { packing, frames })
}

/// Whether ranges are in the old image, and fit into a device's memory as they are and unpacked.
fn ranges_fit(ranges: &[Range], old_size: u64) -> bool {
    let ends_inside =
        |range: &Range| range.begin.checked_add(range.length.into()).is_some_and(|end| end <= old_size);
    let sum = |length: fn(&Range) -> u32| ranges.iter().map(|range| u64::from(length(range))).sum::<u64>();
    ranges.iter().all(|range| ends_inside(range) && range.unpacked <= PACKED_BYTES)
        && sum(|range| range.length) <= PREFIX_BYTES.into()
        && sum(Range::in_prefix) <= PREFIX_BYTES.into()
}

/// Whether packed blocks fit into a unit, and unpacked into a device's memory.
fn blocks_fit(blocks: &[Block], unit: u32) -> bool {
    let sum = |length: fn(&Block) -> u64| blocks.iter().map(length).sum::<u64>();
    blocks.iter().all(|block| (1..=PACKED_BYTES).contains(&block.unpacked) && block.packed > 0)
        && sum(|block| u64::from(block.before) + u64::from(block.packed)) <= unit.into()
        && sum(|block| block.unpacked.into()) <= UNPACKED_BYTES.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Chunk, Chunking, Kind, Leaf};

    fn index() -> Index {
        let mut index = Index::new(Chunking::Aligned(4096));
        for _ in 0..3 {
            let leaf = Leaf {
                context: 0,
                before: None,
                frames: vec![],
                chunks: vec![Chunk { length: 4096, kind: Kind::Zero }; 10],
            };
            index.push(&leaf, &[0; 5], [0; 32]);
        }
        index
    }

    fn patches() -> Patches {
        let patch = |unit, offset, compressed| Patch {
            unit,
            offset,
            compressed,
            sha256: [unit as u8; 32],
            ranges: vec![range(0, 100), range(900, 100)],
            prefix_sha256: [7; 16],
            chunks: (0..10).map(|at| at % 3 == 0).collect(),
            blocks: vec![],
        };
        Patches { packing: None, frames: vec![patch(0, 0, 30), patch(2, 30, 50)] }
    }

    fn range(begin: u64, length: u32) -> Range {
        Range { begin, length, unpacked: 0 }
    }

    fn packed() -> Patches {
        let mut patches = patches();
        patches.packing = Some(Packing { version: 10507, level: 15 });
        patches.frames[0].ranges[1].unpacked = 131_072;
        patches.frames[1].blocks = vec![
            Block { before: 7, unpacked: 9000, packed: 5000 },
            Block { before: 0, unpacked: 4096, packed: 100 },
        ];
        patches
    }

    #[test]
    fn a_patch_index_is_read_as_it_was_written_and_no_shorter_or_longer() {
        for patches in [patches(), packed()] {
            let bytes = to_bytes(&patches);
            assert_eq!(parse(&bytes, &index(), 1000).unwrap(), patches);
            for length in 0..bytes.len() {
                assert!(parse(&bytes[..length], &index(), 1000).is_err(), "{length}");
            }
            assert!(parse(&[&bytes[..], &[0]].concat(), &index(), 1000).is_err());
        }
    }

    #[test]
    fn ranges_that_are_not_in_the_old_image_or_do_not_fit_into_memory_are_refused() {
        assert!(parse(&to_bytes(&patches()), &index(), 999).is_err());
        let unpacked = Range { begin: 0, length: 1, unpacked: PACKED_BYTES };
        for ranges in [
            vec![range(u64::MAX, 1)],
            vec![range(0, PREFIX_BYTES), range(0, 1)],
            vec![range(0, 1); RANGES as usize + 1],
            vec![Range { unpacked: PACKED_BYTES + 1, ..unpacked }],
            vec![unpacked; (PREFIX_BYTES / PACKED_BYTES) as usize + 1],
        ] {
            let mut wrong = packed();
            wrong.frames[0].ranges = ranges;
            assert!(parse(&to_bytes(&wrong), &index(), u64::MAX).is_err());
        }
    }

    #[test]
    fn packed_blocks_that_do_not_fit_into_the_unit_or_into_memory_are_refused() {
        let block = Block { before: 0, unpacked: 1, packed: 1 };
        for blocks in [
            vec![Block { packed: 40_961, ..block }],
            vec![Block { before: 40_960, ..block }],
            vec![Block { before: u32::MAX, ..block }; 2],
            vec![Block { packed: 0, ..block }],
            vec![Block { unpacked: 0, ..block }],
            vec![Block { unpacked: PACKED_BYTES + 1, ..block }],
            vec![Block { unpacked: PACKED_BYTES, ..block }; (UNPACKED_BYTES / PACKED_BYTES) as usize + 1],
            vec![block; BLOCKS as usize + 1],
        ] {
            let mut wrong = packed();
            wrong.frames[1].blocks = blocks;
            assert!(parse(&to_bytes(&wrong), &index(), 1000).is_err());
        }
        for level in [0, 20, u32::MAX] {
            let mut wrong = packed();
            wrong.packing = Some(Packing { version: 10507, level });
            assert!(parse(&to_bytes(&wrong), &index(), 1000).is_err(), "{level}");
        }
    }

    #[test]
    fn a_frame_decodes_to_its_chunks_with_their_packed_blocks_unpacked() {
        let patch = &packed().frames[1];
        assert_eq!(patch.decoded_length(5107), Some(7 + 9000 + 4096));
        assert_eq!(patch.decoded_length(6107), Some(7 + 9000 + 4096 + 1000));
        assert_eq!(patch.decoded_length(5106), None);
    }

    #[test]
    fn units_that_are_not_there_or_out_of_order_are_refused() {
        for units in [[2, 0], [1, 1], [0, 3]] {
            let mut wrong = patches();
            wrong.frames.iter_mut().zip(units).for_each(|(patch, unit)| patch.unit = unit);
            assert!(parse(&to_bytes(&wrong), &index(), 1000).is_err(), "{units:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0_u8.., 0..400)) {
            let mut bytes = bytes;
            let _ = parse(&bytes, &index(), 1000);
            if bytes.len() >= 12 {
                bytes[..9].copy_from_slice(b"VIGP\x01\0\0\0\x05");
                let _ = parse(&bytes, &index(), 1000);
            }
        }
    }
}
