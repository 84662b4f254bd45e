//! Packed blocks: zstd frames inside an image, as squashfs has them. A patch tells what they unpack to, and the device packs them
//! again. Whether that makes the very same bytes depends on zstd's version: the publisher tries it, and where a device has another one
//! it does without the patch. What comes out is held against the unit's digest like all else.

use std::ops::RangeInclusive;

/// The levels that a block may be packed with.
pub const LEVELS: RangeInclusive<u32> = 1..=19;
/// What a packed block may unpack to: the encoder's tables for it fit into a device's memory.
pub const PACKED_BYTES: u32 = 256 * 1024;

/// How blocks are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// zstd's version, as it numbers itself: 10507 is 1.5.7.
    pub version: u32,
    /// Its level.
    pub level: u32,
}

impl Packing {
    /// With the zstd of this program.
    pub fn with(level: u32) -> Self {
        Self { version: zstd::zstd_safe::version_number(), level }
    }

    /// Whether this program packs to the same bytes.
    pub fn is_ours(&self) -> bool {
        *self == Self::with(self.level)
    }
}

/// Packs blocks.
pub struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    /// With this level.
    pub fn new(level: u32) -> Result<Self, String> {
        let compressor =
            zstd::bulk::Compressor::new(level.cast_signed()).map_err(|error| error.to_string())?;
        let packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(PACKED_BYTES as usize));
        Ok(Self { compressor, packed })
    }

    /// One block as a zstd frame with its size, without a checksum: as `ZSTD_compressCCtx` makes it, and squashfs.
    pub fn pack(&mut self, block: &[u8]) -> Result<&[u8], String> {
        if block.len() > PACKED_BYTES as usize {
            return Err("a block that is too large to be packed".to_owned());
        }
        self.packed.clear();
        self.compressor.compress_to_buffer(block, &mut self.packed).map_err(|error| error.to_string())?;
        Ok(&self.packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_packed_to_the_same_bytes_whatever_was_packed_before() {
        let text = |word: &str| word.repeat(9000).into_bytes();
        let mut packer = Packer::new(15).unwrap();
        let first = packer.pack(&text("a block of squashfs ")[..131_072]).unwrap().to_vec();
        packer.pack(&text("another one ")[..4096]).unwrap();
        assert_eq!(packer.pack(&text("a block of squashfs ")[..131_072]).unwrap(), first);
        assert!(packer.pack(&vec![0; PACKED_BYTES as usize + 1]).is_err());
    }

    #[test]
    fn another_version_of_zstd_is_not_ours() {
        let ours = Packing::with(15);
        assert!(ours.is_ours());
        assert!(!Packing { version: ours.version + 1, ..ours }.is_ours());
    }
}
