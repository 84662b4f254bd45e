//! What vigild may and may not bring about: the test speaks vigild's side of the wire to a real vigil-updaterd, as a
//! vigild in an intruder's hands would.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use jiff::{SignedDuration, Timestamp};
use vigil_protocol::command::{Command, Target};
use vigil_protocol::envelope::{COMMAND_TYPE, Envelope};
use vigil_tests::device::{Daemon, Device, Options};
use vigil_tests::image::{self, CAMERA_MISSING, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::vendor::{PRODUCT, TENANT, Vendor};
use vigil_tests::wait_for;
use vigil_updater::release::target_name;
use vigil_wire::{
    Contact, Decoder, Fetch, Need, Request, Response, State, UpdateStatus, WIRE_VERSION, encode,
};

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
        let socket = self.device.updater_socket();
        let stream = wait_for("vigil-updaterd's socket", LIMIT, || UnixStream::connect(&socket).ok())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut courier =
            Courier { stream, decoder: Decoder::default(), repository: self.vendor.repository() };
        match courier.ask(&Request::Hello { version: WIRE_VERSION })? {
            Response::Hello { version: WIRE_VERSION, .. } => Ok(courier),
            other => bail!("{other:?}"),
        }
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

/// vigild's side of the wire.
struct Courier {
    stream: UnixStream,
    decoder: Decoder,
    repository: PathBuf,
}

impl Courier {
    fn ask(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.ask_with(request, &[])
    }

    fn ask_with(&mut self, request: &Request, blob: &[u8]) -> anyhow::Result<Response> {
        self.stream.write_all(&encode(request, blob)?)?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<Response> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some((response, _)) = self.decoder.take::<Response>()? {
                return Ok(response);
            }
            let wanted = self.decoder.wanted()?.min(buffer.len());
            let count = self.stream.read(&mut buffer[..wanted])?;
            ensure!(count > 0, "the updater closed the connection");
            self.decoder.push(&buffer[..count])?;
        }
    }

    fn status(&mut self) -> anyhow::Result<UpdateStatus> {
        match self.ask(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => bail!("{other:?}"),
        }
    }

    /// What the refusal's code is; empty when there was none.
    fn code(response: &Response) -> &str {
        match response {
            Response::Refused { code, .. } => code,
            _ => "",
        }
    }

    fn install(&mut self, envelope: &str) -> anyhow::Result<String> {
        let request = Request::Install { envelope: Some(envelope.to_owned()), release: None };
        Ok(Self::code(&self.ask(&request)?).to_owned())
    }

    fn install_by_policy(&mut self, version: &str) -> anyhow::Result<String> {
        let request = Request::Install { envelope: None, release: Some(target_name(PRODUCT, version)) };
        Ok(Self::code(&self.ask(&request)?).to_owned())
    }

    fn events(&mut self) -> anyhow::Result<Vec<String>> {
        let mut after = 0;
        let mut kinds = Vec::new();
        loop {
            match self.ask(&Request::Events { after })? {
                Response::Events { events } if events.is_empty() => return Ok(kinds),
                Response::Events { events } => {
                    after = events.last().map_or(after, |event| event.number);
                    kinds.extend(events.into_iter().map(|event| event.kind));
                }
                other => bail!("{other:?}"),
            }
        }
    }

    /// Brings what one need asks for, changed by `tamper`. Gives back the last answer.
    fn bring(&mut self, need: &Need, tamper: &mut Tamper<'_>) -> anyhow::Result<Response> {
        let Ok(file) = std::fs::File::open(self.repository.join(&need.path)) else {
            return self.ask(&Request::Feed {
                need: need.need,
                offset: need.offset,
                fetch: Fetch::Missing,
                trouble: None,
            });
        };
        let length = file.metadata()?.len().saturating_sub(need.offset).min(need.length);
        let mut bytes = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut bytes, need.offset)?;
        tamper(&need.path, &mut bytes);
        let mut offset = need.offset;
        let mut chunks = bytes.chunks(CHUNK).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let fetch = if chunks.peek().is_some() { Fetch::More } else { Fetch::Last };
            let response =
                self.ask_with(&Request::Feed { need: need.need, offset, fetch, trouble: None }, chunk)?;
            if response != Response::Continue {
                return Ok(response);
            }
            offset += chunk.len() as u64;
        }
    }

    /// One turn of vigild's loop.
    fn turn(&mut self, tamper: &mut Tamper<'_>) -> anyhow::Result<Response> {
        match self.ask(&Request::Next)? {
            Response::Need(need) => self.bring(&need, tamper),
            other => {
                std::thread::sleep(Duration::from_millis(20));
                Ok(other)
            }
        }
    }

    /// Carries until the updater is in one of `states`.
    fn carry_until(&mut self, states: &[State], tamper: &mut Tamper<'_>) -> anyhow::Result<UpdateStatus> {
        let until = Instant::now() + LIMIT;
        loop {
            let status = self.status()?;
            if states.contains(&status.state) {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "waited in vain for {states:?}: {status:?}");
            self.turn(tamper)?;
        }
    }

    /// Refreshes the trusted metadata and the operators list honestly.
    fn refresh(&mut self) -> anyhow::Result<()> {
        ensure!(self.ask(&Request::Refresh)? == Response::Done);
        let until = Instant::now() + LIMIT;
        while self.turn(&mut honest)? != Response::Idle {
            ensure!(Instant::now() < until, "the refresh does not end");
        }
        Ok(())
    }

    /// Says that all is well, and refreshes.
    fn praise(&mut self) -> anyhow::Result<UpdateStatus> {
        let contact = Contact { ready: true, broker: true, carrier: true, gateway: true };
        ensure!(self.ask(&Request::Contact(contact))? == Response::Done);
        ensure!(self.ask(&Request::Refresh)? == Response::Done);
        for _ in 0..12 {
            self.turn(&mut honest)?;
        }
        self.status()
    }

    /// Says so until the updater is in one of `states`.
    fn praise_until(&mut self, states: &[State]) -> anyhow::Result<UpdateStatus> {
        let until = Instant::now() + LIMIT;
        loop {
            let status = self.praise()?;
            if states.contains(&status.state) {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "waited in vain for {states:?}: {status:?}");
        }
    }
}

