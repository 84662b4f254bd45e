//! The index of an image: its units, each with the hash that vouches for it.
//!
//! Version 3: `"VIGX"`, version, chunking (0 aligned, 1 by content), chunk bytes, number of units (each u32), image bytes
//! (u64), then for each unit its bytes, chunks, bytes in the leaves' file, bytes in the frames' file (each u32), SHA-256 of
//! its leaf and its digest. Little-endian throughout. What a unit is made of stands in its leaf, which only those devices
//! fetch that do not have the unit.
//!
//! Version 1, which the first devices read: `"VIGX"`, version, bytes of a unit, number of units (each u32), image bytes
//! (u64), then for each unit the bytes of its one frame (u32), SHA-256 of the frame, and SHA-256 of what it decodes to.

use sha2::{Digest, Sha256};

use super::chunk::{CHUNKS, ChunkHash, Chunking, FIRST_UNIT_BYTES, UNIT_BYTES, unit_digest};
use super::leaf::{self, Chunk, Frame, Kind, LEAF_BYTES, Leaf};

/// Bytes of the image in one unit of version 1.
pub const FRAME_BYTES: u32 = 1024 * 1024;
/// An index's bytes at most: enough for an image of 64 GiB.
pub const INDEX_BYTES: u64 = HEADER_BYTES as u64 + UNITS as u64 * UNIT_ENTRY_BYTES as u64;

const UNITS: usize = 65_536;
const MAGIC: &[u8; 4] = b"VIGX";
/// Of version 3; that of version 1 is as long, without the chunking and with the frame's bytes in its place.
const HEADER_BYTES: usize = 28;
const UNIT_ENTRY_BYTES: usize = 80;
const FLAT_HEADER_BYTES: usize = 24;
const FLAT_ENTRY_BYTES: usize = 68;

/// Why an index, a leaf or a patch index was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub &'static str);

/// A piece of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where it begins in the image.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
    /// Its chunks.
    pub chunks: u32,
    /// Where its leaf begins in the leaves' file.
    pub leaf_offset: u64,
    /// Its leaf's bytes; none in version 1.
    pub leaf_length: u32,
    /// SHA-256 of its leaf; in version 1, of its frame.
    pub leaf_sha256: [u8; 32],
    /// Where its frames begin in the frames' file.
    pub frames_offset: u64,
    /// Their bytes.
    pub frames_length: u32,
    /// SHA-256 over the hashes of its chunks, in order; in version 1, of its bytes.
    pub digest: [u8; 32],
}

/// An image's units, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// None in version 1.
    chunking: Option<Chunking>,
    image_size: u64,
    units: Vec<Unit>,
}

impl Index {
    /// An index of version 3 to be filled while an image is cut up.
    pub fn new(chunking: Chunking) -> Self {
        Self { chunking: Some(chunking), image_size: 0, units: Vec::new() }
    }

    /// An index of version 1.
    pub fn flat() -> Self {
        Self { chunking: None, image_size: 0, units: Vec::new() }
    }

    /// Appends the unit that `leaf` tells of.
    pub fn push(&mut self, leaf: &Leaf, leaf_bytes: &[u8], digest: [u8; 32]) {
        self.units.push(Unit {
            offset: self.image_size,
            length: leaf.chunks.iter().map(|chunk| chunk.length).sum(),
            chunks: leaf.chunks.len() as u32,
            leaf_offset: self.leaves_size(),
            leaf_length: leaf_bytes.len() as u32,
            leaf_sha256: Sha256::digest(leaf_bytes).into(),
            frames_offset: self.frames_size(),
            frames_length: leaf.frames.iter().map(|frame| frame.compressed).sum(),
            digest,
        });
        self.image_size += self.units.last().map_or(0, |unit| u64::from(unit.length));
    }

    /// Appends to an index of version 1 the unit that holds `raw` as `compressed`. Every one but the last holds
    /// [`FRAME_BYTES`].
    pub fn push_flat(&mut self, raw: &[u8], compressed: &[u8]) {
        self.units.push(Unit {
            offset: self.image_size,
            length: raw.len() as u32,
            chunks: 1,
            leaf_offset: 0,
            leaf_length: 0,
            leaf_sha256: Sha256::digest(compressed).into(),
            frames_offset: self.frames_size(),
            frames_length: compressed.len() as u32,
            digest: Sha256::digest(raw).into(),
        });
        self.image_size += raw.len() as u64;
    }

    /// How the image is cut into chunks; none in version 1.
    pub fn chunking(&self) -> Option<Chunking> {
        self.chunking
    }

    /// The units.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The image's bytes.
    pub fn image_size(&self) -> u64 {
        self.image_size
    }

