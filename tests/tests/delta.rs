//! Releases of format 2 on a whole device: what is fetched, what becomes of it when the running slot is not what it was, and
//! when the link breaks.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::Value;
use vigil_tests::courier::Courier;
use vigil_tests::files::Fault;
use vigil_tests::image::{self, SOUND};
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::wait_for;

/// Of the image that a room's device leaves the factory with.
const FACTORY_BYTES: u64 = 1 << 20;
const IMAGE_BYTES: u64 = 6 << 20;

/// A room whose device runs release 2.0.0 in slot B, installed as format 2.
struct Updated {
    room: Room,
}

impl Updated {
    /// As the device leaves the factory: its image is shorter than the slot.
    fn from_factory() -> anyhow::Result<Self> {
        let mut room = Room::alone("")?;
        room.device.power_on()?;
        room.wait("the first refresh", |status| status["trust"]["refreshed_at"].is_number().then_some(()))?;
        Ok(Self { room })
    }

    fn new() -> anyhow::Result<Self> {
        let mut updated = Self::from_factory()?;
        updated.publish("2.0.0", 2, IMAGE_BYTES, "1")?;
        updated.install("2.0.0")?;
        Ok(updated)
    }

    fn image(&self, version: &str) -> PathBuf {
        self.room.directory.path().join(format!("{version}.img"))
    }

    /// Publishes a release; gives back its image's part of the manifest.
    fn publish(&self, version: &str, sequence: u64, bytes: u64, patches: &str) -> anyhow::Result<Value> {
        let path = self.image(version);
        image::build(&path, version, SOUND, bytes)?;
        let more = ["--format", "2", "--patches", patches];
        let added = self.room.vendor.release_with(version, sequence, &path, "automatic", &more)?;
        Ok(added["manifest"]["images"][0].clone())
    }

    /// Installs a release, and sees that the slot holds its image to the byte.
    fn install(&mut self, version: &str) -> anyhow::Result<()> {
        self.room.vendor.files.take_served();
        let mut courier =
            Courier::connect(&self.room.device.updater_socket(), &self.room.vendor.repository())?;
        let refusal = courier.install_by_policy(version)?;
        ensure!(refusal.is_empty(), "refused: {refusal}");
        drop(courier);
        wait_for("the install to begin", LIMIT, || {
            let update = self.room.device.vigil(&["update"]).ok()?;
            (update["target"]["version"] == version).then_some(())
        })?;
        let update =
            self.room.device.run_until(&["confirmed", "rolled_back", "failed"], 2 * LIMIT, |_| ())?;
        ensure!(update["state"] == "confirmed", "{update}");
        let slot = update["running_slot"].as_str().context("no slot runs")?;
        let size = self.image(version).metadata()?.len();
        let same =
            image::sha256(&self.room.device.slot(slot), size)? == image::sha256(&self.image(version), size)?;
        ensure!(same, "slot {slot} is not release {version}");
        Ok(())
    }

    /// Bytes that were served of a part since the last install began.
    fn served(&self, part: &Value) -> u64 {
        let sha256 = part["sha256"].as_str().unwrap_or_default();
        let served = self.room.vendor.files.take_served().into_iter();
        served.filter(|served| served.path.contains(sha256)).map(|served| served.bytes).sum()
    }

    fn events(&self) -> anyhow::Result<Vec<String>> {
        Courier::connect(&self.room.device.updater_socket(), &self.room.vendor.repository())?.events()
    }
}

fn size(part: &Value) -> u64 {
    part["size"].as_u64().unwrap_or_default()
}

#[test]
fn only_what_the_running_slot_lacks_is_fetched() -> anyhow::Result<()> {
    let mut updated = Updated::new()?;
    let image = updated.publish("3.0.0", 3, IMAGE_BYTES + (1 << 20), "0")?;
    updated.install("3.0.0")?;
    let (bytes, all) = (updated.served(&image["frames"]), size(&image["frames"]));
    ensure!(bytes > 0 && bytes * 3 < all, "{bytes} of {all} bytes were fetched");
    ensure!(updated.events()?.contains(&"install.planned".to_owned()), "nobody was told of a plan");
    Ok(())
}

#[test]
fn with_a_patch_from_the_running_release_less_is_fetched_than_without() -> anyhow::Result<()> {
    let mut updated = Updated::new()?;
    let image = updated.publish("3.0.0", 3, IMAGE_BYTES + (1 << 20), "1")?;
    let patch = &image["patches"][0];
    ensure!(size(&patch["frames"]) > 0, "there is no patch: {image}");
    updated.install("3.0.0")?;
    ensure!(updated.served(&patch["frames"]) > 0, "the patch was not used");
    Ok(())
}

#[test]
fn a_patch_starts_from_what_the_factory_wrote() -> anyhow::Result<()> {
    let mut updated = Updated::from_factory()?;
    updated.publish("1.0.0", 1, FACTORY_BYTES, "0")?;
    let image = updated.publish("2.0.0", 2, IMAGE_BYTES, "1")?;
    let patch = &image["patches"][0];
    ensure!(size(&patch["frames"]) > 0, "there is no patch: {image}");
    updated.install("2.0.0")?;
    ensure!(updated.served(&patch["frames"]) > 0, "the patch was not used");
    Ok(())
}

#[test]
fn what_has_changed_in_the_running_slot_is_fetched_instead() -> anyhow::Result<()> {
    for patches in ["0", "1"] {
        let mut updated = Updated::new()?;
        // Behind the files of ours: the device runs on.
        let slot = std::fs::File::options().write(true).open(updated.room.device.slot("B"))?;
        for block in (200..1400).step_by(5) {
            slot.write_all_at(&[0x5a; 100], block * 4096)?;
        }
        updated.publish("3.0.0", 3, IMAGE_BYTES + (1 << 20), patches)?;
        updated.install("3.0.0")?;
        ensure!(updated.events()?.contains(&"install.rerouted".to_owned()), "nothing was noticed");
    }
    Ok(())
}

#[test]
fn an_install_goes_on_where_a_link_broke() -> anyhow::Result<()> {
    let mut updated = Updated::new()?;
    let image = updated.publish("3.0.0", 3, IMAGE_BYTES + (3 << 20), "0")?;
    let frames = image["frames"]["sha256"].as_str().context("no frames")?.to_owned();
    updated.room.vendor.files.misbehave(&frames, Fault::Break);
    updated.install("3.0.0")?;
    Ok(())
}
