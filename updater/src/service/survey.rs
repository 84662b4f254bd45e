//! What is known of an install's images besides their indexes: leaves, patches, and what the slots hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tracing::{info, warn};
use vigil_wire::{PlanStatus, ProgressState};

use super::Updater;
use super::make::PIECE;
use crate::config::Place as ConfigPlace;
use crate::engine::plan::{Candidate, Place, Planner, REQUEST_BYTES};
use crate::engine::{Survey, Way};
use crate::release::{Chunking, Index, Leaf, Manifest, Packing, Patch, Patches, patch};
use crate::slot::{Cut, Cutter, HEAD_BYTES, Map, MapWriter, Seed, Seeds};

/// How a slot is mapped that no install of ours has mapped: most images are made of files that begin at blocks.
const USUAL: Chunking = Chunking::Aligned(4096);

/// What is known of one image.
#[derive(Default)]
pub(super) struct Known {
    /// The running slot's map, if it is cut as the new image is.
    map: Option<Map>,
    /// Its units, by their digests.
    units: BTreeMap<[u8; 32], usize>,
    /// Which patch of the manifest can be used, and its frames.
    patch: Option<usize>,
    patches: Patches,
    /// Where chunks are.
    pub(super) seeds: Seeds,
    /// The running slot's part.
    pub(super) running: Option<File>,
}

impl Known {
    /// How blocks are packed that patch frames unpack.
    pub(super) fn packing(&self) -> Option<Packing> {
        self.patches.packing
    }
}

/// A slot that is being mapped.
pub(super) struct Mapping {
    image: String,
    cutter: Cutter<io::Take<File>>,
    writer: MapWriter,
    progress: ProgressState,
}

impl Updater {
    fn map_file(&self, slot: &str, image: &str) -> PathBuf {
        self.config.state.join("maps").join(format!("{slot}-{image}.map"))
    }

    fn target(&self) -> io::Result<String> {
        let install = self.engine.journal().install.as_ref();
        install
            .map(|install| install.target.clone())
            .ok_or_else(|| io::Error::other("no install is under way"))
    }

    fn name(&self, image: usize) -> io::Result<String> {
        let work = self.engine.work().ok_or_else(|| io::Error::other("no install is under way"))?;
        Ok(work.manifest().images[image].name.clone())
    }

    fn known_mut(&mut self, image: usize) -> &mut Known {
        if self.known.len() <= image {
            self.known.resize_with(image + 1, Known::default);
        }
        &mut self.known[image]
    }

    /// What is known of an image by its index. None when the running slot must be mapped first.
    pub(super) fn survey(&mut self, image: usize, index: Index) -> io::Result<Option<Survey>> {
        let manifest = self.engine.work().map(|work| work.manifest().clone());
        let manifest = manifest.ok_or_else(|| io::Error::other("no install is under way"))?;
        self.survey_of(&manifest, image, index)
    }

    pub(super) fn survey_of(
        &mut self,
        manifest: &Manifest,
        image: usize,
        index: Index,
    ) -> io::Result<Option<Survey>> {
        *self.known_mut(image) = Known::default();
        let wanted = &manifest.images[image];
        let Some(chunking) = index.chunking() else {
            let known = vec![true; index.units().len()];
            return Ok(Some(Survey { index, known, patch: None }));
        };
        let name = wanted.name.clone();
        let running = self.engine.running().to_owned();
        let Some(ConfigPlace::Part(path)) = self.config.place(&running, &name) else {
            // A payload goes to a hook, and is small: it is compared with nothing.
            let known = self.leaves_at_hand(image, &index);
            return Ok(Some(Survey { index, known, patch: None }));
        };
        let map = Map::open(&self.map_file(&running, &name))?.filter(|map| map.chunking() == chunking);
        let Some(map) = map else {
            if self.unmappable.contains(&name) {
                let known = self.leaves_at_hand(image, &index);
                return Ok(Some(Survey { index, known, patch: None }));
            }
            self.begin_mapping(&name, chunking, None)?;
            return Ok(None);
        };
        let sha256 = HEXLOWER.encode(&map.image_sha256());
        let patch = wanted.patches.iter().position(|patch| patch.from == sha256);
        // What the factory wrote is mapped to the end of its part. The image may be shorter, and one that a patch starts from.
        let length = map.image_size();
        let shorter = wanted.patches.first().map(|patch| patch.from_size).filter(|size| *size < length);
        if let (None, Some(size)) = (patch, shorter)
            && length == size_of(&path)?
            && !self.unmappable.contains(&name)
        {
            self.begin_mapping(&name, chunking, Some(size))?;
            return Ok(None);
        }
        let units = map.units().iter().enumerate().map(|(number, unit)| (unit.digest, number)).collect();
        let running = crate::slot::open_in_pieces(&path)?;
        *self.known_mut(image) =
            Known { map: Some(map), units, patch, running: Some(running), ..Known::default() };
        let known = self.leaves_at_hand(image, &index);
        // Kept before an interruption, it is not fetched again.
        let wants =
            |patch: &usize| self.stash.patch_index(image, &wanted.patches[*patch].index.sha256).is_none();
        Ok(Some(Survey { index, known, patch: patch.filter(wants) }))
    }

