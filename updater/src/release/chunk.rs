//! How an image is cut: into chunks, which are found again wherever they lie, and into units, which are written and read
//! back as one.

use sha2::{Digest, Sha256};

/// Bytes of the image in one unit at most: what an interruption costs at most, and what the decoder holds.
pub const UNIT_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of the first unit at least, if the image has so many: where superblocks lie must be in one unit.
pub const FIRST_UNIT_BYTES: u32 = 128 * 1024;
/// A unit that is as long as this ends where its chunks say so.
const UNIT_BYTES_MIN: u32 = 1024 * 1024;
/// Chunks of an image at most, so that a device can hold the table of them. A larger image has larger chunks.
pub const CHUNKS: u32 = 1 << 20;
/// The shortest chunk.
const CHUNK_BYTES_MIN: u32 = 1024;
/// The longest.
pub const CHUNK_BYTES_MAX: u32 = 64 * 1024;

/// How an image is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// All of this length, but for the last: for images whose files begin at blocks.
    Aligned(u32),
    /// By their content, of this length on average: for images whose files begin anywhere.
    Content(u32),
}

impl Chunking {
    /// The same, if devices take it.
    pub fn checked(self) -> Option<Self> {
        let (size, range) = match self {
            Self::Aligned(size) => (size, 4096..=CHUNK_BYTES_MAX),
            Self::Content(mean) => (mean, CHUNK_BYTES_MIN * 4..=CHUNK_BYTES_MAX / 4),
        };
        (size.is_power_of_two() && range.contains(&size)).then_some(self)
    }

    /// The length of a chunk, or their average.
    pub fn mean(self) -> u32 {
        match self {
            Self::Aligned(size) | Self::Content(size) => size,
        }
    }

    /// The longest chunk.
    pub fn longest(self) -> u32 {
        match self {
            Self::Aligned(size) => size,
            Self::Content(mean) => mean * 4,
        }
    }

    /// The length of the chunk that `bytes` begins with. `bytes` is the rest of the image, or [`Self::longest`] of it at
    /// least.
    pub fn cut(self, bytes: &[u8]) -> usize {
        match self {
            Self::Aligned(size) => bytes.len().min(size as usize),
            Self::Content(mean) => {
                let mean = mean as usize;
                fastcdc::v2020::FastCDC::new(bytes, mean / 4, mean, mean * 4)
                    .next()
                    .map_or(bytes.len(), |chunk| chunk.length)
            }
        }
    }

    /// Whether a unit of `length` bytes ends with a chunk of this hash, even before [`UNIT_BYTES`]: so that the units of
    /// two images meet again behind a difference.
    pub fn ends_unit(self, length: u32, hash: ChunkHash) -> bool {
        length >= UNIT_BYTES_MIN && hash.short().is_multiple_of(u64::from(UNIT_BYTES_MIN / self.mean()))
    }
}

/// SHA-256 of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHash(pub [u8; 32]);

impl ChunkHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its first eight bytes, little-endian: what a leaf has of it. What a device finds by them is held against the
    /// unit's whole digest before it is used.
    pub fn short(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

/// A unit's digest: SHA-256 over its chunks' hashes, in order.
pub fn unit_digest(hashes: impl Iterator<Item = ChunkHash>) -> [u8; 32] {
    let mut digest = Sha256::new();
    hashes.for_each(|hash| digest.update(hash.0));
    digest.finalize().into()
}

/// Whether all of these bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_are_all_zero_are_zero() {
        for length in [0, 1, 15, 16, 17, 4096] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in [0, length / 2, length.saturating_sub(1)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 1;
                    assert!(!is_zero(&bytes), "{length} {at}");
                    bytes[at] = 0;
                }
            }
        }
    }

    #[test]
    fn chunks_by_content_are_found_again_behind_an_insertion() {
        let mut state = 1_u64;
        let mut noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let old: Vec<u8> = noise.by_ref().take(1 << 20).collect();
        let new: Vec<u8> = noise.take(1000).chain(old.iter().copied()).collect();
        let cut = |mut bytes: &[u8]| {
            let mut hashes = Vec::new();
            while !bytes.is_empty() {
                let (chunk, rest) = bytes.split_at(Chunking::Content(8192).cut(bytes));
                assert!(chunk.len() <= Chunking::Content(8192).longest() as usize);
                hashes.push(ChunkHash::of(chunk).short());
                bytes = rest;
            }
            hashes
        };
        let (old, new) = (cut(&old), cut(&new));
        let again = new.iter().filter(|hash| old.contains(hash)).count();
        assert!(again + 3 >= old.len(), "{again} of {}", old.len());
    }

    #[test]
    fn lengths_that_no_device_takes_are_refused() {
        for chunking in [
            Chunking::Aligned(4095),
            Chunking::Aligned(2048),
            Chunking::Content(1000),
            Chunking::Content(1 << 20),
        ] {
            assert_eq!(chunking.checked(), None, "{chunking:?}");
        }
        assert!(Chunking::Aligned(65536).checked().is_some() && Chunking::Content(4096).checked().is_some());
    }
}
