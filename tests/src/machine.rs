//! A device at rest and at work: a model of its boot script over the real boot variables, and the real `vigil-updaterd`
//! as a process. Killing it is a power cut.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::courier::{self, Courier, honest};
use crate::image::SOUND;
use crate::process::Process;
use crate::vendor::{PRODUCT, TENANT, Vendor};
use crate::{InTurn, binaries, wait_for};
use anyhow::{Context, bail, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use vigil_updater::boot::{self, BootControl, BootOrder};
use vigil_updater::config::BootConfig;
use vigil_wire::{Contact, Request, Response, State, UpdateStatus};

/// The device's id.
pub const DEVICE: &str = "room-1";
/// A slot's bytes.
pub const SLOT_BYTES: usize = 1536 * 1024;
/// An image's: two frames, the second a short one.
const IMAGE_BYTES: usize = 1200 * 1024;
/// What every image begins with: what a boot script's `load` would find.
const MAGIC: &[u8] = b"VIGIL-BENCH-IMAGE\n";
const LIMIT: Duration = Duration::from_secs(30);
/// An environment copy's bytes.
const ENVIRONMENT_BYTES: usize = 8192;

/// Where the boot variables are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In a file on the data partition.
    File,
    /// U-Boot's environment in two copies with a flag byte.
    Uboot,
    /// U-Boot's environment in one copy.
    UbootSingle,
    /// GRUB's environment block.
    Grub,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::File, Self::Uboot, Self::UbootSingle, Self::Grub];

    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Uboot => "uboot",
            Self::UbootSingle => "uboot-single",
            Self::Grub => "grub",
        }
    }

    /// The bytes of its partition, blank.
    pub fn blank(self) -> Vec<u8> {
        match self {
            Self::File => vec![0; 512],
            Self::Uboot => vec![0; 2 * ENVIRONMENT_BYTES],
            Self::UbootSingle => vec![0; ENVIRONMENT_BYTES],
            Self::Grub => {
                let mut block = b"# GRUB Environment Block\n".to_vec();
                block.resize(1024, b'#');
                block
            }
        }
    }
}

/// What was published, and what devices may run.
pub struct World {
    vendor: Vendor,
    key: SigningKey,
    /// Images by version, the first being the factory's.
    pub images: BTreeMap<&'static str, Vec<u8>>,
    _directory: tempfile::TempDir,
}

/// How a release starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// As it should.
    #[default]
    Sound,
    /// Its kernel panics, and leaves its last words.
    Panic,
    /// It hangs until the watchdog resets the device.
    Hang,
    /// It does not start and nothing says why.
    Silent,
    /// Its updater dies before it has looked at anything.
    Dies,
}

impl World {
    /// A vendor with releases 2, 3 and 4.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let vendor = Vendor::new(&directory.path().join("vendor"))?;
        let mut images = BTreeMap::new();
        for (sequence, version) in ["1.0.0", "2.0.0", "3.0.0", "4.0.0"].into_iter().enumerate() {
            let image = make_image(version, sequence as u64 + 1);
            let path = directory.path().join(version);
            std::fs::write(&path, &image)?;
            if sequence > 0 {
                vendor.release(version, sequence as u64 + 1, &path, "operator")?;
            }
            images.insert(version, image);
        }
        let key = SigningKey::from_pkcs8_pem(&std::fs::read_to_string(vendor.operator_key())?)?;
        Ok(Self { vendor, key, images, _directory: directory })
    }

    /// The directory of the repository.
    pub fn repository(&self) -> PathBuf {
        self.vendor.repository()
    }

    /// A signed order to install a release.
    pub fn order(&self, id: &str, version: &str) -> anyhow::Result<String> {
        courier::sign(&courier::command(DEVICE, id, version), &self.key)
    }

    fn version_of(&self, slot: &[u8]) -> Option<&'static str> {
        self.images.iter().find(|(_, image)| slot.starts_with(image)).map(|(version, _)| *version)
    }
}

/// Bytes that do not compress, the same in every run.
fn make_image(version: &str, seed: u64) -> Vec<u8> {
    let mut image = MAGIC.to_vec();
    image.extend_from_slice(version.as_bytes());
    let mut random = Random(seed);
    while image.len() < IMAGE_BYTES {
        image.extend_from_slice(&random.number().to_le_bytes());
    }
    image
}

/// SplitMix64: a seed gives the same numbers everywhere (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True one time in `of`.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.number().is_multiple_of(of)
    }
}