    /// For each unit whether its leaf is here: fetched before, or not needed since the running slot has the unit.
    fn leaves_at_hand(&self, image: usize, index: &Index) -> Vec<bool> {
        let units = self.known.get(image).map(|known| &known.units);
        let has = |unit: usize| {
            units.is_some_and(|units| units.contains_key(&index.units()[unit].digest))
                || self.stash.leaf(image, index, unit).is_some()
        };
        (0..index.units().len()).map(has).collect()
    }

    /// What a unit is made of. A leaf that was fetched tells the frames, too; one of the running slot's map does not.
    pub(super) fn leaf(&self, image: usize, unit: usize) -> io::Result<Leaf> {
        let index = self.engine.work().and_then(|work| work.index(image));
        let index = index.ok_or_else(|| io::Error::other("there is no such image"))?;
        if let Some(leaf) = index.flat_leaf(unit).or_else(|| self.stash.leaf(image, index, unit)) {
            return Ok(leaf);
        }
        let known = self.known.get(image);
        let found = known
            .and_then(|known| Some((known.map.as_ref()?, known.units.get(&index.units()[unit].digest)?)));
        let (map, number) =
            found.ok_or_else(|| io::Error::other(format!("the leaf of unit {unit} is not here")))?;
        map.leaf(*number)
    }

    /// The patch frame for a unit.
    pub(super) fn patch(&self, image: usize, unit: usize) -> Option<&Patch> {
        let patches = &self.known.get(image)?.patches.frames;
        patches.binary_search_by_key(&(unit as u32), |patch| patch.unit).ok().map(|at| &patches[at])
    }

    /// The SHA-256 that names the file of the patch's frames.
    pub(super) fn patch_frames(&self, image: usize) -> Option<String> {
        let patch = self.known.get(image)?.patch?;
        let work = self.engine.work()?;
        Some(work.manifest().images[image].patches.get(patch)?.frames.sha256.clone())
    }

    /// Goes on as if the release had no patch for the image.
    pub(super) fn forget_patch(&mut self, image: usize) {
        let known = self.known_mut(image);
        known.patch = None;
        known.patches = Patches::default();
    }

    /// Finds out where everything will come from.
    pub(super) fn plan(&mut self) -> io::Result<(PlanStatus, Vec<Vec<Way>>)> {
        let images = self.engine.work().map_or(0, |work| work.manifest().images.len());
        for image in 0..images {
            self.gather(image)?;
        }
        self.stash.sync_leaves(images)?;
        let Some(work) = self.engine.work() else { return Err(io::Error::other("no install is under way")) };
        let (mut planner, mut ways, mut index_bytes) = (Planner::default(), Vec::new(), 0);
        for (image, wanted) in work.manifest().images.iter().enumerate() {
            let Some(index) = work.index(image) else { return Err(io::Error::other("an index is not here")) };
            planner.begin_image();
            index_bytes += wanted.index.size + REQUEST_BYTES;
            let known = self.known.get(image);
            if let Some(patch) = known.and_then(|known| wanted.patches.get(known.patch?)) {
                index_bytes += patch.index.size + REQUEST_BYTES;
            }
            // Leaves that lie one behind the other come with one request.
            let mut is_coming = false;
            let mut ways_of_image = Vec::with_capacity(index.units().len());
            for (number, unit) in index.units().iter().enumerate() {
                let leaf = self.leaf(image, number)?;
                let was_coming = is_coming;
                is_coming = known.is_none_or(|known| !known.units.contains_key(&unit.digest));
                if is_coming && unit.leaf_length > 0 {
                    index_bytes += u64::from(unit.leaf_length) + if was_coming { 0 } else { REQUEST_BYTES };
                }
                let candidate = Candidate {
                    unit,
                    leaf: &leaf,
                    patch: self.patch(image, number),
                    is_done: work.is_done(image, number),
                };
                let place = |offset: u32, hash: u64, length: u32| {
                    let at = unit.offset + u64::from(offset);
                    let seeds = known.into_iter().flat_map(|known| known.seeds.find(hash));
                    let mut seeds = seeds.filter(|seed| seed.length == length && is_whole(seed, unit.offset));
                    let seed = seeds.next()?;
                    Some(match seed {
                        Seed { in_target: true, offset, .. } if offset == at => Place::Present,
                        Seed { in_target: true, .. } => Place::Target,
                        Seed { in_target: false, .. } => Place::Running,
                    })
                };
                let way = planner.plan(&candidate, place);
                // Without frames a leaf of the running slot's map can only be made of that slot.
                let is_mapped = leaf.frames.is_empty() && way != Way::Patch;
                ways_of_image.push(if is_mapped { Way::Local } else { way });
            }
            ways.push(ways_of_image);
        }
        Ok((planner.finish(index_bytes), ways))
    }

