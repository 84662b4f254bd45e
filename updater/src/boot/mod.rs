//! Boot control: which slot the bootloader will choose, as a plain value, and the back-ends that keep it where a
//! bootloader reads it.
//!
//! A new bootloader is a new file here that implements [`BootControl`] and a line in [`open`]. What a back-end must
//! give stands at the trait, and for a board's maker in docs/integration.md.

mod claims;
mod copies;
mod environment;
mod file;
mod fw_env;
mod grub;
mod grub_block;
mod medium;
mod mtd;
mod order;
mod running;
mod uboot;
mod variables;

use std::io;

pub use claims::Claims;
pub use file::FileBoot;
pub use grub::GrubBoot;
pub use order::{BootOrder, TRIES};
pub use running::Running;
pub use uboot::UbootBoot;

use crate::config::BootConfig;

/// What runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// The slot that runs.
    pub slot: String,
    /// Differs with every boot.
    pub boot_id: String,
}

/// What the bootloader will choose from, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it will choose from, or what stands in for it where that could not be read.
    pub order: BootOrder,
    /// What was damaged and how it was made up for, for people.
    pub damage: Option<String>,
    /// Nothing was readable: the running slot stands in.
    pub made_up: bool,
}

impl Reading {
    /// Nothing was readable: the slot that runs is known to start, so that it alone is the order.
    fn of_the_running_slot(slot: &str, damage: &str) -> Self {
        Self {
            order: BootOrder::default().first(slot),
            damage: Some(format!("{damage}; the running slot {slot} stands in for the boot order")),
            made_up: true,
        }
    }
}

/// A bootloader's variables.
pub trait BootControl {
    /// What a power cut during [`BootControl::write`] leaves, for people who choose a back-end.
    fn guarantee(&self) -> &'static str;
    /// What runs now.
    fn booted(&self) -> io::Result<Booted>;
    /// What the bootloader will choose from. Damage never reads as "no slot may boot": what another copy still says
    /// counts, else the running slot, and [`Reading::damage`] says so. The next `write` repairs it.
    fn read(&self) -> io::Result<Reading>;
    /// Keeps, for the day on which they are damaged, that the variables which can be read now are this device's.
    fn remember(&self) -> io::Result<()>;
    /// Whether everything that is written to was proven before: then it is repaired even where nothing is readable.
    fn is_remembered(&self) -> bool;
    /// Whether [`BootControl::write`] has a chance: the medium takes writes, as far as that can be told without one.
    fn check_writable(&self) -> io::Result<()>;
    /// Replaces what the bootloader will choose from, durably, and keeps every variable that is not ours. A power
    /// cut leaves the old order or the new one, or a mixture in which every slot was eligible before or is now. Writes
    /// only to what is proven to be this device's boot variables, see [`Claims`]; [`io::ErrorKind::WouldBlock`] when
    /// somebody else is writing just now: try again in a moment.
    /// `point` names the write for the crash-point tests.
    fn write(&mut self, point: &str, order: &BootOrder) -> io::Result<()>;
}

/// The back-end that the configuration names; what it proves to be its own is kept in `claims`.
pub fn open(config: &BootConfig, claims: Claims) -> Box<dyn BootControl> {
    match config {
        BootConfig::File { directory } => Box::new(FileBoot::new(directory).with(claims)),
        BootConfig::Uboot { fw_env_config, initial_env, command_line, boot_id } => {
            let running = Running::new(command_line, boot_id);
            Box::new(UbootBoot::new(fw_env_config, initial_env, running).with(claims))
        }
        BootConfig::Grub { grubenv, command_line, boot_id } => {
            Box::new(GrubBoot::new(grubenv, Running::new(command_line, boot_id)).with(claims))
        }
    }
}

/// Whether what is at `path` takes writes. A read-only block device may be opened for writing all the same.
fn check_writable(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = std::fs::OpenOptions::new().write(true).open(path).map_err(named)?;
    let metadata = file.metadata().map_err(named)?;
    if metadata.file_type().is_block_device() {
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let ro = vigil_durable::read_bounded(format!("/sys/dev/block/{major}:{minor}/ro").as_ref(), 16);
        if ro.ok().flatten().is_some_and(|ro| ro.starts_with(b"1")) {
            let message = format!(
                "{}: the device is read-only (blockdev --setrw, or force_ro of an eMMC)",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, message));
        }
    }
    Ok(())
}

fn invalid(path: &std::path::Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
