//! What a release is: a signed manifest, for each image an index of its units, for each unit a leaf that tells its chunks
//! and the hashed zstd frames they come in, and patches from images that are known to be in the field.

mod chunk;
mod decoder;
mod index;
mod leaf;
mod manifest;
pub mod packing;
pub mod patch;

pub use chunk::{
    CHUNK_BYTES_MAX, CHUNKS, ChunkHash, Chunking, FIRST_UNIT_BYTES, UNIT_BYTES, is_zero, unit_digest,
};
pub use decoder::{Decoder, Unpacking, Vouched};
pub use index::{FRAME_BYTES, INDEX_BYTES, Index, IndexError, Unit};
pub use leaf::{BEFORE_BYTES, Before, Chunk, Frame, Kind, LEAF_BYTES, Leaf, most_compressed};
pub use manifest::{
    Image, InstallPolicy, MANIFEST_BYTES, Manifest, ManifestError, Part, PatchParts, blob_path, is_target_of,
    target_name,
};
pub use packing::{Packer, Packing};
pub use patch::{PATCH_INDEX_BYTES, PREFIX_BYTES, Patch, Patches};
