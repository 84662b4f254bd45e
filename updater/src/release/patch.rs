//! The index of a patch: frames that bring a device from one known image to another.
//!
//! `"VIGP"`, version, number of frames (each u32), then for each, in the order of the units: the unit's number, its
//! compressed bytes (each u32), SHA-256 of these, the number of ranges of the old image (u32), for each its begin (u64)
//! and length (u32), the first sixteen bytes of the SHA-256 of those ranges put together, and a bit for each chunk of the
//! unit that it decodes to, the first in the lowest bit of the first byte. Little-endian throughout.
//!
//! A frame is zstd with the ranges put together as its raw prefix, and decodes to its chunks put together.

use super::index::{Index, IndexError, hash, word};
use super::leaf::most_compressed;

/// What the ranges of one frame may have together: the device holds them in memory.
pub const PREFIX_BYTES: u32 = 8 * 1024 * 1024;
/// A patch index's bytes at most.
pub const PATCH_INDEX_BYTES: u64 = 4 * 1024 * 1024;

const MAGIC: &[u8; 4] = b"VIGP";
const VERSION: u32 = 1;
const RANGES: u32 = 512;

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
    /// Begin and length of the old image's ranges.
    pub ranges: Vec<(u64, u32)>,
    /// The first half of the SHA-256 of the ranges put together.
    pub prefix_sha256: [u8; 16],
    /// For each chunk of the unit, whether it comes of this frame.
    pub chunks: Vec<bool>,
}

impl Patch {
    /// The bytes of its ranges together.
    pub fn prefix_length(&self) -> u32 {
        self.ranges.iter().map(|range| range.1).sum()
    }
}

/// The index of a patch as it is published. `patches` are in the order of their units.
pub fn to_bytes(patches: &[Patch]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(patches.len() as u32).to_le_bytes());
    for patch in patches {
        bytes.extend_from_slice(&patch.unit.to_le_bytes());
        bytes.extend_from_slice(&patch.compressed.to_le_bytes());
        bytes.extend_from_slice(&patch.sha256);
        bytes.extend_from_slice(&(patch.ranges.len() as u32).to_le_bytes());
        for (begin, length) in &patch.ranges {
            bytes.extend_from_slice(&begin.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(&patch.prefix_sha256);
        for eight in patch.chunks.chunks(8) {
            bytes.push(
                eight.iter().enumerate().fold(0, |byte, (place, is_held)| byte | u8::from(*is_held) << place),
            );
        }
    }
    bytes
}

/// Reads the index of a patch from an image of `old_size` bytes to that of `index`. Its hash was checked before; its shape
/// is checked all the same.
pub fn parse(bytes: &[u8], index: &Index, old_size: u64) -> Result<Vec<Patch>, IndexError> {
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
    if word(header, 4) != VERSION {
        return Err(IndexError("a patch index of a version that this updater does not know"));
    }
    let mut patches: Vec<Patch> = Vec::new();
    let mut offset = 0;
    for _ in 0..word(header, 8) {
        let entry = take(44)?;
        let number = word(entry, 0);
        let unit =
            index.units().get(number as usize).ok_or(IndexError("a patch of a unit that is not there"))?;
        if patches.last().is_some_and(|before| before.unit >= number) {
            return Err(IndexError("a patch index that is out of order"));
        }
        let (compressed, count) = (word(entry, 4), word(entry, 40));
        if count > RANGES || !(1..=most_compressed(unit.length)).contains(&compressed) {
            return Err(IndexError("a patch of an impossible size"));
        }
        let ranges: Vec<_> = take(count as usize * 12)?
            .chunks_exact(12)
            .map(|range| (u64::from(word(range, 0)) | u64::from(word(range, 4)) << 32, word(range, 8)))
            .collect();
        let ends_inside = |(begin, length): &(u64, u32)| {
            begin.checked_add((*length).into()).is_some_and(|end| end <= old_size)
        };
        let length: u64 = ranges.iter().map(|range| u64::from(range.1)).sum();
        if length > u64::from(PREFIX_BYTES) || !ranges.iter().all(ends_inside) {
            return Err(IndexError("a patch with impossible ranges"));
        }
        let mut prefix_sha256 = [0; 16];
        prefix_sha256.copy_from_slice(take(16)?);
        let bits = take((unit.chunks as usize).div_ceil(8))?;
        let chunks = (0..unit.chunks as usize).map(|at| bits[at / 8] >> (at % 8) & 1 == 1).collect();
        patches.push(Patch {
            unit: number,
            offset,
            compressed,
            sha256: hash(entry, 8),
            ranges,
            prefix_sha256,
            chunks,
        });
        offset += u64::from(compressed);
    }
    if rest.is_empty() { Ok(patches) } else { Err(IndexError("a patch index with something behind its end")) }
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
                frames: vec![],
                chunks: vec![Chunk { length: 4096, kind: Kind::Zero }; 10],
            };
            index.push(&leaf, &[0; 5], [0; 32]);
        }
        index
    }

    fn patches() -> Vec<Patch> {
        let patch = |unit, offset, compressed| Patch {
            unit,
            offset,
            compressed,
            sha256: [unit as u8; 32],
            ranges: vec![(0, 100), (900, 100)],
            prefix_sha256: [7; 16],
            chunks: (0..10).map(|at| at % 3 == 0).collect(),
        };
        vec![patch(0, 0, 30), patch(2, 30, 50)]
    }

    #[test]
    fn a_patch_index_is_read_as_it_was_written_and_no_shorter_or_longer() {
        let bytes = to_bytes(&patches());
        assert_eq!(parse(&bytes, &index(), 1000).unwrap(), patches());
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length], &index(), 1000).is_err(), "{length}");
        }
        assert!(parse(&[&bytes[..], &[0]].concat(), &index(), 1000).is_err());
    }

    #[test]
    fn ranges_that_are_not_in_the_old_image_or_do_not_fit_into_memory_are_refused() {
        assert!(parse(&to_bytes(&patches()), &index(), 999).is_err());
        for ranges in
            [vec![(u64::MAX, 1)], vec![(0, PREFIX_BYTES), (0, 1)], vec![(0, 1); RANGES as usize + 1]]
        {
            let mut wrong = patches();
            wrong[0].ranges = ranges;
            assert!(parse(&to_bytes(&wrong), &index(), u64::MAX).is_err());
        }
    }

    #[test]
    fn units_that_are_not_there_or_out_of_order_are_refused() {
        for units in [[2, 0], [1, 1], [0, 3]] {
            let mut wrong = patches();
            wrong.iter_mut().zip(units).for_each(|(patch, unit)| patch.unit = unit);
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
