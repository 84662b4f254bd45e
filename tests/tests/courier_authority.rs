//! What vigild may and may not bring about: the test speaks vigild's side of the wire to a real vigil-updaterd, as a
//! vigild in an intruder's hands would.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use jiff::{SignedDuration, Timestamp};
use vigil_protocol::command::Target;
use vigil_protocol::envelope::{COMMAND_TYPE, Envelope};
use vigil_tests::courier::{Courier, command, honest, sign};
use vigil_tests::device::{Daemon, Device, Options};
use vigil_tests::image::{self, CAMERA_MISSING, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::vendor::{PRODUCT, Vendor};
use vigil_tests::wait_for;
use vigil_wire::{Fetch, Request, Response, State, UpdateStatus};

const DEVICE: &str = "room-1";
const LIMIT: Duration = Duration::from_secs(40);
const CHUNK: usize = 256 * 1024;
const IMAGE_BYTES: u64 = 2 << 20;

/// A device whose vigild is the test, and its vendor.
struct Room {
    directory: tempfile::TempDir,
    vendor: Vendor,
    device: Device,
}

impl Room {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let vendor = Vendor::new(&directory.path().join("vendor"))?;
        let pki = Pki::new(&directory.path().join("pki"))?;
        let factory = directory.path().join("1.0.0.img");
        image::build(&factory, "1.0.0", SOUND, IMAGE_BYTES)?;
        let mut options = Options::new(DEVICE, 1, &pki);
        options.slot_bytes = 16 << 20;
        let mut device = Device::new(&directory.path().join("device"), options, &vendor, &pki, &factory)?;
        ensure!(device.power_on_without_agent()? == "A");
        Ok(Self { directory, vendor, device })
    }

    fn release(&self, version: &str, sequence: u64, self_test: &str, policy: &str) -> anyhow::Result<()> {
        let path = self.directory.path().join(format!("{version}.img"));
        image::build(&path, version, self_test, IMAGE_BYTES)?;
        self.vendor.release(version, sequence, &path, policy).map(drop)
    }

    fn courier(&self) -> anyhow::Result<Courier> {
        Courier::connect(&self.device.updater_socket(), &self.vendor.repository())
    }

    fn operator(&self) -> anyhow::Result<SigningKey> {
        Ok(SigningKey::from_pkcs8_pem(&std::fs::read_to_string(self.vendor.operator_key())?)?)
    }

    /// Restarts into what the boot order says, as the updater asked for.
    fn restart(&mut self) -> anyhow::Result<String> {
        let asked = self.device.disk.join("run/reboot");
        wait_for("the updater to ask for a restart", LIMIT, || asked.exists().then_some(()))?;
        self.device.power_off();
        self.device.power_on_without_agent()
    }

    fn slot_b(&self) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.device.slot("B"))?)
    }

    fn next_boot(&self) -> anyhow::Result<String> {
        use vigil_updater::boot::{BootControl, FileBoot};
        FileBoot::new(&self.device.disk.join("boot"))
            .read()?
            .order
            .select()
            .context("the boot order is empty")
    }
}

fn cause(status: &UpdateStatus) -> &str {
    status.last_failure.as_ref().map_or("", |failure| &failure.cause)
}

#[test]
fn without_an_envelope_a_release_that_waits_for_an_operator_is_not_installed() -> anyhow::Result<()> {
    let room = Room::new()?;
    room.release("2.0.0", 2, SOUND, "operator")?;
    let before = room.slot_b()?;
    let mut courier = room.courier()?;
    courier.install_by_policy("2.0.0")?;
    let status = courier.carry_until(&[State::Failed, State::Staged, State::Rebooting], &mut honest)?;
    assert_eq!((status.state, cause(&status)), (State::Failed, "not_authorized"));
    assert!(room.slot_b()? == before, "slot B was touched");
    assert_eq!(room.next_boot()?, "A");
    Ok(())
}

#[test]
fn without_an_envelope_a_release_whose_signed_policy_is_automatic_is_installed() -> anyhow::Result<()> {
    let mut room = Room::new()?;
    room.release("2.0.0", 2, SOUND, "automatic")?;
    let mut courier = room.courier()?;
    assert_eq!(courier.install_by_policy("2.0.0")?, "");
    courier.carry_until(&[State::Rebooting], &mut honest)?;
    assert_eq!(room.restart()?, "B");
    let status = room.courier()?.praise_until(&[State::Confirmed, State::RolledBack])?;
    assert_eq!((status.state, status.floor), (State::Confirmed, 2), "{status:?}");
    Ok(())
}

