//! The map of a slot's part: which chunks lie where. It is made when an image is installed, so that the next update knows
//! without reading the slot what it need not fetch. Nothing relies on it: every chunk is hashed as it is read.
//!
//! For each unit its leaf, without frames; then for each unit its bytes, chunks, bytes of its leaf (each u32) and digest;
//! then `"VIGM"`, version, chunking, chunk bytes, number of units (each u32), image bytes (u64), SHA-256 of the image; then
//! SHA-256 of all before. Little-endian throughout.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::release::{Chunking, INDEX_BYTES, LEAF_BYTES, Leaf, UNIT_BYTES, Unit};

const MAGIC: &[u8; 4] = b"VIGM";
const VERSION: u32 = 2;
const FOOTER_BYTES: u64 = 60;
const HASH_BYTES: u64 = 32;
const ENTRY_BYTES: u64 = 44;
const UNITS: u64 = 65_536;

/// A map.
#[derive(Debug)]
pub struct Map {
    file: File,
    chunking: Chunking,
    image_sha256: [u8; 32],
    units: Vec<Unit>,
}

impl Map {
    /// Opens a map; none if it is not there or damaged.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match vigil_durable::open(path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::read(file)
    }

    fn read(file: File) -> io::Result<Option<Self>> {
        let length = file.metadata()?.len();
        let Some(body) = length.checked_sub(HASH_BYTES + FOOTER_BYTES) else { return Ok(None) };
        let mut end = [0; (HASH_BYTES + FOOTER_BYTES) as usize];
        file.read_exact_at(&mut end, body)?;
        let word = |at: usize| u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
        let chunking = match word(8) {
            0 => Chunking::Aligned(word(12)).checked(),
            1 => Chunking::Content(word(12)).checked(),
            _ => None,
        };
        let count = u64::from(word(16));
        let Some(chunking) = chunking.filter(|_| &end[..4] == MAGIC && word(4) == VERSION && count <= UNITS)
        else {
            return Ok(None);
        };
        let Some(leaves) = body.checked_sub(count * ENTRY_BYTES) else { return Ok(None) };
        let mut image_sha256 = [0; 32];
        image_sha256.copy_from_slice(&end[28..60]);
        let image_size = u64::from(word(20)) | u64::from(word(24)) << 32;
        if hash_of(&file, length - HASH_BYTES)? != end[60..] {
            return Ok(None);
        }
        let mut table = vec![0; (count * ENTRY_BYTES) as usize];
        file.read_exact_at(&mut table, leaves)?;
        let mut map = Self { file, chunking, image_sha256, units: Vec::with_capacity(count as usize) };
        let (mut offset, mut leaf_offset) = (0, 0);
        for entry in table.chunks_exact(ENTRY_BYTES as usize) {
            let word =
                |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let mut digest = [0; 32];
            digest.copy_from_slice(&entry[12..]);
            let (length, chunks, leaf_length) = (word(0), word(4), word(8));
            if length > UNIT_BYTES || chunks > length || leaf_length > LEAF_BYTES {
                return Ok(None);
            }
            map.units.push(Unit {
                offset,
                length,
                chunks,
                leaf_offset,
                leaf_length,
                leaf_sha256: [0; 32],
                frames_offset: 0,
                frames_length: 0,
                digest,
            });
            offset += u64::from(length);
            leaf_offset += u64::from(leaf_length);
        }
        Ok((offset == image_size && leaf_offset == leaves).then_some(map))
    }

    /// How the image was cut.
    pub fn chunking(&self) -> Chunking {
        self.chunking
    }

    /// SHA-256 of the image that was verified there.
    pub fn image_sha256(&self) -> [u8; 32] {
        self.image_sha256
    }

    /// Bytes of that image.
    pub fn image_size(&self) -> u64 {
        self.units.last().map_or(0, |unit| unit.offset + u64::from(unit.length))
    }

    /// Its units.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// What a unit is made of.
    pub fn leaf(&self, unit: usize) -> io::Result<Leaf> {
        let unit = &self.units[unit];
        let mut bytes = vec![0; unit.leaf_length as usize];
        self.file.read_exact_at(&mut bytes, unit.leaf_offset)?;
        Leaf::parse_without_frames(&bytes, unit, self.chunking).map_err(io::Error::other)
    }
}

