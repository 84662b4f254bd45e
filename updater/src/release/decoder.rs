//! Decodes frames: the only place where bytes of a release reach zstd, and only those with the hash that was signed.

use std::io;

use sha2::{Digest, Sha256};

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

    /// Parts that lie one behind the other, from the first byte on.
    pub fn parts(self, lengths: impl Iterator<Item = u32>) -> impl Iterator<Item = Self> {
        let mut rest = self.0;
        lengths.map_while(move |length| {
            let (part, behind) = rest.split_at_checked(length as usize)?;
            rest = behind;
            Some(Self(part))
        })
    }

    /// The bytes.
    pub fn bytes(self) -> &'f [u8] {
        self.0
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