/// A device.
pub struct Machine<'w> {
    world: &'w World,
    work: PathBuf,
    slots: [PathBuf; 2],
    data: PathBuf,
    backend: Backend,
    boots: u32,
    updaterd: Option<Process>,
    running: &'static str,
    /// What `vigild` sees of the network.
    pub contact: Contact,
    /// Whether the repository answers anybody.
    pub repository_answers: bool,
    /// Where its files are.
    pub repository: PathBuf,
    /// Why the last boot ended, as the board tells it.
    pub reset_reason: &'static str,
    /// How releases behave that are not sound.
    pub behaviours: BTreeMap<&'static str, Behaviour>,
}

/// How long a device waits, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For the gate to be passed.
    pub trial: f64,
    /// For contact.
    pub contact: f64,
    /// For the courier.
    pub courier: f64,
}

impl Default for Times {
    fn default() -> Self {
        Self { trial: 20.0, contact: 20.0, courier: 20.0 }
    }
}

/// How a release behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How it starts.
    pub start: Start,
    /// Its self-test, a shell script in the device's work directory.
    pub self_test: String,
    /// Whether the repository answers it.
    pub reaches_repository: bool,
    /// Whether its `vigild` is ready.
    pub agent: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { start: Start::Sound, self_test: SOUND.to_owned(), reaches_repository: true, agent: true }
    }
}

impl<'w> Machine<'w> {
    /// A device with its slots and boot variables at these paths, and its data partition mounted at `data`.
    pub fn new(
        world: &'w World,
        backend: Backend,
        work: &Path,
        slots: [PathBuf; 2],
        environment: &Path,
        data: &Path,
        times: Times,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(work)?;
        std::fs::copy(world.vendor.root(), work.join("root.json"))?;
        std::fs::write(
            work.join("vigil.toml"),
            format!("[device]\nid = {DEVICE:?}\ntenant = {TENANT:?}\nproduct = {PRODUCT:?}\n"),
        )?;
        let running =
            format!("command_line = {:?}\nboot_id = {:?}", work.join("cmdline"), work.join("boot_id"));
        let fw_env = work.join("fw_env.config");
        let boot = match backend {
            Backend::File => format!("kind = \"file\"\ndirectory = {:?}", data.join("boot")),
            Backend::Uboot | Backend::UbootSingle => {
                let mut lines = format!("{} 0x0 {ENVIRONMENT_BYTES:#x}\n", environment.display());
                if backend == Backend::Uboot {
                    let second =
                        format!("{} {ENVIRONMENT_BYTES:#x} {ENVIRONMENT_BYTES:#x}\n", environment.display());
                    lines.push_str(&second);
                }
                std::fs::write(&fw_env, lines)?;
                let initial = work.join("u-boot-initial-env");
                std::fs::write(&initial, "bootdelay=2\n")?;
                format!("kind = \"uboot\"\nfw_env_config = {fw_env:?}\ninitial_env = {initial:?}\n{running}")
            }
            Backend::Grub => format!("kind = \"grub\"\ngrubenv = {environment:?}\n{running}"),
        };
        let text = format!(
            "courier = \"65534\"\nagent_config = {:?}\nstate = {:?}\nsocket = {:?}\nroot = {:?}\nreboot = [\"/bin/touch\", {:?}]\n\n\
             [boot]\n{boot}\n\n\
             [[slots]]\nname = \"A\"\nparts = {{ rootfs = {:?} }}\n\n[[slots]]\nname = \"B\"\nparts = {{ rootfs = {:?} }}\n\n\
             [trial]\ndeadline_seconds = {:?}\nstable_seconds = 0\ngate_pause_seconds = 0.02\ncontact_seconds = {:?}\n\
             courier_seconds = {:?}\n\n[fetch]\npause_seconds = 0.01\n\n\
             [evidence]\ncrash_records = {:?}\nwatchdog_status = {:?}\nreset_reason = {:?}\n\n\
             [[gate]]\nname = \"self-test\"\ncommand = [\"/bin/sh\", {:?}]\n",
            work.join("vigil.toml"),
            data.join("updater"),
            work.join("socket"),
            work.join("root.json"),
            work.join("reboot"),
            slots[0],
            slots[1],
            times.trial,
            times.contact,
            times.courier,
            work.join("pstore"),
            work.join("bootstatus"),
            work.join("reset_reason"),
            work.join("self-test"),
        );
        std::fs::write(work.join("updater.toml"), text)?;
        Ok(Self {
            world,
            work: work.to_owned(),
            slots,
            data: data.to_owned(),
            backend,
            boots: 0,
            updaterd: None,
            running: "",
            contact: Contact { ready: true, broker: true, carrier: true, gateway: true },
            repository_answers: true,
            repository: world.vendor.repository(),
            reset_reason: "",
            behaviours: BTreeMap::new(),
        })
    }

