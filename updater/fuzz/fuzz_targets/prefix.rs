//! Ranges of an old image, some of them packed, as what a patch starts from: with the signed hash they come to exactly the bytes
//! that they unpack to, or are an error; with another one nothing of them reaches zstd.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vigil_updater::release::packing::PACKED_BYTES;
use vigil_updater::release::patch::Range;
use vigil_updater::release::{ChunkHash, Decoder, Packer, Unpacking};

#[derive(Arbitrary, Debug)]
enum Part {
    Plain(Vec<u8>),
    /// So many times the same, packed.
    Packed(Vec<u8>, u8),
    /// Said to unpack to so many bytes.
    Wrong(Vec<u8>, u32),
}

#[derive(Arbitrary, Debug)]
struct Input {
    parts: Vec<Part>,
    /// Bits that differ between what was signed and what is there.
    flipped: Option<(u16, u8)>,
}

fuzz_target!(|input: Input| {
    let mut packer = Packer::new(1).unwrap();
    let (mut ranges, mut there, mut expected) = (Vec::new(), Vec::new(), Some(Vec::new()));
    for part in &input.parts {
        let begin = there.len();
        let unpacked = match part {
            Part::Plain(bytes) => {
                there.extend_from_slice(bytes);
                expected.iter_mut().for_each(|expected| expected.extend_from_slice(bytes));
                0
            }
            Part::Packed(bytes, times) => {
                let bytes = bytes.repeat(usize::from(*times));
                if bytes.is_empty() || bytes.len() > PACKED_BYTES as usize {
                    continue;
                }
                there.extend_from_slice(packer.pack(&bytes).unwrap());
                expected.iter_mut().for_each(|expected| expected.extend_from_slice(&bytes));
                bytes.len() as u32
            }
            Part::Wrong(bytes, unpacked) => {
                there.extend_from_slice(bytes);
                expected = None;
                unpacked % (PACKED_BYTES + 1)
            }
        };
        ranges.push(Range { begin: 0, length: (there.len() - begin) as u32, unpacked });
    }
    let mut half = [0; 16];
    half.copy_from_slice(&ChunkHash::of(&there).0[..16]);
    let mut is_flipped = false;
    if let Some((at, bits)) = input.flipped
        && let Some(byte) = there.get_mut(usize::from(at))
    {
        *byte ^= bits;
        is_flipped = bits != 0;
    }
    let mut unpacking = Unpacking::new(&ranges);
    unpacking.packed().copy_from_slice(&there);
    let unpacked = unpacking.unpack(&ranges, &half, &mut Decoder::default(), &mut Vec::new());
    match (unpacked, expected) {
        (unpacked, _) if is_flipped => assert_eq!(unpacked, Ok(None)),
        (unpacked, Some(expected)) => assert_eq!(unpacked, Ok(Some(expected))),
        (Ok(Some(unpacked)), None) => {
            let length: u32 = ranges.iter().map(Range::in_prefix).sum();
            assert_eq!(unpacked.len(), length as usize);
        }
        (Ok(None), None) => panic!("the hash is right"),
        (Err(_), None) => {}
    }
});
