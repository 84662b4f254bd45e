//! What a power cut may leave, from a record of writes and flushes: every prefix, every torn write, and of what was not
//! flushed any subset.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vigil_tests::disk::{Op, Record, SECTOR};

use vigil_tests::machine::Random;

const BLOCK: usize = 4096;

/// What identifies a disk's content.
pub(crate) type Key = u128;

/// One state of all disks.
pub(crate) struct State {
    /// After how many operations the power was cut.
    pub(crate) at: usize,
    /// What was lost, for people.
    pub(crate) how: String,
    /// The newest mark before.
    pub(crate) mark: Option<usize>,
    /// A key for each disk.
    pub(crate) keys: Vec<Key>,
    /// The disks.
    pub(crate) disks: Vec<Vec<u8>>,
}

/// Bytes at a place of a disk.
type Patch = (usize, Arc<[u8]>);

struct Disk {
    /// What is durable.
    durable: Vec<u8>,
    blocks: Vec<Key>,
    key: Key,
    /// What was written since the last flush.
    pending: Vec<Patch>,
}

fn key_of(number: usize, block: &[u8]) -> Key {
    let digest = Sha256::new().chain_update(number.to_le_bytes()).chain_update(block).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    Key::from_le_bytes(key)
}

impl Disk {
    fn new(base: &[u8]) -> Self {
        let blocks: Vec<_> =
            base.chunks(BLOCK).enumerate().map(|(number, block)| key_of(number, block)).collect();
        let key = blocks.iter().fold(0, |sum, key| sum ^ key);
        Self { durable: base.to_vec(), blocks, key, pending: Vec::new() }
    }

    fn flush(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            self.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
            for number in offset / BLOCK..=(offset + bytes.len() - 1) / BLOCK {
                let end = self.durable.len().min((number + 1) * BLOCK);
                let key = key_of(number, &self.durable[number * BLOCK..end]);
                self.key ^= self.blocks[number] ^ key;
                self.blocks[number] = key;
            }
        }
    }

    /// The key of what is durable with some patches over it.
    fn key_with(&self, patches: &[Patch]) -> Key {
        let mut changed: HashMap<usize, Vec<u8>> = HashMap::new();
        for (offset, bytes) in patches {
            for number in offset / BLOCK..=(offset + bytes.len() - 1) / BLOCK {
                let start = number * BLOCK;
                let end = self.durable.len().min(start + BLOCK);
                let block = changed.entry(number).or_insert_with(|| self.durable[start..end].to_vec());
                let (from, to) = ((*offset).max(start), (offset + bytes.len()).min(end));
                block[from - start..to - start].copy_from_slice(&bytes[from - offset..to - offset]);
            }
        }
        changed
            .iter()
            .fold(self.key, |key, (number, block)| key ^ self.blocks[*number] ^ key_of(*number, block))
    }

    fn with(&self, patches: &[Patch]) -> Vec<u8> {
        let mut content = self.durable.clone();
        for (offset, bytes) in patches {
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        content
    }
}

/// How many seeded subsets of what was not flushed are tried after each write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Subsets for each operation.
    pub(crate) subsets: u32,
    /// The seed.
    pub(crate) seed: u64,
    /// The disk on which tears inside of a sector are tried as well.
    pub(crate) torn_sectors: Option<usize>,
}

