//! The power-cut bench on a whole device: an emulated arm64 machine with U-Boot and our boot script, Debian's kernel and
//! our `vigil-updaterd`, on a disk whose writes and flushes are recorded. The power is cut at random moments of updates
//! and of the boots after a cut; what was not flushed is lost, torn or reordered.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use vigil_tests::courier::{self, Courier, honest};
use vigil_tests::disk::{Disks, Op};
use vigil_tests::machine::{DEVICE, Random, is_judged};
use vigil_tests::process::Process;
use vigil_tests::vendor::Vendor;
use vigil_tests::wait_for;
use vigil_wire::{Contact, Request, State, UpdateStatus};

use crate::image::{COPIES, DATA, Factory, SLOTS};
use crate::record::Promise;
use crate::states::arrives;

const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const DISK: &str = "disk";
/// For each single thing; most take seconds.
const LIMIT: Duration = Duration::from_secs(180);
const AT_REST: [State; 4] = [State::Idle, State::Confirmed, State::RolledBack, State::Failed];
/// A device that restarts more often before it comes to rest does not come to rest.
const RESTARTS: u32 = 12;

/// What is counted until the power is cut.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Writes and flushes of all kinds.
    Any,
    /// Writes of boot variables, U-Boot's and the updater's.
    Variables,
    /// Writes to a slot.
    Slot,
    /// Writes to the data partition.
    Data,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Any, Self::Variables, Self::Slot, Self::Data];

    fn counts(self, op: &Op) -> bool {
        let at = match op {
            Op::Write { offset, .. } => *offset,
            Op::Flush { .. } => return matches!(self, Self::Any),
            Op::Mark(_) => return false,
        };
        match self {
            Self::Any => true,
            Self::Variables => (COPIES[0]..SLOTS[0].0).contains(&at),
            Self::Slot => (SLOTS[0].0..DATA.0).contains(&at),
            Self::Data => at >= DATA.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Any => "write or flush",
            Self::Variables => "write of boot variables",
            Self::Slot => "write to a slot",
            Self::Data => "write to the data partition",
        }
    }
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
struct Moment {
    kind: Kind,
    /// After so many of the kind.
    number: usize,
    counted: usize,
    /// Operations that were looked at.
    seen: usize,
}

impl Moment {
    /// A moment in what is known to have so many operations of each kind, from the operation `seen` on.
    fn draw(random: &mut Random, totals: [usize; 4], seen: usize) -> Self {
        let kind = random.number() as usize % totals.len();
        // Scaled: in another run, which has a few operations more or less, the moment is nearly the same.
        let number = 1 + (((random.number() >> 32) as usize * totals[kind]) >> 32);
        Self { kind: Kind::ALL[kind], number, counted: 0, seen }
    }

    /// The operation after which it is, if there was one.
    fn reached(&mut self, ops: &[Op]) -> Option<usize> {
        while self.counted < self.number {
            let op = ops.get(self.seen)?;
            self.counted += usize::from(self.kind.counts(op));
            self.seen += 1;
        }
        Some(self.seen - 1)
    }
}

/// What became of the writes that were not flushed.
#[derive(Debug, Default)]
struct Loss {
    arrived: usize,
    torn: usize,
    lost: usize,
}

enum End {
    /// The power is cut after this operation.
    Cut(usize),
    /// What was waited for.
    Seen(Box<UpdateStatus>),
}

