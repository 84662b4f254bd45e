//! Mirrors and links as they are: a proxy that ignores ranges, one that refuses them, a link that breaks, a process
//! that is killed. What was written is not fetched again.

use anyhow::{Context, ensure};
use serde_json::Value;
use vigil_tests::courier::Courier;
use vigil_tests::device::Daemon;
use vigil_tests::files::{Fault, FileServer};
use vigil_tests::image::{self, SOUND};
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::{free_port, wait_for};

const VERSION: &str = "2.0.0";
/// An image of so many frames.
const FRAMES: u64 = 8;
const FRAME_BYTES: u64 = 1 << 20;

/// A room with a release of format 1 in the repository, and the path of its frames.
fn room() -> anyhow::Result<(Room, String)> {
    room_with("1")
}

/// The same of either format.
fn room_with(format: &str) -> anyhow::Result<(Room, String)> {
    let mut room = Room::alone("")?;
    let frames = release(&room, format)?;
    room.device.power_on()?;
    room.wait("the first refresh", |status| status["trust"]["refreshed_at"].is_number().then_some(()))?;
    Ok((room, frames))
}

/// Publishes the release; gives back the path of its frames.
fn release(room: &Room, format: &str) -> anyhow::Result<String> {
    let path = room.directory.path().join("2.0.0.img");
    image::build(&path, VERSION, SOUND, FRAMES * FRAME_BYTES)?;
    let added = room.vendor.release_with(VERSION, 2, &path, "automatic", &["--format", format])?;
    let frames = added["manifest"]["images"][0]["frames"]["sha256"].as_str();
    Ok(frames.context("the release has no frames")?.to_owned())
}

fn order(room: &Room) -> anyhow::Result<()> {
    let mut courier = Courier::connect(&room.device.updater_socket(), &room.vendor.repository())?;
    let refusal = courier.install_by_policy(VERSION)?;
    ensure!(refusal.is_empty(), "refused: {refusal}");
    Ok(())
}

fn end(room: &mut Room) -> anyhow::Result<Value> {
    room.device.run_until(&["confirmed", "rolled_back", "failed"], 2 * LIMIT, |_| ())
}

/// Bytes of the frames that were served since the last call, and how many there are.
fn served(room: &Room, frames: &str) -> anyhow::Result<(u64, u64)> {
    let all = room.vendor.repository().join("blobs").join(frames).metadata()?.len();
    let served = room.vendor.files.take_served().into_iter().filter(|served| served.path.contains(frames));
    Ok((served.map(|served| served.bytes).sum(), all))
}

#[test]
fn behind_a_proxy_that_ignores_ranges_a_release_is_installed() -> anyhow::Result<()> {
    for format in ["1", "2"] {
        let (mut room, frames) = room_with(format)?;
        room.vendor.files.misbehave(&frames, Fault::IgnoreRange);
        order(&room)?;
        let update = end(&mut room)?;
        ensure!(update["state"] == "confirmed", "format {format}: {update}");
    }
    Ok(())
}

#[test]
fn a_proxy_that_refuses_ranges_ends_the_install_with_its_cause() -> anyhow::Result<()> {
    for format in ["1", "2"] {
        let (mut room, frames) = room_with(format)?;
        room.vendor.files.misbehave(&frames, Fault::NotSatisfiable);
        order(&room)?;
        let update = end(&mut room)?;
        ensure!(update["state"] == "failed" && update["last_failure"]["cause"] == "fetch_range", "{update}");
        let message = update["last_failure"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("416"), "format {format}: {update}");
    }
    Ok(())
}

#[test]
fn a_link_that_breaks_costs_at_most_one_frame() -> anyhow::Result<()> {
    let (mut room, frames) = room()?;
    room.vendor.files.misbehave(&frames, Fault::Break);
    order(&room)?;
    let update = end(&mut room)?;
    ensure!(update["state"] == "confirmed", "{update}");
    let (bytes, all) = served(&room, &frames)?;
    ensure!(bytes > all && bytes <= all + FRAME_BYTES, "{bytes} bytes were fetched for {all}");
    Ok(())
}

#[test]
fn an_updater_that_is_killed_in_the_middle_goes_on_where_it_was() -> anyhow::Result<()> {
    let (mut room, frames) = room()?;
    // Half of it comes, and then for a while nothing.
    room.vendor.files.misbehave(&frames, Fault::Break);
    order(&room)?;
    wait_for("half of the frames", LIMIT, || {
        let update = room.device.vigil(&["update"]).ok()?;
        let done = update["progress"]["done_bytes"].as_u64()?;
        (update["state"] == "writing" && done >= 2 * FRAME_BYTES).then_some(())
    })
    .or_else(|_| {
        // It went through before anybody looked.
        room.device.vigil(&["update"]).map(drop)
    })?;
    room.device.daemon(Daemon::Updaterd)?.kill();
    room.device.start_updaterd()?;
    let update = end(&mut room)?;
    ensure!(update["state"] == "confirmed", "{update}");
    let (bytes, all) = served(&room, &frames)?;
    ensure!(bytes <= all + 2 * FRAME_BYTES, "{bytes} bytes were fetched for {all}");
    Ok(())
}

#[test]
fn a_mirror_that_fails_in_the_middle_is_left_for_the_next() -> anyhow::Result<()> {
    for fault in [Fault::Break, Fault::Missing, Fault::Garbage, Fault::Unavailable] {
        let directory = tempfile::tempdir()?;
        let mirror = FileServer::start(directory.path().join("repo"))?;
        let mut room = Room::elsewhere(|options| options.mirrors = vec![mirror.url()])?;
        std::os::unix::fs::symlink(room.vendor.repository(), directory.path().join("repo"))?;
        let frames = release(&room, "2")?;
        room.device.power_on()?;
        room.wait("the first refresh", |status| status["trust"]["refreshed_at"].is_number().then_some(()))?;
        ensure!(room.vendor.files.take_served().is_empty(), "the first one works, and another was asked");
        mirror.misbehave(&frames, fault.clone());
        order(&room)?;
        let update = end(&mut room)?;
        ensure!(update["state"] == "confirmed", "{fault:?}: {update}");
        // After one break the first goes on as well as the next would.
        let (bytes, all) = served(&room, &frames)?;
        let went_on = fault == Fault::Break || bytes > 0;
        ensure!(went_on && bytes <= all, "{fault:?}: {bytes} of {all} bytes came from the next");
    }
    Ok(())
}

#[test]
fn with_a_dead_mirror_first_a_release_is_installed() -> anyhow::Result<()> {
    let dead = format!("http://127.0.0.1:{}/", free_port()?);
    let mut room = Room::elsewhere(|options| options.mirrors = vec![dead])?;
    release(&room, "2")?;
    room.device.power_on()?;
    room.wait("the first refresh", |status| status["trust"]["refreshed_at"].is_number().then_some(()))?;
    order(&room)?;
    let update = end(&mut room)?;
    ensure!(update["state"] == "confirmed", "{update}");
    Ok(())
}
