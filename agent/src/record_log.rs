//! A small file of records that are appended one by one: durable for the price of one flush, since the file has its
//! blocks from the beginning and a record changes no metadata. Whoever owns one folds its records into a store of its
//! own before the file is full, and then begins the next generation.
//!
//! A record is `VRL1`, generation, length and CRC-32 (each 4 bytes, little-endian), the payload, and zeros up to a
//! multiple of 8. The first record that is not whole, or not of the first one's generation, ends the log: a power cut
//! can only tear the last one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use vigil_durable::crash_point;

use crate::link::flash::blocks_between;

const MAGIC: [u8; 4] = *b"VRL1";
const HEADER: usize = 16;

/// The file, open for appending.
#[derive(Debug)]
pub struct RecordLog {
    file: File,
    point: &'static str,
    size: usize,
    generation: u32,
    end: usize,
    written: u64,
}

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Their generation, if there are any.
    pub generation: Option<u32>,
    /// The payloads, oldest first.
    pub payloads: Vec<Vec<u8>>,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On the disk when `append` returns.
    Flushed,
    /// Survives the process; a power cut may take it, with nothing lost but work done twice.
    Lazy,
}

impl RecordLog {
    /// Opens a file of `size` bytes, or makes it. `point` names its writes for the crash-point tests.
    pub fn open(path: &Path, point: &'static str, size: usize) -> io::Result<(Self, Records)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = vigil_durable::open(
            path,
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600),
        )
        .map_err(named)?;
        let mut bytes = vec![0; size];
        if file.metadata()?.len() == size as u64 {
            file.read_exact_at(&mut bytes, 0).map_err(named)?;
        } else {
            // Written with zeros: blocks that were only reserved cost a metadata change with their first byte.
            file.set_len(0).map_err(named)?;
            file.write_all_at(&bytes, 0).map_err(named)?;
            vigil_turns::sync(|| file.sync_all()).map_err(named)?;
            vigil_durable::sync_directory_of(path)?;
        }
        let (records, end) = read(&bytes);
        let generation = records.generation.unwrap_or(0);
        Ok((Self { file, point, size, generation, end, written: 0 }, records))
    }

    /// Appends a record. `Ok(false)` when there is no room for it: fold, begin the next generation, and try again.
    pub fn append(&mut self, payload: &[u8], durability: Durability) -> io::Result<bool> {
        let length = (HEADER + payload.len()).next_multiple_of(8);
        if self.end + length > self.size {
            return Ok(false);
        }
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&self.generation.to_le_bytes());
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&checksum(self.generation, payload).to_le_bytes());
        record.extend_from_slice(payload);
        record.resize(length, 0);
        self.written += self.cost(payload.len());
        crash_point(self.point, "before");
        self.file.write_all_at(&record, self.end as u64)?;
        if durability == Durability::Flushed {
            vigil_turns::sync(|| self.file.sync_data())?;
        }
        crash_point(self.point, "after");
        self.end += length;
        Ok(true)
    }

    /// What the flash writes for a record with a payload of so many bytes, in whole blocks. A lazy one costs as much: the
    /// kernel writes it some time later.
    pub fn cost(&self, payload: usize) -> u64 {
        let end = self.end + (HEADER + payload).next_multiple_of(8);
        blocks_between(self.end as u64, end as u64)
    }

    /// What the flash has written for all records since this was asked last.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// From here on records are of `generation`, from the beginning of the file. What it held counts no more.
    pub fn begin(&mut self, generation: u32) {
        self.generation = generation;
        self.end = 0;
    }

    /// The generation of what is appended.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

fn checksum(generation: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The records of a file, and where the next one goes.
fn read(bytes: &[u8]) -> (Records, usize) {
    let mut records = Records::default();
    let mut end = 0;
    while let Some((generation, payload)) = record_at(bytes, end) {
        if *records.generation.get_or_insert(generation) != generation {
            break;
        }
        end += (HEADER + payload.len()).next_multiple_of(8);
        records.payloads.push(payload.to_vec());
    }
    (records, end)
}

fn record_at(bytes: &[u8], at: usize) -> Option<(u32, &[u8])> {
    let header = bytes.get(at..at.checked_add(HEADER)?)?;
    let number = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let (generation, length, wanted) = (number(4)?, number(8)? as usize, number(12)?);
    let payload = bytes.get(at + HEADER..(at + HEADER).checked_add(length)?)?;
    (header.starts_with(&MAGIC) && checksum(generation, payload) == wanted).then_some((generation, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(path: &Path) -> (RecordLog, Records) {
        RecordLog::open(path, "test", 1024).unwrap()
    }

    #[test]
    fn records_are_there_after_a_restart_and_the_next_one_follows_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (mut log, records) = open(&path);
        assert_eq!(records, Records::default());
        log.begin(7);
        assert!(log.append(b"one", Durability::Flushed).unwrap());
        let (mut log, _) = open(&path);
        assert!(log.append(b"two", Durability::Lazy).unwrap());
        let (_, records) = open(&path);
        assert_eq!((records.generation, records.payloads), (Some(7), vec![b"one".to_vec(), b"two".to_vec()]));
    }

    #[test]
    fn a_full_log_says_so_and_the_next_generation_begins_in_front() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (mut log, _) = open(&path);
        let mut count = 0;
        while log.append(&[1; 100], Durability::Lazy).unwrap() {
            count += 1;
        }
        assert_eq!(count, 1024 / 120);
        log.begin(1);
        assert!(log.append(&[2; 100], Durability::Lazy).unwrap());
        let (_, records) = open(&path);
        // The records of the generation before are still in the file, and count no more.
        assert_eq!((records.generation, records.payloads.len()), (Some(1), 1));
    }

    proptest! {
        #[test]
        fn a_torn_or_damaged_file_gives_a_prefix_of_what_was_written(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
            at in 0_usize..1024,
            byte in any::<u8>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let (mut log, _) = open(&path);
            let written: Vec<_> =
                payloads.into_iter().filter(|payload| log.append(payload, Durability::Lazy).unwrap()).collect();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] = byte;
            std::fs::write(&path, bytes).unwrap();
            let (_, records) = open(&path);
            prop_assert!(written.starts_with(&records.payloads));
        }
    }
}
