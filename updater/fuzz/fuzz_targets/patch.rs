//! Any bytes as the index of a patch: no panic, and what is accepted stays within the old image and a device's memory.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vigil_updater::release::packing::PACKED_BYTES;
use vigil_updater::release::patch::{UNPACKED_BYTES, parse, to_bytes};
use vigil_updater::release::{Chunk, Chunking, Index, Kind, Leaf, PREFIX_BYTES};

const OLD_BYTES: u64 = 1 << 30;

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index::new(Chunking::Aligned(4096));
    for chunks in [256, 40, 3] {
        let leaf = Leaf {
            context: 0,
            before: None,
            frames: vec![],
            chunks: vec![Chunk { length: 4096, kind: Kind::Zero }; chunks],
        };
        index.push(&leaf, &[0; 9], [0; 32]);
    }
    index
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(patches) = parse(bytes, &INDEX, OLD_BYTES) else { return };
    assert_eq!(to_bytes(&patches).len(), bytes.len());
    assert!(patches.frames.len() <= INDEX.units().len());
    for patch in &patches.frames {
        assert!(patch.ranges_length() <= PREFIX_BYTES && patch.prefix_length() <= PREFIX_BYTES);
        assert!(patch.ranges.iter().all(|range| range.begin + u64::from(range.length) <= OLD_BYTES));
        let unit = &INDEX.units()[patch.unit as usize];
        assert_eq!(patch.chunks.len(), unit.chunks as usize);
        assert!(patch.blocks.is_empty() || patches.packing.is_some());
        assert!(patch.blocks.iter().all(|block| block.unpacked <= PACKED_BYTES));
        let decoded = patch.decoded_length(unit.length);
        assert!(decoded.is_some_and(|decoded| decoded <= unit.length + UNPACKED_BYTES));
    }
});
