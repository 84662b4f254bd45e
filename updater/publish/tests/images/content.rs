//! Images of any kind, and what becomes of them from one release to the next.

use proptest::collection::vec;
use proptest::prelude::*;

const PIECE_BYTES: u32 = 200_000;
const IMAGE_BYTES: usize = 1_500_000;
/// A block of what is compressed.
const PACKED_BYTES: usize = 32_768;

/// A part of an image.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// What no compressor makes smaller.
    Noise(u64, u32),
    /// What one makes much smaller.
    Words(u64, u32),
    Zeros(u32),
    /// Words in blocks that are compressed, as squashfs has them: one of a few files, with something in it at this place.
    Packed(u64, u32, u16),
    /// What is there already, so many bytes from so far (in 65,536ths) on.
    Again(u16, u32),
}

/// What differs in a newer image. Places are in 65,536ths of what is there.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Insert(u16, Piece),
    Overwrite(u16, Piece),
    Remove(u16, u32),
    Move(u16, u32, u16),
}

pub(crate) fn piece() -> impl Strategy<Value = Piece> {
    // Lengths of blocks, and any others.
    let length = || prop_oneof![(1..48_u32).prop_map(|blocks| blocks * 4096), 1..PIECE_BYTES];
    prop_oneof![
        3 => (any::<u64>(), length()).prop_map(|(seed, length)| Piece::Noise(seed, length)),
        3 => (any::<u64>(), length()).prop_map(|(seed, length)| Piece::Words(seed, length)),
        1 => length().prop_map(Piece::Zeros),
        2 => (0..3_u64, length(), any::<u16>()).prop_map(|(seed, length, place)| Piece::Packed(seed, length, place)),
        2 => (any::<u16>(), length()).prop_map(|(place, length)| Piece::Again(place, length)),
    ]
}

pub(crate) fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<u16>(), piece()).prop_map(|(place, piece)| Edit::Insert(place, piece)),
        (any::<u16>(), piece()).prop_map(|(place, piece)| Edit::Overwrite(place, piece)),
        (any::<u16>(), 1..PIECE_BYTES).prop_map(|(place, length)| Edit::Remove(place, length)),
        (any::<u16>(), 1..PIECE_BYTES, any::<u16>())
            .prop_map(|(from, length, to)| Edit::Move(from, length, to)),
    ]
}

pub(crate) fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    vec(piece(), 1..12)
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec(edit(), 0..8)
}

pub(crate) fn build(pieces: &[Piece]) -> Vec<u8> {
    let mut image = Vec::new();
    for piece in pieces {
        let bytes = bytes(piece, &image);
        image.extend_from_slice(&bytes);
    }
    bounded(image)
}

pub(crate) fn edited(old: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut image = old.to_vec();
    for edit in edits {
        match edit {
            Edit::Insert(place, piece) => {
                let (at, bytes) = (scaled(*place, image.len()), bytes(piece, &image));
                image.splice(at..at, bytes);
            }
            Edit::Overwrite(place, piece) => {
                let (at, bytes) = (scaled(*place, image.len()), bytes(piece, &image));
                let end = (at + bytes.len()).min(image.len());
                image.splice(at..end, bytes);
            }
            Edit::Remove(place, length) => drop(image.drain(range(*place, *length, image.len()))),
            Edit::Move(from, length, to) => {
                let bytes: Vec<u8> = image.drain(range(*from, *length, image.len())).collect();
                let at = scaled(*to, image.len());
                image.splice(at..at, bytes);
            }
        }
    }
    bounded(image)
}

pub(crate) fn scaled(place: u16, length: usize) -> usize {
    length * usize::from(place) / 65_536
}

fn range(place: u16, length: u32, whole: usize) -> std::ops::Range<usize> {
    let begin = scaled(place, whole);
    begin..(begin + length as usize).min(whole)
}

fn bytes(piece: &Piece, image: &[u8]) -> Vec<u8> {
    match piece {
        Piece::Noise(seed, length) => noise(*seed).take(*length as usize).collect(),
        Piece::Words(seed, length) => {
            let words = ["room ", "board ", "camera\n", "    ", "chunk", "\0\0\0\0", "frame; "];
            let picked = noise(*seed).flat_map(|byte| words[usize::from(byte) % words.len()].bytes());
            picked.take(*length as usize).collect()
        }
        Piece::Packed(seed, length, place) => {
            let line = |byte: u8| format!("room {byte:02x}").into_bytes();
            let mut file: Vec<u8> = noise(*seed).flat_map(line).take(3 * *length as usize).collect();
            file.insert(scaled(*place, file.len()), b'+');
            let pack = |block: &[u8]| zstd::bulk::compress(block, 9).unwrap_or_default();
            file.chunks(PACKED_BYTES).flat_map(pack).collect()
        }
        Piece::Zeros(length) => vec![0; *length as usize],
        Piece::Again(place, length) => image[range(*place, *length, image.len())].to_vec(),
    }
}

/// An image has a byte at least.
fn bounded(mut image: Vec<u8>) -> Vec<u8> {
    image.truncate(IMAGE_BYTES);
    if image.is_empty() {
        image.push(b'.');
    }
    image
}

pub(crate) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)).to_le_bytes()
    })
    .flatten()
}
