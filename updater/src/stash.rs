//! The manifest and indexes of the install under way, and the images' first bytes, which are written last: kept so that
//! an interrupted install goes on without fetching them again, and believed only by their hashes.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use vigil_durable::Mode;

use crate::engine::Work;
use crate::release::{INDEX_BYTES, Index, MANIFEST_BYTES, Manifest};
use crate::slot::HEAD_BYTES;

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

    /// Manifest and indexes, if they are what the journal's hash vouches for.
    pub fn load(&self, manifest_sha256: &str) -> Option<Work> {
        let bytes =
            vigil_durable::read_bounded(&self.directory.join("manifest.json"), MANIFEST_BYTES).ok()??;
        if sha256_hex(&bytes) != manifest_sha256 {
            return None;
        }
        let mut work = Work::new(Manifest::parse(&bytes).ok()?);
        for image in 0..work.manifest().images.len() {
            let bytes = vigil_durable::read_bounded(&self.index_file(image), INDEX_BYTES).ok()??;
            if sha256_hex(&bytes) != work.manifest().images[image].index.sha256 {
                return None;
            }
            work.set_index(image, Index::parse(&bytes).ok()?).ok()?;
        }
        Some(work)
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

    fn index_file(&self, image: usize) -> PathBuf {
        self.directory.join(format!("index-{image}"))
    }
}

/// SHA-256 of a file, lower-case hex.
pub fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
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
