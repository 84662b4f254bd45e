//! What a release is: a signed manifest, and for each image an index of hashed zstd frames.

mod index;
mod manifest;

pub use index::{FRAME_BYTES, Frame, INDEX_BYTES, Index, IndexError};
pub use manifest::{
    Image, InstallPolicy, MANIFEST_BYTES, Manifest, ManifestError, Part, blob_path, target_name,
};
