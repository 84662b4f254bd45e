//! Releases of format 2 on a whole device: what is fetched, what becomes of it when the running slot is not what it was, and
//! when the link breaks; and that the device tells truly what it cost.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::Value;
use vigil_tests::courier::Courier;
use vigil_tests::device::Daemon;
use vigil_tests::files::Fault;
use vigil_tests::image::{self, SOUND};
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::wait_for;
use vigil_updater::release::{Index, Leaf};

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
    fn install(&mut self, version: &str) -> anyhow::Result<Value> {
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
        Ok(update)
    }

    /// What went into connections since the last install began.
    fn sent(&self, frames: &str) -> Sent {
        let served = self.room.vendor.files.take_served();
        let blobs = || served.iter().filter(|served| served.path.starts_with("blobs/"));
        let of_frames = blobs().filter(|served| served.path.contains(frames));
        Sent {
            bytes: blobs().map(|served| served.bytes).sum(),
            of_frames: of_frames.map(|served| served.bytes).sum(),
            requests: blobs().filter(|served| served.bytes > 0).count() as u64,
        }
    }

    /// The compressed bytes of an image's largest frame.
    fn largest_frame(&self, image: &Value) -> anyhow::Result<u64> {
        let blob = |part: &str| {
            let sha256 = image[part]["sha256"].as_str().unwrap_or_default();
            std::fs::read(self.room.vendor.repository().join("blobs").join(sha256))
        };
        let index = Index::parse(&blob("index")?)?;
        let (leaves, chunking) = (blob("leaves")?, index.chunking().context("the image is not chunked")?);
        let mut largest = 0;
        for unit in index.units() {
            let begin = unit.leaf_offset as usize;
            let leaf = Leaf::parse(&leaves[begin..begin + unit.leaf_length as usize], unit, chunking)?;
            largest = leaf.frames.iter().map(|frame| u64::from(frame.compressed)).fold(largest, u64::max);
        }
        Ok(largest)
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

/// Blobs that were sent.
struct Sent {
    bytes: u64,
    /// Of these, bytes of frames.
    of_frames: u64,
    /// Answers that brought anything.
    requests: u64,
}

/// A generator of SplitMix64's: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % limit
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
fn a_patch_that_was_pruned_is_done_without_and_the_device_says_so() -> anyhow::Result<()> {
    let mut updated = Updated::new()?;
    for (version, sequence, pruned) in [("3.0.0", 3, "index"), ("4.0.0", 4, "frames")] {
        let image = updated.publish(version, sequence, IMAGE_BYTES + (sequence << 20), "1")?;
        let sha256 = image["patches"][0][pruned]["sha256"].as_str().context("there is no patch")?;
        std::fs::remove_file(updated.room.vendor.repository().join("blobs").join(sha256))?;
        updated.install(version)?;
        ensure!(updated.served(&image["frames"]) > 0, "{version}: no frames were fetched");
        let events = updated.events()?;
        let missing = events.iter().filter(|event| *event == "patch.missing").count() as u64;
        ensure!(missing == sequence - 2, "{version}: {events:?}");
    }
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
fn the_outcome_is_the_plan_and_what_the_server_sent() -> anyhow::Result<()> {
    for patches in ["0", "1"] {
        let mut updated = Updated::new()?;
        let image = updated.publish("3.0.0", 3, IMAGE_BYTES + (3 << 20), patches)?;
        let update = updated.install("3.0.0")?;
        let frames = image["frames"]["sha256"].as_str().context("no frames")?.to_owned();
        let sent = updated.sent(&frames);
        let count = |what: &str, name: &str| update[what][name].as_u64().unwrap_or_default();
        for name in ["fetch_bytes", "index_bytes", "metadata_bytes", "requests"] {
            let (planned, spent) = (count("plan", name), count("outcome", name));
            ensure!(
                planned > 0 && spent * 50 >= planned * 49 && spent * 50 <= planned * 51,
                "{name}: {update}"
            );
        }
        let counted = count("outcome", "fetch_bytes") + count("outcome", "index_bytes");
        let sent = sent.bytes + 300 * sent.requests;
        ensure!(counted == sent, "the server sent {sent} bytes, and {counted} were counted: {update}");
        let sources = ["present", "running", "target", "free", "frame", "patch"];
        let made: u64 = sources.iter().map(|source| count("outcome", &format!("{source}_bytes"))).sum();
        ensure!(made == size(&image), "{made} bytes have a source: {update}");
        ensure!(count("outcome", "write_bytes") <= count("plan", "write_bytes"), "{update}");
        // The install before this one was the first: it had no rate to go by.
        ensure!(update["plan"]["fetch_seconds"].is_u64(), "{update}");
        ensure!(updated.events()?.contains(&"install.spent".to_owned()), "nobody was told what it cost");
    }
    Ok(())
}

#[test]
fn ten_broken_links_cost_at_most_a_frame_each() -> anyhow::Result<()> {
    const BREAKS: u64 = 10;
    let seed = std::env::var("VIGIL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_726);
    eprintln!("seed {seed}");
    let mut updated = Updated::new()?;
    let image = updated.publish("3.0.0", 3, IMAGE_BYTES + (3 << 20), "0")?;
    // What it takes without a broken link, of indexes, leaves and frames together.
    let frames = image["frames"]["sha256"].as_str().context("no frames")?.to_owned();
    updated.install("3.0.0")?;
    let whole = updated.sent(&frames).bytes;
    // Once more, on another device of the same kind.
    let mut updated = Updated::new()?;
    let again = updated.publish("3.0.0", 3, IMAGE_BYTES + (3 << 20), "0")?;
    ensure!(again == image, "the same files make another release");
    let mut random = Random(seed);
    let mut places: Vec<u64> = (0..BREAKS).map(|_| random.below(whole)).collect();
    places.sort_unstable();
    let mut before = 0;
    for place in places {
        updated.room.vendor.files.misbehave("blobs/", Fault::BreakAfter(place - before));
        before = place;
    }
    let update = updated.install("3.0.0")?;
    let left = updated.room.vendor.files.faults();
    ensure!(left == 0, "{left} of the breaks did not happen");
    let Sent { bytes, requests, .. } = updated.sent(&frames);
    let sent = bytes + 300 * requests;
    let largest = updated.largest_frame(&image)?;
    let count = |what: &str, name: &str| update[what][name].as_u64().unwrap_or_default();
    let plan = count("plan", "fetch_bytes") + count("plan", "index_bytes");
    eprintln!("{sent} bytes sent, {plan} planned, {largest} the largest frame");
    ensure!(sent <= plan + BREAKS * largest, "{sent} bytes for {plan}, largest frame {largest}: {update}");
    let counted = count("outcome", "fetch_bytes") + count("outcome", "index_bytes");
    ensure!(counted == sent, "the server sent {sent} bytes, and {counted} were counted: {update}");
    Ok(())
}

#[test]
fn the_count_goes_on_where_an_updater_was_killed() -> anyhow::Result<()> {
    let mut updated = Updated::new()?;
    let image = updated.publish("3.0.0", 3, IMAGE_BYTES + (3 << 20), "0")?;
    let frames = image["frames"]["sha256"].as_str().context("no frames")?.to_owned();
    updated.room.vendor.files.misbehave(&frames, Fault::BreakAfter(100_000));
    let socket = updated.room.device.updater_socket();
    updated.room.vendor.files.take_served();
    let mut courier = Courier::connect(&socket, &updated.room.vendor.repository())?;
    ensure!(courier.install_by_policy("3.0.0")?.is_empty());
    let told = wait_for("the link to break", LIMIT, || {
        let outcome = courier.status().ok()?.outcome?;
        (updated.room.vendor.files.faults() == 0 && outcome.requests > 0).then_some(outcome)
    })?;
    drop(courier);
    updated.room.device.daemon(Daemon::Updaterd)?.kill();
    updated.room.device.start_updaterd()?;
    let taken_up = Courier::connect(&socket, &updated.room.vendor.repository())?.status()?;
    let outcome = taken_up.outcome.context("the count is lost")?;
    ensure!(outcome.fetch_bytes >= told.fetch_bytes, "{told:?} before the kill, {outcome:?} after");
    ensure!(taken_up.plan.is_some(), "the plan is lost");
    let update = updated.room.device.run_until(&["confirmed", "rolled_back", "failed"], 2 * LIMIT, |_| ())?;
    ensure!(update["state"] == "confirmed", "{update}");
    let sent = updated.sent(&frames).of_frames;
    let count = |name: &str| update["outcome"][name].as_u64().unwrap_or_default();
    let counted = count("fetch_bytes") - 300 * count("requests");
    // What was on its way to the updater when it died has nobody to count it.
    ensure!(counted <= sent && sent - counted <= 1 << 20, "{sent} sent, {counted} counted: {update}");
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
