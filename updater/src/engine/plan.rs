//! Finds the cheapest way to each unit. Adds up signed sizes; reads nothing.

use vigil_wire::PlanStatus;

use super::Way;
use crate::release::{FIRST_UNIT_BYTES, Kind, Leaf, Patch, Unit};

/// What is compared with what the slot has, and written, at least.
pub const BLOCK_BYTES: u32 = 4096;

/// What a request costs besides what it brings: headers of both sides.
pub const REQUEST_BYTES: u64 = 300;

/// Where the device has a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the slot that runs.
    Running,
    /// Elsewhere in the target slot.
    Target,
    /// Where it belongs.
    Present,
}

/// A unit, and what can be had of it.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The unit.
    pub unit: &'a Unit,
    /// What it is made of.
    pub leaf: &'a Leaf,
    /// The patch frame for it, from the image that runs.
    pub patch: Option<&'a Patch>,
    /// It is in the target slot.
    pub is_done: bool,
}

/// Adds up a plan, unit by unit.
#[derive(Debug, Default)]
pub struct Planner {
    status: PlanStatus,
    frames: Requests,
    patches: Requests,
}

impl Planner {
    /// The next image's frames are in other files. The first bytes of its part are blanked before all else.
    pub fn begin_image(&mut self) {
        self.frames.end = None;
        self.patches.end = None;
        self.status.write_bytes += u64::from(FIRST_UNIT_BYTES);
    }

    /// Plans the next unit of the image. `place` tells where the device has the chunk with this position, short hash and
    /// length.
    pub fn plan(&mut self, candidate: &Candidate, place: impl Fn(u32, u64, u32) -> Option<Place>) -> Way {
        let Candidate { unit, leaf, .. } = candidate;
        let all = frames_for(leaf, &vec![true; leaf.chunks.len()]);
        self.status.full_bytes += match all.len() {
            // The map of the running slot does not tell of frames: as many as the index says at most.
            0 => u64::from(unit.frames_length),
            _ => spans(unit, leaf, &all).map(|(_, length)| u64::from(length)).sum(),
        };
        if candidate.is_done {
            self.status.present_bytes += u64::from(unit.length);
            return Way::Local;
        }
        let mut tally = PlanStatus::default();
        // By position, for the chunks of data that the device has not.
        let mut lacks = vec![false; leaf.chunks.len()];
        let mut writes = Writes::default();
        for ((at, chunk), offset) in leaf.chunks.iter().enumerate().zip(leaf.offsets()) {
            let length = u64::from(chunk.length);
            let Kind::Data(hash) = chunk.kind else {
                tally.free_bytes += length;
                writes.add(offset, chunk.length);
                continue;
            };
            let place = place(offset, hash, chunk.length);
            match place {
                Some(Place::Present) => tally.present_bytes += length,
                Some(Place::Running) => tally.running_bytes += length,
                Some(Place::Target) => tally.target_bytes += length,
                None => lacks[at] = true,
            }
            if place != Some(Place::Present) {
                writes.add(offset, chunk.length);
            }
        }
        tally.write_bytes = writes.bytes(unit.length);
        let lacked: u64 = leaf
            .chunks
            .iter()
            .zip(&lacks)
            .filter(|(_, lacks)| **lacks)
            .map(|(chunk, _)| u64::from(chunk.length))
            .sum();
        let frames = frames_for(leaf, &lacks);
        let way = match candidate.patch {
            _ if frames.is_empty() => Way::Local,
            Some(patch) if is_cheaper(candidate, patch, &frames, &lacks) => {
                self.frames.end = None;
                self.patches.add(patch.offset, patch.compressed);
                tally.patch_bytes = lacked;
                Way::Patch
            }
            _ => {
                self.patches.end = None;
                for (offset, length) in spans(unit, leaf, &frames) {
                    self.frames.add(offset, length);
                }
                tally.frame_bytes = lacked;
                Way::Frames(frames)
            }
        };
        add(&mut self.status, &tally);
        way
    }

    /// The plan, when every unit is in it.
    pub fn finish(self, index_bytes: u64) -> PlanStatus {
        let requests = self.frames.count + self.patches.count;
        PlanStatus {
            fetch_bytes: self.frames.bytes + self.patches.bytes + requests * REQUEST_BYTES,
            requests,
            index_bytes,
            ..self.status
        }
    }
}

