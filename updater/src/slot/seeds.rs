//! Where the device has a chunk already.

use std::io;

use super::Map;
use crate::release::Kind;

/// Entries at most: two maps of the largest images.
const ENTRIES: usize = 2 * crate::release::CHUNKS as usize;
const OFFSET_BITS: u32 = 40;
const TARGET: u64 = 1 << 63;

/// Chunks by their short hash.
#[derive(Debug, Default)]
pub struct Seeds {
    /// Short hash, and packed: whether it is in the target slot, its bytes less one, where it begins.
    entries: Vec<(u64, u64)>,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// In the target slot; otherwise in the running one.
    pub in_target: bool,
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
}

impl Seeds {
    /// All that `map` tells. What is known already is not taken in again: the running slot comes first.
    pub fn add(&mut self, map: &Map, in_target: bool) -> io::Result<()> {
        let known = self.entries.len();
        for (number, unit) in map.units().iter().enumerate() {
            let leaf = map.leaf(number)?;
            for (chunk, place) in leaf.chunks.iter().zip(leaf.offsets()) {
                let offset = unit.offset + u64::from(place);
                let Kind::Data(hash) = chunk.kind else { continue };
                if offset >> OFFSET_BITS != 0 || self.entries.len() == ENTRIES || self.has(known, hash) {
                    continue;
                }
                let target = if in_target { TARGET } else { 0 };
                self.entries.push((hash, target | u64::from(chunk.length - 1) << OFFSET_BITS | offset));
            }
        }
        self.entries.sort_unstable();
        self.entries.shrink_to_fit();
        Ok(())
    }

    fn has(&self, known: usize, hash: u64) -> bool {
        self.entries[..known].binary_search_by_key(&hash, |entry| entry.0).is_ok()
    }

    /// All places of a chunk.
    pub fn find(&self, hash: u64) -> impl Iterator<Item = Seed> + '_ {
        let first = self.entries.partition_point(|entry| entry.0 < hash);
        self.entries[first..].iter().take_while(move |entry| entry.0 == hash).map(|(_, packed)| Seed {
            in_target: packed & TARGET != 0,
            offset: packed & ((1 << OFFSET_BITS) - 1),
            length: ((packed & !TARGET) >> OFFSET_BITS) as u32 + 1,
        })
    }
}
