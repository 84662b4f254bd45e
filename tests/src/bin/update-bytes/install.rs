//! Ours: publishes the pair as releases, and installs them on devices.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vigil_tests::courier::Courier;
use vigil_tests::device::{Daemon, Device, Options};
use vigil_tests::image::{self, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::vendor::Vendor;
use vigil_tests::{free_port, wait_for};
use vigil_updater::release::target_name;
use vigil_wire::{PlanStatus, Request, Response, State};

const LIMIT: Duration = Duration::from_secs(3600);
/// The part of the slot that is measured. The other one holds what starts the device, and is the same in all releases.
const PART: &str = "system";

/// What the device has before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// The very image of the release.
    Identical,
    /// The old image with one byte changed: no patch starts from it.
    Unknown,
    /// The old image, from which the release has a patch.
    Known,
}

impl Case {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Unknown => "unknown",
            Self::Known => "known",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Identical => "1.0.0",
            Self::Unknown => "2.0.0",
            Self::Known => "3.0.0",
        }
    }
}

/// How long publishing took.
pub(crate) struct Published {
    old: f64,
    new: f64,
    patch: f64,
}

impl Published {
    pub(crate) fn seconds(&self, case: Case) -> f64 {
        match case {
            Case::Identical => self.old,
            Case::Unknown => self.new,
            Case::Known => self.new + self.patch,
        }
    }
}

/// An install, from switching the device on until the release is staged.
pub(crate) struct Installed {
    pub(crate) case: Case,
    /// Both directions, headers and metadata too.
    pub(crate) wire_bytes: u64,
    /// Of these, what came before the release was asked for: the metadata of a device that has just been switched on.
    pub(crate) refresh_bytes: u64,
    pub(crate) requests: u64,
    pub(crate) plan: PlanStatus,
    /// From the first request for the release on.
    pub(crate) seconds: f64,
    /// The running slot's map is made when there is nothing else to do; here, before.
    pub(crate) mapping_seconds: f64,
    pub(crate) updaterd_kib: u64,
    pub(crate) vigild_kib: u64,
}

impl Installed {
    pub(crate) fn planned(&self) -> u64 {
        self.plan.fetch_bytes + self.plan.index_bytes + self.plan.metadata_bytes
    }

    /// By which part of it the install's bytes on the wire are more than what was planned.
    pub(crate) fn off(&self) -> f64 {
        let spent = self.wire_bytes - self.refresh_bytes;
        (spent as f64 - self.planned() as f64) / self.planned() as f64
    }
}

pub(crate) struct Bench<'b> {
    directory: &'b Path,
    product: &'b str,
    level: i32,
    old: &'b Path,
    new: &'b Path,
    rootfs: PathBuf,
    vendor: Vendor,
    pki: Pki,
}

impl<'b> Bench<'b> {
    pub(crate) fn new(
        directory: &'b Path,
        product: &'b str,
        level: i32,
        old: &'b Path,
        new: &'b Path,
    ) -> anyhow::Result<Self> {
        let rootfs = directory.join("rootfs.img");
        image::build(&rootfs, "1.0.0", SOUND, 1)?;
        let vendor = Vendor::new(&directory.join("vendor"))?;
        let pki = Pki::new(&directory.join("pki"))?;
        Ok(Self { directory, product, level, old, new, rootfs, vendor, pki })
    }

    pub(crate) fn publish(&self) -> anyhow::Result<Published> {
        // How well the old image is compressed does not matter: it is only taken apart again.
        let old = self.add(Case::Identical, self.old, 1, 0)?;
        let new = self.add(Case::Unknown, self.new, self.level, 0)?;
        // The release between has the same image: the patch starts from the one before.
        let patch = self.add(Case::Known, self.new, self.level, 2)?;
        Ok(Published { old, new, patch })
    }