/// Cuts a device's power.
///
/// With `no_flush` the disk says it has flushed and has not: it ends at the first failure, which must come.
pub(crate) fn bench(cuts: u32, seed: u64, keep: Option<&Path>, no_flush: bool) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let mut world = World::new(directory.path())?;
    let mut random = Random(seed);
    let mut device = Device::new(&mut world, directory.path(), None)?;
    let (boot, update) = device.rehearse()?;
    if no_flush {
        device.disks()?.record().no_flush = Some(0);
        device.no_flush = true;
    }
    println!("a boot:    {}", totals(boot));
    println!("an update: {}", totals(update));
    let mut failures = 0;
    let mut fail = |device: &Device<'_>, cut: u32, error: &anyhow::Error| {
        failures += 1;
        println!("cut {cut:>3}: FAILED: {error:#}");
        if let Some(keep) = keep {
            device.keep(&keep.join(format!("device-{seed}-{cut}")));
        }
    };
    for cut in 1..=cuts {
        let at = Instant::now();
        // One in four hits the device while it recovers from the one before.
        let early = cut > 1 && random.one_in(4);
        match device.until_cut(&mut random, early.then_some(boot), update) {
            Ok(said) => println!("cut {cut:>3}: {said}; {:.0} s", at.elapsed().as_secs_f64()),
            Err(error) => {
                fail(&device, cut - 1, &error);
                if no_flush {
                    println!("without a flush: red, as it must be");
                    return Ok(true);
                }
                device.stop();
                drop(device);
                device = Device::new(&mut world, directory.path(), None)?;
            }
        }
    }
    match device.recover().and_then(|()| device.update()) {
        Ok(version) => println!("after all: {version} was installed and confirmed"),
        Err(error) => fail(&device, cuts, &error),
    }
    device.stop();
    println!(
        "power cuts of a device: {cuts}, {failures} failures, seed {seed}, {} s",
        begun.elapsed().as_secs()
    );
    ensure!(!no_flush || failures > 0, "without a flush: NOT SEEN");
    Ok(no_flush || failures == 0)
}

fn totals(totals: [usize; 4]) -> String {
    let [any, variables, slot, data] = totals;
    format!(
        "{any} writes and flushes, of them {variables} writes of boot variables, {slot} to a slot, {data} to the data partition"
    )
}

/// What was published.
struct World {
    vendor: Vendor,
    key: SigningKey,
    factory: Factory,
    board: [PathBuf; 2],
    images: Vec<(String, Vec<u8>)>,
    directory: PathBuf,
    orders: u32,
}

impl World {
    fn new(directory: &Path) -> anyhow::Result<Self> {
        let vendor = Vendor::new(&directory.join("vendor"))?;
        let key = SigningKey::from_pkcs8_pem(&std::fs::read_to_string(vendor.operator_key())?)?;
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let factory = Factory::new(directory, &target, &vendor.root())?;
        let first = ("1.0.0".to_owned(), factory.release("1.0.0", 1)?);
        let board = factory.board()?;
        Ok(Self {
            vendor,
            key,
            factory,
            board,
            images: vec![first],
            directory: directory.to_owned(),
            orders: 0,
        })
    }

    /// Publishes one more release.
    fn publish(&mut self) -> anyhow::Result<String> {
        let sequence = self.images.len() as u64 + 1;
        let version = format!("{sequence}.0.0");
        let image = self.factory.release(&version, sequence)?;
        let path = self.directory.join("release");
        std::fs::write(&path, &image)?;
        self.vendor.release(&version, sequence, &path, "operator")?;
        self.images.push((version.clone(), image));
        Ok(version)
    }

    fn order(&mut self, version: &str) -> anyhow::Result<String> {
        self.orders += 1;
        courier::sign(&courier::command(DEVICE, &format!("order-{}", self.orders), version), &self.key)
    }

    fn image(&self, version: &str) -> anyhow::Result<&[u8]> {
        let image = self.images.iter().find(|(known, _)| known == version);
        Ok(&image.with_context(|| format!("nobody made a release {version}"))?.1)
    }
}

