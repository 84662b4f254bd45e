//! Decodes frames: the only place where bytes of a release reach zstd, and only those with the hash that was signed.

use std::io;

use sha2::{Digest, Sha256};

use super::patch::Range;

/// Bytes with the hash that was signed.
#[derive(Clone, Copy, Debug)]
pub struct Vouched<'f>(&'f [u8]);

impl<'f> Vouched<'f> {
    /// None when `bytes` have another SHA-256.
    pub fn new(bytes: &'f [u8], sha256: &[u8; 32]) -> Option<Self> {
        (Sha256::digest(bytes).as_slice() == sha256).then_some(Self(bytes))
    }

    /// None when the SHA-256 of `bytes` has another first half.
    pub fn by_half(bytes: &'f [u8], half: &[u8; 16]) -> Option<Self> {
        (Sha256::digest(bytes)[..16] == *half).then_some(Self(bytes))
    }
}

/// Bytes of an old image, some of them zstd frames, which are unpacked where they lie: there is no room for both.
#[derive(Debug)]
pub struct Unpacking {
    bytes: Vec<u8>,
    /// Before the bytes, so that what is unpacked never reaches what is not yet.
    room: usize,
}

impl Unpacking {
    /// Of these ranges, which are still to be read.
    pub fn new(ranges: &[Range]) -> Self {
        let (mut packed, mut unpacked, mut room) = (0, 0, 0);
        for range in ranges {
            packed += range.length as usize;
            unpacked += range.in_prefix() as usize;
            room = room.max(unpacked.saturating_sub(packed));
        }
        Self { bytes: vec![0; room + packed], room }
    }

    /// Where the ranges belong, one behind the other.
    pub fn packed(&mut self) -> &mut [u8] {
        &mut self.bytes[self.room..]
    }

    /// Unpacks them with `scratch`. None when the SHA-256 of the ranges has another first half.
    pub fn unpack(
        mut self,
        ranges: &[Range],
        half: &[u8; 16],
        decoder: &mut Decoder,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Vec<u8>>, String> {
        if Vouched::by_half(&self.bytes[self.room..], half).is_none() {
            return Ok(None);
        }
        let (mut from, mut to) = (self.room, 0);
        for range in ranges {
            let part = from..from + range.length as usize;
            from = part.end;
            if range.unpacked == 0 {
                self.bytes.copy_within(part, to);
            } else {
                decoder.decode(Vouched(&self.bytes[part]), &[], range.unpacked as usize, scratch)?;
                self.bytes[to..to + scratch.len()].copy_from_slice(scratch);
            }
            to += range.in_prefix() as usize;
        }
        self.bytes.truncate(to);
        Ok(Some(self.bytes))
    }
}

/// Decodes frames, one at a time.
#[derive(Default)]
pub struct Decoder {
    plain: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// Decodes a frame that was compressed with `prefix` before it into exactly `size` bytes of `raw`. More are never
    /// written, whatever the frame says.
    pub fn decode(
        &mut self,
        frame: Vouched<'_>,
        prefix: &[u8],
        size: usize,
        raw: &mut Vec<u8>,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        raw.clear();
        raw.reserve_exact(size);
        let count = if prefix.is_empty() {
            let decompressor = match &mut self.plain {
                Some(decompressor) => decompressor,
                none => none.insert(zstd::bulk::Decompressor::new().map_err(text)?),
            };
            decompressor.decompress_to_buffer(frame.0, raw).map_err(text)?
        } else {
            let mut context = zstd::zstd_safe::DCtx::create();
            let name = |code| zstd::zstd_safe::get_error_name(code).to_owned();
            context.ref_prefix(prefix).map_err(name)?;
            context.decompress(raw, frame.0).map_err(name)?
        };
        if count == size { Ok(()) } else { Err(format!("{count} bytes, expected {size}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame and its hash.
    fn frame(raw: &[u8], prefix: &[u8]) -> (Vec<u8>, [u8; 32]) {
        let mut context = zstd::zstd_safe::CCtx::create();
        context.ref_prefix(prefix).unwrap();
        let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(raw.len()));
        context.compress2(&mut frame, raw).unwrap();
        let sha256 = Sha256::digest(&frame).into();
        (frame, sha256)
    }

    #[test]
    fn a_frame_decodes_with_the_prefix_that_it_was_made_with() {
        let (raw, prefix) = (b"the new release of a file".repeat(9), b"the old release of a file".repeat(9));
        let (frame, sha256) = frame(&raw, &prefix);
        let mut out = Vec::new();
        Decoder::default()
            .decode(Vouched::new(&frame, &sha256).unwrap(), &prefix, raw.len(), &mut out)
            .unwrap();
        assert_eq!(out, raw);
    }

    #[test]
    fn ranges_are_unpacked_where_they_lie_if_their_hash_is_right() {
        let (one, other) = (b"a block of an old file ".repeat(900), b"x".repeat(3));
        let ((packed_one, _), (packed_other, _)) = (frame(&one, b""), frame(&other, b""));
        // The second is longer packed than unpacked.
        assert!(packed_other.len() > other.len());
        let parts: [(&[u8], &[u8]); 5] = [
            (b"before ", b"before "),
            (&packed_other, &other),
            (&packed_one, &one),
            (b" between ", b" between "),
            (&packed_one, &one),
        ];
        let ranges = parts.map(|(packed, unpacked)| Range {
            begin: 0,
            length: packed.len() as u32,
            unpacked: if packed == unpacked { 0 } else { unpacked.len() as u32 },
        });
        let packed = parts.map(|part| part.0).concat();
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(&packed)[..16]);
        let unpack = |half: &[u8; 16]| {
            let mut unpacking = Unpacking::new(&ranges);
            unpacking.packed().copy_from_slice(&packed);
            unpacking.unpack(&ranges, half, &mut Decoder::default(), &mut Vec::new())
        };
        assert_eq!(unpack(&half).unwrap().unwrap(), parts.map(|part| part.1).concat());
        half[3] ^= 1;
        assert_eq!(unpack(&half), Ok(None));
    }

    #[test]
    fn bytes_with_another_hash_are_not_vouched_for() {
        let (mut frame, sha256) = frame(b"something", b"");
        frame[0] ^= 1;
        assert!(Vouched::new(&frame, &sha256).is_none());
    }

    #[test]
    fn a_frame_of_more_or_less_than_was_signed_is_an_error_and_writes_no_more() {
        let raw = vec![7; 100_000];
        let (frame, sha256) = frame(&raw, b"");
        for size in [99_999, 100_001] {
            let mut out = Vec::new();
            let vouched = Vouched::new(&frame, &sha256).unwrap();
            assert!(Decoder::default().decode(vouched, b"", size, &mut out).is_err());
            assert!(out.capacity() <= size, "{}", out.capacity());
        }
    }
}