    fn add(&self, case: Case, image: &Path, level: i32, patches: u32) -> anyhow::Result<f64> {
        eprintln!("publishing {} as {} ({} patches)", image.display(), case.version(), patches.min(1));
        let begun = Instant::now();
        let (rootfs, system) =
            (format!("rootfs={}", self.rootfs.display()), format!("{PART}={}", image.display()));
        self.vendor.publish(&[
            "release",
            "add",
            "--product",
            self.product,
            "--version",
            case.version(),
            "--sequence",
            &case.version()[..1],
            "--hardware",
            "r1",
            "--image",
            &rootfs,
            "--image",
            &system,
            "--install-policy",
            "automatic",
            "--level",
            &level.to_string(),
            "--format",
            "2",
            "--patches",
            &patches.to_string(),
        ])?;
        Ok(begun.elapsed().as_secs_f64())
    }

    pub(crate) fn install(&self, case: Case) -> anyhow::Result<Installed> {
        eprintln!("installing {} on a device whose image is {}", case.version(), case.name());
        let path = self.directory.join(case.name());
        let mut options = Options::new("room-1", free_port()?, &self.pki);
        self.product.clone_into(&mut options.product);
        "1h".clone_into(&mut options.refresh_interval);
        options.more_parts = vec![(PART.to_owned(), self.old.to_owned())];
        // As factories do: what updaters write is as large as the largest release.
        let size = self.old.metadata()?.len().max(self.new.metadata()?.len());
        let mut device = Device::new(&path, options, &self.vendor, &self.pki, &self.rootfs)?;
        let running = File::options().read(true).write(true).open(device.part("A", PART))?;
        running.set_len(size)?;
        File::options().write(true).open(device.part("B", PART))?.set_len(size)?;
        if case == Case::Unknown {
            let mut byte = [0];
            running.read_exact_at(&mut byte, size - 1)?;
            running.write_all_at(&[!byte[0]], size - 1)?;
        }
        drop(running);
        self.vendor.files.take_wire_bytes();
        self.vendor.files.take_served();
        device.power_on()?;
        let begun = Instant::now();
        let mut courier = Courier::connect(&device.updater_socket(), &self.vendor.repository())?;
        wait_for("the running slot's map", LIMIT, || {
            std::thread::sleep(Duration::from_millis(200));
            let mapped = courier.events().ok()?.into_iter().filter(|kind| kind == "slot.mapped").count();
            (mapped == 2).then_some(())
        })?;
        let mapping_seconds = begun.elapsed().as_secs_f64();
        wait_for("the first refresh", LIMIT, || {
            device.vigil(&["status"]).ok()?["trust"]["refreshed_at"].is_number().then_some(())
        })?;
        let refreshing = self.vendor.files.take_served().len() as u64;
        let refresh_bytes = self.vendor.files.take_wire_bytes();
        let release = target_name(self.product, case.version());
        let response =
            courier.ask(&Request::Install { envelope: None, release: Some(release), reinstall: false })?;
        ensure!(!matches!(response, Response::Refused { .. }), "refused: {response:?}");
        let mut plan = None;
        let status = wait_for("the release to be staged", LIMIT, || {
            let status = courier.status().ok()?;
            plan = status.plan.clone().or(plan.take());
            let is_over = matches!(status.state, State::Staged | State::Activating | State::Rebooting);
            (is_over || status.state == State::Failed).then_some(status)
        })?;
        let ended = Instant::now();
        ensure!(status.state != State::Failed, "{status:?}");
        let served = self.vendor.files.take_served();
        let first = served.first().context("nothing was fetched")?;
        let installed = Installed {
            case,
            wire_bytes: refresh_bytes + self.vendor.files.take_wire_bytes(),
            refresh_bytes,
            requests: served.len() as u64 + refreshing,
            plan: plan.context("the updater tells no plan")?,
            seconds: ended.saturating_duration_since(first.at).as_secs_f64(),
            mapping_seconds,
            updaterd_kib: device.daemon(Daemon::Updaterd)?.peak_kib()?,
            vigild_kib: device.daemon(Daemon::Vigild)?.peak_kib()?,
        };
        let wanted = if case == Case::Identical { self.old } else { self.new };
        let length = wanted.metadata()?.len();
        ensure!(
            image::sha256(&device.part("B", PART), length)? == image::sha256(wanted, length)?,
            "the slot does not hold the image"
        );
        device.power_off();
        std::fs::remove_dir_all(&path)?;
        Ok(installed)
    }
}