    /// The bytes of all frames together.
    pub fn frames_size(&self) -> u64 {
        self.units.last().map_or(0, |unit| unit.frames_offset + u64::from(unit.frames_length))
    }

    /// The bytes of all leaves together.
    pub fn leaves_size(&self) -> u64 {
        self.units.last().map_or(0, |unit| unit.leaf_offset + u64::from(unit.leaf_length))
    }

    /// What stands in place of a leaf in version 1: the unit is one chunk, in one frame.
    pub fn flat_leaf(&self, unit: usize) -> Option<Leaf> {
        let unit = self.units.get(unit).filter(|unit| unit.leaf_length == 0)?;
        Some(Leaf {
            context: 0,
            before: None,
            frames: vec![Frame { compressed: unit.frames_length, sha256: unit.leaf_sha256, chunks: 1 }],
            chunks: vec![Chunk { length: unit.length, kind: Kind::Data(ChunkHash(unit.digest).short()) }],
        })
    }

    /// Whether `raw`, cut where `leaf` says, is this unit.
    pub fn matches(&self, unit: usize, leaf: &Leaf, raw: &[u8]) -> bool {
        let unit = &self.units[unit];
        if raw.len() != unit.length as usize {
            return false;
        }
        let mut rest = raw;
        let hashes = leaf.chunks.iter().map(|chunk| {
            let (bytes, behind) = rest.split_at(rest.len().min(chunk.length as usize));
            rest = behind;
            ChunkHash::of(bytes)
        });
        let digest = match self.chunking {
            Some(_) => unit_digest(hashes),
            None => ChunkHash::of(raw).0,
        };
        digest == unit.digest
    }

