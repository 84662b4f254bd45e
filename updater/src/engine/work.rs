//! Which frames of which images are done.

use vigil_wire::ProgressState;

use super::Step;
use crate::release::{Index, Manifest};

/// A release being installed.
#[derive(Clone, Debug)]
pub struct Work {
    manifest: Manifest,
    images: Vec<ImageWork>,
    /// How often the slot had to be written again.
    pub(super) rejections: u32,
    /// Whether the slot may hold frames of this release: then it is looked at before anything is fetched.
    pub(super) resumed: bool,
}

/// One image being installed.
#[derive(Clone, Debug, Default)]
pub struct ImageWork {
    index: Option<Index>,
    /// Frames of the target slot that were held against the index.
    inspected: usize,
    /// Whether each frame is in the target slot.
    have: Vec<bool>,
    /// Frames that were read back, from the first on.
    read_back: usize,
    hash_matched: bool,
}

impl Work {
    /// Nothing done yet.
    pub fn new(manifest: Manifest) -> Self {
        let images = manifest.images.iter().map(|_| ImageWork::default()).collect();
        Self { manifest, images, rejections: 0, resumed: false }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The index of an image, once it is known.
    pub fn index(&self, image: usize) -> Option<&Index> {
        self.images.get(image)?.index.as_ref()
    }

    /// Whether what was written did not read back as signed: then what is decoded is looked at before it is written, to
    /// tell a wrong release from a bad disk.
    pub fn is_suspect(&self) -> bool {
        self.rejections > 0
    }

    /// The first image without its index.
    pub fn missing_index(&self) -> Option<usize> {
        self.images.iter().position(|image| image.index.is_none())
    }

    /// Takes in an index, if it fits the manifest.
    pub fn set_index(&mut self, image: usize, index: Index) -> Result<(), String> {
        let (Some(wanted), Some(work)) = (self.manifest.images.get(image), self.images.get_mut(image)) else {
            return Err(format!("the manifest has no image number {image}"));
        };
        if index.image_size() != wanted.size || index.frames_size() != wanted.frames.size {
            return Err(format!("the index of image {} is for another size", wanted.name));
        }
        work.have = vec![false; index.frames().len()];
        work.index = Some(index);
        Ok(())
    }

    pub(super) fn inspected(&mut self, image: usize, frame: usize, matches: bool) {
        let work = &mut self.images[image];
        work.have[frame] = matches;
        work.inspected = work.inspected.max(frame + 1);
    }

    pub(super) fn wrote(&mut self, image: usize, frame: usize) {
        self.images[image].have[frame] = true;
    }

    pub(super) fn was_read_back(&mut self, image: usize, frame: usize) {
        self.images[image].read_back = frame + 1;
    }

    pub(super) fn hash_matched(&mut self, image: usize) {
        self.images[image].hash_matched = true;
    }

    pub(super) fn is_written(&self) -> bool {
        self.images.iter().all(|image| image.have.iter().all(|have| *have))
    }

    pub(super) fn is_verified(&self) -> bool {
        self.images.iter().all(|image| image.hash_matched)
    }

    pub(super) fn begin_again(&mut self) {
        self.rejections += 1;
        // Most of it is right: only what is not is fetched again.
        self.resumed = true;
        for image in &mut self.images {
            image.inspected = 0;
            image.read_back = 0;
            image.hash_matched = false;
            image.have.fill(false);
        }
    }

    /// After an interruption every frame of the target slot is first held against the index, and what is there is not
    /// fetched again. Then what is missing is fetched, in runs.
    pub(super) fn next_to_write(&self) -> Step {
        for (image, work) in self.images.iter().enumerate() {
            if self.resumed && work.inspected < work.have.len() {
                return Step::Inspect { image, frame: work.inspected };
            }
        }
        for (image, work) in self.images.iter().enumerate() {
            if let Some(frame) = work.have.iter().position(|have| !have) {
                let count = work.have[frame..].iter().take_while(|have| !**have).count();
                return Step::FetchFrames { image, frame, count };
            }
        }
        Step::Rest
    }

    pub(super) fn next_to_read_back(&self) -> Step {
        for (image, work) in self.images.iter().enumerate() {
            if work.read_back < work.have.len() {
                return Step::ReadBack { image, frame: work.read_back };
            }
            if !work.hash_matched {
                return Step::CompareImage { image };
            }
        }
        Step::Unseal
    }

    pub(super) fn written(&self) -> ProgressState {
        self.sum(|work| {
            (0..work.have.len())
                .filter(|frame| work.have[*frame])
                .map(|frame| work.index.as_ref().map_or(0, |index| u64::from(index.extent(frame).1)))
                .sum()
        })
    }

    pub(super) fn read_back(&self) -> ProgressState {
        self.sum(|work| {
            let index = work.index.as_ref();
            index.map_or(0, |index| match work.read_back {
                0 => 0,
                count => index.extent(count - 1).0 + u64::from(index.extent(count - 1).1),
            })
        })
    }

    fn sum(&self, done: impl Fn(&ImageWork) -> u64) -> ProgressState {
        ProgressState {
            done_bytes: self.images.iter().map(done).sum(),
            total_bytes: self.manifest.images.iter().map(|image| image.size).sum(),
        }
    }
}
