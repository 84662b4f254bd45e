//! U-Boot's environment as the boot script uses it (packaging/uboot/boot.cmd): `BOOT_ORDER` and `BOOT_<slot>_LEFT`, in
//! one copy or two, where `fw_env.config` says.

use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use vigil_durable::crash_point;

use crate::extent::Kernel;

use super::claims::{Claims, not_ours};
use super::copies::{Copies, Opened};
use super::environment::Environment;
use super::fw_env::{self, Place};
use super::medium;
use super::running::Running;
use super::{BootControl, BootOrder, Booted, Reading, invalid, variables};

const LIMIT: u64 = 64 * 1024;
const INITIAL_LIMIT: u64 = 1024 * 1024;
/// What fw_printenv and fw_setenv lock, so that nobody's change is lost.
const LOCK: &str = "/var/lock/fw_printenv.lock";
/// How often a write is put off because somebody else holds the lock; whoever holds it for longer is stuck.
const LOCKED_OUT: u32 = 5;

/// The back-end.
#[derive(Debug)]
pub struct UbootBoot {
    fw_env_config: PathBuf,
    initial_env: PathBuf,
    running: Running,
    claims: Claims,
    /// Writes in a row that found the lock held.
    locked_out: u32,
}

impl UbootBoot {
    /// Where the environment is, says `fw_env_config`; what it holds when it must be made anew, `initial_env`.
    pub fn new(fw_env_config: &Path, initial_env: &Path, running: Running) -> Self {
        Self {
            fw_env_config: fw_env_config.to_owned(),
            initial_env: initial_env.to_owned(),
            running,
            claims: Claims::default(),
            locked_out: 0,
        }
    }

    /// With what was proven before.
    #[must_use]
    pub fn with(self, claims: Claims) -> Self {
        Self { claims, ..self }
    }

    fn places(&self) -> io::Result<Vec<Place>> {
        let path = &self.fw_env_config;
        let bytes = vigil_durable::read_bounded(path, LIMIT)?.ok_or_else(|| invalid(path, "not there"))?;
        let text = String::from_utf8(bytes).map_err(|_| invalid(path, "not text"))?;
        fw_env::parse(&text).map_err(|what| invalid(path, &what))
    }

    fn copies(&self, writable: bool) -> io::Result<Copies> {
        let places = self.places()?;
        let form = if places.len() == 2 { "one of two copies" } else { "single copy" };
        let kernel = Kernel::default();
        let media = places.iter().map(|place| Opened {
            claim: format!(
                "uboot {}, offset {:#x}, {:#x} bytes, {form}, {}",
                place.device.display(),
                place.offset,
                place.size,
                kernel.identity(&place.device)
            ),
            name: format!("{}, offset {:#x}", place.device.display(), place.offset),
            size: place.size,
            medium: medium::open(place, writable),
        });
        let copies = Copies::read(media.collect());
        if let [first, second] = copies.media.as_slice()
            && first.medium.is_ok()
            && second.medium.is_ok()
            && first.scheme() != second.scheme()
        {
            return Err(invalid(&self.fw_env_config, "one copy is in flash and one on a disk"));
        }
        Ok(copies)
    }

    /// Sees that the copies are apart, in nobody else's bytes, and ours or nobody's.
    fn check(&self, places: &[Place], copies: &Copies) -> io::Result<()> {
        let kernel = Kernel::default();
        let extents: Vec<_> = places
            .iter()
            .map(|place| {
                let device = kernel.extent(&place.device).ok().flatten();
                device.map(|device| device.part(place.offset, place.size as u64))
            })
            .collect();
        if let [Some(first), Some(second)] = extents.as_slice()
            && first.overlaps(second)
        {
            return Err(invalid(&self.fw_env_config, "the two copies overlap, by whatever name"));
        }
        for (extent, found) in extents.iter().zip(&copies.media) {
            if let Some(extent) = extent
                && let Some(other) = self.claims.other_in(extent, &kernel)
            {
                return Err(not_ours(&found.name, &format!("{other}; put fw_env.config right")));
            }
        }
        copies.check(&self.claims, |position| other_forms(&places[position], places.len() == 2))
    }

