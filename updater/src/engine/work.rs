//! Which units of which images are done, and where the others come from.

use vigil_wire::ProgressState;

use super::Step;
use crate::release::{Index, Manifest};

/// A release being installed.
#[derive(Clone, Debug)]
pub struct Work {
    manifest: Manifest,
    images: Vec<ImageWork>,
    /// Whether it is known where everything comes from.
    planned: bool,
    /// The last frame, by image, unit and position, that was ever decoded.
    furthest: Option<(usize, usize, u16)>,
    /// How often the slot had to be written again.
    pub(super) rejections: u32,
    /// Whether the slot may hold units of this release: then it is looked at before anything is fetched.
    pub(super) resumed: bool,
}

/// One image being installed.
#[derive(Clone, Debug, Default)]
struct ImageWork {
    index: Option<Index>,
    /// For each unit whether its leaf is here, or not needed.
    leaves: Vec<bool>,
    /// The running slot must be mapped first.
    unmapped: bool,
    /// The manifest's patch that starts from what the device runs, until its index is here.
    patch: Option<usize>,
    /// For each unit where it comes from; empty until it is planned.
    ways: Vec<Way>,
    /// Units of the target slot that were held against the index.
    inspected: usize,
    /// What became of each unit.
    done: Vec<Done>,
    /// Units that were read back, from the first on.
    read_back: usize,
    hash_matched: bool,
}

/// Where a unit comes from, besides what the device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The device has all of it.
    Local,
    /// These of its frames, in order, are fetched.
    Frames(Vec<u16>),
    /// A patch frame is fetched.
    Patch,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Done {
    #[default]
    No,
    /// Written, and on its way to the disk.
    Begun,
    /// On the disk.
    Yes,
}

/// What is known of an image when its index is here.
#[derive(Debug)]
pub struct Survey {
    /// The index, of the hash that the manifest names.
    pub index: Index,
    /// For each unit whether its leaf need not be fetched.
    pub known: Vec<bool>,
    /// The manifest's patch that starts from the image that the device runs.
    pub patch: Option<usize>,
}

