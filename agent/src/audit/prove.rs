//! What can be shown of the log from its files: its root as of an earlier size, and that it has only grown since. Reads up to
//! the whole log, so that it is for a thread of its own.

use std::io;
use std::path::Path;

use vigil_protocol::merkle::{CompactRange, Hash, consistency_ranges, leaf_hash};

use super::segment::{self, Line, Lines};

/// The root of the log's first `size` entries. None when they are not there: the log is shorter, or begins later.
pub fn root_at(directory: &Path, size: u64) -> io::Result<Option<Hash>> {
    Ok(roots(directory, &[(0, size)])?.and_then(|roots| roots.first().copied()))
}

/// The proof that the log's first `to` entries begin with the first `from`, as RFC 6962 has it. None when what it takes is not
/// there any more.
pub fn consistency(directory: &Path, from: u64, to: u64) -> io::Result<Option<Vec<Hash>>> {
    roots(directory, &consistency_ranges(from, to))
}

/// The roots over parts of the tree, each from an entry on and before another.
fn roots(directory: &Path, parts: &[(u64, u64)]) -> io::Result<Option<Vec<Hash>>> {
    let segments = segment::list(directory)?;
    let Some((_, first)) = segments.first() else {
        return Ok(parts.is_empty().then(Vec::new));
    };
    let (start, _) = Lines::open(first)?;
    let Some(mut growing) = parts
        .iter()
        .map(|(from, end)| Some((from_edge(&start, *from, *end)?, *from, *end)))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    let mut index = start.size();
    let last = parts.iter().map(|(_, end)| *end).max().unwrap_or(0);
    for (_, path) in &segments {
        let (_, mut lines) = Lines::open(path)?;
        while index < last
            && let Some(Line::Whole(line)) = lines.next()?
        {
            let leaf = leaf_hash(&line);
            for (range, from, end) in &mut growing {
                if (*from..*end).contains(&index) {
                    range.append(leaf);
                }
            }
            index += 1;
        }
    }
    let whole = growing.iter().all(|(range, from, end)| range.size() == end - from);
    Ok(whole.then(|| growing.iter().map(|(range, ..)| range.root()).collect()))
}

/// What the tree's edge has of a part, where perfect subtrees of it begin and end with the part.
fn from_edge(edge: &CompactRange, from: u64, end: u64) -> Option<CompactRange> {
    let end = end.min(edge.size());
    if from >= end {
        return Some(CompactRange::default());
    }
    let (mut at, mut peaks) = (0, Vec::new());
    for peak in edge.peaks() {
        if at >= end {
            break;
        }
        let left = edge.size() - at;
        if at >= from {
            peaks.push(*peak);
        }
        at += 1 << left.ilog2();
    }
    (at == end).then(|| CompactRange::from_parts(end - from, peaks))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Log, Outcome};
    use ed25519_dalek::SigningKey;
    use serde_json::json;
    use vigil_protocol::merkle::is_consistent;

    /// A log of small segments, and its root at each size.
    fn log(directory: &Path, entries: u32) -> Vec<Hash> {
        let key = SigningKey::from_bytes(&[3; 32]);
        let (mut log, _) = Log::open(directory, "vigil/v1/bar-1/audit", key, 64 * 1024).unwrap();
        let mut roots = vec![vigil_protocol::merkle::empty_root()];
        for number in 0..entries {
            log.append("test", "device", Outcome::Success, json!({ "number": number })).unwrap();
            while (roots.len() as u64) <= log.size() {
                roots.push(root_at(directory, roots.len() as u64).unwrap().unwrap());
            }
        }
        roots
    }

    #[test]
    fn a_log_proves_that_it_has_only_grown_also_since_it_dropped_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let roots = log(directory.path(), 900);
        let first = segment::list(directory.path()).unwrap()[0].0;
        assert!(first > 0, "it has dropped its beginning");
        let to = roots.len() as u64 - 1;
        let mut proven = 0;
        for from in (1..to).step_by(17).chain([first, first + 1, to]) {
            let proof = consistency(directory.path(), from, to).unwrap();
            assert!(proof.is_some() || from < first, "{from}, the log begins with {first}");
            let Some(proof) = proof else { continue };
            assert!(is_consistent(from, &roots[from as usize], to, &roots[to as usize], &proof), "{from}");
            proven += 1;
        }
        assert!(proven > 10);
        assert_eq!(root_at(directory.path(), to + 1).unwrap(), None);
        assert_eq!(root_at(directory.path(), first).unwrap(), Some(roots[first as usize]));
        // Of what came before, only what the perfect subtrees at its edge end with is known.
        for size in first.saturating_sub(5)..first {
            let is_known = (0..63).any(|bits| size == first >> bits << bits);
            let root = root_at(directory.path(), size).unwrap();
            assert_eq!(root, is_known.then(|| roots[size as usize]), "{size} of {first}");
        }
    }

    #[test]
    fn a_log_that_was_deleted_and_regrown_proves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let before = log(directory.path(), 20);
        std::fs::remove_dir_all(directory.path()).unwrap();
        // The entries carry their times, so that no two logs are the same.
        let after = log(directory.path(), 40);
        let proof = consistency(directory.path(), 20, 40).unwrap().unwrap();
        assert!(is_consistent(20, &after[20], 40, &after[40], &proof));
        assert!(!is_consistent(20, &before[20], 40, &after[40], &proof));
    }
}
