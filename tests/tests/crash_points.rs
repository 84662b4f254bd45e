//! A named crash point stands before and after every durable write. One clean update lists them; then each is hit with
//! an abort in turn, in both daemons, and every next start must converge, with a verified slot to boot at any moment.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use vigil_tests::broker::Mosquitto;
use vigil_tests::device::{Daemon, Device, Options};
use vigil_tests::fleet::Operator;
use vigil_tests::image;
use vigil_tests::pki::Pki;
use vigil_tests::vendor::Vendor;

const SETTLED: [&str; 3] = ["confirmed", "rolled_back", "failed"];
const LIMIT: Duration = Duration::from_secs(60);
/// A crash point that was not passed when all is settled has so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Devices at a time.
const DEVICES: usize = 4;

/// A release and what becomes of it.
struct Case {
    name: &'static str,
    version: &'static str,
    /// A crash in the middle of a sound release's trial costs time; its deadline is not under test.
    deadline_seconds: u32,
    ends: &'static str,
    runs: &'static str,
}

const CASES: [Case; 2] = [
    Case { name: "sound", version: "2.0.0", deadline_seconds: 30, ends: "confirmed", runs: "B" },
    Case { name: "faulty", version: "3.0.0", deadline_seconds: 2, ends: "rolled_back", runs: "A" },
];

struct World {
    directory: tempfile::TempDir,
    pki: Pki,
    vendor: Vendor,
    broker: Mosquitto,
    operator: Operator,
    hashes: Vec<([u8; 32], u64)>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::new(&directory.path().join("pki")).unwrap();
        let vendor = Vendor::new(&directory.path().join("vendor")).unwrap();
        let mut hashes = Vec::new();
        for (number, bytes, check) in
            [(1, 2 << 20, image::SOUND), (2, 3 << 20, image::SOUND), (3, 3 << 20, image::CAMERA_MISSING)]
        {
            let path = directory.path().join(format!("image-{number}"));
            image::build(&path, &format!("{number}.0.0"), check, bytes).unwrap();
            let length = std::fs::metadata(&path).unwrap().len();
            hashes.push((image::sha256(&path, length).unwrap(), length));
        }
        for number in [2, 3] {
            let image = directory.path().join(format!("image-{number}"));
            vendor.release(&format!("{number}.0.0"), number, &image, "operator").unwrap();
        }
        let broker = Mosquitto::start(&directory.path().join("broker"), &pki, &["olga"]).unwrap();
        let operator = Operator::new(&pki, &vendor, broker.port, "olga").unwrap();
        Self { directory, pki, vendor, broker, operator, hashes }
    }

    fn device(&self, id: &str, case: &Case, environment: Vec<(Daemon, String, String)>) -> Device {
        let mut options = Options::new(id, self.broker.port, &self.pki);
        options.slot_bytes = 16 << 20;
        options.trial = format!(
            "deadline_seconds = {}
stable_seconds = 0.2
gate_pause_seconds = 0.2
contact_seconds = 30
courier_seconds = 60
",
            case.deadline_seconds
        );
        options.environment = environment;
        let image = self.directory.path().join("image-1");
        Device::new(&self.directory.path().join(id), options, &self.vendor, &self.pki, &image).unwrap()
    }

    /// Installs a release, starting a daemon again whenever it has died, until nothing is under way.
    fn update(&self, device: &mut Device, version: &str) -> Value {
        device.power_on().unwrap();
        let until = Instant::now() + LIMIT;
        let mut attempts = 0;
        let (mut asked_at, mut settled_at) = (None, None);
        loop {
            assert!(Instant::now() < until, "{}: no convergence:\n{}", device.options.id, logs(device));
            if let Some(daemon) = device.ended() {
                // The supervisor starts it again, without the plan to crash.
                device.options.environment.clear();
                device.next_boot_is_one_of(&self.hashes).unwrap();
                match daemon {
                    Daemon::Vigild => device.start_vigild().unwrap(),
                    Daemon::Updaterd => device.start_updaterd().unwrap(),
                }
                continue;
            }
            if device.restart_if_asked().unwrap().is_some() {
                continue;
            }
            let Ok(status) = device.vigil(&["status"]) else { continue };
            let state =
                status.pointer("/update/state").and_then(Value::as_str).unwrap_or_default().to_owned();
            if SETTLED.contains(&state.as_str()) && asked_at.is_some() {
                // What is not of the update itself may come a moment after it.
                let is_passed =
                    device.options.environment.iter().all(|(_, name, _)| name != "VIGIL_CRASH_AT");
                if is_passed || settled_at.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return status;
                }
            }
            let ready = status.pointer("/operators/count").is_some()
                && status.pointer("/broker/connected") == Some(&Value::Bool(true));
            // A command that was cut short is not run again unasked: the operator asks again.
            let again = asked_at.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(3));
            if ready && state == "idle" && again {
                attempts += 1;
                assert!(attempts < 5, "{}: never taken up", device.options.id);
                asked_at = Some(Instant::now());
                let version = format!("version={version}");
                let arguments =
                    ["send", &device.options.id, "update.install", "--arg", &version, "--no-wait"];
                assert!(self.operator.run(&arguments).unwrap().status.success());
            }
        }
    }
}

