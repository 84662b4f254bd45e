//! Any bytes as a frame, with any prefix: what has not the signed hash does not reach zstd, and what has it, as a release that
//! was signed by mistake would, is decoded into exactly the bytes that were signed, or is an error.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vigil_updater::release::{ChunkHash, Decoder, UNIT_BYTES, Vouched};

#[derive(Arbitrary, Debug)]
struct Input {
    frame: Vec<u8>,
    prefix: Vec<u8>,
    size: u32,
    /// Bits that differ between what was signed and what came.
    flipped: Option<(u16, u8)>,
}

fuzz_target!(|input: Input| {
    let Input { mut frame, prefix, size, flipped } = input;
    let signed = ChunkHash::of(&frame).0;
    if let Some((at, bits)) = flipped
        && let Some(byte) = frame.get_mut(usize::from(at))
    {
        *byte ^= bits;
        assert_eq!(Vouched::new(&frame, &signed).is_none(), bits != 0);
    }
    let Some(vouched) = Vouched::new(&frame, &signed) else { return };
    let size = size as usize % (UNIT_BYTES as usize + 1);
    let mut raw = Vec::new();
    let decoded = Decoder::default().decode(vouched, &prefix, size, &mut raw);
    assert!(raw.capacity() <= size);
    assert!(decoded.is_err() || raw.len() == size);
});
