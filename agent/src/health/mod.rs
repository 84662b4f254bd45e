//! How the machine is doing: collectors look, the reporter decides what is worth a message.

pub mod collect;
mod inventory;
mod mounts;
pub mod snapshot;
mod worker;

pub use inventory::{Machine, inventory};
pub use snapshot::Reporter;
pub use worker::{Collectors, Looked};

/// A name from the kernel has at most so many characters in a message.
const NAME_CHARS: usize = 64;
/// At most so many file systems, interfaces or sensors in a message: far more than an endpoint has.
const LIST: usize = 32;