/// A patch frame must bring all that the device lacks, for fewer bytes.
fn is_cheaper(candidate: &Candidate, patch: &Patch, frames: &[u16], lacks: &[bool]) -> bool {
    let brings_all = lacks.iter().zip(&patch.chunks).all(|(lacks, brings)| !lacks || *brings);
    let plain: u64 = spans(candidate.unit, candidate.leaf, frames).map(|(_, length)| u64::from(length)).sum();
    brings_all && u64::from(patch.compressed) < plain
}

/// The frames to fetch for these chunks: those that hold any of them, or the one that holds all where that is cheaper.
pub fn frames_for(leaf: &Leaf, lacks: &[bool]) -> Vec<u16> {
    let frames = small_frames_for(leaf, lacks);
    if frames.is_empty() || !leaf.has_whole() {
        return frames;
    }
    let cost = |frames: &[u16]| {
        let mut requests = Requests::default();
        spans_from(0, leaf, frames).for_each(|(offset, length)| requests.add(offset, length));
        requests.bytes + requests.count * REQUEST_BYTES
    };
    if cost(&[0]) <= cost(&frames) { vec![0] } else { frames }
}

/// The frames to fetch for these chunks without the one that holds all.
pub fn small_frames_for(leaf: &Leaf, lacks: &[bool]) -> Vec<u16> {
    let holding = leaf.frame_chunks().enumerate().filter(|(_, chunks)| chunks.iter().any(|at| lacks[*at]));
    holding.map(|(frame, _)| frame as u16).skip_while(|frame| *frame == 0 && leaf.has_whole()).collect()
}

/// Where these frames of a unit lie in the frames' file, and their bytes.
pub fn spans<'a>(unit: &Unit, leaf: &'a Leaf, frames: &'a [u16]) -> impl Iterator<Item = (u64, u32)> + 'a {
    spans_from(unit.frames_offset, leaf, frames)
}

fn spans_from<'a>(begin: u64, leaf: &'a Leaf, frames: &'a [u16]) -> impl Iterator<Item = (u64, u32)> + 'a {
    let spans = leaf.frames.iter().scan(begin, |offset, frame| {
        let span = (*offset, frame.compressed);
        *offset += u64::from(frame.compressed);
        Some(span)
    });
    spans.enumerate().filter(|(frame, _)| frames.contains(&(*frame as u16))).map(|(_, span)| span)
}

/// The blocks of a unit that are written, from its beginning on.
#[derive(Debug, Default)]
struct Writes {
    blocks: u32,
    next: u32,
}

impl Writes {
    fn add(&mut self, offset: u32, length: u32) {
        let end = (offset + length).div_ceil(BLOCK_BYTES);
        self.blocks += end - (offset / BLOCK_BYTES).max(self.next);
        self.next = end;
    }

    fn bytes(&self, unit: u32) -> u64 {
        u64::from(self.blocks * BLOCK_BYTES).min(u64::from(unit))
    }
}

/// Requests of one file: what lies close together is fetched with what is between. What is due next being in another file ends
/// a request.
#[derive(Debug, Default)]
struct Requests {
    count: u64,
    bytes: u64,
    end: Option<u64>,
}

impl Requests {
    fn add(&mut self, offset: u64, length: u32) {
        match self.end {
            Some(end) if joins(end, offset) => self.bytes += offset - end,
            _ => self.count += 1,
        }
        self.bytes += u64::from(length);
        self.end = Some(offset + u64::from(length));
    }
}

/// Whether it is cheaper to fetch what is between `end` and `offset` than to ask once more.
pub fn joins(end: u64, offset: u64) -> bool {
    offset.checked_sub(end).is_some_and(|gap| gap <= REQUEST_BYTES)
}