fn hash_of(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let (mut hash, mut buffer, mut offset) = (Sha256::new(), [0; 16 * 1024], 0);
    while offset < length {
        let count = buffer.len().min((length - offset) as usize);
        file.read_exact_at(&mut buffer[..count], offset)?;
        hash.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(hash.finalize().into())
}

/// A map that is being made, beside the one it replaces.
#[derive(Debug)]
pub struct MapWriter {
    file: BufWriter<File>,
    path: PathBuf,
    hash: Sha256,
    chunking: Chunking,
    table: Vec<u8>,
    image_size: u64,
}

impl MapWriter {
    /// Begins one that will lie at `path`.
    pub fn new(path: &Path, chunking: Chunking) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            vigil_durable::create_directory(directory)?;
        }
        Ok(Self {
            file: BufWriter::with_capacity(16 * 1024, File::create(unfinished(path))?),
            path: path.to_owned(),
            hash: Sha256::new(),
            chunking,
            table: Vec::new(),
            image_size: 0,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    /// Appends a unit. Of `leaf` only the chunks are kept.
    pub fn push(&mut self, mut leaf: Leaf, digest: [u8; 32]) -> io::Result<()> {
        use crate::release::Kind;
        leaf.frames.clear();
        leaf.before = None;
        for chunk in &mut leaf.chunks {
            if let Kind::Same { hash, .. } = chunk.kind {
                chunk.kind = Kind::Data(hash);
            }
        }
        let bytes = leaf.to_bytes(self.chunking);
        let length: u32 = leaf.chunks.iter().map(|chunk| chunk.length).sum();
        for word in [length, leaf.chunks.len() as u32, bytes.len() as u32] {
            self.table.extend_from_slice(&word.to_le_bytes());
        }
        self.table.extend_from_slice(&digest);
        if self.table.len() as u64 > INDEX_BYTES {
            return Err(io::Error::other("a map of too many units"));
        }
        self.image_size += u64::from(length);
        self.put(&bytes)
    }

    /// Makes it durable, in the place of the one before.
    pub fn finish(mut self, image_sha256: [u8; 32]) -> io::Result<()> {
        let table = std::mem::take(&mut self.table);
        self.put(&table)?;
        let mut footer = MAGIC.to_vec();
        let (kind, size) = match self.chunking {
            Chunking::Aligned(size) => (0, size),
            Chunking::Content(mean) => (1, mean),
        };
        for word in [VERSION, kind, size, (table.len() as u64 / ENTRY_BYTES) as u32] {
            footer.extend_from_slice(&word.to_le_bytes());
        }
        footer.extend_from_slice(&self.image_size.to_le_bytes());
        footer.extend_from_slice(&image_sha256);
        self.put(&footer)?;
        let hash = self.hash.clone().finalize();
        self.file.write_all(&hash)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        vigil_turns::sync(|| file.sync_all())?;
        std::fs::rename(unfinished(&self.path), &self.path)?;
        vigil_durable::sync_directory_of(&self.path)
    }
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// What `reader` holds, cut into units of chunks: for a slot that somebody else wrote.
#[derive(Debug)]
pub struct Cutter<R> {
    reader: R,
    chunking: Chunking,
    buffer: Vec<u8>,
    begin: usize,
    ended: bool,
    hash: Sha256,
    /// What was cut of the next unit.
    unit: CutUnit,
}

/// Read at once.
const PIECE: usize = 256 * 1024;

/// What a call of [`Cutter::cut`] came to.
#[derive(Clone, Debug)]
pub enum Cut {
    /// The next unit.
    Unit(CutUnit),
    /// There is more of it.
    More,
    /// There is no more.
    End,
}

impl<R: Read> Cutter<R> {
    /// From the beginning.
    pub fn new(reader: R, chunking: Chunking) -> Self {
        Self {
            reader,
            chunking,
            buffer: Vec::new(),
            begin: 0,
            ended: false,
            hash: Sha256::new(),
            unit: CutUnit::default(),
        }
    }

    /// SHA-256 of all that was cut.
    pub fn image_sha256(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    /// The next unit's chunks with their hashes and, if they are asked for, its bytes; none at the end.
    pub fn next_unit(&mut self, keep: Option<&mut Vec<u8>>) -> io::Result<Option<CutUnit>> {
        Ok(match self.cut(usize::MAX, keep)? {
            Cut::Unit(unit) => Some(unit),
            Cut::More | Cut::End => None,
        })
    }

    /// Cuts so many bytes, or up to the end of the next unit: its chunks with their hashes and, if they are asked for, its bytes.
    pub fn cut(&mut self, most: usize, mut keep: Option<&mut Vec<u8>>) -> io::Result<Cut> {
        let mut done = 0;
        while let Some(length) = self.next_chunk()? {
            if done >= most {
                return Ok(Cut::More);
            }
            let chunk = &self.buffer[self.begin..self.begin + length];
            let hash = crate::release::ChunkHash::of(chunk);
            let unit = &mut self.unit;
            if unit.ended || unit.length + length as u32 > UNIT_BYTES {
                return Ok(Cut::Unit(std::mem::take(unit)));
            }
            done += length;
            self.hash.update(chunk);
            if let Some(bytes) = &mut keep {
                bytes.extend_from_slice(chunk);
            }
            unit.length += length as u32;
            unit.chunks.push((length as u32, hash, crate::release::is_zero(chunk)));
            unit.ended = self.chunking.ends_unit(unit.length, hash);
            self.begin += length;
        }
        let unit = std::mem::take(&mut self.unit);
        Ok(if unit.chunks.is_empty() { Cut::End } else { Cut::Unit(unit) })
    }

    fn next_chunk(&mut self) -> io::Result<Option<usize>> {
        let longest = self.chunking.longest() as usize;
        if !self.ended && self.buffer.len() - self.begin < longest {
            self.buffer.drain(..self.begin);
            self.begin = 0;
            // In one piece: from flash that is a fraction of what many small ones take.
            let mut filled = self.buffer.len();
            self.buffer.resize(filled + (4 * longest).max(PIECE), 0);
            while filled < self.buffer.len() && !self.ended {
                match self.reader.read(&mut self.buffer[filled..]) {
                    Ok(count) => {
                        self.ended = count == 0;
                        filled += count;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.buffer.truncate(filled);
                        return Err(error);
                    }
                }
            }
            self.buffer.truncate(filled);
        }
        let rest = &self.buffer[self.begin..];
        Ok((!rest.is_empty()).then(|| self.chunking.cut(rest)))
    }
}

/// A unit as it is cut.
#[derive(Clone, Debug, Default)]
pub struct CutUnit {
    /// Its bytes.
    pub length: u32,
    /// For each chunk its bytes, its hash, and whether it is all zero.
    pub chunks: Vec<(u32, crate::release::ChunkHash, bool)>,
    ended: bool,
}

impl CutUnit {
    /// Its digest.
    pub fn digest(&self) -> [u8; 32] {
        crate::release::unit_digest(self.chunks.iter().map(|chunk| chunk.1))
    }

    /// Its chunks as a leaf that has no frames.
    pub fn leaf(&self) -> Leaf {
        use crate::release::{Chunk, Kind};
        let chunks = self.chunks.iter().map(|(length, hash, is_zero)| Chunk {
            length: *length,
            kind: if *is_zero { Kind::Zero } else { Kind::Data(hash.short()) },
        });
        Leaf { context: 0, before: None, frames: vec![], chunks: chunks.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_of(path: &Path, bytes: &[u8], chunking: Chunking) {
        let mut cutter = Cutter::new(bytes, chunking);
        let mut writer = MapWriter::new(path, chunking).unwrap();
        while let Some(unit) = cutter.next_unit(None).unwrap() {
            writer.push(unit.leaf(), unit.digest()).unwrap();
        }
        writer.finish(cutter.image_sha256()).unwrap();
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    }

    #[test]
    fn a_map_tells_every_chunk_of_the_image_it_was_made_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        let mut bytes = noise(6_000_000);
        bytes[100_000..400_000].fill(0);
        for chunking in [Chunking::Aligned(4096), Chunking::Content(8192)] {
            map_of(&path, &bytes, chunking);
            let map = Map::open(&path).unwrap().unwrap();
            assert_eq!((map.chunking(), map.image_sha256()), (chunking, Sha256::digest(&bytes).into()));
            let mut at = 0;
            for unit in 0..map.units().len() {
                for chunk in map.leaf(unit).unwrap().chunks {
                    let content = &bytes[at..at + chunk.length as usize];
                    match chunk.kind {
                        crate::release::Kind::Zero => assert!(content.iter().all(|byte| *byte == 0)),
                        crate::release::Kind::Data(hash) => {
                            assert_eq!(hash, crate::release::ChunkHash::of(content).short());
                        }
                        crate::release::Kind::Same { .. } => panic!("the map of one image repeats nothing"),
                    }
                    at += content.len();
                }
            }
            assert_eq!(at, bytes.len());
        }
    }

    #[test]
    fn a_damaged_or_truncated_map_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        assert!(Map::open(&path).unwrap().is_none());
        map_of(&path, &noise(100_000), Chunking::Aligned(4096));
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(Map::open(&path).unwrap().is_none(), "{at}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(Map::open(&path).unwrap().is_none(), "{at}");
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(Map::open(&path).unwrap().is_some());
    }
}
