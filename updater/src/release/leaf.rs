//! A unit's leaf: what the unit is made of.
//!
//! Number of frames (u16), context in KiB (u16), bytes of the image before the unit (u32), and if there are any of these the first half
//! of their SHA-256; then for each frame its compressed bytes (u32), the chunks it holds (u32) and SHA-256 of the compressed bytes;
//! then two bits for each chunk, the first in the lowest bits of the first byte: 0 zeros, 1 data, 2 the
//! same as another one before it; then, where chunks are cut by their content, the length of each less one (u16); then
//! for each chunk that is not zeros the first eight bytes of its SHA-256, in the order of the chunks; and at last for each of
//! the third kind where in the image the other one begins (u64). Little-endian throughout.
//!
//! The frames hold the chunks of data one after the other. If there are several and the first one holds them all, it is for
//! devices that lack most of the unit, and the others hold them all once more. That first one is zstd with a raw prefix: the bytes of
//! the image before the unit, which a device has made by then. The others, and all where there is no such first one, have the bytes
//! of the unit before the frame's first chunk, as many as the context says at most: a unit can be made with nothing before it.

use super::chunk::{Chunking, UNIT_BYTES};
use super::index::{IndexError, Unit, hash, word};

/// A leaf's bytes at most.
pub const LEAF_BYTES: u32 = 128 * 1024;
/// Bytes of the image before a unit, at most, with which the frame that holds all of it is decoded: less than what patches take.
pub const BEFORE_BYTES: u32 = 4 * 1024 * 1024;
/// Frames in a unit at most.
const FRAMES: usize = 1024;
const FRAME_ENTRY_BYTES: usize = 40;

/// What a unit is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Bytes of the unit before a frame that it is decoded with, at most; a whole number of KiB.
    pub context: u32,
    /// What the frame that holds all is decoded with; of a leaf without such a frame, nothing.
    pub before: Option<Before>,
    /// The frames that hold its chunks of data, one after the other in the frames' file.
    pub frames: Vec<Frame>,
    /// All of its chunks, in order.
    pub chunks: Vec<Chunk>,
}

/// Bytes of the image right before a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// How many, [`BEFORE_BYTES`] at most.
    pub length: u32,
    /// The first half of their SHA-256.
    pub sha256: [u8; 16],
}

/// Some chunks of data, compressed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes in the frames' file.
    pub compressed: u32,
    /// SHA-256 of those bytes.
    pub sha256: [u8; 32],
    /// The chunks of data that it holds.
    pub chunks: u32,
}

/// A chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes.
    pub length: u32,
    /// What they are.
    pub kind: Kind,
}

/// What a chunk's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Zeros.
    Zero,
    /// In a frame; their short hash.
    Data(u64),
    /// The same as a chunk before this one.
    Same {
        /// Their short hash.
        hash: u64,
        /// Where in the image the other one begins.
        begin: u64,
    },
}

/// What a frame of `raw` bytes takes at most: zstd's worst case is a little more than what goes in.
pub fn most_compressed(raw: u32) -> u32 {
    raw + raw / 128 + 64
}

/// What the frames of a unit of `raw` bytes take at most.
pub(super) fn most_frames(raw: u32) -> u32 {
    2 * most_compressed(raw) + 64 * FRAMES as u32
}

