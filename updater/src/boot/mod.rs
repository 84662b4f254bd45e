//! Boot control: which slot the bootloader will choose, as a plain value, and the back-ends that keep it where a
//! bootloader reads it.
//!
//! A new bootloader is a new file here that implements [`BootControl`] and a line in [`open`]. What a back-end must
//! give: `read` and `write` the whole of [`BootOrder`], keeping variables that are not ours, and say what a power cut
//! during `write` leaves.

mod file;
mod order;

use std::io;

pub use file::FileBoot;
pub use order::{BootOrder, TRIES};

use crate::config::BootConfig;

/// What runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// The slot that runs.
    pub slot: String,
    /// Differs with every boot.
    pub boot_id: String,
}

/// A bootloader's variables.
pub trait BootControl {
    /// What a power cut during [`BootControl::write`] leaves, for people who choose a back-end.
    fn guarantee(&self) -> &'static str;
    /// What runs now.
    fn booted(&self) -> io::Result<Booted>;
    /// What the bootloader will choose from. A damaged store is an error that says what to do, never an empty order.
    fn read(&self) -> io::Result<BootOrder>;
    /// Replaces what the bootloader will choose from, durably. `point` names the write for the crash-point tests.
    fn write(&mut self, point: &str, order: &BootOrder) -> io::Result<()>;
}

/// The back-end that the configuration names.
pub fn open(config: &BootConfig) -> Box<dyn BootControl> {
    match config {
        BootConfig::File { directory } => Box::new(FileBoot::new(directory)),
    }
}