    /// What an environment that must be made anew holds besides ours.
    fn initial(&self) -> io::Result<Environment> {
        // As docs/integration.md has it for raw copies, of which U-Boot needs nothing else.
        if self.initial_env == Path::new("/dev/null") {
            return Ok(Environment::default());
        }
        let bytes = vigil_durable::read_bounded(&self.initial_env, INITIAL_LIMIT)?.ok_or_else(|| {
            invalid(
                &self.initial_env,
                "not there: no copy of the environment is readable, and one with the boot order alone would leave \
                 U-Boot without its bootcmd. Save the environment in U-Boot, or name what it begins with as initial_env",
            )
        })?;
        Ok(Environment::from_lines(&bytes))
    }
}

impl BootControl for UbootBoot {
    fn guarantee(&self) -> &'static str {
        let places = self.places().unwrap_or_default();
        let in_flash = |place: &Place| {
            std::fs::metadata(&place.device).is_ok_and(|found| found.file_type().is_char_device())
        };
        match places.as_slice() {
            [_, _] => {
                "atomic: the copy that does not count is written whole and then counts by its checksum and flag; the \
                 other one is not touched"
            }
            [place] if in_flash(place) => {
                "none: flash is erased before it is written, and a power cut then loses the single copy. Take two copies"
            }
            _ => {
                "atomic once our variables lie in the first 512 bytes, which is so after the first write: one sector \
                 changes. U-Boot itself writes its single copy whole: power cut then loses it, and the boot script \
                 begins with \"A B\""
            }
        }
    }

    fn booted(&self) -> io::Result<Booted> {
        self.running.booted()
    }

    fn read(&self) -> io::Result<Reading> {
        // Whoever asks for the status must not wait, and reading without the lock harms nothing.
        let _lock = Lock::take();
        let copies = self.copies(false)?;
        let known = copies.environment().map(Environment::variables).unwrap_or_default();
        variables::from_uboot(&known, copies.damage(), &|| self.running.booted())
    }

    fn remember(&self) -> io::Result<()> {
        self.copies(false)?.remember(&self.claims)
    }

    fn is_remembered(&self) -> bool {
        self.copies(false).is_ok_and(|copies| copies.are_remembered(&self.claims))
    }

    fn check_writable(&self) -> io::Result<()> {
        let places = self.places()?;
        places.iter().try_for_each(|place| super::check_writable(&place.device))?;
        let copies = self.copies(false)?;
        self.check(&places, &copies)?;
        if copies.environment().is_none() { self.initial().map(drop) } else { Ok(()) }
    }

    fn write(&mut self, point: &str, order: &BootOrder) -> io::Result<()> {
        let lock = Lock::take();
        if matches!(lock, Lock::Busy) && self.locked_out < LOCKED_OUT {
            self.locked_out += 1;
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{LOCK} is held by another program"),
            ));
        }
        if matches!(lock, Lock::Busy) {
            tracing::warn!("{LOCK} is held all the time; going on without it");
        }
        self.locked_out = 0;
        let copies = self.copies(true)?;
        let places = self.places()?;
        self.check(&places, &copies)?;
        copies.prove(&self.claims)?;
        let mut environment = match copies.environment() {
            Some(environment) => environment.clone(),
            None => self.initial()?,
        };
        environment.put(&variables::to_uboot(order), copies.media.len() == 1);
        crash_point(point, "before");
        copies.write(point, &environment)?;
        crash_point(point, "after");
        Ok(())
    }
}

/// What else is at a place that holds no environment of the configured form: one of the other form, or of another size.
fn other_forms(place: &Place, redundant: bool) -> Option<String> {
    let medium =
        |size| medium::open(&Place { size, ..place.clone() }, false).and_then(|medium| medium.read());
    let sizes = (12..=18).map(|bits| 1 << bits).chain([place.size]);
    for size in sizes {
        let Ok(copy) = medium(size) else { continue };
        for form in [redundant, !redundant] {
            if Environment::parse(&copy, form).is_ok() {
                let form = if form { "one of two copies" } else { "a single copy" };
                return Some(format!(
                    "there is an environment of {size:#x} bytes as {form}; put fw_env.config right"
                ));
            }
        }
    }
    None
}