    /// What the factory leaves: slot A alone in the boot order.
    pub fn make(&mut self) -> anyhow::Result<()> {
        if self.backend == Backend::File {
            std::fs::create_dir_all(self.data.join("boot"))?;
        }
        let mut order = BootOrder::default().first("A");
        order.left.insert("B".to_owned(), 0);
        self.bootloader()?.write_in_turn("factory", &order)?;
        Ok(())
    }

    /// The boot variables as the bootloader keeps them: for it, no slot runs yet.
    fn bootloader(&self) -> anyhow::Result<Box<dyn BootControl>> {
        #[derive(serde::Deserialize)]
        struct Boot {
            boot: BootConfig,
        }
        std::fs::write(self.work.join("cmdline"), "vigil.slot=none\n")?;
        std::fs::write(self.work.join("boot_id"), "none\n")?;
        let text = std::fs::read_to_string(self.work.join("updater.toml"))?;
        let config = toml::from_str::<Boot>(&text)?.boot;
        if let BootConfig::Grub { grubenv, .. } = &config
            && !grubenv.exists()
        {
            // What `grub-editenv FILE create` makes: the image brings it, and the updater never does.
            std::fs::write(grubenv, format!("{:#<1024}", "# GRUB Environment Block\n"))?;
        }
        Ok(boot::open(&config, boot::Claims::owner()))
    }

    /// Switches on until something starts that can run the updater.
    fn power_on(&mut self) -> anyhow::Result<&'static str> {
        let _ = std::fs::remove_file(self.work.join("reboot"));
        for _ in 0..12 {
            let version = self.boot()?;
            match self.behaviour(version).start {
                Start::Sound | Start::Dies => return Ok(version),
                Start::Panic => {
                    std::fs::create_dir_all(self.work.join("pstore"))?;
                    let words = "<0>[    1.9] Kernel panic - not syncing: Attempted to kill init!\n";
                    std::fs::write(self.work.join("pstore").join(format!("dmesg-{}", self.boots)), words)?;
                }
                Start::Hang => std::fs::write(self.work.join("bootstatus"), "32\n")?,
                Start::Silent => {}
            }
        }
        bail!("nothing starts that could run the updater")
    }

    fn behaviour(&self, version: &str) -> Behaviour {
        self.behaviours.get(version).cloned().unwrap_or_default()
    }

    /// What the boot script does: the first slot of the order that has a try left and can be loaded; variables that
    /// are lost read as "A B". The slot must hold a whole release.
    fn boot(&mut self) -> anyhow::Result<&'static str> {
        self.boots += 1;
        let mut bootloader = self.bootloader()?;
        let read = bootloader.read().map(|reading| reading.order);
        let mut order = read
            .ok()
            .filter(|order| order.may_boot("A") || order.may_boot("B"))
            .unwrap_or_else(|| BootOrder::default().first("B").first("A"));
        for _ in 0..8 {
            let Some(slot) = order.select() else { bail!("no slot is left to boot") };
            let content = self.slot(&slot)?;
            if !content.starts_with(MAGIC) {
                // Nothing there that could be loaded.
                order.left.insert(slot, 0);
                continue;
            }
            let version = self.world.version_of(&content);
            let version =
                version.with_context(|| format!("slot {slot} boots, and holds no whole release"))?;
            bootloader.write_in_turn("bootloader", &order)?;
            let id = format!("boot-{}-{}", std::process::id(), self.boots);
            match self.backend {
                Backend::File => std::fs::write(
                    self.data.join("boot/booted"),
                    format!("{{\"slot\":\"{slot}\",\"boot_id\":\"{id}\"}}"),
                )?,
                _ => {
                    std::fs::write(self.work.join("cmdline"), format!("quiet vigil.slot={slot}\n"))?;
                    std::fs::write(self.work.join("boot_id"), id)?;
                }
            }
            std::fs::write(self.work.join("self-test"), self.behaviour(version).self_test)?;
            return Ok(version);
        }
        bail!("no slot can be loaded")
    }

    fn slot(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(&self.slots[usize::from(name == "B")])?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Power comes. Gives back the version that runs, and a line to its updater.
    pub fn start(&mut self) -> anyhow::Result<(&'static str, Courier)> {
        for _ in 0..12 {
            self.stop();
            let version = self.power_on()?;
            // Each machine has a lock of its own for U-Boot's variables.
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /var/lock && exec \"$0\" \"$@\""]);
            command.arg(binaries()?.join("vigil-updaterd"));
            command.arg("--config").arg(self.work.join("updater.toml")).env("VIGIL_LOG", "info");
            let _ = std::fs::remove_file(self.work.join("socket"));
            std::fs::write(self.work.join("reset_reason"), std::mem::take(&mut self.reset_reason))?;
            self.updaterd = Some(Process::start("vigil-updaterd", command, &self.work.join("log"))?);
            self.running = version;
            let courier = Courier::connect(&self.work.join("socket"), &self.repository)?;
            if self.behaviour(version).start != Start::Dies {
                return Ok((version, courier));
            }
        }
        bail!("every updater dies")
    }

    /// Power goes.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.updaterd.take() {
            process.kill();
        }
    }

    /// Runs, restarting when asked, until the update is in one of `states`. `see` sees every status, and may change what
    /// is the matter.
    pub fn run_until(
        &mut self,
        courier: &mut Courier,
        states: &[State],
        see: &mut dyn FnMut(&mut Self, &UpdateStatus),
    ) -> anyhow::Result<UpdateStatus> {
        let until = Instant::now() + LIMIT;
        loop {
            let status = courier.status()?;
            see(self, &status);
            if states.contains(&status.state) && is_judged(&status) {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "waited in vain for {states:?}: {status:?}");
            self.turn(courier, &status)?;
        }
    }

    /// One turn of `vigild`'s loop, or a restart if one is asked for.
    pub fn turn(&mut self, courier: &mut Courier, status: &UpdateStatus) -> anyhow::Result<()> {
        if self.work.join("reboot").exists() {
            *courier = self.start()?.1;
            return Ok(());
        }
        let behaviour = self.behaviour(self.running);
        courier.ask(&Request::Contact(Contact { ready: behaviour.agent, ..self.contact }))?;
        if !self.repository_answers || !behaviour.reaches_repository {
            std::thread::sleep(Duration::from_millis(20));
            return Ok(());
        }
        if matches!(status.state, State::Good | State::RolledBack) {
            courier.ask(&Request::Refresh)?;
        }
        let Response::Need(need) = courier.ask(&Request::Next)? else {
            std::thread::sleep(Duration::from_millis(20));
            return Ok(());
        };
        // The caller decides by the state what happens; it is to see every one before anything is brought in it.
        if courier.status()?.state == status.state {
            courier.bring(&need, &mut honest)?;
        }
        Ok(())
    }

    /// Where the device's own files are: its log, its self-test.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The version that runs.
    pub fn running(&self) -> &'static str {
        self.running
    }

    /// What stands in the updater's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.work.join("log")).unwrap_or_default()
    }
}

