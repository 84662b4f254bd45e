//! A device: two slots, a first stage that chooses between them, and the two daemons as real processes. Its disk is a
//! directory; a power cut is SIGKILL for both daemons at once.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::pki::Pki;
use crate::process::Process;
use crate::vendor::{PRODUCT, TENANT, Vendor};
use crate::{binaries, image};

/// What differs between devices.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device's id.
    pub id: String,
    /// The product that it is.
    pub product: String,
    /// Lines for `[broker]` of vigil.toml.
    pub broker: String,
    /// Lines for `[health]`.
    pub health: String,
    /// Where it fetches from before it asks the vendor's own server.
    pub mirrors: Vec<String>,
    /// How often it looks for releases.
    pub refresh_interval: String,
    /// More sections for vigil.toml.
    pub more: String,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// The trial's section of updater.toml.
    pub trial: String,
    /// Environment of vigild and of vigil-updaterd.
    pub environment: Vec<(Daemon, String, String)>,
    /// Lines at the top of updater.toml.
    pub updater: String,
    /// More sections for it.
    pub updater_more: String,
    /// Parts of a slot besides its `rootfs`: their names and what the factory has written into slot A's. Slot B's are as
    /// large, and empty.
    pub more_parts: Vec<(String, PathBuf)>,
    /// The directories of the programs that releases bring, by version. What is not listed brings those under test.
    pub programs: Vec<(String, PathBuf)>,
}

/// One of the two daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// The agent.
    Vigild,
    /// The updater.
    Updaterd,
}

impl Options {
    /// A device at a broker on `localhost`, over TLS.
    pub fn new(id: &str, broker_port: u16, pki: &Pki) -> Self {
        Self {
            id: id.to_owned(),
            product: PRODUCT.to_owned(),
            broker: format!(
                "url = \"mqtts://localhost:{broker_port}\"\nca_file = {:?}\nkeep_alive = \"10s\"\nbackoff_max = \"2s\"\nfleet_size = 1\n",
                pki.ca()
            ),
            health: "interval = \"2s\"\n".to_owned(),
            mirrors: Vec::new(),
            refresh_interval: "10s".to_owned(),
            more: String::new(),
            slot_bytes: 96 << 20,
            trial: "deadline_seconds = 6\nstable_seconds = 1\ngate_pause_seconds = 0.5\ncontact_seconds = 30\ncourier_seconds = 60\n".to_owned(),
            environment: Vec::new(),
            updater: String::new(),
            updater_more: String::new(),
            more_parts: Vec::new(),
            programs: Vec::new(),
        }
    }
}

/// The device.
pub struct Device {
    /// Its disk.
    pub disk: PathBuf,
    /// What it was made with.
    pub options: Options,
    /// Where the programs of the release that runs are.
    programs: PathBuf,
    vigild: Option<Process>,
    updaterd: Option<Process>,
    boots: u32,
}

impl Device {
    /// A device as it leaves the factory: `image` in slot A, nothing in slot B, keys made and certified.
    pub fn new(
        disk: &Path,
        options: Options,
        vendor: &Vendor,
        pki: &Pki,
        image: &Path,
    ) -> anyhow::Result<Self> {
        let mut device = Self {
            disk: disk.to_owned(),
            options,
            programs: PathBuf::new(),
            vigild: None,
            updaterd: None,
            boots: 0,
        };
        for directory in ["etc", "slots", "boot", "run", "log", "data"] {
            std::fs::create_dir_all(disk.join(directory))?;
        }
        std::fs::copy(vendor.root(), disk.join("etc/root.json"))?;
        for slot in ["A", "B"] {
            File::create(device.slot(slot))?.set_len(device.options.slot_bytes)?;
        }
        let mut slot = File::options().write(true).open(device.slot("A"))?;
        std::io::copy(&mut File::open(image)?, &mut slot)?;
        for (name, image) in &device.options.more_parts {
            let mut part = File::create(device.part("A", name))?;
            let length = std::io::copy(&mut File::open(image)?, &mut part)?;
            File::create(device.part("B", name))?.set_len(length)?;
        }
        device.programs = device.programs_in("A")?;
        // The factory has written one slot only.
        std::fs::write(disk.join("boot/boot.env"), "BOOT_ORDER=A\nBOOT_A_LEFT=3\nBOOT_B_LEFT=0\n")?;
        device.write_agent_config(vendor)?;
        device.write_updater_config()?;
        if !device.make_identity()? {
            // A crash that a test has planned: the next start goes on, without the plan.
            device.options.environment.clear();
            ensure!(device.make_identity()?, "vigild --make-identity failed twice");
        }
        pki.sign_request(&disk.join("data/identity/tls.csr"), &disk.join("data/identity/tls.crt"))?;
        Ok(device)
    }

    fn make_identity(&self) -> anyhow::Result<bool> {
        let mut command = self.command("vigild");
        command.arg("--config").arg(self.disk.join("etc/vigil.toml")).arg("--make-identity");
        Ok(command.output()?.status.success())
    }

