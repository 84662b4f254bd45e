//! Any unit, any knowledge of the slots: what is planned brings all that is lacking, and costs no more than the whole.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vigil_updater::engine::Way;
use vigil_updater::engine::plan::{Candidate, Place, Planner, REQUEST_BYTES, frames_for, spans};
use vigil_updater::release::{Chunk, Chunking, Frame, Index, Kind, Leaf, Patch};

#[derive(Arbitrary, Debug)]
struct Input {
    /// For each chunk its kind, and where the device has it.
    chunks: Vec<(u8, u8)>,
    /// For each frame its chunks and its bytes.
    frames: Vec<(u8, u16)>,
    whole: Option<u16>,
    patch: Option<(u16, Vec<bool>)>,
    is_done: bool,
}

fuzz_target!(|input: Input| {
    if input.chunks.is_empty() || input.chunks.len() > 1024 {
        return;
    }
    let kind = |(at, (kind, _)): (usize, &(u8, u8))| match kind % 3 {
        0 => Kind::Zero,
        1 => Kind::Data(at as u64),
        _ => Kind::Same { hash: 0, begin: 0 },
    };
    let chunks: Vec<_> =
        input.chunks.iter().enumerate().map(|chunk| Chunk { length: 4096, kind: kind(chunk) }).collect();
    let data = chunks.iter().filter(|chunk| matches!(chunk.kind, Kind::Data(_))).count() as u32;
    let mut frames = Vec::new();
    let mut left = data;
    for (count, compressed) in &input.frames {
        let count = u32::from(*count).clamp(1, left.max(1)).min(left);
        if count == 0 {
            break;
        }
        left -= count;
        frames.push(Frame { compressed: u32::from(*compressed) + 1, sha256: [0; 32], chunks: count });
    }
    if left > 0 {
        frames.push(Frame { compressed: 100, sha256: [0; 32], chunks: left });
    }
    if let Some(compressed) = input.whole.filter(|_| frames.len() > 1) {
        frames.insert(0, Frame { compressed: u32::from(compressed) + 1, sha256: [0; 32], chunks: data });
    }
    let leaf = Leaf { context: 1024, before: None, frames, chunks };
    let mut index = Index::new(Chunking::Aligned(4096));
    index.push(&leaf, &[0; 9], [0; 32]);
    let unit = &index.units()[0];
    let patch = input.patch.map(|(compressed, mut chunks)| {
        chunks.resize(leaf.chunks.len(), false);
        Patch {
            unit: 0,
            offset: 0,
            compressed: u32::from(compressed) + 1,
            sha256: [0; 32],
            ranges: vec![],
            prefix_sha256: [0; 16],
            chunks,
            blocks: vec![],
        }
    });
    let place = |at: u64| match input.chunks[at as usize].1 % 5 {
        0 => Some(Place::Running),
        1 => Some(Place::Target),
        2 => Some(Place::Present),
        _ => None,
    };
    let candidate = Candidate { unit, leaf: &leaf, patch: patch.as_ref(), is_done: input.is_done };
    let mut planner = Planner::default();
    planner.begin_image();
    let way = planner.plan(&candidate, |_, hash, _| place(hash));
    let status = planner.finish(0);
    let lacks: Vec<_> = leaf
        .chunks
        .iter()
        .map(|chunk| matches!(chunk.kind, Kind::Data(at) if place(at).is_none() && !input.is_done))
        .collect();
    let brings: Vec<bool> = match &way {
        Way::Local => vec![false; lacks.len()],
        Way::Patch => patch.as_ref().unwrap().chunks.clone(),
        Way::Frames(frames) => {
            let mut brings = vec![false; lacks.len()];
            for (frame, chunks) in leaf.frame_chunks().enumerate() {
                if frames.contains(&(frame as u16)) {
                    chunks.into_iter().for_each(|at| brings[at] = true);
                }
            }
            brings
        }
    };
    assert!(lacks.iter().zip(&brings).all(|(lacks, brings)| !lacks || *brings), "{way:?}");
    let all = frames_for(&leaf, &vec![true; lacks.len()]);
    let whole: u64 = spans(unit, &leaf, &all).map(|(_, length)| u64::from(length)).sum();
    assert!(status.fetch_bytes <= whole + (status.requests + 1) * REQUEST_BYTES, "{status:?} {whole}");
    assert_eq!(status.full_bytes, whole);
});