fn add(status: &mut PlanStatus, tally: &PlanStatus) {
    status.write_bytes += tally.write_bytes;
    status.present_bytes += tally.present_bytes;
    status.running_bytes += tally.running_bytes;
    status.target_bytes += tally.target_bytes;
    status.free_bytes += tally.free_bytes;
    status.frame_bytes += tally.frame_bytes;
    status.patch_bytes += tally.patch_bytes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Chunk, Chunking, Frame, Index};
    use proptest::prelude::*;

    /// A unit of a frame for every second chunk; chunk number n has the hash n.
    fn unit(chunks: u64) -> (Unit, Leaf) {
        let frames = (0..chunks.div_ceil(2))
            .map(|frame| Frame {
                compressed: 1000,
                sha256: [0; 32],
                chunks: if 2 * frame + 1 < chunks { 2 } else { 1 },
            })
            .collect();
        let chunks = (0..chunks).map(|hash| Chunk { length: 4096, kind: Kind::Data(hash) }).collect();
        let leaf = Leaf { context: 0, before: None, frames, chunks };
        let mut index = Index::new(Chunking::Aligned(4096));
        index.push(&leaf, &[0; 9], [0; 32]);
        (index.units()[0].clone(), leaf)
    }

    fn patch(compressed: u32, chunks: usize) -> Patch {
        Patch {
            unit: 0,
            offset: 0,
            compressed,
            sha256: [0; 32],
            ranges: vec![],
            prefix_sha256: [0; 16],
            chunks: vec![true; chunks],
            blocks: vec![],
        }
    }

    #[test]
    fn only_the_frames_that_hold_what_is_lacking_are_fetched() {
        let (unit, leaf) = unit(8);
        let mut planner = Planner::default();
        let candidate = Candidate { unit: &unit, leaf: &leaf, patch: None, is_done: false };
        let way = planner.plan(&candidate, |_, hash, _| (hash != 2 && hash != 7).then_some(Place::Running));
        assert_eq!(way, Way::Frames(vec![1, 3]));
        let status = planner.finish(77);
        assert_eq!((status.fetch_bytes, status.requests), (2000 + 2 * REQUEST_BYTES, 2));
        assert_eq!((status.running_bytes, status.frame_bytes, status.index_bytes), (6 * 4096, 2 * 4096, 77));
    }

    #[test]
    fn the_frame_that_holds_all_is_fetched_where_it_is_cheaper_than_many() {
        let (_, mut leaf) = unit(8);
        leaf.frames.insert(0, Frame { compressed: 2500, sha256: [0; 32], chunks: 8 });
        let lacks = |lacking: &[usize]| (0..8).map(|at| lacking.contains(&at)).collect::<Vec<_>>();
        assert_eq!(frames_for(&leaf, &lacks(&[0, 1, 2])), [1, 2]);
        assert_eq!(frames_for(&leaf, &lacks(&[0, 2, 7])), [0]);
        assert!(frames_for(&leaf, &lacks(&[])).is_empty());
        // What lies between two small frames may be cheaper than asking twice.
        leaf.frames[0].compressed = 2250;
        leaf.frames[2].compressed = 100;
        assert_eq!(frames_for(&leaf, &lacks(&[0, 4])), [1, 3]);
    }

    #[test]
    fn a_patch_is_taken_if_it_is_smaller_and_brings_all_that_is_lacking() {
        let (unit, leaf) = unit(8);
        let way = |patch: &Patch| {
            let candidate = Candidate { unit: &unit, leaf: &leaf, patch: Some(patch), is_done: false };
            Planner::default().plan(&candidate, |_, _, _| None)
        };
        assert_eq!(way(&patch(3999, 8)), Way::Patch);
        assert!(matches!(way(&patch(4000, 8)), Way::Frames(_)));
        let mut partial = patch(10, 8);
        partial.chunks[3] = false;
        assert!(matches!(way(&partial), Way::Frames(_)));
    }

    #[test]
    fn a_unit_that_is_there_costs_nothing() {
        let (unit, leaf) = unit(8);
        let mut planner = Planner::default();
        let candidate = Candidate { unit: &unit, leaf: &leaf, patch: None, is_done: true };
        assert_eq!(planner.plan(&candidate, |_, _, _| None), Way::Local);
        let status = planner.finish(0);
        assert_eq!((status.fetch_bytes, status.write_bytes, status.present_bytes), (0, 0, 8 * 4096));
    }

    proptest! {
        #[test]
        fn a_plan_brings_all_that_is_lacking_and_never_costs_more_than_the_whole(
            has in proptest::collection::vec(any::<bool>(), 1..40)
        ) {
            let (unit, leaf) = unit(has.len() as u64);
            let mut planner = Planner::default();
            let candidate = Candidate { unit: &unit, leaf: &leaf, patch: None, is_done: false };
            let way = planner.plan(&candidate, |_, hash, _| has[hash as usize].then_some(Place::Target));
            let frames = match way { Way::Frames(frames) => frames, _ => vec![] };
            for (chunk, has) in has.iter().enumerate() {
                prop_assert!(*has || frames.contains(&((chunk / 2) as u16)));
            }
            let status = planner.finish(0);
            let whole = u64::from(unit.frames_length);
            prop_assert!(status.fetch_bytes <= whole + status.requests * REQUEST_BYTES);
            prop_assert_eq!(status.full_bytes, whole);
        }
    }
}