struct Device<'w> {
    world: &'w mut World,
    directory: PathBuf,
    disks: Option<Disks>,
    /// What it was switched on with.
    image: Vec<u8>,
    machine: Option<Process>,
    courier: Option<Courier>,
    restarts: u32,
    /// The slot and version that started last.
    running: String,
    doing: &'static str,
    moment: Option<Moment>,
    no_flush: bool,
    /// What was promised, by the number of operations before.
    promises: Vec<(usize, Promise)>,
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<'w> Device<'w> {
    /// A device as the factory delivers it, off.
    fn new(world: &'w mut World, directory: &Path, image: Option<Vec<u8>>) -> anyhow::Result<Self> {
        let image = match image {
            Some(image) => image,
            None => world.factory.disk(&world.images[0].1)?,
        };
        let disks = Disks::mount(&directory.join("disks"), vec![(DISK, image.clone())])?;
        Ok(Self {
            world,
            directory: directory.to_owned(),
            disks: Some(disks),
            image,
            machine: None,
            courier: None,
            restarts: 0,
            running: String::new(),
            doing: "off",
            moment: None,
            no_flush: false,
            promises: Vec::new(),
        })
    }

    fn disks(&self) -> anyhow::Result<&Disks> {
        self.disks.as_ref().context("no disk")
    }

    fn operations(&self) -> anyhow::Result<usize> {
        Ok(self.disks()?.record().ops.len())
    }

    /// How many operations of each kind there were from that one on.
    fn totals(&self, from: usize) -> anyhow::Result<[usize; 4]> {
        let record = self.disks()?.record();
        Ok(Kind::ALL.map(|kind| record.ops[from..].iter().filter(|op| kind.counts(op)).count()))
    }

    /// A boot and an update, not cut: how many operations they have.
    fn rehearse(&mut self) -> anyhow::Result<([usize; 4], [usize; 4])> {
        self.recover()?;
        let boot = self.totals(0)?;
        let from = self.operations()?;
        self.update()?;
        self.check_flushes()?;
        Ok((boot, self.totals(from)?))
    }

    /// Boot variables are flushed before others are written, by the updater as by U-Boot. U-Boot knows no flush: QEMU
    /// flushes for a driver that does not say it will. A bench that does not see that tears what no disk tears.
    fn check_flushes(&self) -> anyhow::Result<()> {
        let record = self.disks()?.record();
        let mut flushed = true;
        for op in &record.ops {
            if Kind::Variables.counts(op) {
                ensure!(flushed, "boot variables were written and not flushed before the next ones");
                flushed = false;
            }
            flushed |= matches!(op, Op::Flush { .. });
        }
        ensure!(flushed, "boot variables were written and never flushed");
        Ok(())
    }

    /// Comes to rest, with all that was promised.
    fn recover(&mut self) -> anyhow::Result<()> {
        match self.settle()? {
            End::Seen(_) => Ok(()),
            End::Cut(_) => bail!("no cut was ordered"),
        }
    }

    /// Installs a release, not cut.
    fn update(&mut self) -> anyhow::Result<String> {
        let version = self.begin_update()?;
        match self.run_until_rest()? {
            End::Seen(status) if status.state == State::Confirmed => {}
            End::Seen(status) => bail!("{version} was not installed: {status:?}"),
            End::Cut(_) => bail!("no cut was ordered"),
        }
        ensure!(self.running.ends_with(&format!(" {version}")), "{} runs instead of {version}", self.running);
        Ok(version)
    }

    /// Recovers from the last cut and updates until the next one; says what happened.
    fn until_cut(
        &mut self,
        random: &mut Random,
        boot: Option<[usize; 4]>,
        update: [usize; 4],
    ) -> anyhow::Result<String> {
        if let Some(boot) = boot {
            self.moment = Some(Moment::draw(random, boot, self.operations()?));
        }
        let mut end = self.settle()?;
        let mut recovered = "cut again before it came to rest".to_owned();
        if let End::Seen(status) = &end {
            recovered = format!("{} at rest, {}", self.running, status.state.name());
            if self.moment.is_none() {
                self.moment = Some(Moment::draw(random, update, self.operations()?));
            }
        }
        let at = loop {
            match end {
                End::Cut(at) => break at,
                End::Seen(_) => {
                    self.begin_update()?;
                    end = self.run_until_rest()?;
                }
            }
        };
        let moment = self.moment.take().context("a cut has a moment")?;
        let doing = self.doing;
        let running = std::mem::take(&mut self.running);
        let loss = self.cut(at, random)?;
        let running = if running.is_empty() { "no slot chosen" } else { &running };
        Ok(format!(
            "{recovered}; cut while {doing} ({running}) after {} {}, {} operations; not flushed: {} arrived, {} torn, {} lost",
            moment.number,
            moment.kind.name(),
            at + 1,
            loss.arrived,
            loss.torn,
            loss.lost
        ))
    }

    /// The power is gone after this operation; what was not flushed arrives or not. A new disk holds what is left.
    fn cut(&mut self, at: usize, random: &mut Random) -> anyhow::Result<Loss> {
        self.stop();
        let record = self.disks.take().context("no disk")?.unmount()?;
        let mut image = record.bases[0].to_vec();
        let ops = &record.ops[..=at];
        let flushed = ops.iter().rposition(|op| matches!(op, Op::Flush { .. })).unwrap_or(0);
        let nothing = random.one_in(4);
        let mut loss = Loss::default();
        for (number, op) in ops.iter().enumerate() {
            let Op::Write { offset, bytes, .. } = op else { continue };
            let part = if number < flushed {
                Some(0..bytes.len())
            } else {
                let part = arrives(bytes.len(), random).filter(|_| !nothing);
                match &part {
                    None => loss.lost += 1,
                    Some(part) if part.len() < bytes.len() => loss.torn += 1,
                    Some(_) => loss.arrived += 1,
                }
                part
            };
            if let Some(part) = part {
                image[offset + part.start..offset + part.end].copy_from_slice(&bytes[part]);
            }
        }
        // Whoever heard of it before the cut may rely on it.
        self.promises.retain(|(operations, _)| *operations <= at + 1);
        if let Some((_, promise)) = self.promises.pop() {
            self.promises = vec![(0, promise)];
        }
        let disks = Disks::mount(&self.directory.join("disks"), vec![(DISK, image.clone())])?;
        disks.record().no_flush = self.no_flush.then_some(0);
        self.disks = Some(disks);
        self.image = image;
        self.restarts = 0;
        Ok(loss)
    }

    fn promise(&mut self, change: impl FnOnce(&mut Promise)) -> anyhow::Result<()> {
        let mut promise = self.promises.last().map(|(_, promise)| promise.clone()).unwrap_or_default();
        change(&mut promise);
        if self.promises.last().is_none_or(|(_, last)| *last != promise) {
            let operations = self.operations()?;
            self.promises.push((operations, promise));
        }
        Ok(())
    }

    /// Runs until the updater is at rest, and holds what it says against what was promised.
    fn settle(&mut self) -> anyhow::Result<End> {
        let promise = self.promises.last().map(|(_, promise)| promise.clone()).unwrap_or_default();
        let end = self.run_until_rest()?;
        let End::Seen(status) = &end else { return Ok(end) };
        ensure!(
            status.floor >= promise.floor,
            "the floor sank from {} to {}: {status:?}",
            promise.floor,
            status.floor
        );
        ensure!(
            status.last_event >= promise.last_event,
            "events are missing: {} of {}",
            status.last_event,
            promise.last_event
        );
        let courier = self.courier.as_mut().context("no courier")?;
        courier.refresh()?;
        // Older ones have run out by now.
        for envelope in promise.accepted.iter().rev().take(3) {
            let answer = courier.install(envelope)?;
            ensure!(
                matches!(answer.as_str(), "replayed" | "expired"),
                "an order that was accepted before is not refused as such, but {answer:?}"
            );
        }
        Ok(end)
    }

    /// Publishes a release and orders it.
    fn begin_update(&mut self) -> anyhow::Result<String> {
        let version = self.world.publish()?;
        let order = self.world.order(&version)?;
        let courier = self.courier.as_mut().context("no courier")?;
        courier.refresh()?;
        let refused = courier.install(&order)?;
        ensure!(refused.is_empty(), "the order to install {version} is refused: {refused}");
        self.promise(|promise| promise.accepted.push(order))?;
        Ok(version)
    }

    /// Runs, starting again after each restart, until the updater is at rest or the power is to be cut.
    fn run_until_rest(&mut self) -> anyhow::Result<End> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.reached()? {
                return Ok(End::Cut(at));
            }
            ensure!(
                Instant::now() < until,
                "not at rest after {} s, but {}\n{}",
                LIMIT.as_secs(),
                self.doing,
                self.console()
            );
            if self.courier.is_none() && !self.power_on()? {
                continue;
            }
            match self.turn() {
                Ok(status) if AT_REST.contains(&status.state) && is_judged(&status) => {
                    return Ok(End::Seen(Box::new(status)));
                }
                Ok(_) => {}
                Err(error) => {
                    self.restarting(&error)?;
                    self.stop();
                }
            }
        }
    }

    /// The updater does not answer: the machine ends, since the device restarts, or this is a failure.
    fn restarting(&mut self, error: &anyhow::Error) -> anyhow::Result<()> {
        let ended = wait_for("the restart", Duration::from_secs(20), || {
            self.machine.as_mut().and_then(Process::exited)
        });
        if ended.is_err() && self.reached()?.is_none() {
            bail!("{error:#}\n{}", self.console());
        }
        Ok(())
    }

    fn reached(&mut self) -> anyhow::Result<Option<usize>> {
        let Some(moment) = &mut self.moment else { return Ok(None) };
        let disks = self.disks.as_ref().context("no disk")?;
        Ok(moment.reached(&disks.record().ops))
    }

    /// One turn of vigild's loop.
    fn turn(&mut self) -> anyhow::Result<UpdateStatus> {
        let courier = self.courier.as_mut().context("no courier")?;
        let status = courier.status()?;
        self.doing = status.state.name();
        self.promise(|promise| {
            promise.floor = status.floor;
            promise.last_event = status.last_event;
        })?;
        let courier = self.courier.as_mut().context("no courier")?;
        if AT_REST.contains(&status.state) && is_judged(&status) {
            return Ok(status);
        }
        let contact = Contact { ready: true, broker: true, carrier: true, gateway: true };
        courier.ask(&Request::Contact(contact))?;
        if matches!(status.state, State::Good | State::RolledBack) {
            courier.ask(&Request::Refresh)?;
        }
        courier.turn(&mut honest)?;
        Ok(status)
    }

    /// Power comes; true when the updater is up.
    fn power_on(&mut self) -> anyhow::Result<bool> {
        self.stop();
        self.restarts += 1;
        ensure!(self.restarts <= RESTARTS, "the device restarts again and again\n{}", self.console());
        let socket = self.directory.join("line");
        let _ = std::fs::remove_file(&socket);
        let log = self.log();
        let _ = std::fs::remove_file(&log);
        let [script, flash] = &self.world.board;
        let arguments = [
            "-M virt -cpu cortex-a57 -m 512 -nographic -nodefaults -no-reboot -serial stdio".to_owned(),
            format!("-bios {UBOOT} -drive if=pflash,index=1,format=raw,file={}", flash.display()),
            format!("-device loader,file={},addr=0x43000000", script.display()),
            format!(
                "-drive if=none,id=disk,format=raw,cache=writeback,file={}",
                self.disks()?.path(DISK).display()
            ),
            "-device virtio-blk-device,drive=disk -device virtio-serial-device".to_owned(),
            format!("-chardev socket,id=line,path={},server=on,wait=off", socket.display()),
            "-device virtserialport,chardev=line,name=vigil".to_owned(),
        ];
        let mut command = Command::new("qemu-system-aarch64");
        command.args(arguments.iter().flat_map(|part| part.split(' ')));
        self.machine = Some(Process::start("qemu-system-aarch64", command, &log)?);
        let stream =
            wait_for("QEMU's socket", Duration::from_secs(20), || UnixStream::connect(&socket).ok())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        self.running.clear();
        self.doing = "starting";
        let until = Instant::now() + LIMIT;
        loop {
            if self.reached()?.is_some() {
                return Ok(false);
            }
            let console = self.console();
            if self.running.is_empty()
                && let Some((_, words)) = console.split_once("vigil-device: slot ")
                && let Some((slot_and_version, _)) = words.split_once(" end")
            {
                let (slot, version) = slot_and_version.split_once(" version ").context("slot and version")?;
                self.check_slot(slot, version)?;
                self.running = format!("{slot} {version}");
            }
            if console.contains("vigil-device: up") && !self.running.is_empty() {
                break;
            }
            ensure!(!console.contains("vigil: no slot starts"), "no slot starts\n{console}");
            if self.machine.as_mut().and_then(Process::exited).is_some() {
                return Ok(false);
            }
            ensure!(Instant::now() < until, "it does not start\n{console}");
            std::thread::sleep(Duration::from_millis(10));
        }
        match Courier::over(stream, &self.world.vendor.repository()) {
            Ok(courier) => self.courier = Some(courier),
            // It restarts at once where a cut came between the activation and the restart.
            Err(error) => self.restarting(&error)?,
        }
        Ok(self.courier.is_some())
    }

    /// The slot that started must hold a whole release, byte for byte.
    fn check_slot(&self, slot: &str, version: &str) -> anyhow::Result<()> {
        let image = self.world.image(version)?;
        let start = SLOTS[usize::from(slot == "B")].0;
        let record = self.disks()?.record();
        ensure!(
            record.contents[0][start..].starts_with(image),
            "slot {slot} was started and is not what {version} was made as"
        );
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("console")
    }

    /// What it said last.
    fn console(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log()) {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)));
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    fn stop(&mut self) {
        self.courier = None;
        if let Some(mut machine) = self.machine.take() {
            machine.kill();
        }
    }

    /// Keeps what it was last switched on with, and what it said.
    fn keep(&self, directory: &Path) {
        let _ = std::fs::create_dir_all(directory);
        let _ = std::fs::write(directory.join("disk"), &self.image);
        let _ = std::fs::copy(self.log(), directory.join("console"));
    }
}