type Tamper<'t> = dyn FnMut(&str, &mut Vec<u8>) + 't;

fn honest(_: &str, _: &mut Vec<u8>) {}

fn command(id: &str, version: &str) -> Command {
    let now = Timestamp::now();
    Command {
        v: 1,
        id: id.to_owned(),
        kind: "update.install".to_owned(),
        args: BTreeMap::from([("version".to_owned(), version.into())]),
        tenant: TENANT.to_owned(),
        target: Target::Device(DEVICE.to_owned()),
        issued: now - SignedDuration::from_secs(120),
        expires: now + SignedDuration::from_secs(600),
    }
}

fn sign(command: &Command, key: &SigningKey) -> anyhow::Result<String> {
    Ok(Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(command)?, key).to_json())
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
        let request = Request::Install { envelope: None, release: Some(name.to_owned()) };
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
    assert_eq!(courier.install(&sign(&command("early", "2.0.0"), &olga)?)?, "no_operators");
    courier.refresh()?;

    let stranger = SigningKey::from_bytes(&[7; 32]);
    assert_eq!(courier.install(&sign(&command("a", "2.0.0"), &stranger)?)?, "unknown_key");

    let mut expired = command("b", "2.0.0");
    expired.expires = Timestamp::now() - SignedDuration::from_secs(60);
    assert_eq!(courier.install(&sign(&expired, &olga)?)?, "expired");

    let mut elsewhere = command("c", "2.0.0");
    elsewhere.target = Target::Device("room-2".to_owned());
    assert_eq!(courier.install(&sign(&elsewhere, &olga)?)?, "wrong_target");

    let mut foreign = command("d", "2.0.0");
    foreign.tenant = "globex".to_owned();
    assert_eq!(courier.install(&sign(&foreign, &olga)?)?, "wrong_tenant");

    let mut ping = command("e", "2.0.0");
    ping.kind = "ping".to_owned();
    assert_eq!(courier.install(&sign(&ping, &olga)?)?, "unsupported");

    let mut forged = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command("f", "2.0.0"))?, &olga);
    let other = Envelope::sign(COMMAND_TYPE, &serde_json::to_vec(&command("g", "2.0.0"))?, &olga);
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
    let envelope = sign(&command("once", "9.9.9"), &room.operator()?)?;
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
    assert_eq!(courier.install(&sign(&command("bad", "2.0.0"), &room.operator()?)?)?, "");
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
    assert_eq!(courier.install(&sign(&command("up", "2.0.0"), &room.operator()?)?)?, "");
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
    assert_eq!(courier.install(&sign(&command("down", "1.5.0"), &room.operator()?)?)?, "");
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
    let stale = Request::Feed { need: need.need + 1, offset: 0, fetch: Fetch::Last, trouble: None };
    assert_eq!(Courier::code(&courier.ask_with(&stale, b"x")?), "stale_need");
    let elsewhere = Request::Feed { need: need.need, offset: 5, fetch: Fetch::Last, trouble: None };
    assert_eq!(Courier::code(&courier.ask_with(&elsewhere, b"x")?), "fetch_failed");
    courier.ask(&Request::Refresh)?;
    let Response::Need(need) = courier.ask(&Request::Next)? else { bail!("nothing to fetch") };
    let endless = Request::Feed { need: need.need, offset: 0, fetch: Fetch::More, trouble: None };
    let mut sent = 0;
    loop {
        let request = Request::Feed { need: need.need, offset: sent, fetch: Fetch::More, trouble: None };
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