/// Goes through all states. `wanted` says whether a state is worth making, by its keys; `take` takes it and says
/// whether to go on.
pub(crate) fn each(
    record: &Record,
    plan: Plan,
    mut wanted: impl FnMut(&[Key], Option<usize>) -> bool,
    mut take: impl FnMut(State) -> bool,
) -> usize {
    let mut disks: Vec<_> = record.bases.iter().map(|base| Disk::new(base)).collect();
    let mut random = Random(plan.seed);
    let mut mark = None;
    let mut count = 0;
    for (at, op) in record.ops.iter().enumerate() {
        match op {
            Op::Mark(number) => {
                mark = Some(*number);
                continue;
            }
            Op::Flush { disk } => {
                disks[*disk].flush();
                continue;
            }
            Op::Write { disk, offset, bytes } => disks[*disk].pending.push((*offset, Arc::clone(bytes))),
        }
        let Op::Write { disk: last, .. } = op else { continue };
        let all: Vec<Vec<Patch>> = disks.iter().map(|disk| disk.pending.clone()).collect();
        let mut variants = vec![("everything arrived".to_owned(), all.clone())];
        let (offset, bytes) = all[*last].last().cloned().unwrap_or((0, Arc::new([])));
        for cut in tears(bytes.len(), plan.torn_sectors == Some(*last)) {
            let mut torn = all.clone();
            torn[*last].pop();
            if cut > 0 {
                torn[*last].push((offset, bytes[..cut].into()));
            }
            variants.push((format!("the last write ended after {cut} of {} bytes", bytes.len()), torn));
        }
        if all.iter().map(Vec::len).sum::<usize>() > 1 {
            let none = vec![Vec::new(); all.len()];
            variants.push(("nothing that was not flushed arrived".to_owned(), none));
            for number in 0..plan.subsets {
                variants.push((
                    format!("a part of what was not flushed arrived ({number})"),
                    some(&all, &mut random),
                ));
            }
        }
        for (how, patches) in variants {
            count += 1;
            let keys: Vec<_> =
                disks.iter().zip(&patches).map(|(disk, patches)| disk.key_with(patches)).collect();
            if wanted(&keys, mark) {
                let contents = disks.iter().zip(&patches).map(|(disk, patches)| disk.with(patches)).collect();
                if !take(State { at, how, mark, keys, disks: contents }) {
                    return count;
                }
            }
        }
    }
    count
}

/// Where a write of `length` bytes may end: at every sector of a short one, at some of a long one.
fn tears(length: usize, inside: bool) -> Vec<usize> {
    let sectors = length / SECTOR;
    let mut ends: Vec<usize> = if sectors <= 16 {
        (1..sectors).map(|sector| sector * SECTOR).collect()
    } else {
        [1, sectors / 3, sectors / 2, sectors - 1].map(|sector| sector * SECTOR).to_vec()
    };
    if inside && length > 0 {
        ends.extend([1, 7, 37, 111, 300].into_iter().filter(|end| *end < length));
    }
    ends
}

/// Each write that was not flushed arrives, or not, or torn; later ones also where earlier ones did not.
fn some(all: &[Vec<Patch>], random: &mut Random) -> Vec<Vec<Patch>> {
    all.iter()
        .map(|patches| {
            let mut kept = Vec::new();
            for (offset, bytes) in patches {
                if let Some(part) = arrives(bytes.len(), random) {
                    kept.push((offset + part.start, bytes[part].into()));
                }
            }
            kept
        })
        .collect()
}

/// What of a write that was not flushed arrives: nothing, some of its sectors or all.
pub(crate) fn arrives(length: usize, random: &mut Random) -> Option<Range<usize>> {
    if random.one_in(2) {
        return None;
    }
    let sectors = length / SECTOR;
    if sectors > 1 && random.one_in(4) {
        let first = random.number() as usize % sectors;
        let count = 1 + random.number() as usize % (sectors - first);
        return Some(first * SECTOR..(first + count) * SECTOR);
    }
    Some(0..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ops: Vec<Op>) -> Record {
        Record { names: vec!["d".into()], bases: vec![vec![0; 3 * BLOCK].into()], ops, ..Record::default() }
    }

    fn write(offset: usize, byte: u8, length: usize) -> Op {
        Op::Write { disk: 0, offset, bytes: vec![byte; length].into() }
    }

    #[test]
    fn what_was_flushed_is_in_every_state_and_a_key_is_the_contents_own() {
        let ops = vec![write(0, 1, 1024), Op::Flush { disk: 0 }, write(4000, 2, 1024), write(512, 3, 512)];
        let plan = Plan { subsets: 20, seed: 1, torn_sectors: None };
        let mut seen: HashMap<Vec<u8>, Key> = HashMap::new();
        let mut lost_the_first_of_two = false;
        each(
            &record(ops),
            plan,
            |_, _| true,
            |state| {
                let content = state.disks[0].clone();
                if state.at >= 2 {
                    assert_eq!(content[..512], [1; 512]);
                    lost_the_first_of_two |= content[512] == 3 && content[4000] == 0;
                }
                let key = *seen.entry(content.clone()).or_insert(state.keys[0]);
                assert_eq!((key, Disk::new(&content).key), (state.keys[0], state.keys[0]));
                true
            },
        );
        assert!(lost_the_first_of_two, "writes that were not flushed are never reordered");
        assert!(seen.len() > 6, "{}", seen.len());
    }
}