#[test]
fn a_release_of_another_product_is_refused_by_name() -> anyhow::Result<()> {
    let room = Room::new()?;
    let mut courier = room.courier()?;
    for name in ["releases/other-bar/2.0.0.json", "operators/acme.json", "releases/demo-bar-2/1.0.0.json", ""]
    {
        let request = Request::Install { envelope: None, release: Some(name.to_owned()), reinstall: false };
        assert_eq!(Courier::code(&courier.ask(&request)?), "bad_argument", "{name}");
    }
    assert_eq!(courier.status()?.state, State::Idle);
    Ok(())
}

#[test]
fn an_envelope_that_is_not_an_operators_own_fresh_order_for_this_device_is_refused() -> anyhow::Result<()> {
    let room = Room::new()?;
    room.release("2.0.0", 2, SOUND, "operator")?;
    let before = room.slot_b()?;
    let mut courier = room.courier()?;
    let olga = room.operator()?;
    assert_eq!(courier.install(&sign(&command(DEVICE, "early", "2.0.0"), &olga)?)?, "no_operators");
    courier.refresh()?;

    let stranger = SigningKey::from_bytes(&[7; 32]);
    assert_eq!(courier.install(&sign(&command(DEVICE, "a", "2.0.0"), &stranger)?)?, "unknown_key");

    let mut expired = command(DEVICE, "b", "2.0.0");
    expired.expires = Timestamp::now() - SignedDuration::from_secs(60);
    assert_eq!(courier.install(&sign(&expired, &olga)?)?, "expired");

    let mut elsewhere = command(DEVICE, "c", "2.0.0");
    elsewhere.target = Target::Device("room-2".to_owned());
    assert_eq!(courier.install(&sign(&elsewhere, &olga)?)?, "wrong_target");

    let mut foreign = command(DEVICE, "d", "2.0.0");
    foreign.tenant = "globex".to_owned();
    assert_eq!(courier.install(&sign(&foreign, &olga)?)?, "wrong_tenant");

    let mut ping = command(DEVICE, "e", "2.0.0");
    ping.kind = "ping".to_owned();
    assert_eq!(courier.install(&sign(&ping, &olga)?)?, "unsupported");

    let mut forged =
        Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command(DEVICE, "f", "2.0.0"))?, &olga);
    let other = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command(DEVICE, "g", "2.0.0"))?, &olga);
    forged.signatures = other.signatures;
    assert_eq!(courier.install(&forged.to_json())?, "bad_signature");
    assert_eq!(courier.install("{}")?, "malformed");

    assert_eq!(courier.status()?.state, State::Idle);
    assert!(room.slot_b()? == before, "slot B was touched");
    let refusals = courier.events()?.iter().filter(|kind| *kind == "install.refused").count();
    assert_eq!(refusals, 8, "every refusal is an event");
    Ok(())
}

#[test]
fn an_envelope_is_obeyed_once() -> anyhow::Result<()> {
    let mut room = Room::new()?;
    let mut courier = room.courier()?;
    courier.refresh()?;
    let envelope = sign(&command(DEVICE, "once", "9.9.9"), &room.operator()?)?;
    assert_eq!(courier.install(&envelope)?, "");
    let status = courier.carry_until(&[State::Failed], &mut honest)?;
    assert_eq!(status.command.as_deref(), Some("once"));
    assert_eq!(courier.install(&envelope)?, "replayed");
    // Not after a power cut either.
    room.device.power_off();
    room.device.power_on_without_agent()?;
    let mut courier = room.courier()?;
    courier.refresh()?;
    assert_eq!(courier.install(&envelope)?, "replayed");
    Ok(())
}

