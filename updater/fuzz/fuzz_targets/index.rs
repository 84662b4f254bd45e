//! Any bytes as an index, and as a leaf of each of its units: no panic, no memory by what they claim, and what is read is
//! written as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vigil_updater::release::{Chunking, Index, Kind, Leaf, Unit};

fuzz_target!(|input: (Vec<u8>, Vec<u8>, u32, u32, bool)| {
    let (index, leaf, length, chunks, aligned) = input;
    if let Ok(read) = Index::parse(&index) {
        assert_eq!(read.to_bytes(), index);
        let length: u64 = read.units().iter().map(|unit| u64::from(unit.length)).sum();
        assert_eq!(length, read.image_size());
        if let Some((chunking, unit)) = read.chunking().zip(read.units().first()) {
            let _ = Leaf::parse(&leaf, unit, chunking);
        }
    }
    let chunking = if aligned { Chunking::Aligned(4096) } else { Chunking::Content(4096) };
    let length = length % (4 << 20) + 1;
    let chunks = chunks % length.min(4096) + 1;
    let mut unit = Unit {
        offset: 1 << 22,
        length,
        chunks,
        leaf_offset: 0,
        leaf_length: leaf.len() as u32,
        leaf_sha256: [0; 32],
        frames_offset: 0,
        frames_length: 0,
        digest: [0; 32],
    };
    // With the frames' bytes that the leaf itself claims, so that what follows is reached.
    if let Ok(read) = Leaf::parse_without_frames(&leaf, &unit, chunking) {
        unit.frames_length =
            read.frames.iter().fold(0_u32, |sum, frame| sum.saturating_add(frame.compressed));
    }
    let Ok(read) = Leaf::parse(&leaf, &unit, chunking) else { return };
    assert_eq!(read.to_bytes(chunking).len(), leaf.len());
    assert_eq!(read.chunks.iter().map(|chunk| chunk.length).sum::<u32>(), length);
    let mut held = vec![0; read.chunks.len()];
    for (frame, chunks) in read.frame_chunks().enumerate() {
        let first = chunks[0];
        let begin = read.offsets().nth(first).unwrap();
        assert!(read.context_of(frame, begin).end <= length as usize);
        if let Some(before) = read.before_of(frame) {
            assert!(read.has_whole() && frame == 0 && u64::from(before.length) <= unit.offset);
        }
        chunks.into_iter().for_each(|at| held[at] += 1);
    }
    let sets = 1 + usize::from(read.has_whole());
    for (chunk, held) in read.chunks.iter().zip(held) {
        assert_eq!(held, if matches!(chunk.kind, Kind::Data(_)) { sets } else { 0 });
    }
});