/// The lock of U-Boot's own tools, while it is held.
enum Lock {
    /// It is ours until this is dropped.
    Held(#[allow(dead_code)] std::fs::File),
    /// Somebody else holds it.
    Busy,
    /// There is none to be had: what lies in its place is no file, or the directory is not there.
    None,
}

impl Lock {
    /// Takes it if it is free. Waits for nothing: a pipe or a link in its place is passed over.
    fn take() -> Self {
        let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW).bits().cast_signed();
        let options =
            std::fs::File::options().create(true).truncate(false).write(true).custom_flags(flags).open(LOCK);
        match options {
            Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => {
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => Self::Held(file),
                    Err(_) => Self::Busy,
                }
            }
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a disk, its description, and a command line that says which slot runs.
    struct Bench {
        directory: tempfile::TempDir,
        boot: UbootBoot,
    }

    const SIZE: usize = 0x800;

    impl Bench {
        fn new(copies: usize) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            let lines: Vec<_> = (0..copies)
                .map(|copy| format!("{} {:#x} {SIZE:#x}\n", at("disk").display(), 0x1000 * (copy + 1)))
                .collect();
            std::fs::write(at("fw_env.config"), lines.concat()).unwrap();
            std::fs::write(at("cmdline"), "quiet vigil.slot=B\n").unwrap();
            std::fs::write(at("boot_id"), "1\n").unwrap();
            // More than a sector.
            let initial = format!("bootcmd=run distro_bootcmd\nbootdelay=2\nlong={}\n", "x".repeat(1000));
            std::fs::write(at("initial"), initial).unwrap();
            std::fs::write(at("disk"), [0; 0x4000]).unwrap();
            let running = Running::new(&at("cmdline"), &at("boot_id"));
            let boot = UbootBoot::new(&at("fw_env.config"), &at("initial"), running);
            Self { directory, boot }
        }

        fn disk(&self) -> Vec<u8> {
            std::fs::read(self.directory.path().join("disk")).unwrap()
        }

        fn set_disk(&self, disk: &[u8]) {
            std::fs::write(self.directory.path().join("disk"), disk).unwrap();
        }

        fn write(&mut self, order: &BootOrder) {
            self.in_turn(order).unwrap();
        }

        /// The lock is the machine's: other tests hold it for a moment.
        fn in_turn(&mut self, order: &BootOrder) -> io::Result<()> {
            loop {
                match self.boot.write("test", order) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    done => return done,
                }
            }
        }