    /// Opens what an image may be made of.
    fn gather(&mut self, image: usize) -> io::Result<()> {
        let index = self.engine.work().and_then(|work| work.index(image)).cloned();
        let Some(index) = index.filter(|index| index.chunking().is_some()) else {
            self.known_mut(image);
            return Ok(());
        };
        if self.known.get(image).is_none_or(|known| known.map.is_none()) {
            // After a restart; what cannot be mapped now is not mapped.
            let survey = self.survey(image, index.clone())?;
            self.mapping = None;
            if survey.is_none() {
                *self.known_mut(image) = Known::default();
            }
        }
        let name = self.name(image)?;
        let target = Map::open(&self.map_file(&self.target()?, &name))?;
        let target = match target {
            Some(map) => Some(map),
            None => Map::open(&self.stash.target_map(image))?,
        };
        let mut seeds = Seeds::default();
        let known = &self.known[image];
        if let Some(map) = &known.map {
            seeds.add(map, false)?;
        }
        if let Some(map) = target.filter(|map| Some(map.chunking()) == index.chunking()) {
            seeds.add(&map, true)?;
        }
        let patches = match known.patch.zip(self.engine.work()) {
            None => Patches::default(),
            Some((patch, work)) => {
                let parts = &work.manifest().images[image].patches[patch];
                let bytes = self.stash.patch_index(image, &parts.index.sha256);
                let read = bytes.map(|bytes| patch::parse(&bytes, &index, parts.from_size));
                read.transpose()
                    .unwrap_or_else(|error| {
                        warn!(%error, "the patch is not used");
                        None
                    })
                    .filter(|patches| {
                        let is_ours = patches.packing.is_none_or(|packing| packing.is_ours());
                        if !is_ours {
                            info!("the patch is made for another version of zstd, and is not used");
                        }
                        is_ours
                    })
                    .unwrap_or_default()
            }
        };
        let known = self.known_mut(image);
        known.seeds = seeds;
        known.patches = patches;
        Ok(())
    }

