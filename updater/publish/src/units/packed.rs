//! Packed blocks: zstd frames inside an image, as squashfs's. Unpacked they have as much in common with those of the image
//! before as the files they are of.

use vigil_updater::release::packing::{LEVELS, PACKED_BYTES};
use vigil_updater::release::{Packer, Packing};
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Smaller ones are not worth their entry.
const PACKED_MIN: u64 = 1024;
/// Blocks by which the level is found.
const SAMPLES: usize = 40;

/// A packed block of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) begin: usize,
    pub(super) length: usize,
    pub(super) unpacked: usize,
}

impl Packed {
    pub(super) fn end(&self) -> usize {
        self.begin + self.length
    }

    /// None when it is no zstd frame after all.
    pub(super) fn unpack(&self, image: &[u8]) -> Option<Vec<u8>> {
        let unpacked = zstd::bulk::decompress(&image[self.begin..self.end()], self.unpacked).ok()?;
        (unpacked.len() == self.unpacked).then_some(unpacked)
    }
}

/// All that looks like a packed block, in order.
pub(super) fn find(image: &[u8]) -> Vec<Packed> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some(found) = image[at..].windows(MAGIC.len()).position(|window| window == MAGIC) {
        let begin = at + found;
        // Packed, a block takes hardly more than unpacked.
        let most = &image[begin..image.len().min(begin + 2 * PACKED_BYTES as usize)];
        let unpacked = get_frame_content_size(most).ok().flatten().unwrap_or_default();
        let length = find_frame_compressed_size(most).unwrap_or_default();
        if (PACKED_MIN..=PACKED_BYTES.into()).contains(&unpacked) && length > MAGIC.len() {
            blocks.push(Packed { begin, length, unpacked: unpacked as usize });
            at = begin + length;
        } else {
            at = begin + MAGIC.len();
        }
    }
    blocks
}

/// How the blocks of an image are packed: the level that makes most of them to the byte. None when none does.
pub(super) fn packing(image: &[u8], blocks: &[Packed]) -> Option<Packing> {
    let samples = blocks.iter().step_by((blocks.len() / SAMPLES).max(1)).take(SAMPLES);
    let samples: Vec<_> = samples.filter_map(|block| Some((block, block.unpack(image)?))).collect();
    let reproduced = |level: u32| {
        let Ok(mut packer) = Packer::new(level) else { return 0 };
        let is_same = |(block, unpacked): &&(&Packed, Vec<u8>)| {
            packer.pack(unpacked).is_ok_and(|packed| packed == &image[block.begin..block.end()])
        };
        samples.iter().filter(is_same).count()
    };
    // Of levels that do as well the lowest, which costs devices least: of equals the last one is taken.
    let (count, level) =
        LEVELS.rev().map(|level| (reproduced(level), level)).max_by_key(|(count, _)| *count)?;
    (count > 0).then(|| Packing::with(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u32, length: usize) -> Vec<u8> {
        (0_u32..)
            .flat_map(|word| format!("{} ", (word * 7 + seed) % 1000).into_bytes())
            .take(length)
            .collect()
    }

    /// Bytes with packed blocks between them, and where these are.
    fn image(level: u32) -> (Vec<u8>, Vec<Packed>) {
        let (mut image, mut blocks) = (text(1, 5000), Vec::new());
        let mut packer = Packer::new(level).unwrap();
        for (seed, unpacked) in [(2, 131_072), (3, 40_000), (4, PACKED_BYTES as usize)] {
            let packed = packer.pack(&text(seed, unpacked)).unwrap();
            blocks.push(Packed { begin: image.len(), length: packed.len(), unpacked });
            image.extend_from_slice(packed);
        }
        image.extend(MAGIC);
        image.extend(text(5, 100));
        image.extend(MAGIC);
        (image, blocks)
    }

    #[test]
    fn blocks_are_found_wherever_they_lie_and_what_only_looks_like_one_is_none() {
        let (image, blocks) = image(15);
        assert_eq!(find(&image), blocks);
        assert_eq!(blocks[1].unpack(&image).unwrap(), text(3, 40_000));
    }

    #[test]
    fn the_level_is_found_that_makes_the_same_bytes() {
        for level in [3, 15, 19] {
            let (image, blocks) = image(level);
            let packing = packing(&image, &blocks).unwrap();
            let mut packer = Packer::new(packing.level).unwrap();
            for block in &blocks {
                let packed = packer.pack(&block.unpack(&image).unwrap()).unwrap();
                assert_eq!(packed, &image[block.begin..block.end()], "{level}");
            }
        }
        assert_eq!(packing(&[], &[]), None);
    }
}
