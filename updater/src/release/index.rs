//! The index of an image's frames. Each frame is zstd over [`FRAME_BYTES`] bytes of the image (the last one over
//! what is left); the index has the hash of the frame as it is fetched, so that nothing unauthenticated reaches the
//! decompressor, and the hash of what it decodes to, so that the slot can be read back frame by frame.
//!
//! On the disk: `"VIGX"`, version, frame bytes, number of frames (each u32), image bytes (u64), then for each frame
//! its compressed length (u32) and the two SHA-256 hashes. Little-endian throughout.

use sha2::{Digest, Sha256};

/// Bytes of the image in one frame: what an interruption costs at most, and what the decoder holds.
pub const FRAME_BYTES: u32 = 1024 * 1024;
/// An index's bytes at most: enough for an image of 64 GiB.
pub const INDEX_BYTES: u64 = HEADER_BYTES as u64 + 65_536 * ENTRY_BYTES as u64;

const MAGIC: &[u8; 4] = b"VIGX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 68;
/// zstd's worst case is a little more than what goes in; a frame that claims more is no frame of ours.
const COMPRESSED_BYTES: u32 = FRAME_BYTES + FRAME_BYTES / 128;

/// Why an index was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame index: {0}")]
pub struct IndexError(&'static str);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the frames' file.
    pub offset: u64,
    /// Its bytes there.
    pub compressed: u32,
    /// SHA-256 of those bytes.
    pub compressed_sha256: [u8; 32],
    /// SHA-256 of what they decode to.
    pub sha256: [u8; 32],
}

/// An image's frames, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    image_size: u64,
    frames: Vec<Frame>,
}

impl Index {
    /// An index to be filled while an image is cut up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the frame that holds `raw` as `compressed`. Every frame but the last holds [`FRAME_BYTES`].
    pub fn push(&mut self, raw: &[u8], compressed: &[u8]) {
        self.frames.push(Frame {
            offset: self.frames_size(),
            compressed: compressed.len() as u32,
            compressed_sha256: Sha256::digest(compressed).into(),
            sha256: Sha256::digest(raw).into(),
        });
        self.image_size += raw.len() as u64;
    }

    /// The frames.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The image's bytes.
    pub fn image_size(&self) -> u64 {
        self.image_size
    }

    /// The bytes of all frames together.
    pub fn frames_size(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.offset + u64::from(frame.compressed))
    }

    /// Where frame number `position` begins in the image, and how many bytes of the image it holds.
    pub fn extent(&self, position: usize) -> (u64, u32) {
        let start = position as u64 * u64::from(FRAME_BYTES);
        (start, (self.image_size - start).min(u64::from(FRAME_BYTES)) as u32)
    }

    /// The index as it is published.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.frames.len() * ENTRY_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&FRAME_BYTES.to_le_bytes());
        bytes.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.image_size.to_le_bytes());
        for frame in &self.frames {
            bytes.extend_from_slice(&frame.compressed.to_le_bytes());
            bytes.extend_from_slice(&frame.compressed_sha256);
            bytes.extend_from_slice(&frame.sha256);
        }
        bytes
    }

    /// Reads an index. Its hash was checked against the manifest before; its shape is checked all the same.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let (header, entries) = bytes.split_at_checked(HEADER_BYTES).ok_or(IndexError("too short"))?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..4] != MAGIC {
            return Err(IndexError("it does not begin with VIGX"));
        }
        if word(4) != VERSION {
            return Err(IndexError("a version that this updater does not know"));
        }
        if word(8) != FRAME_BYTES {
            return Err(IndexError("a frame size that this updater does not use"));
        }
        let image_size = u64::from(word(16)) | u64::from(word(20)) << 32;
        let count = word(12) as usize;
        if entries.len() != count * ENTRY_BYTES || count as u64 != image_size.div_ceil(u64::from(FRAME_BYTES))
        {
            return Err(IndexError("the number of frames does not fit its size"));
        }
        let mut offset = 0;
        let mut frames = Vec::with_capacity(count);
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let compressed = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            if compressed == 0 || compressed > COMPRESSED_BYTES {
                return Err(IndexError("a frame of an impossible length"));
            }
            let mut frame = Frame { offset, compressed, compressed_sha256: [0; 32], sha256: [0; 32] };
            frame.compressed_sha256.copy_from_slice(&entry[4..36]);
            frame.sha256.copy_from_slice(&entry[36..68]);
            frames.push(frame);
            offset += u64::from(compressed);
        }
        Ok(Self { image_size, frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::new();
        index.push(&vec![1; FRAME_BYTES as usize], b"first");
        index.push(&[2; 10], b"second!");
        index
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let index = index();
        let read = Index::parse(&index.to_bytes()).unwrap();
        assert_eq!(read, index);
        assert_eq!(read.frames()[1].offset, 5);
        assert_eq!(read.frames_size(), 12);
        assert_eq!(read.extent(1), (u64::from(FRAME_BYTES), 10));
    }

    #[test]
    fn a_truncated_padded_or_foreign_index_is_refused() {
        let bytes = index().to_bytes();
        for length in 0..bytes.len() {
            assert!(Index::parse(&bytes[..length]).is_err(), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Index::parse(&longer).is_err());
        for at in [0, 4, 8, 12, 16] {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            // Byte 16 is the image's size: 128 bytes more still fit into the last frame.
            assert_eq!(Index::parse(&changed).is_err(), at != 16, "{at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_allocate_by_what_they_claim(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            let mut bytes = bytes;
            let _ = Index::parse(&bytes);
            if bytes.len() >= 24 {
                bytes[..12].copy_from_slice(b"VIGX\x01\0\0\0\0\0\x10\0");
                let _ = Index::parse(&bytes);
            }
        }
    }
}