    /// The target slot's maps are no longer true: its content will change. What has not been overwritten yet can still be
    /// found by them.
    pub(super) fn retire_maps(&self) -> io::Result<()> {
        let target = self.target()?;
        let images = self.engine.work().map_or(0, |work| work.manifest().images.len());
        for image in 0..images {
            let map = self.map_file(&target, &self.name(image)?);
            match std::fs::rename(&map, self.stash.target_map(image)) {
                Ok(()) => vigil_durable::sync_directory_of(&map)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps what is known of the target slot now that it is verified. Failing costs bytes at the next update, not this one.
    pub(super) fn keep_maps(&self) {
        let keep = |image: usize, target: &str| -> io::Result<()> {
            let Some(work) = self.engine.work() else { return Ok(()) };
            let wanted = &work.manifest().images[image];
            let Some((index, chunking)) =
                work.index(image).and_then(|index| Some((index, index.chunking()?)))
            else {
                return Ok(());
            };
            let mut writer = MapWriter::new(&self.map_file(target, &wanted.name), chunking)?;
            for (number, unit) in index.units().iter().enumerate() {
                writer.push(self.leaf(image, number)?, unit.digest)?;
            }
            let mut sha256 = [0; 32];
            HEXLOWER
                .decode_mut(wanted.sha256.as_bytes(), &mut sha256)
                .map_err(|_| io::Error::other("the image's hash is none"))?;
            writer.finish(sha256)
        };
        let Ok(target) = self.target() else { return };
        for image in 0..self.engine.work().map_or(0, |work| work.manifest().images.len()) {
            if let Err(error) = keep(image, &target) {
                warn!(%error, image, "the map of the slot could not be kept");
            }
        }
    }

    /// Begins to map a part of the running slot, or its first `length` bytes.
    fn begin_mapping(&mut self, image: &str, chunking: Chunking, length: Option<u64>) -> io::Result<()> {
        let running = self.engine.running().to_owned();
        let Some(ConfigPlace::Part(path)) = self.config.place(&running, image) else { return Ok(()) };
        let size = length.map_or_else(|| size_of(&path), Ok)?;
        let file = crate::slot::open_in_pieces(&path)?;
        // A part so large that its chunks would not fit into memory is not mapped: it is updated in full.
        if size / u64::from(chunking.mean()) > u64::from(crate::release::CHUNKS) {
            self.unmappable.push(image.to_owned());
            return Ok(());
        }
        info!(image, bytes = size, "mapping the running slot");
        self.mapping = Some(Mapping {
            image: image.to_owned(),
            cutter: Cutter::new(file.take(size), chunking),
            writer: MapWriter::new(&self.map_file(&running, image), chunking)?,
            progress: ProgressState { done_bytes: 0, total_bytes: size },
        });
        Ok(())
    }

    /// Maps as much as fits into a turn. True when there is nothing to map any more.
    pub(super) fn go_on_mapping(&mut self) -> bool {
        let Some(mapping) = &mut self.mapping else { return true };
        let result = match mapping.cutter.cut(2 * PIECE, None) {
            Ok(Cut::More) => return false,
            Ok(Cut::Unit(unit)) => {
                mapping.progress.done_bytes += u64::from(unit.length);
                mapping.writer.push(unit.leaf(), unit.digest()).map(|()| false)
            }
            Ok(Cut::End) => Ok(true),
            Err(error) => Err(error),
        };
        if matches!(result, Ok(false)) {
            return false;
        }
        let Some(mapping) = self.mapping.take() else { return true };
        let finished = result.and_then(|_| mapping.writer.finish(mapping.cutter.image_sha256()));
        match finished {
            Ok(()) => self.note("slot.mapped", &mapping.image),
            Err(error) => {
                // It is updated in full then.
                warn!(%error, image = mapping.image, "the running slot could not be mapped");
                self.unmappable.push(mapping.image);
            }
        }
        true
    }

    /// Maps a piece of a part of the running slot that has no map, when there is nothing else to do. How long it took; none
    /// when there is nothing to map.
    pub(super) fn map_when_idle(&mut self) -> Option<Duration> {
        let begun = super::now().boot;
        if self.mapping.is_none() {
            let running = self.engine.running().to_owned();
            let images =
                self.config.slot(&running).map(|slot| slot.parts.keys().cloned().collect::<Vec<_>>());
            let image = images
                .unwrap_or_default()
                .into_iter()
                .find(|image| !self.unmappable.contains(image) && !self.map_file(&running, image).exists())?;
            if let Err(error) = self.begin_mapping(&image, USUAL, None) {
                warn!(%error, image, "the running slot could not be mapped");
                self.unmappable.push(image);
            }
        }
        self.go_on_mapping();
        Some(super::now().boot.saturating_sub(begun))
    }

    /// How far mapping has come.
    pub(super) fn mapping_progress(&self) -> Option<ProgressState> {
        self.mapping.as_ref().map(|mapping| mapping.progress)
    }
}

/// Bytes of a file or a block device.
fn size_of(path: &Path) -> io::Result<u64> {
    File::open(path)?.seek(SeekFrom::End(0))
}

/// Whether a chunk will still be there when the unit that begins at `unit` is made.
pub(super) fn is_whole(seed: &Seed, unit: u64) -> bool {
    !seed.in_target || seed.offset >= unit.max(HEAD_BYTES as u64)
}
