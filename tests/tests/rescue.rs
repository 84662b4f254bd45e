//! A technician at the device: installs from a directory when vigild is dead, takes an install in hand, and a peripheral
//! whose firmware comes with the release.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::ensure;
use vigil_tests::device::{Device, Options};
use vigil_tests::image::{self, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::room::LIMIT;
use vigil_tests::vendor::{PRODUCT, Vendor};
use vigil_tests::{binaries, free_port, wait_for};

struct Site {
    directory: tempfile::TempDir,
    vendor: Vendor,
    device: Device,
}

impl Site {
    /// A device whose vigild is somebody else than root, so that root is a person at the device.
    fn new(updater: &str, updater_more: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let vendor = Vendor::new(&directory.path().join("vendor"))?;
        let pki = Pki::new(&directory.path().join("pki"))?;
        let factory = directory.path().join("1.0.0.img");
        image::build(&factory, "1.0.0", SOUND, 1 << 20)?;
        let mut options = Options::new("room-1", free_port()?, &pki);
        options.slot_bytes = 16 << 20;
        updater.clone_into(&mut options.updater);
        options.updater_more = updater_more.replace("DIRECTORY", &directory.path().to_string_lossy());
        let device = Device::new(&directory.path().join("device"), options, &vendor, &pki, &factory)?;
        Ok(Self { directory, vendor, device })
    }

    /// A release with an image, and what more it brings.
    fn release(
        &self,
        version: &str,
        sequence: u64,
        bytes: u64,
        more: &[(&str, &[u8])],
    ) -> anyhow::Result<()> {
        let path = self.directory.path().join(format!("{version}.img"));
        image::build(&path, version, SOUND, bytes)?;
        let mut images = vec![format!("rootfs={}", path.display())];
        for (name, content) in more {
            let path = self.directory.path().join(format!("{version}-{name}"));
            std::fs::write(&path, content)?;
            images.push(format!("{name}={}", path.display()));
        }
        let sequence = sequence.to_string();
        let mut arguments =
            vec!["release", "add", "--product", PRODUCT, "--version", version, "--level", "1"];
        arguments.extend(["--sequence", &sequence, "--hardware", "r1"]);
        arguments.extend(images.iter().flat_map(|image| ["--image", image]));
        self.vendor.publish(&arguments).map(drop)
    }

    fn vigil(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(binaries()?.join("vigil"));
        command.arg("--updater").arg(self.device.updater_socket()).args(arguments);
        Ok(command.output()?)
    }

    /// Power comes, and vigild does not start.
    fn start(&mut self) -> anyhow::Result<()> {
        self.device.power_on_without_agent()?;
        let socket = self.device.updater_socket();
        wait_for("vigil-updaterd's socket", LIMIT, || UnixStream::connect(&socket).ok()).map(drop)
    }

    fn stick(&self) -> String {
        self.vendor.repository().to_string_lossy().into_owned()
    }

    fn state(&self) -> anyhow::Result<String> {
        let output = self.vigil(&["update", "--direct", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(status["state"].as_str().unwrap_or_default().to_owned())
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

const SOMEBODY_ELSE: &str = "courier = \"65534\"\n";

#[test]
fn with_vigild_dead_a_release_is_installed_from_a_stick_and_confirmed_when_vigild_is_back()
-> anyhow::Result<()> {
    let mut site = Site::new(SOMEBODY_ELSE, "")?;
    site.release("2.0.0", 2, 2 << 20, &[])?;
    site.start()?;
    let output = site.vigil(&["install", "--from", &site.stick()])?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("writing"), "no progress is shown: {}", said(&output));
    ensure!(site.device.restart_if_asked()?.as_deref() == Some("B"));
    let status = site.device.run_until(&["confirmed", "rolled_back"], LIMIT, |_| ())?;
    ensure!(status["state"] == "confirmed" && status["floor"] == 2, "{status}");

    // Root knows that the proven time is wrong; what is signed proves it anew.
    let floor =
        || std::fs::read_to_string(site.device.disk.join("updater/trust/time_floor")).unwrap_or_default();
    wait_for("a proven time", LIMIT, || floor().starts_with("20").then_some(()))?;
    let output = site.vigil(&["update", "forget-time"])?;
    ensure!(output.status.success() && floor().starts_with("1970"), "{} {}", floor(), said(&output));
    Ok(())
}

#[test]
fn a_stick_that_is_not_the_vendors_or_holds_an_old_release_installs_nothing() -> anyhow::Result<()> {
    let mut site = Site::new(SOMEBODY_ELSE, "")?;
    site.release("2.0.0", 2, 1 << 20, &[])?;
    site.start()?;
    let before = std::fs::read(site.device.slot("B"))?;
    let nothing = site.vigil(&["install", "--from", "/nonexistent"])?;
    ensure!(nothing.status.code() == Some(1) && said(&nothing).contains("metadata/"), "{}", said(&nothing));

    let other = Vendor::new(&site.directory.path().join("other"))?;
    let image = site.directory.path().join("2.0.0.img");
    other.release("9.0.0", 9, &image, "automatic")?;
    let output = site.vigil(&["install", "--from", &other.repository().to_string_lossy()])?;
    ensure!(output.status.code() == Some(5) && said(&output).contains("fetch_failed"), "{}", said(&output));
    ensure!(std::fs::read(site.device.slot("B"))? == before, "slot B was touched");
    Ok(())
}

#[test]
fn where_vigild_is_root_root_has_no_more_authority_than_vigild() -> anyhow::Result<()> {
    let mut site = Site::new("", "")?;
    site.release("2.0.0", 2, 1 << 20, &[])?;
    site.start()?;
    let output = site.vigil(&["install", "--from", &site.stick()])?;
    ensure!(output.status.code() == Some(4), "{}", said(&output));
    let output = site.vigil(&["update", "cancel"])?;
    ensure!(output.status.code() == Some(4) && said(&output).contains("signed command"), "{}", said(&output));
    Ok(())
}

#[test]
fn an_install_is_paused_resumed_and_cancelled_by_hand_and_the_next_one_succeeds() -> anyhow::Result<()> {
    let mut site = Site::new(SOMEBODY_ELSE, "")?;
    site.release("2.0.0", 2, 2 << 20, &[])?;
    site.start()?;
    let nothing = site.vigil(&["update", "pause"])?;
    ensure!(nothing.status.code() == Some(1) && said(&nothing).contains("no install"), "{}", said(&nothing));
    let mut install = Command::new(binaries()?.join("vigil"))
        .arg("--updater")
        .arg(site.device.updater_socket())
        .args(["install", "--from", "/proc/1/root/nonexistent", "--release", "2.0.0"])
        .stderr(std::process::Stdio::null())
        .spawn()?;
    wait_for("the install to begin", LIMIT, || (site.state().ok()? == "checking").then_some(()))?;
    let paused = site.vigil(&["update", "pause"])?;
    ensure!(paused.status.success(), "{}", said(&paused));
    ensure!(said(&site.vigil(&["update", "resume"])?).contains("checking"));
    ensure!(site.vigil(&["update", "cancel"])?.status.success());
    ensure!(site.state()? == "failed");
    install.wait()?;
    let output = site.vigil(&["install", "--from", &site.stick()])?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(())
}

/// What takes the camera's firmware: it writes it where it may, and tries to write where it may not.
const HOOK: &str = "[[hooks]]\nimage = \"camera\"\nmax_bytes = 100000\nuser = \"nobody\"\nwrites = [\"DIRECTORY/camera\"]\n\
    command = [\"/bin/sh\", \"-c\", \"cat > DIRECTORY/camera/firmware; echo x > DIRECTORY/open/escaped; \
    { id -u; id -G; ls /proc/self/fd; chmod 777 DIRECTORY/camera-mode; echo $?; } > DIRECTORY/camera/seen 2>/dev/null; \
    grep -q sound DIRECTORY/camera/firmware || { echo no such firmware >&2; exit 1; }\"]\n";

#[test]
fn a_peripherals_firmware_comes_and_goes_with_the_release_and_its_hook_writes_only_where_it_may()
-> anyhow::Result<()> {
    let mut site = Site::new(SOMEBODY_ELSE, HOOK)?;
    let camera = site.directory.path().join("camera");
    // The hook's user may go there by the modes of the files, and may write by its sandbox in one of them alone.
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o777));
    std::fs::set_permissions(site.directory.path(), PermissionsExt::from_mode(0o755))?;
    for path in [&camera, &site.directory.path().join("open")] {
        std::fs::create_dir(path)?;
        open(path)?;
    }
    let mode = site.directory.path().join("camera-mode");
    std::fs::write(&mode, "")?;
    site.release("2.0.0", 2, 1 << 20, &[("camera", b"sound firmware, 2.0.0")])?;
    site.release("3.0.0", 3, 1 << 20, &[("camera", b"broken firmware, 3.0.0")])?;
    let firmware = || -> PathBuf { camera.join("firmware") };
    site.start()?;
    for (version, ends) in [("2.0.0", "confirmed"), ("3.0.0", "rolled_back")] {
        let output = site.vigil(&["install", "--from", &site.stick(), "--release", version])?;
        ensure!(output.status.success(), "{}", said(&output));
        site.device.power_off();
        site.device.power_on()?;
        let status = site.device.run_until(&["confirmed", "rolled_back"], LIMIT, |_| ())?;
        ensure!(status["state"] == ends, "{status}");
        if ends == "rolled_back" {
            ensure!(status["last_failure"]["message"] == "camera: its hook failed", "{status}");
        }
        wait_for("the firmware of 2.0.0", LIMIT, || {
            (std::fs::read(firmware()).ok()? == b"sound firmware, 2.0.0").then_some(())
        })?;
        site.device.power_off();
        site.start()?;
    }
    ensure!(!site.directory.path().join("open/escaped").exists(), "the hook wrote outside of its sandbox");
    let seen = std::fs::read_to_string(camera.join("seen"))?;
    let seen: Vec<_> = seen.lines().collect();
    // Its user, its one group, its three descriptors and the one with which they are listed; and it changes no mode.
    ensure!(seen[..2] == ["65534", "65534"] && seen[2..seen.len() - 1] == ["0", "1", "2", "3"], "{seen:?}");
    ensure!(seen.last() != Some(&"0"), "the hook changed the mode of a file that is not its own");
    Ok(())
}