impl Leaf {
    fn data(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.chunks.len()).filter(|at| matches!(self.chunks[*at].kind, Kind::Data(_)))
    }

    /// Whether the first of several frames holds all.
    pub fn has_whole(&self) -> bool {
        self.frames.len() > 1 && self.frames[0].chunks as usize == self.data().count()
    }

    /// For each frame the chunks of data that it holds, as positions in [`Self::chunks`].
    pub fn frame_chunks(&self) -> impl Iterator<Item = Vec<usize>> + '_ {
        let whole = usize::from(self.has_whole());
        let mut data = self.data();
        self.frames.iter().enumerate().map(move |(number, frame)| match number {
            0 if whole == 1 => self.data().collect(),
            _ => data.by_ref().take(frame.chunks as usize).collect(),
        })
    }

    /// Which bytes of the unit a frame that begins with the byte `begin` of it is decoded with; none for the one that holds all.
    pub fn context_of(&self, frame: usize, begin: u32) -> std::ops::Range<usize> {
        let context = if frame == 0 && self.has_whole() { 0 } else { self.context };
        begin.saturating_sub(context) as usize..begin as usize
    }

    /// Which bytes of the image before its unit a frame is decoded with.
    pub fn before_of(&self, frame: usize) -> Option<Before> {
        self.before.filter(|_| frame == 0 && self.has_whole())
    }

    /// Where in the unit each chunk begins.
    pub fn offsets(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().scan(0, |offset, chunk| {
            let begin = *offset;
            *offset += chunk.length;
            Some(begin)
        })
    }

    /// The leaf as it is published.
    pub fn to_bytes(&self, chunking: Chunking) -> Vec<u8> {
        let mut bytes = (self.frames.len() as u16).to_le_bytes().to_vec();
        bytes.extend_from_slice(&((self.context / 1024) as u16).to_le_bytes());
        bytes.extend_from_slice(&self.before.map_or(0, |before| before.length).to_le_bytes());
        bytes.extend(self.before.into_iter().flat_map(|before| before.sha256));
        for frame in &self.frames {
            bytes.extend_from_slice(&frame.compressed.to_le_bytes());
            bytes.extend_from_slice(&frame.chunks.to_le_bytes());
            bytes.extend_from_slice(&frame.sha256);
        }
        for four in self.chunks.chunks(4) {
            let kinds = four.iter().enumerate().map(|(place, chunk)| {
                let kind = match chunk.kind {
                    Kind::Zero => 0,
                    Kind::Data(_) => 1,
                    Kind::Same { .. } => 2,
                };
                kind << (2 * place)
            });
            bytes.push(kinds.fold(0_u8, |byte, kind| byte | kind));
        }
        if matches!(chunking, Chunking::Content(_)) {
            let lengths = self.chunks.iter().map(|chunk| (chunk.length - 1) as u16);
            lengths.for_each(|length| bytes.extend_from_slice(&length.to_le_bytes()));
        }
        for chunk in &self.chunks {
            if let Kind::Data(hash) | Kind::Same { hash, .. } = chunk.kind {
                bytes.extend_from_slice(&hash.to_le_bytes());
            }
        }
        for chunk in &self.chunks {
            if let Kind::Same { begin, .. } = chunk.kind {
                bytes.extend_from_slice(&begin.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads the leaf of `unit`. Its hash was checked before; its shape is checked all the same.
    pub fn parse(bytes: &[u8], unit: &Unit, chunking: Chunking) -> Result<Self, IndexError> {
        let leaf = Self::parse_without_frames(bytes, unit, chunking)?;
        leaf.check(unit)?;
        Ok(leaf)
    }

    /// Reads a leaf of the device's own, whose chunks come of no frames.
    pub fn parse_without_frames(bytes: &[u8], unit: &Unit, chunking: Chunking) -> Result<Self, IndexError> {
        let short = IndexError("a leaf that is too short");
        let mut rest = bytes;
        let mut take = |length: usize| {
            let (taken, behind) = rest.split_at_checked(length).ok_or(short.clone())?;
            rest = behind;
            Ok::<_, IndexError>(taken)
        };
        let header = take(8)?;
        let count = usize::from(u16::from_le_bytes([header[0], header[1]]));
        let context = u32::from(u16::from_le_bytes([header[2], header[3]])) * 1024;
        if context > UNIT_BYTES || count > FRAMES {
            return Err(IndexError("a leaf with too many frames, or too much context"));
        }
        let length = word(header, 4);
        if length > BEFORE_BYTES || u64::from(length) > unit.offset {
            return Err(IndexError("a leaf that begins with more than is before its unit"));
        }
        let before = match length {
            0 => None,
            _ => Some(Before { length, sha256: half(take(16)?) }),
        };
        let frames: Vec<_> = take(count * FRAME_ENTRY_BYTES)?
            .chunks_exact(FRAME_ENTRY_BYTES)
            .map(|entry| Frame { compressed: word(entry, 0), chunks: word(entry, 4), sha256: hash(entry, 8) })
            .collect();
        // The index bounds the number of chunks by the unit's bytes, and these by UNIT_BYTES.
        let chunks = unit.chunks as usize;
        let kinds = take(chunks.div_ceil(4))?;
        let lengths = match chunking {
            Chunking::Aligned(_) => None,
            Chunking::Content(_) => Some(take(chunks * 2)?),
        };
        let mut offset = 0_u32;
        let mut leaf = Self { context, before, frames, chunks: Vec::with_capacity(chunks) };
        for at in 0..chunks {
            let length = match (chunking, lengths) {
                (Chunking::Content(_), Some(lengths)) => {
                    u32::from(u16::from_le_bytes([lengths[2 * at], lengths[2 * at + 1]])) + 1
                }
                (chunking, _) => chunking.mean().min(unit.length.saturating_sub(offset)),
            };
            let kind = match kinds[at / 4] >> (2 * (at % 4)) & 3 {
                0 => Kind::Zero,
                1 => Kind::Data(long(take(8)?)),
                2 => Kind::Same { hash: long(take(8)?), begin: 0 },
                _ => return Err(IndexError("a leaf with a chunk of an unknown kind")),
            };
            offset = offset.saturating_add(length);
            if length == 0 || offset > UNIT_BYTES {
                return Err(IndexError("a leaf with a chunk of an impossible length"));
            }
            leaf.chunks.push(Chunk { length, kind });
        }
        let mut end = unit.offset;
        for chunk in &mut leaf.chunks {
            if let Kind::Same { begin, .. } = &mut chunk.kind {
                *begin = long(take(8)?);
                if begin.checked_add(chunk.length.into()).is_none_or(|other_end| other_end > end) {
                    return Err(IndexError("a leaf with a chunk that repeats one behind it"));
                }
            }
            end += u64::from(chunk.length);
        }
        if !rest.is_empty() || offset != unit.length {
            return Err(IndexError("a leaf that does not fit its unit"));
        }
        Ok(leaf)
    }

    fn check(&self, unit: &Unit) -> Result<(), IndexError> {
        let sets = 1 + u64::from(self.has_whole());
        let data = self.data().count() as u64 * sets;
        let held: u64 = self.frames.iter().map(|frame| u64::from(frame.chunks)).sum();
        let compressed: u64 = self.frames.iter().map(|frame| u64::from(frame.compressed)).sum();
        let is_possible = |frame: &Frame| {
            frame.chunks > 0 && (1..=most_compressed(unit.length)).contains(&frame.compressed)
        };
        if held != data
            || compressed != u64::from(unit.frames_length)
            || !self.frames.iter().all(is_possible)
            || self.before.is_some() && !self.has_whole()
        {
            return Err(IndexError("a leaf whose frames do not fit its unit"));
        }
        Ok(())
    }
}

fn half(bytes: &[u8]) -> [u8; 16] {
    std::array::from_fn(|at| bytes[at])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes, 0)) | u64::from(word(bytes, 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_leaf(chunking: Chunking) -> impl Strategy<Value = (Leaf, Unit)> {
        let kind = prop_oneof![
            Just(Kind::Zero),
            any::<u64>().prop_map(Kind::Data),
            (any::<u64>(), 0_u64..1 << 20).prop_map(|(hash, begin)| Kind::Same { hash, begin })
        ];
        let length = match chunking {
            Chunking::Aligned(size) => size..=size,
            Chunking::Content(mean) => mean / 4..=mean * 4,
        };
        (proptest::collection::vec((kind, length), 1..40), 1_u32..5, any::<bool>()).prop_map(
            |(chunks, frames, whole)| {
                let chunks: Vec<_> =
                    chunks.into_iter().map(|(kind, length)| Chunk { length, kind }).collect();
                let data = chunks.iter().filter(|chunk| matches!(chunk.kind, Kind::Data(_))).count() as u32;
                let each = data.div_ceil(frames).max(1);
                let frames: Vec<_> = (0..data.div_ceil(each))
                    .map(|number| Frame {
                        compressed: 100 + number,
                        sha256: [number as u8; 32],
                        chunks: each.min(data - number * each),
                    })
                    .collect();
                let has_whole = whole && frames.len() > 1;
                let frames = if has_whole {
                    let first = Frame { compressed: 300, sha256: [9; 32], chunks: data };
                    [vec![first], frames].concat()
                } else {
                    frames
                };
                let before = (has_whole && data.is_multiple_of(2))
                    .then_some(Before { length: 70_001, sha256: [8; 16] });
                let unit = Unit {
                    offset: 1 << 21,
                    length: chunks.iter().map(|chunk| chunk.length).sum(),
                    chunks: chunks.len() as u32,
                    leaf_offset: 0,
                    leaf_length: 1,
                    leaf_sha256: [0; 32],
                    frames_offset: 0,
                    frames_length: frames.iter().map(|frame| frame.compressed).sum(),
                    digest: [0; 32],
                };
                (Leaf { context: 3 * 1024, before, frames, chunks }, unit)
            },
        )
    }

    proptest! {
        #[test]
        fn a_leaf_is_read_as_it_was_written_and_no_shorter_or_longer(
            (chunking, (leaf, unit)) in prop_oneof![Just(Chunking::Aligned(4096)), Just(Chunking::Content(8192))]
                .prop_flat_map(|chunking| (Just(chunking), any_leaf(chunking))),
            cut in any::<prop::sample::Index>()
        ) {
            let mut bytes = leaf.to_bytes(chunking);
            prop_assert_eq!(&Leaf::parse(&bytes, &unit, chunking).unwrap(), &leaf);
            let held: usize = leaf.frame_chunks().map(|chunks| chunks.len()).sum();
            prop_assert_eq!(held as u32, leaf.frames.iter().map(|frame| frame.chunks).sum::<u32>());
            let skipped = usize::from(leaf.has_whole());
            let in_order: Vec<_> = leaf.frame_chunks().skip(skipped).flatten().collect();
            prop_assert_eq!(in_order, leaf.data().collect::<Vec<_>>());
            prop_assert!(Leaf::parse(&bytes[..cut.index(bytes.len())], &unit, chunking).is_err());
            bytes.push(0);
            prop_assert!(Leaf::parse(&bytes, &unit, chunking).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), chunks in 1_u32..200, length in 1..UNIT_BYTES
        ) {
            let unit = Unit {
                offset: 0, length, chunks, leaf_offset: 0, leaf_length: 1, leaf_sha256: [0; 32], frames_offset: 0,
                frames_length: 100, digest: [0; 32],
            };
            let _ = Leaf::parse(&bytes, &unit, Chunking::Aligned(4096));
            let _ = Leaf::parse(&bytes, &unit, Chunking::Content(4096));
        }
    }

    #[test]
    fn a_chunk_cannot_be_the_same_as_one_that_is_not_before_it() {
        let chunks = [Kind::Zero, Kind::Same { hash: 1, begin: 4097 }]
            .map(|kind| Chunk { length: 4096, kind })
            .to_vec();
        let leaf = Leaf { context: 0, before: None, frames: vec![], chunks };
        let unit = Unit {
            offset: 4096,
            length: 8192,
            chunks: 2,
            leaf_offset: 0,
            leaf_length: 1,
            leaf_sha256: [0; 32],
            frames_offset: 0,
            frames_length: 0,
            digest: [0; 32],
        };
        let bytes = leaf.to_bytes(Chunking::Aligned(4096));
        assert!(Leaf::parse(&bytes, &unit, Chunking::Aligned(4096)).is_err());
    }
}
