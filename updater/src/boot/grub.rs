//! GRUB's environment block as our grub.cfg uses it (packaging/grub/grub.cfg): `ORDER`, `<slot>_OK` and `<slot>_TRY`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vigil_durable::crash_point;

use super::claims::{Claims, Look, is_blank, not_ours};
use super::grub_block::{BLOCK, Block, LARGEST, SECTOR, new_block};
use super::running::Running;
use super::{BootControl, BootOrder, Booted, Reading, invalid, variables};
use crate::extent::Kernel;

/// The back-end.
#[derive(Debug)]
pub struct GrubBoot {
    grubenv: PathBuf,
    running: Running,
    claims: Claims,
}

impl GrubBoot {
    /// The block in the file `grubenv`.
    pub fn new(grubenv: &Path, running: Running) -> Self {
        Self { grubenv: grubenv.to_owned(), running, claims: Claims::default() }
    }

    /// With what was proven before.
    #[must_use]
    pub fn with(self, claims: Claims) -> Self {
        Self { claims, ..self }
    }

    fn place(&self) -> String {
        format!("grub {}, {}", self.grubenv.display(), Kernel::default().identity(&self.grubenv))
    }

    fn check(&self, content: &Content) -> io::Result<()> {
        if matches!(content, Content::Missing) {
            // Nor is it made anew where it was ours: the place would be another file system's.
            return Err(not_ours(
                &self.place(),
                "it is not there; is the EFI partition mounted? The image brings the block: grub-editenv FILE create",
            ));
        }
        self.claims.check(&self.place(), content.look())
    }

    fn content(&self) -> io::Result<Content> {
        match vigil_durable::read_bounded(&self.grubenv, LARGEST as u64) {
            Ok(None) => Ok(Content::Missing),
            Ok(Some(bytes)) if is_blank(&bytes) => Ok(Content::Blank),
            Ok(Some(bytes)) => Ok(Block::parse(bytes).map_or_else(Content::Other, Content::Block)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Content::Other("larger than an environment block is"))
            }
            Err(error) => Err(error),
        }
    }
}

/// What the file holds.
enum Content {
    Block(Block),
    Blank,
    Missing,
    Other(&'static str),
}

impl Content {
    fn look(&self) -> Look<'_> {
        match self {
            Self::Block(_) => Look::Valid,
            Self::Blank => Look::Blank,
            Self::Missing => Look::Other("not there"),
            Self::Other(what) => Look::Other(what),
        }
    }

    fn damage(&self) -> Option<&'static str> {
        match self {
            Self::Block(_) => None,
            Self::Blank => Some("blank"),
            Self::Missing => Some("not there"),
            Self::Other(what) => Some(what),
        }
    }
}

