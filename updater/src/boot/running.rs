//! Which slot runs: what the bootloader put on the kernel's command line.

use std::io;
use std::path::{Path, PathBuf};

use vigil_protocol::topic::is_name;

use super::{Booted, invalid};

const LIMIT: u64 = 64 * 1024;

/// Where the kernel tells its command line and this boot's id.
#[derive(Clone, Debug)]
pub struct Running {
    command_line: PathBuf,
    boot_id: PathBuf,
}

impl Running {
    /// The files, on a device `/proc/cmdline` and `/proc/sys/kernel/random/boot_id`.
    pub fn new(command_line: &Path, boot_id: &Path) -> Self {
        Self { command_line: command_line.to_owned(), boot_id: boot_id.to_owned() }
    }

    pub(super) fn booted(&self) -> io::Result<Booted> {
        let slot = slot_of(&text(&self.command_line)?).ok_or_else(|| {
            invalid(
                &self.command_line,
                "no vigil.slot= (or rauc.slot=) with a slot's name; the boot script adds it",
            )
        })?;
        let boot_id = text(&self.boot_id)?.trim().to_owned();
        if boot_id.is_empty() {
            return Err(invalid(&self.boot_id, "empty"));
        }
        Ok(Booted { slot, boot_id })
    }
}

/// `vigil.slot=`, and where that is missing `rauc.slot=`, which images in the field have. Of several the last counts,
/// as with the kernel's own parameters.
fn slot_of(command_line: &str) -> Option<String> {
    ["vigil.slot=", "rauc.slot="]
        .into_iter()
        .find_map(|key| command_line.split_whitespace().filter_map(|word| word.strip_prefix(key)).next_back())
        .filter(|slot| is_name(slot))
        .map(str::to_owned)
}

fn text(path: &Path) -> io::Result<String> {
    let bytes = vigil_durable::read_bounded(path, LIMIT)?.ok_or_else(|| invalid(path, "not there"))?;
    String::from_utf8(bytes).map_err(|_| invalid(path, "not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_word_on_the_command_line_counts_before_raucs_and_the_last_one_before_the_first() {
        for (line, slot) in [
            ("quiet vigil.slot=B root=/dev/vda3", Some("B")),
            ("rauc.slot=A quiet\n", Some("A")),
            ("rauc.slot=A vigil.slot=B", Some("B")),
            ("vigil.slot=A vigil.slot=B", Some("B")),
            ("xvigil.slot=A", None),
            ("vigil.slot=", None),
            ("vigil.slot=../x", None),
            ("", None),
        ] {
            assert_eq!(slot_of(line).as_deref(), slot, "{line:?}");
        }
    }

    #[test]
    fn a_command_line_without_a_slot_is_an_error_that_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let (line, id) = (directory.path().join("cmdline"), directory.path().join("boot_id"));
        let running = Running::new(&line, &id);
        assert!(running.booted().unwrap_err().to_string().contains("not there"));
        std::fs::write(&line, "quiet\n").unwrap();
        std::fs::write(&id, "7f3c\n").unwrap();
        assert!(running.booted().unwrap_err().to_string().contains("vigil.slot="));
        std::fs::write(&line, "quiet vigil.slot=A\n").unwrap();
        assert_eq!(running.booted().unwrap(), Booted { slot: "A".into(), boot_id: "7f3c".into() });
    }
}