/// Whether it is known whose fault a rollback was, where that is asked.
pub fn is_judged(status: &UpdateStatus) -> bool {
    status.state != State::RolledBack
        || status
            .last_failure
            .as_ref()
            .is_none_or(|failure| failure.fault.is_some() || failure.cause == "operator")
}

/// Mounts a file system image.
pub fn mount(image: &Path, at: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(at)?;
    run("mount", &["-o", "loop", &image.to_string_lossy(), &at.to_string_lossy()])
}

/// Mounts it if it can be mounted as it is.
pub fn try_mount(image: &Path, at: &Path) -> anyhow::Result<bool> {
    std::fs::create_dir_all(at)?;
    let mut command = Command::new("mount");
    command.args(["-o", "loop"]).arg(image).arg(at).stderr(std::process::Stdio::null());
    Ok(command.status()?.success())
}

/// Repairs a file system as a device's boot does.
pub fn check_file_system(image: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("e2fsck");
    let output = command.args(["-f", "-y"]).arg(image).output()?;
    // 1 and 2: errors were corrected.
    ensure!(
        output.status.code().is_some_and(|code| code <= 2),
        "e2fsck: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// Unmounts it.
pub fn unmount(at: &Path) -> anyhow::Result<()> {
    run("umount", &[&at.to_string_lossy()])
}

/// An empty ext4 file system.
pub fn make_file_system(directory: &Path, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let path = directory.join("ext4");
    File::create(&path)?.set_len(bytes)?;
    run("mkfs.ext4", &["-q", "-b", "1024", "-J", "size=1", "-N", "256", &path.to_string_lossy()])?;
    Ok(std::fs::read(&path)?)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    // A loop device is let go a moment after its last use.
    wait_for(program, Duration::from_secs(5), || {
        let status = Command::new(program).args(arguments).stderr(std::process::Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(())
    })
    .with_context(|| format!("{program} {}", arguments.join(" ")))
}
