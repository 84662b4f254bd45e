//! Makes the units of an image: of what the device has, and of frames that were fetched.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;

use tracing::warn;
use vigil_durable::crash_point;
use vigil_wire::OutcomeStatus;

use super::Updater;
use super::behind::Behind;
use super::steps::slot_cause;
use super::survey::{Known, is_whole};
use crate::engine::plan::{BLOCK_BYTES, frames_for, joins, small_frames_for, spans};
use crate::engine::{Event, Now, Step, Way, cause};
use crate::release::patch::{Block, Patch, Range};
use crate::release::{Before, ChunkHash, Kind, Leaf, Packer, Unit, Unpacking, Vouched, blob_path, is_zero};
use crate::slot::HEAD_BYTES;

/// A unit that is being made, in `Updater::unit`.
pub(super) struct Making {
    image: usize,
    number: usize,
    unit: Unit,
    leaf: Leaf,
    /// By position, where a chunk's bytes came from, once they are there.
    filled: Vec<Option<Source>>,
    /// What the device has is not used: it was not what it seemed.
    distrusts: bool,
    /// The frame that holds all is not used: the image before the unit does not read back as it was written.
    shuns_whole: bool,
    /// Of what the device has: up to which chunk it was looked for, and up to which byte the target slot was read.
    looked: usize,
    read: Result<usize, Unreadable>,
    /// What the frame in turn is decoded with, as far as it was read.
    reading: Option<Reading>,
    /// Nothing lacks.
    is_whole: bool,
    /// As far as it was written, once it is what was signed.
    writing: Option<Writing>,
}

/// The unit's place in the target slot cannot be read.
#[derive(Clone, Copy)]
struct Unreadable;

/// What is read before a frame can be decoded.
enum Reading {
    /// The image before the unit.
    Behind { bytes: Vec<u8>, done: usize },
    /// The ranges of a patch, of which so many are there.
    Ranges { unpacking: Unpacking, done: usize },
    /// The same, unpacked.
    Prefix(Vec<u8>),
}

/// A unit on its way into the slot.
#[derive(Default)]
struct Writing {
    /// Up to there it was seen to.
    at: usize,
    /// What was written of it.
    bytes: u64,
}

/// Where a chunk's bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Free,
    Present,
    Running,
    Target,
    Frame,
    Patch,
}

impl Making {
    /// Adds up what the unit was made of.
    fn count(&self, outcome: &mut OutcomeStatus) {
        for (chunk, source) in self.leaf.chunks.iter().zip(&self.filled) {
            let sum = match source {
                None => continue,
                Some(Source::Free) => &mut outcome.free_bytes,
                Some(Source::Present) => &mut outcome.present_bytes,
                Some(Source::Running) => &mut outcome.running_bytes,
                Some(Source::Target) => &mut outcome.target_bytes,
                Some(Source::Frame) => &mut outcome.frame_bytes,
                Some(Source::Patch) => &mut outcome.patch_bytes,
            };
            *sum += u64::from(chunk.length);
        }
    }

    /// For each chunk whether it is data that is still lacking.
    fn lacks(&self) -> Vec<bool> {
        let chunks = self.leaf.chunks.iter().zip(&self.filled);
        chunks.map(|(chunk, filled)| matches!(chunk.kind, Kind::Data(_)) && filled.is_none()).collect()
    }

    /// The frames to fetch for what is lacking.
    fn frames_lacked(&self) -> Vec<u16> {
        let frames_for = if self.shuns_whole { small_frames_for } else { frames_for };
        frames_for(&self.leaf, &self.lacks())
    }

    fn length(&self, at: usize) -> usize {
        self.leaf.chunks[at].length as usize
    }

    /// Whether all that the device has was looked for.
    fn is_filled(&self) -> bool {
        self.looked == self.leaf.chunks.len()
    }

    /// Looks anew for what the device has.
    fn begin_anew(&mut self) {
        (self.looked, self.read, self.is_whole) = (0, Ok(0), false);
        self.filled.fill(None);
    }
}

/// The places of chunks in a unit that are not filled yet: where they begin, and their bytes.
struct Places<'u> {
    unit: &'u mut [u8],
    rest: VecDeque<(usize, usize)>,
}

impl Places<'_> {
    /// Fills in what comes next. What is more than there is place for is left out.
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty()
            && let Some((begin, length)) = self.rest.pop_front()
        {
            let (now, later) = bytes.split_at(length.min(bytes.len()));
            self.unit[begin..begin + now.len()].copy_from_slice(now);
            if now.len() < length {
                self.rest.push_front((begin + now.len(), length - now.len()));
            }
            bytes = later;
        }
    }
}