    fn write_agent_config(&self, vendor: &Vendor) -> anyhow::Result<()> {
        let own = vendor.files.url();
        let mut repository = format!("url = {own:?}");
        if let Some((first, others)) = self.options.mirrors.split_first() {
            let others: Vec<_> = others.iter().chain([&own]).collect();
            repository = format!("url = {first:?}\nmirrors = {others:?}");
        }
        let text = format!(
            "[device]\nid = {:?}\ntenant = {TENANT:?}\nproduct = {:?}\ngroups = [\"lobby\"]\n\n\
             [paths]\nstate = {:?}\nrun = {:?}\nupdater_socket = {:?}\n\n[broker]\n{}\n\
             [health]\n{}\n\
             [repository]\n{repository}\nrefresh_interval = {:?}\ntimeout = \"3s\"\n\n{}\n",
            self.options.id,
            self.options.product,
            self.disk.join("data"),
            self.run_directory(),
            self.updater_socket(),
            self.options.broker,
            self.options.health,
            self.options.refresh_interval,
            self.options.more,
        ) + &self.local_section();
        Ok(std::fs::write(self.disk.join("etc/vigil.toml"), text)?)
    }

    /// Who may use the local sockets. An ordinary user's machine may have no group of ours: there it is his own.
    fn local_section(&self) -> String {
        let own = rustix::process::getegid().as_raw();
        if rustix::process::geteuid().is_root() || self.options.more.contains("[local]") {
            return String::new();
        }
        format!("[local]\nread_group = \"{own}\"\nadmin_group = \"{own}\"\n")
    }

    fn write_updater_config(&self) -> anyhow::Result<()> {
        let reboot = self.disk.join("run/reboot");
        let parts = |slot: &str| {
            let more = self.options.more_parts.iter().map(|(name, _)| (name.as_str(), self.part(slot, name)));
            let parts = std::iter::once(("rootfs", self.slot(slot))).chain(more);
            parts.map(|(name, path)| format!("{name} = {path:?}")).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "{}agent_config = {:?}\nstate = {:?}\nsocket = {:?}\nroot = {:?}\nreboot = [\"/bin/touch\", {reboot:?}]\n\n\
             [boot]\nkind = \"file\"\ndirectory = {:?}\n\n\
             [[slots]]\nname = \"A\"\nparts = {{ {} }}\n\n[[slots]]\nname = \"B\"\nparts = {{ {} }}\n\n\
             [trial]\n{}\n[fetch]\nretries = 6\npause_seconds = 0.1\n\n[[gate]]\nname = \"self-test\"\ncommand = [{:?}]\ntimeout_seconds = 5\n\n{}",
            self.options.updater,
            self.disk.join("etc/vigil.toml"),
            self.disk.join("updater"),
            self.updater_socket(),
            self.disk.join("etc/root.json"),
            self.disk.join("boot"),
            parts("A"),
            parts("B"),
            self.options.trial,
            self.disk.join("run/self-test"),
            self.options.updater_more,
        );
        Ok(std::fs::write(self.disk.join("etc/updater.toml"), text)?)
    }

    /// The file that stands for a slot's block device.
    pub fn slot(&self, name: &str) -> PathBuf {
        self.disk.join("slots").join(name)
    }

    /// The file that stands for the block device of another part of the slot.
    pub fn part(&self, slot: &str, name: &str) -> PathBuf {
        self.disk.join("slots").join(format!("{slot}-{name}"))
    }

    /// Where vigild's sockets are.
    pub fn run_directory(&self) -> PathBuf {
        self.disk.join("run/vigil")
    }

    /// vigil-updaterd's socket.
    pub fn updater_socket(&self) -> PathBuf {
        self.disk.join("run/vigil-updater/updater.sock")
    }

    /// Where the programs of the release in a slot are.
    fn programs_in(&self, slot: &str) -> anyhow::Result<PathBuf> {
        let version =
            image::version(&self.slot(slot)).with_context(|| format!("slot {slot} does not boot"))?;
        let listed = self.options.programs.iter().find(|(of, _)| *of == version);
        listed.map_or_else(|| Ok(binaries()?.to_owned()), |(_, directory)| Ok(directory.clone()))
    }

