//! A network-free TUF 1.0 trusted set ("The Update Framework Specification", 1.0.31+): it says which file to fetch
//! next, is fed what came, and says what to make durable. No I/O and no clock.
//!
//! Keys are Ed25519, ECDSA or RSA; keys of other types are kept but never count. Beyond the specification a
//! timestamp may state when it was `issued`: the greatest such time that was verified is a floor
//! under the device's clock, so that a clock that starts in 1970 does not revive what expired long ago.

pub mod canonical;
mod delegation;
pub mod document;
mod error;
mod file;
mod key;
mod target;
mod trusted;

pub use document::{Role, RoleName, Target};
pub use error::{Error, Subject};
pub use key::Verifier;
pub use target::{encoded, encoded_path, is_target_name, target_path};
pub use trusted::{Fetched, Output, Request, Search, Source, Stored, TrustedSet};

/// Largest root file that is read, in bytes.
pub const MAX_ROOT_BYTES: u64 = 512 * 1024;
/// Largest timestamp file that is read, in bytes.
pub const MAX_TIMESTAMP_BYTES: u64 = 16 * 1024;
/// Largest snapshot file that is read when the timestamp states no length, in bytes.
pub const MAX_SNAPSHOT_BYTES: u64 = 2 * 1024 * 1024;
/// Largest targets file that is read when the snapshot states no length, in bytes.
pub const MAX_TARGETS_BYTES: u64 = 5 * 1024 * 1024;
/// Largest length that metadata may state for metadata, in bytes: what a stolen timestamp key could make a device
/// fetch and hold in memory.
pub const MAX_STATED_BYTES: u64 = 32 * 1024 * 1024;
/// Root versions that one refresh goes through; the next refresh goes on from there.
pub const MAX_ROOT_ROTATIONS: u32 = 32;
/// Delegated roles that one search looks into.
pub const MAX_DELEGATIONS: usize = 32;
/// Signatures in one file. Each costs a verification, so a hostile file must not have any number of them.
pub const MAX_SIGNATURES: usize = 256;
/// Longest name of a target, in bytes.
pub const MAX_TARGET_NAME_BYTES: usize = 200;