    /// The index as it is published.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut word = |word: u32| bytes.extend_from_slice(&word.to_le_bytes());
        match self.chunking {
            None => [1, FRAME_BYTES].into_iter().for_each(&mut word),
            Some(Chunking::Aligned(size)) => [3, 0, size].into_iter().for_each(&mut word),
            Some(Chunking::Content(mean)) => [3, 1, mean].into_iter().for_each(&mut word),
        }
        word(self.units.len() as u32);
        bytes.extend_from_slice(&self.image_size.to_le_bytes());
        for unit in &self.units {
            let words: &[u32] = match self.chunking {
                None => &[unit.frames_length],
                Some(_) => &[unit.length, unit.chunks, unit.leaf_length, unit.frames_length],
            };
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend_from_slice(&unit.leaf_sha256);
            bytes.extend_from_slice(&unit.digest);
        }
        bytes
    }

    /// Reads an index. Its hash was checked against the manifest before; its shape is checked all the same.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        match bytes {
            [b'V', b'I', b'G', b'X', 1, 0, 0, 0, ..] => Self::parse_flat(bytes),
            [b'V', b'I', b'G', b'X', 3, 0, 0, 0, ..] => Self::parse_units(bytes),
            [b'V', b'I', b'G', b'X', ..] => {
                Err(IndexError("an index of a version that this updater does not know"))
            }
            _ => Err(IndexError("not an index: it does not begin with VIGX")),
        }
    }

    fn parse_flat(bytes: &[u8]) -> Result<Self, IndexError> {
        let (header, entries) =
            bytes.split_at_checked(FLAT_HEADER_BYTES).ok_or(IndexError("an index that is too short"))?;
        if word(header, 8) != FRAME_BYTES {
            return Err(IndexError("an index with a frame size that this updater does not use"));
        }
        let image_size = u64::from(word(header, 16)) | u64::from(word(header, 20)) << 32;
        let count = word(header, 12) as usize;
        if count > UNITS
            || entries.len() != count * FLAT_ENTRY_BYTES
            || count as u64 != image_size.div_ceil(u64::from(FRAME_BYTES))
        {
            return Err(IndexError("an index whose number of frames does not fit its size"));
        }
        let mut index = Self::flat();
        for entry in entries.chunks_exact(FLAT_ENTRY_BYTES) {
            let length = (image_size - index.image_size).min(u64::from(FRAME_BYTES)) as u32;
            let frames_length = word(entry, 0);
            if frames_length == 0 || frames_length > leaf::most_compressed(length) {
                return Err(IndexError("an index with a frame of an impossible length"));
            }
            index.units.push(Unit {
                offset: index.image_size,
                length,
                chunks: 1,
                leaf_offset: 0,
                leaf_length: 0,
                leaf_sha256: hash(entry, 4),
                frames_offset: index.frames_size(),
                frames_length,
                digest: hash(entry, 36),
            });
            index.image_size += u64::from(length);
        }
        Ok(index)
    }

    fn parse_units(bytes: &[u8]) -> Result<Self, IndexError> {
        let (header, entries) =
            bytes.split_at_checked(HEADER_BYTES).ok_or(IndexError("an index that is too short"))?;
        let chunking = match word(header, 8) {
            0 => Chunking::Aligned(word(header, 12)).checked(),
            1 => Chunking::Content(word(header, 12)).checked(),
            _ => None,
        };
        let chunking =
            chunking.ok_or(IndexError("an index with chunks of a kind that this updater does not know"))?;
        let count = word(header, 16) as usize;
        let image_size = u64::from(word(header, 20)) | u64::from(word(header, 24)) << 32;
        if count > UNITS || entries.len() != count * UNIT_ENTRY_BYTES {
            return Err(IndexError("an index whose number of units does not fit its size"));
        }
        let mut index = Self::new(chunking);
        let mut chunks = 0;
        for entry in entries.chunks_exact(UNIT_ENTRY_BYTES) {
            let unit = Unit {
                offset: index.image_size,
                length: word(entry, 0),
                chunks: word(entry, 4),
                leaf_offset: index.leaves_size(),
                leaf_length: word(entry, 8),
                leaf_sha256: hash(entry, 16),
                frames_offset: index.frames_size(),
                frames_length: word(entry, 12),
                digest: hash(entry, 48),
            };
            chunks += u64::from(unit.chunks);
            if !(1..=UNIT_BYTES).contains(&unit.length)
                || !(1..=LEAF_BYTES).contains(&unit.leaf_length)
                || unit.frames_length > leaf::most_frames(unit.length)
                || !(1..=unit.length).contains(&unit.chunks)
                || chunks > u64::from(CHUNKS)
            {
                return Err(IndexError("an index with a unit of an impossible size"));
            }
            index.image_size += u64::from(unit.length);
            index.units.push(unit);
        }
        if index.image_size != image_size {
            return Err(IndexError("an index whose units do not make up the image"));
        }
        let first = index.units.first().map_or(0, |unit| u64::from(unit.length));
        if first < image_size.min(u64::from(FIRST_UNIT_BYTES)) {
            return Err(IndexError("an index with a first unit that is too short"));
        }
        Ok(index)
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn hash(bytes: &[u8], at: usize) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[at..at + 32]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat() -> Index {
        let mut index = Index::flat();
        index.push_flat(&vec![1; FRAME_BYTES as usize], b"first");
        index.push_flat(&[2; 10], b"second!");
        index
    }

    fn units() -> Index {
        units_from(65536)
    }

    /// Two units, the first of them of two chunks of this length.
    fn units_from(size: u32) -> Index {
        let mut index = Index::new(Chunking::Aligned(size));
        for (number, length) in [(1, size), (2, 10)] {
            let leaf = Leaf {
                context: 0,
                before: None,
                frames: vec![Frame { compressed: 20, sha256: [number; 32], chunks: 1 }],
                chunks: vec![
                    Chunk { length: size, kind: Kind::Zero },
                    Chunk { length, kind: Kind::Data(number.into()) },
                ],
            };
            index.push(&leaf, &[number; 40], [number; 32]);
        }
        index
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        for index in [flat(), units()] {
            assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index);
        }
        let (flat, units) = (flat(), units());
        assert_eq!((flat.units()[1].frames_offset, flat.frames_size()), (5, 12));
        assert_eq!((units.units()[1].offset, units.image_size()), (131_072, 131_072 + 65_546));
        assert_eq!((units.units()[1].leaf_offset, units.leaves_size()), (40, 80));
    }

    #[test]
    fn a_truncated_padded_or_foreign_index_is_refused() {
        for (index, fixed) in
            [(flat(), &[0_usize, 4, 8, 12, 20][..]), (units(), &[0, 4, 8, 12, 16, 20, 24, 28])]
        {
            let bytes = index.to_bytes();
            for length in 0..bytes.len() {
                assert!(Index::parse(&bytes[..length]).is_err(), "{length}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(Index::parse(&longer).is_err());
            for at in fixed {
                let mut changed = bytes.clone();
                changed[*at] ^= 0x80;
                assert!(Index::parse(&changed).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn the_place_of_superblocks_is_in_one_unit() {
        assert!(Index::parse(&units_from(32768).to_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_allocate_by_what_they_claim(
            version in proptest::sample::select(vec![1_u8, 3]), bytes in proptest::collection::vec(0_u8.., 0..300)
        ) {
            let mut bytes = bytes;
            let _ = Index::parse(&bytes);
            if bytes.len() >= 24 {
                bytes[..8].copy_from_slice(&[b'V', b'I', b'G', b'X', version, 0, 0, 0]);
                let _ = Index::parse(&bytes);
            }
        }
    }
}