/// A frame that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) image: usize,
    pub(super) unit: usize,
    /// Its position in the unit; none for a patch frame.
    frame: Option<u16>,
    pub(super) offset: u64,
    pub(super) compressed: u32,
    sha256: [u8; 32],
}

impl Expected {
    pub(super) fn is_of_patch(&self) -> bool {
        self.frame.is_none()
    }
}

/// What became of a frame.
enum Decoded {
    Done,
    /// What it is decoded with is not here.
    Unfit,
    /// This device's zstd does not make of the unpacked blocks what the publisher's does.
    PackedOtherwise,
    /// Not yet: more of what it is decoded with is to be read first.
    Later,
}

/// What became of a frame that came whole.
pub(super) enum Taken {
    Used,
    /// Other frames are due now.
    Elsewhere,
    /// It is still to be used, in another turn.
    Later,
}

/// Why a frame was not used.
pub(super) type Refusal = (&'static str, String);

impl Updater {
    /// The file to fetch frames from and the frames to fetch from it in one request, for this unit first.
    pub(super) fn expected(&mut self, image: usize, unit: usize) -> io::Result<(String, Vec<Expected>)> {
        if !self.begin_making(image, unit)? || self.reroute_if_short(super::now())? {
            return Ok((String::new(), vec![]));
        }
        let mut expected: Vec<Expected> = Vec::new();
        let is_patch = matches!(self.way(image, unit), Some(Way::Patch));
        let units =
            self.engine.work().and_then(|work| work.index(image)).map_or(0, |index| index.units().len());
        for number in unit..units {
            let is_done = self.engine.work().is_some_and(|work| work.is_done(image, number));
            let way = self.way(image, number).filter(|_| !is_done).cloned();
            let of_unit = match way {
                None | Some(Way::Local) => continue,
                Some(Way::Patch) if is_patch => self.expected_patch(image, number),
                Some(Way::Frames(frames)) if !is_patch => self.expected_frames(image, number, &frames)?,
                Some(_) => break,
            };
            for frame in of_unit {
                let end = expected.last().map(|last| last.offset + u64::from(last.compressed));
                if end.is_some_and(|end| !joins(end, frame.offset)) {
                    return Ok((self.frames_path(image, is_patch), expected));
                }
                expected.push(frame);
            }
        }
        Ok((self.frames_path(image, is_patch), expected))
    }

    fn way(&self, image: usize, unit: usize) -> Option<&Way> {
        self.engine.work()?.way(image, unit)
    }

    fn frames_path(&self, image: usize, is_patch: bool) -> String {
        let plain = || self.engine.work().map(|work| work.manifest().images[image].frames.sha256.clone());
        let sha256 = if is_patch { self.patch_frames(image) } else { plain() };
        blob_path(&sha256.unwrap_or_default())
    }

    fn expected_patch(&self, image: usize, unit: usize) -> Vec<Expected> {
        let patch = self.patch(image, unit).into_iter();
        patch
            .map(|patch| Expected {
                image,
                unit,
                frame: None,
                offset: patch.offset,
                compressed: patch.compressed,
                sha256: patch.sha256,
            })
            .collect()
    }

    /// Those frames of a unit that were not decoded yet.
    fn expected_frames(&self, image: usize, number: usize, frames: &[u16]) -> io::Result<Vec<Expected>> {
        let leaf = self.leaf(image, number)?;
        let Some(unit) = self.unit_of(image, number) else { return Ok(vec![]) };
        let making = self.making.as_ref().filter(|making| making.image == image && making.number == number);
        let is_decoded = |frame: u16| {
            let chunks = leaf.frame_chunks().nth(frame.into()).unwrap_or_default();
            making.is_some_and(|making| chunks.iter().all(|at| making.filled[*at].is_some()))
        };
        let spans = spans(&unit, &leaf, frames);
        let expected = frames.iter().zip(spans).filter(|(frame, _)| !is_decoded(**frame));
        Ok(expected
            .map(|(frame, (offset, compressed))| Expected {
                image,
                unit: number,
                frame: Some(*frame),
                offset,
                compressed,
                sha256: leaf.frames[usize::from(*frame)].sha256,
            })
            .collect())
    }

    fn unit_of(&self, image: usize, number: usize) -> Option<Unit> {
        self.engine.work()?.index(image)?.units().get(number).cloned()
    }

    /// Begins with a unit, unless it is begun: with what the device has of it. Whether all of that was looked for; else it goes on
    /// in another turn.
    pub(super) fn begin_making(&mut self, image: usize, number: usize) -> io::Result<bool> {
        if let Some(mut making) =
            self.making.take_if(|making| making.image == image && making.number == number)
        {
            self.fill(&mut making);
            return Ok(self.making.insert(making).is_filled());
        }
        self.open_parts()?;
        let unit = self.unit_of(image, number).ok_or_else(|| io::Error::other("there is no such unit"))?;
        let leaf = self.leaf(image, number)?;
        self.unit.resize(unit.length as usize, 0);
        let filled = vec![None; leaf.chunks.len()];
        let mut making = Making {
            image,
            number,
            unit,
            leaf,
            filled,
            distrusts: false,
            shuns_whole: false,
            looked: 0,
            read: Ok(0),
            reading: None,
            is_whole: false,
            writing: None,
        };
        self.fill(&mut making);
        Ok(self.making.insert(making).is_filled())
    }

    /// Has other frames fetched if those that are planned do not bring all that is lacking, and none if nothing is: what
    /// nobody has a map of may be here all the same. Whether it was so.
    fn reroute_if_short(&mut self, now: Now) -> io::Result<bool> {
        let Some(making) = &self.making else { return Ok(true) };
        let lacks = making.lacks();
        let way = self.way(making.image, making.number);
        let is_needless = !lacks.contains(&true) && way != Some(&Way::Local);
        let brings: Vec<bool> = match way {
            Some(Way::Patch) => {
                self.patch(making.image, making.number).map_or(vec![], |patch| patch.chunks.clone())
            }
            Some(Way::Frames(frames)) => {
                let mut brings = vec![false; lacks.len()];
                let chunks = making.leaf.frame_chunks().enumerate();
                let planned = chunks.filter(|(frame, _)| frames.contains(&(*frame as u16)));
                planned.for_each(|(_, chunks)| chunks.into_iter().for_each(|at| brings[at] = true));
                brings
            }
            _ => vec![],
        };
        let is_short = lacks.iter().enumerate().any(|(at, lacks)| *lacks && brings.get(at) != Some(&true));
        if is_short || is_needless {
            let frames = making.frames_lacked();
            self.reroute(now, frames)?;
        }
        Ok(is_short || is_needless)
    }

    /// Makes a unit of what the device has, or goes on with that.
    pub(super) fn make(&mut self, now: Now, image: usize, number: usize) -> io::Result<()> {
        let made = self
            .begin_making(image, number)
            .and_then(|filled| if filled { self.finish_making(now) } else { Ok(()) });
        match made {
            Ok(()) => Ok(()),
            Err(error) => {
                self.making = None;
                self.tell(now, Event::Failed { cause: slot_cause(&error), message: error.to_string() })
            }
        }
    }

    /// Goes on with the unit of which nothing lacks, if there is one. Whether there was.
    pub(super) fn go_on_writing(&mut self, now: Now) -> io::Result<bool> {
        let is_whole = self.making.as_ref().is_some_and(|making| making.is_whole);
        if is_whole && let Err(error) = self.finish_making(now) {
            // Its disk is full: that may pass. The unit is made again after a pause.
            self.making = None;
            let message = error.to_string();
            self.note("fetch.failed", &message);
            self.tell(now, Event::FetchFailed { cause: cause::STORAGE, message })?;
        }
        Ok(is_whole)
    }

    /// Decodes a frame that has come whole, and begins to write its unit when it was the last one.
    pub(super) fn take_frame(
        &mut self,
        now: Now,
        expected: &Expected,
        bytes: &[u8],
    ) -> io::Result<Result<Taken, Refusal>> {
        if !self.begin_making(expected.image, expected.unit)? {
            return Ok(Ok(Taken::Later));
        }
        let Some(vouched) = Vouched::new(bytes, &expected.sha256) else {
            let message = format!("a frame of unit {} has not the hash that was signed", expected.unit);
            return Ok(Err((cause::FETCH_CORRUPT, message)));
        };
        if self.reroute_if_short(now)? {
            return Ok(Ok(Taken::Elsewhere));
        }
        let Some(mut making) = self.making.take() else { return Ok(Ok(Taken::Elsewhere)) };
        let decoded = match expected.frame {
            Some(frame) => self.decode_frame(&mut making, frame, vouched),
            None => self.decode_patch(&mut making, vouched),
        };
        let (image, unit) = (expected.image, expected.unit);
        let is_whole = !making.lacks().contains(&true);
        let frames = making.frames_lacked();
        // It is held against its digest and written in the turns that follow.
        making.is_whole = is_whole && matches!(decoded, Ok(Decoded::Done));
        self.making = Some(making);
        match decoded {
            Err(message) => {
                // The signature is right and the content wrong: no retry mends that.
                self.tell(now, Event::Failed { cause: cause::BAD_RELEASE, message: message.clone() })?;
                Ok(Err((cause::BAD_RELEASE, message)))
            }
            Ok(Decoded::Unfit) => {
                // The running slot is not what it was when the patch was made, the target slot not what was written, or an
                // earlier frame is needed first.
                warn!(unit, "a frame does not fit what is there");
                self.reroute(now, frames)?;
                Ok(Ok(Taken::Elsewhere))
            }
            Ok(Decoded::Later) => Ok(Ok(Taken::Later)),
            Ok(Decoded::PackedOtherwise) => {
                self.note(
                    "patch.unusable",
                    &format!("unit {unit}: zstd packs otherwise here than at the publisher's"),
                );
                self.forget_patch(image);
                // Some of it was put into its place already.
                self.making = None;
                self.tell(now, Event::PatchForgone { image })?;
                Ok(Ok(Taken::Elsewhere))
            }
            Ok(Decoded::Done) if is_whole => Ok(Ok(Taken::Used)),
            Ok(Decoded::Done) => {
                if let Some(frame) = expected.frame {
                    self.tell(now, Event::Decoded { image, unit, frame })?;
                }
                Ok(Ok(Taken::Used))
            }
        }
    }

    /// Unfit when what must be there before the frame can be decoded is not.
    fn decode_frame(
        &mut self,
        making: &mut Making,
        frame: u16,
        vouched: Vouched<'_>,
    ) -> Result<Decoded, String> {
        let frame = usize::from(frame);
        let chunks = making.leaf.frame_chunks().nth(frame).ok_or("no such frame")?;
        let first = chunks.first().copied().ok_or("an empty frame")?;
        let offsets: Vec<_> = making.leaf.offsets().collect();
        let context = making.leaf.context_of(frame, offsets[first]);
        if !self.repeat(making).map_err(|error| error.to_string())? {
            return Ok(Decoded::Later);
        }
        let is_there = |at: usize| {
            making.filled[at].is_some() || offsets[at] as usize + making.length(at) <= context.start
        };
        if !(0..first).all(is_there) {
            return Ok(Decoded::Unfit);
        }
        match making.leaf.before_of(frame) {
            None => {
                let unit = std::mem::take(&mut self.unit);
                let decoded = self.decode(making, &chunks, &unit[context], vouched);
                self.unit = unit;
                decoded?;
            }
            Some(before) => {
                if !self.read_behind(making, before) {
                    return Ok(Decoded::Later);
                }
                let behind = std::mem::take(&mut self.behind);
                let Some(prefix) = behind.last(making.image, making.unit.offset, before.length) else {
                    making.shuns_whole = true;
                    return Ok(Decoded::Unfit);
                };
                let decoded = self.decode(making, &chunks, prefix, vouched);
                self.behind = behind;
                decoded?;
            }
        }
        self.scatter(making, &chunks, Source::Frame);
        Ok(Decoded::Done)
    }

    /// Reads the image right before the unit from the target slot, unless it is still in memory. Nothing is if that is not what it
    /// should be. Whether all was read; else it goes on in another turn.
    fn read_behind(&mut self, making: &mut Making, before: Before) -> bool {
        let (image, end) = (making.image, making.unit.offset);
        if self.behind.last(image, end, before.length).is_some() {
            return true;
        }
        let (mut bytes, mut done) = match making.reading.take() {
            Some(Reading::Behind { bytes, done }) => (bytes, done),
            _ => {
                let mut bytes = std::mem::take(&mut self.behind).into_buffer();
                bytes.resize(before.length as usize, 0);
                (bytes, 0)
            }
        };
        let begin = end - u64::from(before.length);
        while done < bytes.len() {
            if self.turn.is_spent() {
                making.reading = Some(Reading::Behind { bytes, done });
                return false;
            }
            let next = bytes.len().min(done + PIECE);
            if self.read_made(image, begin + done as u64, &mut bytes[done..next]).is_err() {
                return true;
            }
            self.turn.spend(next - done);
            done = next;
        }
        if Vouched::by_half(&bytes, &before.sha256).is_some() {
            self.behind = Behind::new(image, end, bytes);
        }
        true
    }

    /// Reads what was made of the image already.
    fn read_made(&self, image: usize, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let part = self.parts.get(image).ok_or_else(|| io::Error::other("no such part"))?;
        part.read(offset, bytes)?;
        restore_head(self.heads[image].as_deref(), offset, bytes);
        Ok(())
    }

    /// Unfit when the ranges of the running slot are not what the patch was made with.
    fn decode_patch(&mut self, making: &mut Making, vouched: Vouched<'_>) -> Result<Decoded, String> {
        let patch = self.patch(making.image, making.number).cloned().ok_or("no such patch")?;
        let Some(running) = self.known.get(making.image).and_then(|known| known.running.as_ref()) else {
            return Ok(Decoded::Unfit);
        };
        // Patches take as much memory as there is for both.
        self.behind = Behind::default();
        let told = |error: String| format!("unit {} of the image: {error}", making.number);
        let (mut unpacking, mut done) = match making.reading.take() {
            Some(Reading::Prefix(prefix)) => return self.decode_after(making, vouched, &patch, &prefix),
            Some(Reading::Ranges { unpacking, done }) => (unpacking, done),
            _ => (Unpacking::new(&patch.ranges), 0),
        };
        let packed = patch.ranges.iter().map(|range| range.length as usize).sum();
        while done < packed {
            if self.turn.is_spent() {
                making.reading = Some(Reading::Ranges { unpacking, done });
                return Ok(Decoded::Later);
            }
            let (begin, length) = piece_of(&patch.ranges, done).ok_or("ranges without an end")?;
            if running.read_exact_at(&mut unpacking.packed()[done..done + length], begin).is_err() {
                return Ok(Decoded::Unfit);
            }
            self.turn.spend(length);
            done += length;
        }
        if self.turn.is_spent() {
            making.reading = Some(Reading::Ranges { unpacking, done });
            return Ok(Decoded::Later);
        }
        // Nothing that is not vouched for reaches the decompressor.
        let prefix =
            unpacking.unpack(&patch.ranges, &patch.prefix_sha256, &mut self.decoder, &mut self.scratch);
        let Some(prefix) = prefix.map_err(told)? else { return Ok(Decoded::Unfit) };
        self.turn.spend(prefix.len());
        if self.turn.is_spent() {
            making.reading = Some(Reading::Prefix(prefix));
            return Ok(Decoded::Later);
        }
        self.decode_after(making, vouched, &patch, &prefix)
    }

    /// Decodes a patch frame with what it was made with before it.
    fn decode_after(
        &mut self,
        making: &mut Making,
        vouched: Vouched<'_>,
        patch: &Patch,
        prefix: &[u8],
    ) -> Result<Decoded, String> {
        let told = |error: String| format!("unit {} of the image: {error}", making.number);
        let chunks: Vec<_> = (0..patch.chunks.len()).filter(|at| patch.chunks[*at]).collect();
        let length = chunks.iter().map(|at| making.leaf.chunks[*at].length).sum();
        let size = patch.decoded_length(length).ok_or("packed blocks that are not in its chunks")?;
        self.decoder.decode(vouched, prefix, size as usize, &mut self.scratch).map_err(told)?;
        self.turn.spend(size as usize);
        if patch.blocks.is_empty() {
            self.scatter(making, &chunks, Source::Patch);
            return Ok(Decoded::Done);
        }
        self.scatter_packed(making, &chunks, &patch.blocks)
    }

    /// Packs what was decoded, and puts it into the places of these chunks.
    fn scatter_packed(
        &mut self,
        making: &mut Making,
        chunks: &[usize],
        blocks: &[Block],
    ) -> Result<Decoded, String> {
        let packing = self.known.get(making.image).and_then(Known::packing);
        let mut packer = Packer::new(packing.ok_or("nothing tells how it is packed")?.level)?;
        let offsets: Vec<_> = making.leaf.offsets().collect();
        let mut places = Places {
            unit: &mut self.unit,
            rest: chunks.iter().map(|at| (offsets[*at] as usize, making.length(*at))).collect(),
        };
        let mut rest = &self.scratch[..];
        for block in blocks {
            let (before, behind) = rest.split_at_checked(block.before as usize).ok_or("too little")?;
            let (unpacked, behind) = behind.split_at_checked(block.unpacked as usize).ok_or("too little")?;
            places.put(before);
            let packed = packer.pack(unpacked)?;
            if packed.len() != block.packed as usize {
                return Ok(Decoded::PackedOtherwise);
            }
            places.put(packed);
            rest = behind;
        }
        places.put(rest);
        for at in chunks {
            making.filled[*at] = Some(Source::Patch);
        }
        Ok(Decoded::Done)
    }

    /// Decodes these chunks into `self.scratch`.
    fn decode(
        &mut self,
        making: &Making,
        chunks: &[usize],
        prefix: &[u8],
        frame: Vouched<'_>,
    ) -> Result<(), String> {
        let size = chunks.iter().map(|at| making.length(*at)).sum();
        self.turn.spend(size);
        self.decoder
            .decode(frame, prefix, size, &mut self.scratch)
            .map_err(|error| format!("unit {} of the image: {error}", making.number))
    }

    /// Puts what was decoded into the places of these chunks.
    fn scatter(&mut self, making: &mut Making, chunks: &[usize], source: Source) {
        let offsets: Vec<_> = making.leaf.offsets().collect();
        let mut rest = &self.scratch[..];
        for at in chunks {
            let (chunk, behind) = rest.split_at(making.length(*at));
            let begin = offsets[*at] as usize;
            self.unit[begin..begin + chunk.len()].copy_from_slice(chunk);
            making.filled[*at] = Some(source);
            rest = behind;
        }
    }

    /// Holds the whole unit against its digest, and writes what differs from what is in the slot: as much as fits into a turn.
    fn finish_making(&mut self, now: Now) -> io::Result<()> {
        let Some(mut making) = self.making.take() else { return Ok(()) };
        if self.parts.get(making.image).is_none() {
            // The install was given up meanwhile.
            return Ok(());
        }
        if making.writing.is_some() {
            return self.write_unit(now, making);
        }
        if self.turn.is_spent() {
            self.making = Some(making);
            return Ok(());
        }
        let lacks = making.lacks();
        if lacks.contains(&true) {
            let frames = making.frames_lacked();
            self.making = Some(making);
            return self.reroute(now, frames);
        }
        making.is_whole = true;
        if !self.repeat(&mut making)? {
            self.making = Some(making);
            return Ok(());
        }
        let index = self.engine.work().and_then(|work| work.index(making.image));
        let has_chunks = index.is_some_and(|index| index.chunking().is_some());
        if index.is_some_and(|index| index.matches(making.number, &making.leaf, &self.unit)) {
            if has_chunks {
                self.behind.push(making.image, making.unit.offset, &self.unit);
            }
            self.keep_head(making.image, making.number)?;
            self.turn.spend(self.unit.len());
            making.writing = Some(Writing::default());
            return self.write_unit(now, making);
        }
        if making.distrusts || !has_chunks {
            let message = format!("unit {} of the image is not what was signed", making.number);
            return self.tell(now, Event::Failed { cause: cause::BAD_RELEASE, message });
        }
        // Another chunk with the same short hash: all of them are fetched.
        making.distrusts = true;
        making.begin_anew();
        self.fill(&mut making);
        let frames = making.frames_lacked();
        self.making = Some(making);
        self.reroute(now, frames)
    }

    /// Has these frames of the unit fetched.
    fn reroute(&mut self, now: Now, frames: Vec<u16>) -> io::Result<()> {
        let Some(making) = &self.making else { return Ok(()) };
        let (image, unit) = (making.image, making.number);
        let is_whole = !making.lacks().contains(&true);
        let is_mapped = making.leaf.frames.is_empty() && !is_whole;
        self.note("install.rerouted", &format!("unit {unit} of image {image}: what is there has changed"));
        if is_mapped {
            // Only the running slot's map tells of it: its leaf is needed for once.
            self.making = None;
            return self.tell(now, Event::LeafWanted { image, unit });
        }
        // What was planned to be fetched may be here after all, in a slot that nobody has a map of: no frame would ever come.
        let way = if is_whole { Way::Local } else { Way::Frames(frames) };
        self.tell(now, Event::Rerouted { image, unit, way })
    }

    /// Fills in what the device has, as much as fits into a turn. What cannot be read is not there: it is fetched.
    fn fill(&mut self, making: &mut Making) {
        if making.is_filled() {
            return;
        }
        let Some(part) = self.parts.get(making.image) else { return };
        let known = self.known.get(making.image);
        let running = known.and_then(|known| known.running.as_ref());
        self.scratch.resize(making.unit.length as usize, 0);
        let first: u32 = making.leaf.chunks[..making.looked].iter().map(|chunk| chunk.length).sum();
        let mut end = first as usize;
        while !making.is_filled() {
            let at = making.looked;
            let chunk = making.leaf.chunks[at];
            let is_sought = matches!(chunk.kind, Kind::Data(_)) && !making.distrusts;
            if is_sought && self.turn.is_spent() {
                return;
            }
            let range = end..end + chunk.length as usize;
            (making.looked, end) = (at + 1, range.end);
            let hash = match chunk.kind {
                Kind::Data(hash) if is_sought => hash,
                Kind::Zero => {
                    self.unit[range].fill(0);
                    making.filled[at] = Some(Source::Free);
                    continue;
                }
                Kind::Data(_) | Kind::Same { .. } => continue,
            };
            // In large pieces, of which a chunk is one part.
            while let Ok(read) = making.read
                && read < range.end
            {
                let read = read.max(range.start / PIECE * PIECE);
                let next = self.scratch.len().min(read + PIECE);
                self.turn.spend(next - read);
                let is_read =
                    part.read(making.unit.offset + read as u64, &mut self.scratch[read..next]).is_ok();
                making.read = if is_read { Ok(next) } else { Err(Unreadable) };
            }
            let is_it = |bytes: &[u8]| ChunkHash::of(bytes).short() == hash;
            let there = &self.scratch[range.clone()];
            // Blank flash need not be hashed: no chunk of data is blank.
            if making.read.is_ok() && !is_zero(there) && is_it(there) {
                self.unit[range].copy_from_slice(there);
                making.filled[at] = Some(Source::Present);
                continue;
            }
            let seeds = known.into_iter().flat_map(|known| known.seeds.find(hash));
            let bytes = &mut self.unit[range];
            let turn = &mut self.turn;
            let found = seeds
                .filter(|seed| seed.length == chunk.length && is_whole(seed, making.unit.offset))
                .find(|seed| {
                    turn.spend(bytes.len());
                    let read = match running {
                        Some(running) if !seed.in_target => running.read_exact_at(bytes, seed.offset),
                        _ if seed.in_target => part.read(seed.offset, bytes),
                        _ => return false,
                    };
                    read.is_ok() && is_it(bytes)
                });
            making.filled[at] =
                found.map(|seed| if seed.in_target { Source::Target } else { Source::Running });
        }
    }

    /// Fills in what repeats a chunk before it, as far as that one is there. Whether it came to an end; else it goes on in another
    /// turn.
    fn repeat(&mut self, making: &mut Making) -> io::Result<bool> {
        let offsets: Vec<_> = making.leaf.offsets().collect();
        for at in 0..offsets.len() {
            let Kind::Same { begin: other, .. } = making.leaf.chunks[at].kind else { continue };
            let range = offsets[at] as usize..offsets[at] as usize + making.length(at);
            if making.filled[at].is_some() {
                continue;
            }
            match other.checked_sub(making.unit.offset) {
                Some(inside) => {
                    let source = offsets.partition_point(|offset| u64::from(*offset) <= inside) - 1;
                    if making.filled[source].is_none() {
                        continue;
                    }
                    let inside = inside as usize;
                    self.unit.copy_within(inside..inside + range.len(), range.start);
                }
                None if self.turn.is_spent() => return Ok(false),
                None => {
                    self.turn.spend(range.len());
                    let mut unit = std::mem::take(&mut self.unit);
                    let read = self.read_made(making.image, other, &mut unit[range]);
                    self.unit = unit;
                    read?;
                }
            }
            making.filled[at] = Some(Source::Free);
        }
        Ok(true)
    }

    /// Writes those blocks of the unit that are not in the target slot, as many as fit into a turn, and lets the flusher bring
    /// them to the disk after the last one.
    fn write_unit(&mut self, now: Now, mut making: Making) -> io::Result<()> {
        let (image, unit) = (making.image, making.number);
        let mut writing = making.writing.take().unwrap_or_default();
        self.settle()?;
        let Some(part) = self.parts.get(image) else { return Ok(()) };
        self.scratch.resize(self.unit.len(), 0);
        if writing.at == 0 {
            crash_point("slot.frame", "before");
        }
        let mut written = Ok(());
        while writing.at < self.unit.len() && written.is_ok() && !self.turn.is_spent() {
            let piece = writing.at..self.unit.len().min(writing.at + PIECE);
            let offset = making.unit.offset + writing.at as u64;
            // Writing may mend a block that cannot be read.
            let is_read = part.read(offset, &mut self.scratch[piece.clone()]).is_ok();
            self.turn.spend(2 * piece.len());
            let (new, old) = (&self.unit[piece.clone()], &self.scratch[piece.clone()]);
            let differs: Vec<bool> = new
                .chunks(BLOCK_BYTES as usize)
                .zip(old.chunks(BLOCK_BYTES as usize))
                .map(|(new, old)| !is_read || new != old)
                .collect();
            let mut at = 0;
            for run in differs.chunk_by(|one, other| one == other) {
                let end = (at + run.len() * BLOCK_BYTES as usize).min(new.len());
                if run[0] && written.is_ok() {
                    written = part.put(offset + at as u64, &new[at..end]);
                    writing.bytes += (end - at) as u64;
                }
                at = end;
            }
            writing.at = piece.end;
        }
        if written.is_ok() && writing.at < self.unit.len() {
            making.writing = Some(writing);
            self.making = Some(making);
            return Ok(());
        }
        if let Err(error) = written.and_then(|()| part.flush_behind(&mut self.flusher)) {
            let (cause, message) = (slot_cause(&error), error.to_string());
            return self.tell(now, Event::Failed { cause, message });
        }
        self.unflushed = Some((image, unit));
        self.count(|outcome| {
            making.count(outcome);
            outcome.write_bytes += writing.bytes;
        });
        self.tell(now, Event::Begun { image, unit })
    }

    /// Waits until the unit that was written last is on the disk, and tells the engine.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let Some((image, unit)) = self.unflushed.take() else { return Ok(()) };
        let event = match self.flusher.wait() {
            Ok(()) => {
                crash_point("slot.frame", "after");
                self.sync_outcome();
                Event::Written { image, unit }
            }
            Err(error) => Event::Failed { cause: slot_cause(&error), message: error.to_string() },
        };
        self.tell(super::now(), event)
    }

    /// Makes what the device has all of, until a unit is due that needs frames: as much as fits into a turn.
    pub(super) fn make_up_to_frames(&mut self) -> io::Result<Due> {
        loop {
            let now = super::now();
            if self.go_on_writing(now)? {
                if self.turn.is_spent() {
                    return Ok(Due::Later);
                }
                continue;
            }
            match self.engine.next(now) {
                Step::Make { .. } if self.turn.is_spent() => return Ok(Due::Later),
                Step::Make { image, unit } => self.make(now, image, unit)?,
                Step::FetchFrames { image, unit } => return Ok(Due::Frames(image, unit)),
                _ => return Ok(Due::Nothing),
            }
        }
    }
}

