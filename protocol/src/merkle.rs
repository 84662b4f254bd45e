//! The Merkle tree of RFC 6962, section 2.1: leaf and node hashes, roots, and a compact range that grows by
//! appending.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256(0x00 || entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(entry);
    hasher.finalize().into()
}

/// The hash of an inner node: SHA-256(0x01 || left || right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// The root of the tree over no entries: SHA-256 of the empty string.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The right edge of a growing tree: the roots of its perfect subtrees, largest first, one for each bit set in the
/// number of leaves. Enough to append to the tree and to compute its root, in at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    peaks: Vec<Hash>,
}

impl CompactRange {
    /// Takes up a range from what was kept of it; `None` when the number of hashes does not fit the size.
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one of the old size is a subtree as large as the one just completed: merge them.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The tree's root hash.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The parts of a tree over `to` leaves whose roots prove that it begins with the tree over the first `from` of them: leaves
/// from the first number on and before the second, in the order of the proof. RFC 6962, section 2.1.2.
pub fn consistency_ranges(from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    if from > 0 && from < to {
        subproof(from, 0, to, true, &mut ranges);
    }
    ranges
}

/// SUBPROOF(m, D\[start:end\], is_known), the parts that it names.
fn subproof(m: u64, start: u64, end: u64, is_known: bool, ranges: &mut Vec<(u64, u64)>) {
    let n = end - start;
    if m == n {
        if !is_known {
            ranges.push((start, end));
        }
        return;
    }
    // The largest power of two below n.
    let k = 1 << (n - 1).ilog2();
    if m <= k {
        subproof(m, start, start + k, is_known, ranges);
        ranges.push((start + k, end));
    } else {
        subproof(m - k, start + k, end, false, ranges);
        ranges.push((start, start + k));
    }
}

/// Whether `proof` shows that the tree of `to` leaves and the root `to_root` begins with the one of `from` leaves and the root
/// `from_root`. RFC 9162, section 2.1.4.2.
pub fn is_consistent(from: u64, from_root: &Hash, to: u64, to_root: &Hash, proof: &[Hash]) -> bool {
    if from == to {
        return proof.is_empty() && from_root == to_root;
    }
    if from == 0 {
        return proof.is_empty() && *from_root == empty_root();
    }
    if from > to || proof.is_empty() {
        return false;
    }
    let whole = from.is_power_of_two().then_some(*from_root);
    let mut path = whole.iter().chain(proof);
    let (mut first, mut last) = (from - 1, to - 1);
    let shift = first.trailing_ones();
    first >>= shift;
    last >>= shift;
    let Some(begin) = path.next() else { return false };
    let (mut first_root, mut last_root) = (*begin, *begin);
    for hash in path {
        if last == 0 {
            return false;
        }
        if first & 1 == 1 || first == last {
            first_root = node_hash(hash, &first_root);
            last_root = node_hash(hash, &last_root);
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            last_root = node_hash(&last_root, hash);
        }
        first >>= 1;
        last >>= 1;
    }
    last == 0 && first_root == *from_root && last_root == *to_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn leaf(number: u64, salt: u8) -> Hash {
        leaf_hash(&[&number.to_be_bytes()[..], &[salt]].concat())
    }

    #[test]
    fn a_tree_that_only_grew_is_proven_and_one_that_was_rewritten_never_is() {
        let leaves: Vec<_> = (0..70).map(|number| leaf(number, 0)).collect();
        let root = |leaves: &[Hash]| root_by_definition(leaves);
        for to in 1..=leaves.len() {
            for from in 0..=to {
                let ranges = consistency_ranges(from as u64, to as u64);
                let proof: Vec<_> =
                    ranges.iter().map(|(start, end)| root(&leaves[*start as usize..*end as usize])).collect();
                let (from_root, to_root) = (root(&leaves[..from]), root(&leaves[..to]));
                let holds = |from_root: &Hash, to_root: &Hash, proof: &[Hash]| {
                    is_consistent(from as u64, from_root, to as u64, to_root, proof)
                };
                assert!(holds(&from_root, &to_root, &proof), "{from} of {to}");
                let other = leaf(7, 9);
                assert!(from == 0 || !holds(&other, &to_root, &proof), "{from} of {to}");
                assert!(from == 0 || !holds(&from_root, &other, &proof), "{from} of {to}");
                let longer = [&proof[..], &[other]].concat();
                assert!(!holds(&from_root, &to_root, &longer), "{from} of {to}");
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!holds(&from_root, &to_root, shorter), "{from} of {to}");
                    let mut changed = proof.clone();
                    changed[0] = other;
                    assert!(!holds(&from_root, &to_root, &changed), "{from} of {to}");
                }
            }
        }
        assert!(!is_consistent(5, &leaves[0], 3, &leaves[1], &[leaves[2]]));
    }

    #[test]
    fn a_larger_tree_is_never_proven_to_begin_a_smaller_one() {
        // The steps of the proof alone give the same root for both: 6 and 5 leaves have the same path from there on.
        let (left, right) = (leaf(1, 0), leaf(2, 0));
        let root = node_hash(&left, &right);
        assert!(!is_consistent(6, &root, 5, &root, &[right, left]));
        assert_eq!(consistency_ranges(6, 5), []);
        assert_eq!(consistency_ranges(0, 5), []);
    }

    #[test]
    fn the_proofs_of_rfc_6962_are_those_of_its_example() {
        // Section 2.1.3: PROOF(3, D[7]) = [c, d, g, l], PROOF(4, D[7]) = [l], PROOF(6, D[7]) = [i, j, k].
        assert_eq!(consistency_ranges(3, 7), [(2, 3), (3, 4), (0, 2), (4, 7)]);
        assert_eq!(consistency_ranges(4, 7), [(4, 7)]);
        assert_eq!(consistency_ranges(6, 7), [(4, 6), (6, 7), (0, 4)]);
        assert_eq!(consistency_ranges(7, 7), []);
    }

    /// The definition of RFC 6962, section 2.1, word for word: split at the largest power of two below n.
    fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&root_by_definition(&leaves[..split]), &root_by_definition(&leaves[split..]))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_reference_tree() {
        // Test data of certificate-transparency-go (merkletree reference): entries and roots for sizes 1, 2, 3, 8.
        let entries: [&[u8]; 8] = [
            &[],
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let roots = [
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        for (size, root) in roots {
            let mut range = CompactRange::default();
            for entry in &entries[..size] {
                range.append(leaf_hash(entry));
            }
            assert_eq!(HEXLOWER.encode(&range.root()), root, "size {size}");
        }
    }

    proptest::proptest! {
        #[test]
        fn appending_gives_the_root_of_the_definition(size in 0_u64..300) {
            let leaves: Vec<Hash> = (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect();
            let mut range = CompactRange::default();
            for leaf in &leaves {
                range.append(*leaf);
                let kept = CompactRange::from_parts(range.size(), range.peaks().to_vec()).unwrap();
                assert_eq!(kept, range);
            }
            assert_eq!(range.root(), root_by_definition(&leaves));
        }
    }

    #[test]
    fn a_tree_without_entries_has_the_hash_of_the_empty_string_as_its_root() {
        // SHA-256 of the empty string, as RFC 6962, section 2.1, defines the root of the empty list.
        let root = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(HEXLOWER.encode(&empty_root()), root);
        let range = CompactRange::default();
        assert_eq!(HEXLOWER.encode(&range.root()), root);
        assert_eq!(range.size(), 0);
        assert!(range.peaks().is_empty());
    }

    #[test]
    fn a_range_has_a_peak_for_each_bit_of_its_size_largest_first() {
        let mut range = CompactRange::default();
        for leaf in [[1; 32], [2; 32], [3; 32]] {
            range.append(leaf);
        }
        assert_eq!(range.size(), 3);
        assert_eq!(range.peaks().len(), 2);
        assert_eq!(range.peaks()[1], [3; 32]);
        range.append([4; 32]);
        assert_eq!((range.size(), range.peaks().len()), (4, 1));
    }

    #[test]
    fn a_range_with_the_wrong_number_of_hashes_is_refused() {
        assert!(CompactRange::from_parts(3, vec![[0; 32]]).is_none());
        assert!(CompactRange::from_parts(3, vec![[0; 32]; 2]).is_some());
    }
}