        fn bootcmd(&self) -> Option<String> {
            self.boot.copies(false).unwrap().environment().unwrap().variables().get("bootcmd").cloned()
        }
    }

    fn both() -> BootOrder {
        BootOrder::default().first("B").first("A")
    }

    #[test]
    fn every_torn_write_of_a_redundant_copy_reads_as_the_old_order_or_the_new_one() {
        let mut bench = Bench::new(2);
        bench.write(&both());
        for order in [both().without("B"), both().first("B"), both()] {
            let before = bench.disk();
            let old = bench.boot.read().unwrap().order;
            bench.write(&order);
            let after = bench.disk();
            let (mut were_old, mut were_new) = (0, 0);
            // Where the two agree a cut makes no other state.
            for cut in (0..=after.len()).filter(|cut| *cut == 0 || before[cut - 1] != after[cut - 1]) {
                let torn: Vec<_> = after[..cut].iter().chain(&before[cut..]).copied().collect();
                bench.set_disk(&torn);
                let read = bench.boot.read().unwrap().order;
                were_old += u32::from(read == old);
                were_new += u32::from(read == order);
                assert!(read == old || read == order, "cut at {cut}: {read:?}");
            }
            assert!(were_old > 0 && were_new > 0);
        }
    }

    #[test]
    fn a_write_never_touches_the_copy_that_counts_and_the_next_one_repairs_the_other() {
        let mut bench = Bench::new(2);
        bench.write(&both());
        bench.write(&both().without("B"));
        let mut disk = bench.disk();
        disk[0x2010] ^= 1;
        bench.set_disk(&disk);
        let reading = bench.boot.read().unwrap();
        assert_eq!(reading.order, both());
        let damage = reading.damage.unwrap();
        assert!(
            damage.contains("0x2000: its checksum is wrong") && damage.contains("0x1000 counts"),
            "{damage}"
        );
        bench.write(&both().without("B"));
        assert_eq!(bench.disk()[0x1000..0x1000 + SIZE], disk[0x1000..0x1000 + SIZE]);
        assert_eq!(
            bench.boot.read().unwrap(),
            Reading { order: both().without("B"), damage: None, made_up: false }
        );
    }

    #[test]
    fn a_blank_disk_reads_as_the_running_slot_and_is_made_anew_from_the_initial_environment() {
        for copies in [1, 2] {
            for fill in [0, 0xff] {
                let mut bench = Bench::new(copies);
                bench.set_disk(&[fill; 0x4000]);
                let reading = bench.boot.read().unwrap();
                assert_eq!(reading.order, BootOrder::default().first("B"));
                assert!(reading.damage.unwrap().contains("running slot B"));
                bench.write(&reading.order);
                assert_eq!(bench.boot.read().unwrap().order, reading.order);
                assert_eq!(bench.bootcmd().as_deref(), Some("run distro_bootcmd"));
            }
        }
    }

    /// Writes are refused, for that reason, and no byte of the disk is another.
    fn is_refused(bench: &mut Bench, why: &str) {
        let before = bench.disk();
        let error = bench.in_turn(&both()).unwrap_err().to_string();
        assert!(error.contains("not written to") && error.contains(why), "{error}");
        assert_eq!(bench.disk(), before);
    }

    #[test]
    fn foreign_bytes_are_never_written_to_whichever_copy_lies_over_them() {
        for copies in [1, 2] {
            let mut bench = Bench::new(copies);
            bench.set_disk(&[0x5a; 0x4000]);
            assert!(bench.boot.read().unwrap().made_up);
            is_refused(&mut bench, "its checksum is wrong");
        }
        // The first line is right, and the second points into the bootloader's code.
        let mut bench = Bench::new(2);
        bench.write(&both());
        let mut disk = bench.disk();
        disk[0x2000..0x2000 + SIZE].fill(0x5a);
        bench.set_disk(&disk);
        bench.boot.claims = Claims::default();
        is_refused(&mut bench, "0x2000");
    }

    #[test]
    fn blank_bytes_of_a_slots_part_are_not_taken_for_an_environment_nor_one_area_for_two_copies() {
        let mut bench = Bench::new(1);
        let disk = bench.directory.path().join("disk");
        let part = ("part \"rootfs\" of slot A".to_owned(), disk.clone());
        bench.boot.claims = Claims::default().outside(vec![part]);
        is_refused(&mut bench, "of slot A lies there");
        assert!(bench.boot.check_writable().is_err());

        let alias = bench.directory.path().join("alias");
        std::os::unix::fs::symlink(&disk, &alias).unwrap();
        let lines = format!("{} 0x1000 {SIZE:#x}\n{} 0x1000 {SIZE:#x}\n", disk.display(), alias.display());
        std::fs::write(bench.directory.path().join("fw_env.config"), lines).unwrap();
        bench.boot.claims = Claims::default();
        let error = bench.in_turn(&both()).unwrap_err().to_string();
        assert!(error.contains("the two copies overlap"), "{error}");
    }

    #[test]
    fn another_disk_under_the_name_of_the_one_that_was_ours_is_left_as_it_is() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let losetup = |arguments: &[&str]| {
            let output = std::process::Command::new("/sbin/losetup").args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let mut bench = Bench::new(2);
        let disk = bench.directory.path().join("disk").display().to_string();
        let device = losetup(&["--find", "--show", &disk]);
        let lines: Vec<_> =
            (1..=2).map(|copy| format!("{device} {:#x} {SIZE:#x}\n", 0x1000 * copy)).collect();
        std::fs::write(bench.directory.path().join("fw_env.config"), lines.concat()).unwrap();
        bench.boot.claims = Claims::open(bench.directory.path());
        let ours = bench.in_turn(&both());
        losetup(&["--detach", &device]);
        let other = bench.directory.path().join("other");
        std::fs::write(&other, [0x5a; 0x4000]).unwrap();
        losetup(&[&device, &other.display().to_string()]);
        bench.boot.claims = Claims::open(bench.directory.path());
        let foreign = bench.in_turn(&both());
        losetup(&["--detach", &device]);
        ours.unwrap();
        assert!(foreign.unwrap_err().to_string().contains("not written to"));
        assert_eq!(std::fs::read(&other).unwrap(), [0x5a; 0x4000]);
    }

    #[test]
    fn an_environment_of_the_other_form_or_of_another_size_is_named_and_left_as_it_is() {
        let mut single = Bench::new(1);
        single.write(&both());
        let mut redundant = Bench::new(2);
        redundant.set_disk(&single.disk());
        is_refused(&mut redundant, "0x800 bytes as a single copy");

        let mut long = Bench::new(2);
        let config = |size: usize| {
            let disk = long.directory.path().join("disk");
            format!("{0} 0x0 {size:#x}\n{0} 0x2000 {size:#x}\n", disk.display())
        };
        let file = long.directory.path().join("fw_env.config");
        std::fs::write(&file, config(0x2000)).unwrap();
        let short = config(0x800);
        long.write(&both());
        long.write(&both().without("B"));
        std::fs::write(&file, short).unwrap();
        is_refused(&mut long, "0x2000 bytes as one of two copies");
    }

    #[test]
    fn a_copy_that_was_seen_whole_is_repaired_also_after_a_restart() {
        let mut bench = Bench::new(2);
        bench.boot.claims = Claims::open(bench.directory.path());
        bench.write(&both());
        bench.write(&both());
        let mut disk = bench.disk();
        disk[0x1000..0x1000 + SIZE].fill(0x5a);
        bench.set_disk(&disk);
        bench.boot.claims = Claims::open(bench.directory.path());
        bench.write(&both().without("B"));
        assert_eq!(bench.boot.read().unwrap().damage, None);
    }

    #[test]
    fn an_environment_without_a_bootcmd_is_never_made() {
        let mut bench = Bench::new(1);
        std::fs::remove_file(bench.directory.path().join("initial")).unwrap();
        let before = bench.disk();
        let error = bench.in_turn(&both()).unwrap_err().to_string();
        assert!(error.contains("bootcmd"), "{error}");
        assert_eq!(bench.disk(), before);
    }

    #[test]
    fn in_a_single_copy_one_sector_changes() {
        let mut bench = Bench::new(1);
        bench.write(&both());
        for order in [both().without("B"), both().first("B"), both()] {
            let before = bench.disk();
            bench.write(&order);
            let after = bench.disk();
            let changed: Vec<_> = (0..before.len() / 512)
                .filter(|at| before[at * 512..][..512] != after[at * 512..][..512])
                .collect();
            assert_eq!(changed, [0x1000 / 512]);
            assert_eq!(bench.boot.read().unwrap(), Reading { order, damage: None, made_up: false });
        }
    }

    #[test]
    fn variables_that_do_not_fit_are_an_error_and_change_nothing() {
        let mut bench = Bench::new(2);
        std::fs::write(bench.directory.path().join("initial"), format!("long={}\n", "x".repeat(SIZE)))
            .unwrap();
        let before = bench.disk();
        assert_eq!(bench.in_turn(&both()).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(bench.disk(), before);
    }

    #[test]
    fn a_device_that_is_gone_reads_as_the_running_slot_and_says_so() {
        let bench = Bench::new(2);
        std::fs::remove_file(bench.directory.path().join("disk")).unwrap();
        let reading = bench.boot.read().unwrap();
        assert_eq!(reading.order, BootOrder::default().first("B"));
        assert!(reading.damage.unwrap().contains("No such file"));
    }
}