    /// A program of the release that runs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        let daemon = if program == "vigild" { Daemon::Vigild } else { Daemon::Updaterd };
        for (_, name, value) in
            self.options.environment.iter().filter(|(for_daemon, ..)| *for_daemon == daemon)
        {
            command.env(name, value);
        }
        command
    }

    /// Power comes: the first stage chooses a slot, and what is in it starts. Gives back the slot.
    pub fn power_on(&mut self) -> anyhow::Result<String> {
        let slot = self.power_on_without_agent()?;
        self.start_vigild()?;
        Ok(slot)
    }

    /// Power comes, and vigild does not start.
    pub fn power_on_without_agent(&mut self) -> anyhow::Result<String> {
        self.boots += 1;
        let _ = std::fs::remove_file(self.disk.join("run/reboot"));
        // Not the first stage's crash points are under test, but the daemons'. It is no release's: it is always the
        // one under test.
        let output = Command::new(binaries()?.join("vigil-updaterd"))
            .arg("--config")
            .arg(self.disk.join("etc/updater.toml"))
            .args(["--power-on", &format!("boot-{}", self.boots)])
            .output()?;
        if !output.status.success() {
            bail!("the first stage: {}", String::from_utf8_lossy(&output.stderr));
        }
        let slot = String::from_utf8(output.stdout)?.trim().to_owned();
        image::extract_self_test(&self.slot(&slot), &self.disk.join("run/self-test"))
            .with_context(|| format!("slot {slot} does not boot"))?;
        self.programs = self.programs_in(&slot)?;
        self.start_updaterd()?;
        Ok(slot)
    }

    /// Starts vigil-updaterd.
    pub fn start_updaterd(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("vigil-updaterd");
        command.arg("--config").arg(self.disk.join("etc/updater.toml"));
        self.updaterd = Some(Process::start("vigil-updaterd", command, &self.disk.join("log/updaterd.log"))?);
        Ok(())
    }

    /// Starts vigild.
    pub fn start_vigild(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("vigild");
        command.arg("--config").arg(self.disk.join("etc/vigil.toml"));
        self.vigild = Some(Process::start("vigild", command, &self.disk.join("log/vigild.log"))?);
        Ok(())
    }

    /// The daemon's process.
    pub fn daemon(&mut self, daemon: Daemon) -> anyhow::Result<&mut Process> {
        let process = match daemon {
            Daemon::Vigild => &mut self.vigild,
            Daemon::Updaterd => &mut self.updaterd,
        };
        process.as_mut().context("the daemon was not started")
    }

    /// Power goes.
    pub fn power_off(&mut self) {
        for process in [&mut self.vigild, &mut self.updaterd] {
            if let Some(mut process) = process.take() {
                process.kill();
            }
        }
    }

    /// Does a restart that was asked for. Gives back the slot that then runs.
    pub fn restart_if_asked(&mut self) -> anyhow::Result<Option<String>> {
        if !self.disk.join("run/reboot").exists() {
            return Ok(None);
        }
        if let Some(process) = &mut self.vigild {
            process.stop()?;
        }
        self.power_off();
        self.power_on().map(Some)
    }

    /// Whether a daemon has ended by itself; which.
    pub fn ended(&mut self) -> Option<Daemon> {
        let ended = |process: &mut Option<Process>| {
            process.as_mut().is_some_and(|process| process.exited().is_some())
        };
        if ended(&mut self.vigild) {
            Some(Daemon::Vigild)
        } else if ended(&mut self.updaterd) {
            Some(Daemon::Updaterd)
        } else {
            None
        }
    }

    /// Asks over the status socket, through `vigil`.
    pub fn vigil(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(self.program("vigil"))
            .arg("--run-dir")
            .arg(self.run_directory())
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("vigil {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr))
        })
    }

    /// The updater's state as vigild tells it; empty while nobody answers.
    pub fn update_state(&self) -> String {
        let value = self.vigil(&["update"]).unwrap_or_default();
        value.get("state").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Runs, restarting when asked, until the update is in one of `states` and `vigild` says so. `watch` sees every
    /// answer.
    pub fn run_until(
        &mut self,
        states: &[&str],
        limit: Duration,
        mut watch: impl FnMut(&Value),
    ) -> anyhow::Result<Value> {
        let mut failure = None;
        let what = format!("the update to be {}", states.join(" or "));
        crate::wait_for(&what, limit, || {
            match self.restart_if_asked() {
                Err(error) => {
                    failure = Some(error);
                    return Some(Value::Null);
                }
                Ok(Some(_)) => return None,
                Ok(None) => {}
            }
            let value = self.vigil(&["update"]).ok()?;
            watch(&value);
            let state = value.get("state").and_then(Value::as_str)?;
            states.contains(&state).then_some(value)
        })
        .and_then(|value| failure.map_or(Ok(value), Err))
    }

    /// What boots next, if power came now, is a whole release: its slot's content has one of `hashes`, over `length`
    /// bytes each.
    pub fn next_boot_is_one_of(&self, hashes: &[([u8; 32], u64)]) -> anyhow::Result<String> {
        use vigil_updater::boot::{BootControl, FileBoot};
        let mut order = FileBoot::new(&self.disk.join("boot")).read()?.order;
        let slot = order.select().context("the boot order is empty")?;
        for (hash, length) in hashes {
            if image::sha256(&self.slot(&slot), *length)? == *hash {
                return Ok(slot);
            }
        }
        let mut start = [0; 64];
        File::open(self.slot(&slot))?.read_exact(&mut start)?;
        bail!("slot {slot} would boot and holds no verified release: {:?}…", String::from_utf8_lossy(&start))
    }
}