fn logs(device: &Device) -> String {
    let read = |name: &str| {
        let text = std::fs::read_to_string(device.disk.join("log").join(name)).unwrap_or_default();
        text[text.floor_char_boundary(text.len().saturating_sub(2500))..].to_owned()
    };
    format!("vigild:\n{}\nvigil-updaterd:\n{}", read("vigild.log"), read("updaterd.log"))
}

fn trace(daemon: Daemon, path: &Path) -> (Daemon, String, String) {
    (daemon, "VIGIL_CRASH_TRACE".to_owned(), path.display().to_string())
}

fn state(status: &Value) -> &str {
    status.pointer("/update/state").and_then(Value::as_str).unwrap_or_default()
}

/// One point to abort at.
struct Job<'c> {
    case: &'c Case,
    daemon: Daemon,
    name: &'static str,
    point: String,
    number: usize,
}

impl Job<'_> {
    fn run(&self, world: &World) {
        let Self { case, name, point, .. } = self;
        let began = Instant::now();
        let plan = (self.daemon, "VIGIL_CRASH_AT".to_owned(), point.clone());
        let mut device = world.device(&format!("device-{}", self.number), case, vec![plan]);
        let status = world.update(&mut device, case.version);
        assert!(device.options.environment.is_empty(), "{name}: {point} was never passed");
        assert_eq!(state(&status), case.ends, "{name} at {point}: {status}\n{}", logs(&device));
        device.power_off();
        let slot = device.next_boot_is_one_of(&world.hashes).unwrap();
        assert_eq!(slot, case.runs, "{name} at {point}");
        println!("{name:<15} {point:<32} {} in {:.1} s", case.ends, began.elapsed().as_secs_f32());
        std::fs::remove_dir_all(&device.disk).unwrap();
    }
}

/// What one clean update of the case passes in either daemon and no case before it did.
fn jobs<'c>(world: &World, case: &'c Case, known: &mut BTreeSet<String>) -> Vec<Job<'c>> {
    let daemons = [(Daemon::Vigild, "vigild"), (Daemon::Updaterd, "vigil-updaterd")];
    let traces = daemons
        .map(|(daemon, name)| (daemon, world.directory.path().join(format!("{}-{name}.trace", case.name))));
    let plan = traces.iter().map(|(daemon, path)| trace(*daemon, path)).collect();
    let mut device = world.device(&format!("{}-traced", case.name), case, plan);
    let status = world.update(&mut device, case.version);
    assert_eq!(state(&status), case.ends, "{}", logs(&device));
    device.power_off();

    let mut jobs = Vec::new();
    for ((daemon, name), (_, path)) in daemons.into_iter().zip(&traces) {
        let points: BTreeSet<String> =
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        assert!(points.len() > 8, "{name}: {points:?}");
        for point in points {
            if known.insert(format!("{name} {point}")) {
                jobs.push(Job { case, daemon, name, point, number: known.len() });
            }
        }
    }
    jobs
}

#[test]
fn an_abort_at_any_durable_write_of_an_update_leaves_a_verified_slot_and_the_next_start_converges() {
    let world = World::new();
    let mut known = BTreeSet::new();
    let jobs: VecDeque<_> = CASES.iter().flat_map(|case| jobs(&world, case, &mut known)).collect();
    let count = jobs.len();
    // Devices wait for one another's restarts and refreshes far more than they compute.
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..DEVICES {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().unwrap().pop_front();
                    let Some(job) = job else { return };
                    job.run(&world);
                }
            });
        }
    });
    println!("{count} crash points, each hit once");
}