impl Work {
    /// Nothing done yet.
    pub fn new(manifest: Manifest) -> Self {
        let images = manifest.images.iter().map(|_| ImageWork::default()).collect();
        Self { manifest, images, planned: false, furthest: None, rejections: 0, resumed: false }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The index of an image, once it is known.
    pub fn index(&self, image: usize) -> Option<&Index> {
        self.images.get(image)?.index.as_ref()
    }

    /// Where a unit comes from, once it is planned.
    pub fn way(&self, image: usize, unit: usize) -> Option<&Way> {
        self.images.get(image)?.ways.get(unit)
    }

    /// Whether a unit is in the target slot, or on its way there.
    pub fn is_done(&self, image: usize, unit: usize) -> bool {
        self.images[image].done[unit] != Done::No
    }

    /// Whether what was written did not read back as signed: then what is decoded is looked at before it is written, to
    /// tell a wrong release from a bad disk.
    pub fn is_suspect(&self) -> bool {
        self.rejections > 0
    }

    /// Whether every image's index is here, and what it takes to plan.
    pub fn is_surveyed(&self) -> bool {
        self.next_to_survey().is_none()
    }

    /// Takes in an index, if it fits the manifest.
    pub fn set_survey(&mut self, image: usize, survey: Survey) -> Result<(), String> {
        let (Some(wanted), Some(work)) = (self.manifest.images.get(image), self.images.get_mut(image)) else {
            return Err(format!("the manifest has no image number {image}"));
        };
        let index = survey.index;
        let leaves = wanted.leaves.as_ref().map_or(0, |leaves| leaves.size);
        if index.image_size() != wanted.size
            || index.frames_size() != wanted.frames.size
            || index.leaves_size() != leaves
            || index.chunking().is_some() != wanted.leaves.is_some()
            || survey.known.len() != index.units().len()
        {
            return Err(format!("the index of image {} is for another size", wanted.name));
        }
        work.done = vec![Done::No; index.units().len()];
        work.unmapped = false;
        work.leaves = survey.known;
        work.patch = survey.patch.filter(|patch| *patch < wanted.patches.len());
        work.index = Some(index);
        Ok(())
    }

    /// Keeps the index until the running slot is mapped.
    pub(super) fn set_unmapped(&mut self, image: usize, index: Index) -> Result<(), String> {
        let known = vec![false; index.units().len()];
        self.set_survey(image, Survey { index, known, patch: None })?;
        self.images[image].unmapped = true;
        Ok(())
    }

    pub(super) fn wants_leaf(&mut self, image: usize, unit: usize) {
        if let Some(leaf) = self.images[image].leaves.get_mut(unit) {
            *leaf = false;
        }
    }

    pub(super) fn took_leaves(&mut self, image: usize, unit: usize, count: usize) {
        if let Some(leaves) = self.images[image].leaves.get_mut(unit..unit + count) {
            leaves.fill(true);
        }
    }

    pub(super) fn took_patch_index(&mut self, image: usize) {
        self.images[image].patch = None;
    }

    /// What was to come from the patch is planned anew.
    pub(super) fn forgo_patch(&mut self, image: usize) {
        self.images[image].patch = None;
        self.planned = false;
    }

    pub(super) fn set_plan(&mut self, ways: Vec<Vec<Way>>) -> Result<(), String> {
        let fits = ways.len() == self.images.len()
            && ways.iter().zip(&self.images).all(|(ways, image)| ways.len() == image.done.len());
        if !fits {
            return Err("the plan is for another release".to_owned());
        }
        self.planned = true;
        self.images.iter_mut().zip(ways).for_each(|(image, ways)| image.ways = ways);
        Ok(())
    }

    /// What was to come from here must be fetched.
    pub(super) fn reroute(&mut self, image: usize, unit: usize, way: Way) {
        if let Some(place) = self.images[image].ways.get_mut(unit) {
            *place = way;
        }
    }

    pub(super) fn inspected(&mut self, image: usize, unit: usize, matches: bool) {
        let work = &mut self.images[image];
        work.done[unit] = if matches { Done::Yes } else { Done::No };
        work.inspected = work.inspected.max(unit + 1);
    }

    /// Whether no frame so far into the release was decoded before.
    pub(super) fn is_news(&mut self, frame: (usize, usize, u16)) -> bool {
        let is_news = self.furthest.is_none_or(|furthest| furthest < frame);
        if is_news {
            self.furthest = Some(frame);
        }
        is_news
    }

    pub(super) fn began(&mut self, image: usize, unit: usize) {
        self.images[image].done[unit] = Done::Begun;
    }

    pub(super) fn wrote(&mut self, image: usize, unit: usize) {
        self.images[image].done[unit] = Done::Yes;
    }

    pub(super) fn was_read_back(&mut self, image: usize, unit: usize) {
        self.images[image].read_back = unit + 1;
    }

    pub(super) fn hash_matched(&mut self, image: usize) {
        self.images[image].hash_matched = true;
    }

    pub(super) fn is_written(&self) -> bool {
        self.images.iter().all(|image| image.done.iter().all(|done| *done == Done::Yes))
    }

    pub(super) fn is_verified(&self) -> bool {
        self.images.iter().all(|image| image.hash_matched)
    }

    pub(super) fn begin_again(&mut self) {
        self.rejections += 1;
        // Most of it is right: only what is not is fetched again.
        self.resumed = true;
        self.planned = false;
        for image in &mut self.images {
            image.ways.clear();
            image.inspected = 0;
            image.read_back = 0;
            image.hash_matched = false;
            image.done.fill(Done::No);
        }
    }

    /// What is missing before it can be planned.
    pub(super) fn next_to_survey(&self) -> Option<Step> {
        for (image, work) in self.images.iter().enumerate() {
            if work.index.is_none() {
                return Some(Step::FetchIndex { image });
            }
            if work.unmapped {
                return Some(Step::Map { image });
            }
            if let Some(unit) = work.leaves.iter().position(|known| !known) {
                let count = work.leaves[unit..].iter().take_while(|known| !**known).count();
                return Some(Step::FetchLeaves { image, unit, count });
            }
            if let Some(patch) = work.patch {
                return Some(Step::FetchPatchIndex { image, patch });
            }
        }
        None
    }

    /// After an interruption every unit of the target slot is first held against the index, and what is there is not
    /// fetched again. Then it is planned, and then what is missing is made, unit by unit.
    pub(super) fn next_to_write(&self) -> Step {
        for (image, work) in self.images.iter().enumerate() {
            if self.resumed && work.inspected < work.done.len() {
                return Step::Inspect { image, unit: work.inspected };
            }
        }
        if let Some(step) = self.next_to_survey() {
            return step;
        }
        if !self.planned {
            return Step::Plan;
        }
        for (image, work) in self.images.iter().enumerate() {
            if let Some(unit) = work.done.iter().position(|done| *done == Done::No) {
                return match work.ways[unit] {
                    Way::Local => Step::Make { image, unit },
                    Way::Frames(_) | Way::Patch => Step::FetchFrames { image, unit },
                };
            }
        }
        if self.is_written() { Step::Rest } else { Step::Settle }
    }

    pub(super) fn next_to_read_back(&self) -> Step {
        for (image, work) in self.images.iter().enumerate() {
            if work.read_back < work.done.len() {
                return Step::ReadBack { image, unit: work.read_back };
            }
            if !work.hash_matched {
                return Step::CompareImage { image };
            }
        }
        Step::Unseal
    }

    pub(super) fn written(&self) -> ProgressState {
        self.sum(|work, unit| work.done[unit] == Done::Yes)
    }

    pub(super) fn was_all_read_back(&self) -> ProgressState {
        self.sum(|work, unit| unit < work.read_back)
    }

    fn sum(&self, is_done: impl Fn(&ImageWork, usize) -> bool) -> ProgressState {
        let done =
            self.images.iter().filter_map(|work| Some((work, work.index.as_ref()?))).map(|(work, index)| {
                let units = index.units().iter().enumerate().filter(|(unit, _)| is_done(work, *unit));
                units.map(|(_, unit)| u64::from(unit.length)).sum::<u64>()
            });
        ProgressState {
            done_bytes: done.sum(),
            total_bytes: self.manifest.images.iter().map(|image| image.size).sum(),
        }
    }
}
