//! Framing: `[u32 header length][u32 blob length][header: JSON][blob: bytes]`, lengths little-endian.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A header's bytes at most.
pub const HEADER_BYTES: usize = 256 * 1024;
/// A blob's bytes at most.
pub const BLOB_BYTES: usize = 512 * 1024;
const PREFIX_BYTES: usize = 8;

/// The peer sent something that is no frame. The connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length over its limit, refused before anything is allocated.
    #[error("a frame with a {part} of {length} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Header or blob.
        part: &'static str,
        /// As announced.
        length: usize,
        /// As allowed.
        limit: usize,
    },
    /// The header is not a message of this version.
    #[error("a frame that holds no message: {}", vigil_text::json_fault(.0))]
    Malformed(#[from] serde_json::Error),
}

/// A message and its blob, as bytes to send.
pub fn encode<M: Serialize>(message: &M, blob: &[u8]) -> Result<Vec<u8>, FrameError> {
    let header = serde_json::to_vec(message)?;
    check("header", header.len(), HEADER_BYTES)?;
    check("blob", blob.len(), BLOB_BYTES)?;
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + blob.len());
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(blob.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(blob);
    Ok(bytes)
}

fn check(part: &'static str, length: usize, limit: usize) -> Result<(), FrameError> {
    if length > limit { Err(FrameError::TooLarge { part, length, limit }) } else { Ok(()) }
}

/// Takes frames out of a stream of bytes, holding at most one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes in what was read. Returns how many bytes were taken: never more than the frame at hand needs, so that
    /// a peer which sends faster than it is answered fills its own buffers and not ours.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let wanted = self.wanted()?;
        let taken = wanted.min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// How many bytes the frame at hand still lacks, as far as is known; 0 when it is whole.
    pub fn wanted(&self) -> Result<usize, FrameError> {
        match self.lengths()? {
            None => Ok(PREFIX_BYTES - self.buffer.len()),
            Some((header, blob)) => Ok((PREFIX_BYTES + header + blob).saturating_sub(self.buffer.len())),
        }
    }

    /// The frame at hand, when it is whole.
    pub fn take<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Vec<u8>)>, FrameError> {
        let Some((header, blob)) = self.lengths()? else { return Ok(None) };
        if self.buffer.len() < PREFIX_BYTES + header + blob {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.buffer[PREFIX_BYTES..PREFIX_BYTES + header])?;
        let blob = self.buffer.split_off(PREFIX_BYTES + header);
        self.buffer.clear();
        Ok(Some((message, blob)))
    }

    /// Whether a frame has begun and not ended.
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn lengths(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let Some(blob) = rest.first_chunk::<4>() else { return Ok(None) };
        let header = u32::from_le_bytes(*header) as usize;
        let blob = u32::from_le_bytes(*blob) as usize;
        check("header", header, HEADER_BYTES)?;
        check("blob", blob, BLOB_BYTES)?;
        Ok(Some((header, blob)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_length_over_its_limit_is_refused_before_anything_is_allocated() {
        let mut decoder = Decoder::default();
        let mut prefix = Vec::new();
        prefix.extend_from_slice(&u32::MAX.to_le_bytes());
        prefix.extend_from_slice(&0_u32.to_le_bytes());
        assert_eq!(decoder.push(&prefix).unwrap(), 8);
        assert!(matches!(decoder.take::<Value>(), Err(FrameError::TooLarge { .. })));
        assert!(decoder.push(b"more").is_err());
        assert!(decoder.buffer.capacity() < 1024);
    }

    #[test]
    fn a_header_that_is_no_message_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(&[3, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        decoder.push(b"{x}").unwrap();
        assert!(matches!(decoder.take::<Value>(), Err(FrameError::Malformed(_))));
    }

    proptest::proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            blobs in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..200), 1..5),
            cuts in proptest::collection::vec(1_usize..50, 1..60),
        ) {
            let mut stream = Vec::new();
            for (index, blob) in blobs.iter().enumerate() {
                stream.extend(encode(&json!({"index": index}), blob).unwrap());
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let cut = (*cuts.next().unwrap()).min(stream.len());
                let taken = decoder.push(&stream[..cut]).unwrap();
                stream.drain(..taken);
                if let Some((message, blob)) = decoder.take::<Value>().unwrap() {
                    assert_eq!(message, json!({"index": seen.len()}));
                    seen.push(blob);
                }
            }
            assert_eq!(seen, blobs);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0_u8.., 0..100)) {
            let mut decoder = Decoder::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match decoder.push(rest) {
                    Ok(0) | Err(_) => break,
                    Ok(taken) => rest = &rest[taken..],
                }
                if decoder.take::<Value>().is_err() { break }
            }
        }
    }
}