impl BootControl for GrubBoot {
    fn guarantee(&self) -> &'static str {
        "atomic: our variables are in the block's first sector, which is overwritten in place; where they are not yet, \
         they are moved there in three sectors, after each of which every variable has its old value or its new one"
    }

    fn booted(&self) -> io::Result<Booted> {
        self.running.booted()
    }

    fn read(&self) -> io::Result<Reading> {
        let named = |what: &str| format!("{}: {what}", self.grubenv.display());
        let (known, damage) = match self.content() {
            Ok(Content::Block(block)) => (block.variables(), None),
            Ok(other) => (variables::Variables::new(), other.damage().map(named)),
            Err(error) => (variables::Variables::new(), Some(named(&error.to_string()))),
        };
        variables::from_grub(&known, damage, &|| self.running.booted())
    }

    fn remember(&self) -> io::Result<()> {
        if matches!(self.content()?, Content::Block(_)) { self.claims.keep(&self.place()) } else { Ok(()) }
    }

    fn is_remembered(&self) -> bool {
        self.claims.hold(&self.place())
    }

    fn check_writable(&self) -> io::Result<()> {
        let content = self.content()?;
        self.check(&content)?;
        super::check_writable(&self.grubenv)
    }

    fn write(&mut self, point: &str, order: &BootOrder) -> io::Result<()> {
        let ours = variables::to_grub(order);
        let content = self.content()?;
        self.check(&content)?;
        self.claims.prove(&self.place(), content.look())?;
        // GRUB finds the file by its blocks and replays no journal: it is overwritten where it is, never renamed.
        let file = OpenOptions::new().write(true).open(&self.grubenv)?;
        let writes = match &content {
            Content::Block(block) => block.put(&ours),
            _ => new_block(&ours, BLOCK),
        };
        let writes = writes.map_err(|what| invalid(&self.grubenv, what))?;
        crash_point(point, "before");
        for (sector, bytes) in writes {
            file.write_all_at(&bytes, (sector * SECTOR) as u64)?;
            vigil_turns::sync(|| file.sync_all())?;
            crash_point(point, "sector");
        }
        if !matches!(content, Content::Block(_)) {
            file.set_len(BLOCK as u64)?;
            vigil_turns::sync(|| file.sync_all())?;
            vigil_durable::sync_directory_of(&self.grubenv)?;
        }
        crash_point(point, "after");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn bench(content: Option<&[u8]>) -> (tempfile::TempDir, GrubBoot) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("cmdline"), "vigil.slot=B\n").unwrap();
        std::fs::write(at("boot_id"), "1\n").unwrap();
        if let Some(content) = content {
            std::fs::write(at("grubenv"), content).unwrap();
        }
        let boot = GrubBoot::new(&at("grubenv"), Running::new(&at("cmdline"), &at("boot_id")));
        (directory, boot)
    }

    #[test]
    fn what_is_not_there_or_somebody_elses_reads_as_the_running_slot_and_is_never_written() {
        let long = vec![b'x'; LARGEST + 1];
        for (content, why) in [
            (None, "is the EFI partition mounted?"),
            (Some(&b"garbage"[..]), "not written to"),
            (Some(&[b'x'; 1024]), "not written to"),
            (Some(&long), "not written to"),
        ] {
            let (directory, mut boot) = bench(content);
            let reading = boot.read().unwrap();
            assert_eq!(reading.order, BootOrder::default().first("B"));
            assert!(reading.made_up);
            let error = boot.write("test", &reading.order.first("A")).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(std::fs::read(directory.path().join("grubenv")).ok().as_deref(), content);
        }
    }

    #[test]
    fn a_block_that_was_ours_is_repaired_and_after_a_restart_too() {
        let (directory, boot) = bench(Some(&[0; 1024]));
        let mut boot = boot.with(Claims::open(directory.path()));
        let order = BootOrder::default().first("B").first("A");
        boot.write("test", &order).unwrap();
        std::fs::write(directory.path().join("grubenv"), [b'x'; 1024]).unwrap();
        let running = Running::new(&directory.path().join("cmdline"), &directory.path().join("boot_id"));
        let mut boot =
            GrubBoot::new(&directory.path().join("grubenv"), running).with(Claims::open(directory.path()));
        boot.write("test", &order).unwrap();
        assert_eq!(boot.read().unwrap().order, order);
        // An EFI partition that is not mounted is no damage.
        std::fs::remove_file(directory.path().join("grubenv")).unwrap();
        assert!(boot.write("test", &order).is_err());
        assert!(!directory.path().join("grubenv").exists());
    }

    #[test]
    fn what_is_blank_reads_as_the_running_slot_and_is_made_a_block() {
        for content in [Some(&b""[..]), Some(&[0; 1024]), Some(&[0xff; 1024])] {
            let (directory, mut boot) = bench(content);
            let reading = boot.read().unwrap();
            assert_eq!(reading.order, BootOrder::default().first("B"));
            assert!(reading.damage.unwrap().contains("running slot B"));
            boot.write("test", &reading.order.first("A")).unwrap();
            let order = BootOrder::default().first("B").first("A");
            assert_eq!(boot.read().unwrap(), Reading { order, damage: None, made_up: false });
            assert_eq!(std::fs::metadata(directory.path().join("grubenv")).unwrap().len(), 1024);
        }
    }

    #[test]
    fn the_file_is_overwritten_in_place() {
        let (directory, mut boot) = bench(Some(&[0; 1024]));
        boot.write("test", &BootOrder::default().first("A")).unwrap();
        let inode = || std::fs::metadata(directory.path().join("grubenv")).unwrap().ino();
        let before = inode();
        boot.write("test", &BootOrder::default().first("A").first("B")).unwrap();
        assert_eq!(inode(), before);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