#[test]
fn the_courier_cannot_talk_a_failing_release_past_its_deadline() -> anyhow::Result<()> {
    let mut room = Room::new()?;
    room.release("2.0.0", 2, CAMERA_MISSING, "operator")?;
    let mut courier = room.courier()?;
    courier.refresh()?;
    assert_eq!(courier.install(&sign(&command(DEVICE, "bad", "2.0.0"), &room.operator()?)?)?, "");
    courier.carry_until(&[State::Rebooting], &mut honest)?;
    assert_eq!(room.restart()?, "B");
    let mut courier = room.courier()?;
    let asked = room.device.disk.join("run/reboot");
    let until = Instant::now() + LIMIT;
    while !asked.exists() {
        assert!(Instant::now() < until, "the updater does not go back");
        let status = courier.praise()?;
        assert_eq!(status.state, State::Trial, "{status:?}");
    }
    assert_eq!(room.next_boot()?, "A");
    assert_eq!(room.restart()?, "A");
    let status = room.courier()?.praise_until(&[State::RolledBack, State::Good, State::Confirmed])?;
    assert_eq!((status.state, cause(&status)), (State::RolledBack, "gate"), "{status:?}");
    assert_eq!((status.running_slot.as_str(), status.floor), ("A", 0), "{status:?}");
    Ok(())
}

#[test]
fn a_release_below_the_floor_is_refused_whoever_signs_for_it() -> anyhow::Result<()> {
    let mut room = Room::new()?;
    room.release("2.0.0", 2, SOUND, "operator")?;
    let mut courier = room.courier()?;
    courier.refresh()?;
    assert_eq!(courier.install(&sign(&command(DEVICE, "up", "2.0.0"), &room.operator()?)?)?, "");
    courier.carry_until(&[State::Rebooting], &mut honest)?;
    assert_eq!(room.restart()?, "B");
    let status = room.courier()?.praise_until(&[State::Confirmed, State::RolledBack])?;
    assert_eq!((status.state, status.floor), (State::Confirmed, 2));

    let path = room.directory.path().join("1.5.0.img");
    image::build(&path, "1.5.0", SOUND, IMAGE_BYTES)?;
    let image = format!("rootfs={}", path.display());
    room.vendor.publish(&[
        "release",
        "add",
        "--product",
        PRODUCT,
        "--version",
        "1.5.0",
        "--sequence",
        "1",
        "--hardware",
        "r1",
        "--image",
        &image,
        "--install-policy",
        "operator",
        "--level",
        "3",
        "--allow-lower",
    ])?;
    let slot_a = std::fs::read(room.device.slot("A"))?;
    let mut courier = room.courier()?;
    courier.refresh()?;
    assert_eq!(courier.install(&sign(&command(DEVICE, "down", "1.5.0"), &room.operator()?)?)?, "");
    let status = courier.carry_until(&[State::Failed, State::Rebooting], &mut honest)?;
    assert_eq!((status.state, cause(&status)), (State::Failed, "below_floor"));
    assert!(std::fs::read(room.device.slot("A"))? == slot_a, "slot A was touched");
    assert_eq!(room.next_boot()?, "B");
    Ok(())
}

#[test]
fn what_was_not_signed_is_never_accepted_and_the_next_honest_bytes_go_on() -> anyhow::Result<()> {
    let room = Room::new()?;
    room.release("2.0.0", 2, SOUND, "automatic")?;
    let mut courier = room.courier()?;
    assert_eq!(courier.install_by_policy("2.0.0")?, "");
    let until = Instant::now() + Duration::from_secs(60);
    // Of every file the first delivery is spoilt: a bit flipped, cut short, or nonsense of the same length.
    let mut spoilt = BTreeSet::new();
    let mut deliveries = 0;
    while courier.status()?.state != State::Rebooting {
        assert!(Instant::now() < until, "{:?}", courier.status()?);
        let Response::Need(need) = courier.ask(&Request::Next)? else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let exists = room.vendor.repository().join(&need.path).exists();
        if !exists || !spoilt.insert(need.path.clone()) {
            let response = courier.bring(&need, &mut honest)?;
            assert!(!matches!(response, Response::Refused { .. }), "{}: {response:?}", need.path);
            continue;
        }
        deliveries += 1;
        let response = courier.bring(&need, &mut |_, bytes| match deliveries % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
            _ => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        })?;
        assert_eq!(Courier::code(&response), "fetch_failed", "{}: {response:?}", need.path);
    }
    // timestamp, snapshot, targets and product metadata, operators, manifest, index, frames.
    assert!(spoilt.len() >= 7, "{spoilt:?}");
    assert!(spoilt.iter().filter(|path| path.starts_with("blobs/")).count() >= 2, "{spoilt:?}");
    Ok(())
}