/// How much a turn of the loop may move from and to the disk, decode and verify: nobody waits for an answer, and no watchdog, while gigabytes are
/// copied.
#[derive(Debug, Default)]
pub(super) struct Turn {
    bytes: usize,
}

/// What a turn moves, unless the last piece of it is larger than what was left.
const TURN_BYTES: usize = 512 * 1024;
/// Read or written at once.
pub(super) const PIECE: usize = 256 * 1024;

impl Turn {
    /// Another turn begins.
    pub(super) fn renew(&mut self) {
        self.bytes = 0;
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn is_spent(&self) -> bool {
        self.bytes >= TURN_BYTES
    }
}

/// The piece of the ranges that comes after so many of their bytes: where it begins, and its length.
fn piece_of(ranges: &[Range], mut done: usize) -> Option<(u64, usize)> {
    for range in ranges {
        let length = range.length as usize;
        if done < length {
            return Some((range.begin + done as u64, (length - done).min(PIECE)));
        }
        done -= length;
    }
    None
}

/// What is due once what the device has is made.
pub(super) enum Due {
    /// The frames of this unit.
    Frames(usize, usize),
    /// Nothing that comes in frames.
    Nothing,
    /// More of what the device has: it goes on with the next answer.
    Later,
}

/// The head of an image is blank in the slot until all else is verified: what was read at `offset` is held in its place.
fn restore_head(head: Option<&[u8]>, offset: u64, bytes: &mut [u8]) {
    if let Some(head) = head
        && offset < HEAD_BYTES as u64
    {
        let head = &head[(offset as usize).min(head.len())..];
        let count = head.len().min(bytes.len());
        bytes[..count].copy_from_slice(&head[..count]);
    }
}
