//! What was fetched of the install under way before its frames (manifest, indexes, leaves), and the images' first bytes,
//! which are written last: kept so that an interrupted install goes on without fetching them again, and believed only by
//! their hashes. And the count of what the install has cost.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vigil_durable::Mode;
use vigil_wire::OutcomeStatus;

use crate::release::{INDEX_BYTES, Index, Leaf, MANIFEST_BYTES, Manifest, PATCH_INDEX_BYTES};
use crate::slot::HEAD_BYTES;

/// A disk writes so many bytes whole or not at all: the count is overwritten in place, many times for each unit.
const SECTOR_BYTES: usize = 512;

/// The count, and whose it is.
#[derive(Serialize, Deserialize)]
struct Spent {
    install: u64,
    outcome: OutcomeStatus,
}

/// The files.
#[derive(Debug)]
pub struct Stash {
    directory: PathBuf,
}

impl Stash {
    /// In the updater's state directory.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("install");
        vigil_durable::create_directory(&directory)?;
        Ok(Self { directory })
    }

    /// Keeps the manifest.
    pub fn keep_manifest(&self, bytes: &[u8]) -> io::Result<()> {
        vigil_durable::write("stash.manifest", &self.directory.join("manifest.json"), bytes, Mode::Private)
    }

    /// Keeps an image's index.
    pub fn keep_index(&self, image: usize, bytes: &[u8]) -> io::Result<()> {
        vigil_durable::write("stash.index", &self.index_file(image), bytes, Mode::Private)
    }

    /// Keeps the first bytes of an image until they are written.
    pub fn keep_head(&self, image: usize, bytes: &[u8]) -> io::Result<()> {
        vigil_durable::write("stash.head", &self.head_file(image), bytes, Mode::Private)
    }

    /// The first bytes of an image, if they are kept. Nothing vouches for them but the hash of the image's first frame,
    /// which they belong to.
    pub fn head(&self, image: usize) -> Option<Vec<u8>> {
        vigil_durable::read_bounded(&self.head_file(image), HEAD_BYTES as u64).ok()?
    }

    /// Keeps a leaf where it has its place among the image's leaves. It is durable after [`Self::sync_leaves`].
    pub fn keep_leaf(&self, image: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.leaves_file(image);
        let file = vigil_durable::open(&path, File::options().write(true).create(true).truncate(false))?;
        file.write_all_at(bytes, offset)
    }

    /// Brings the leaves of so many images to the disk.
    pub fn sync_leaves(&self, images: usize) -> io::Result<()> {
        for image in 0..images {
            match vigil_durable::open(&self.leaves_file(image), File::options().read(true)) {
                Ok(file) => vigil_turns::sync(|| file.sync_all())?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A unit's leaf, if it is kept and of the hash that the index names.
    pub fn leaf(&self, image: usize, index: &Index, unit: usize) -> Option<Leaf> {
        let (unit, chunking) = (index.units().get(unit)?, index.chunking()?);
        let mut bytes = vec![0; unit.leaf_length as usize];
        let file = vigil_durable::open(&self.leaves_file(image), File::options().read(true)).ok()?;
        file.read_exact_at(&mut bytes, unit.leaf_offset).ok()?;
        let is_signed = Sha256::digest(&bytes).as_slice() == unit.leaf_sha256;
        is_signed.then(|| Leaf::parse(&bytes, unit, chunking).ok()).flatten()
    }

    /// Keeps the index of a patch.
    pub fn keep_patch_index(&self, image: usize, bytes: &[u8]) -> io::Result<()> {
        vigil_durable::write("stash.patch", &self.patch_file(image), bytes, Mode::Private)
    }

    /// The index of a patch, if it is kept and has this hash.
    pub fn patch_index(&self, image: usize, sha256: &str) -> Option<Vec<u8>> {
        let bytes = vigil_durable::read_bounded(&self.patch_file(image), PATCH_INDEX_BYTES).ok()??;
        (sha256_hex(&bytes) == sha256).then_some(bytes)
    }

    /// Keeps what the install of this number has cost. It is there after the end of this process, and after a power cut when
    /// [`Self::sync_outcome`] followed.
    pub fn keep_outcome(&self, install: u64, outcome: &OutcomeStatus) -> io::Result<()> {
        let mut sector = serde_json::to_vec(&Spent { install, outcome: outcome.clone() })?;
        if sector.len() > SECTOR_BYTES {
            return Err(io::Error::other("a count of more digits than a sector holds"));
        }
        sector.resize(SECTOR_BYTES, b' ');
        let file = vigil_durable::open(
            &self.outcome_file(),
            File::options().write(true).create(true).truncate(false),
        )?;
        file.write_all_at(&sector, 0)
    }

    /// Brings it to the disk.
    pub fn sync_outcome(&self) -> io::Result<()> {
        match vigil_durable::open(&self.outcome_file(), File::options().read(true)) {
            Ok(file) => vigil_turns::sync(|| file.sync_data()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the install of this number has cost, if that is kept.
    pub fn outcome(&self, install: u64) -> Option<OutcomeStatus> {
        let bytes = vigil_durable::read_bounded(&self.outcome_file(), SECTOR_BYTES as u64).ok()??;
        let spent: Spent = serde_json::from_slice(&bytes).ok()?;
        (spent.install == install).then_some(spent.outcome)
    }

    /// Where the map of what the target slot held lies while it is overwritten.
    pub fn target_map(&self, image: usize) -> PathBuf {
        self.directory.join(format!("target-{image}.map"))
    }

    /// Manifest and indexes, if they are what the journal's hash vouches for.
    pub fn load(&self, manifest_sha256: &str) -> Option<(Manifest, Vec<Index>)> {
        let bytes =
            vigil_durable::read_bounded(&self.directory.join("manifest.json"), MANIFEST_BYTES).ok()??;
        if sha256_hex(&bytes) != manifest_sha256 {
            return None;
        }
        let manifest = Manifest::parse(&bytes).ok()?;
        let indexes = manifest.images.iter().enumerate().map(|(image, wanted)| {
            let bytes = vigil_durable::read_bounded(&self.index_file(image), INDEX_BYTES).ok()??;
            (sha256_hex(&bytes) == wanted.index.sha256).then(|| Index::parse(&bytes).ok()).flatten()
        });
        let indexes = indexes.collect::<Option<_>>()?;
        Some((manifest, indexes))
    }

    /// Removes everything. What cannot be removed does no harm and is overwritten by the next install.
    pub fn clear(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    }

    fn head_file(&self, image: usize) -> PathBuf {
        self.directory.join(format!("head-{image}"))
    }

    fn leaves_file(&self, image: usize) -> PathBuf {
        self.directory.join(format!("leaves-{image}"))
    }

    fn patch_file(&self, image: usize) -> PathBuf {
        self.directory.join(format!("patch-{image}"))
    }

    fn outcome_file(&self) -> PathBuf {
        self.directory.join("outcome")
    }

    fn index_file(&self, image: usize) -> PathBuf {
        self.directory.join(format!("index-{image}"))
    }
}

/// SHA-256 of a file, lower-case hex.
pub fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = vigil_durable::open(path, File::options().read(true))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(HEXLOWER.encode(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// SHA-256, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_fits_its_sector_and_is_no_other_installs_nor_what_is_left_of_one() {
        let directory = tempfile::tempdir().unwrap();
        let stash = Stash::open(directory.path()).unwrap();
        assert_eq!(stash.outcome(1), None);
        stash.sync_outcome().unwrap();
        let most = u64::MAX;
        let outcome = OutcomeStatus {
            fetch_bytes: most,
            requests: most,
            index_bytes: most,
            metadata_bytes: most,
            write_bytes: most,
            present_bytes: most,
            running_bytes: most,
            target_bytes: most,
            free_bytes: most,
            frame_bytes: most,
            patch_bytes: most,
            fetch_millis: most,
        };
        stash.keep_outcome(most, &outcome).unwrap();
        stash.keep_outcome(7, &OutcomeStatus { requests: 3, ..OutcomeStatus::default() }).unwrap();
        stash.sync_outcome().unwrap();
        assert_eq!(stash.outcome(7).unwrap().requests, 3);
        assert_eq!(stash.outcome(8), None);
        std::fs::write(stash.outcome_file(), "{\"install\":7,\"outcome\":{\"requ").unwrap();
        assert_eq!(stash.outcome(7), None);
    }
}