#[test]
fn bytes_for_another_need_or_another_place_are_refused() -> anyhow::Result<()> {
    let room = Room::new()?;
    let mut courier = room.courier()?;
    courier.ask(&Request::Refresh)?;
    let Response::Need(need) = courier.ask(&Request::Next)? else { bail!("nothing to fetch") };
    let stale =
        Request::Feed { need: need.need + 1, offset: 0, fetch: Fetch::Last, trouble: None, passed_over: 0 };
    assert_eq!(Courier::code(&courier.ask_with(&stale, b"x")?), "stale_need");
    let elsewhere =
        Request::Feed { need: need.need, offset: 5, fetch: Fetch::Last, trouble: None, passed_over: 0 };
    assert_eq!(Courier::code(&courier.ask_with(&elsewhere, b"x")?), "fetch_failed");
    courier.ask(&Request::Refresh)?;
    let Response::Need(need) = courier.ask(&Request::Next)? else { bail!("nothing to fetch") };
    let endless =
        Request::Feed { need: need.need, offset: 0, fetch: Fetch::More, trouble: None, passed_over: 0 };
    let mut sent = 0;
    loop {
        let request = Request::Feed {
            need: need.need,
            offset: sent,
            fetch: Fetch::More,
            trouble: None,
            passed_over: 0,
        };
        let response = courier.ask_with(&request, &vec![b'x'; CHUNK])?;
        sent += CHUNK as u64;
        if response != Response::Continue {
            assert_eq!(Courier::code(&response), "fetch_failed");
            break;
        }
        assert!(sent <= need.length + CHUNK as u64, "more than {} bytes were taken", need.length);
    }
    assert_eq!(Courier::code(&courier.ask_with(&endless, b"x")?), "stale_need");
    courier.refresh()
}

#[test]
fn nonsense_on_the_socket_costs_its_sender_the_connection_and_nobody_else_anything() -> anyhow::Result<()> {
    let mut room = Room::new()?;
    drop(room.courier()?);
    let socket = room.device.updater_socket();
    let connect = || -> anyhow::Result<UnixStream> {
        let stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream)
    };
    // A frame that announces 4 GiB, one that is no message, one of deep nesting.
    let mut huge = u32::MAX.to_le_bytes().to_vec();
    huge.extend(u32::MAX.to_le_bytes());
    let framed = |header: &[u8]| {
        let mut bytes = u32::try_from(header.len()).unwrap_or_default().to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(header);
        bytes
    };
    let nonsense =
        [b"GET / HTTP/1.1\r\n\r\n".to_vec(), huge, framed(b"\xff\xfe{}"), framed(&vec![b'['; 60_000])];
    for bytes in &nonsense {
        let mut stream = connect()?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let reset = end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(end.is_ok() || reset, "the connection stays open: {end:?}");
        assert_eq!(room.courier()?.status()?.running_slot, "A");
    }
    // Peers that stop in the middle of a frame are in nobody's way, nor is one that does not say hello.
    let mut stopped = connect()?;
    stopped.write_all(&framed(br#"{"request":"status"}"#)[..12])?;
    let _silent = connect()?;
    let mut rude = connect()?;
    rude.write_all(&framed(br#"{"request":"status"}"#))?;
    let mut courier = room.courier()?;
    assert_eq!(courier.status()?.running_slot, "A");
    assert!(courier.events()?.iter().any(|kind| kind == "peer.nonsense"));
    assert!(room.device.daemon(Daemon::Updaterd)?.exited().is_none());
    Ok(())
}

#[test]
fn the_updater_has_no_socket_but_local_ones_and_cannot_make_any() -> anyhow::Result<()> {
    let mut room = Room::new()?;
    assert!(room.courier()?.status()?.confined);
    let process = Path::new("/proc").join(room.device.daemon(Daemon::Updaterd)?.pid().to_string());
    let status = std::fs::read_to_string(process.join("status"))?;
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");

    let unix = inodes(&process.join("net/unix"), 6)?;
    let mut sockets = 0;
    for descriptor in std::fs::read_dir(process.join("fd"))? {
        let target = std::fs::read_link(descriptor?.path())?.display().to_string();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            assert!(unix.contains(inode), "{target} is no Unix socket");
            sockets += 1;
        }
    }
    assert!(sockets >= 1);
    Ok(())
}

fn inodes(table: &Path, column: usize) -> anyhow::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(table)?;
    Ok(text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(column).map(str::to_owned))
        .collect())
}
