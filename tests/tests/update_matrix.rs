//! What goes wrong with an update, and what becomes of it: the slot that runs, the cause, the evidence, and whether the
//! release is quarantined. Scenarios are data, `scenarios/updates/*.toml`: see `Scenario` for what one may say. The
//! updater is the real one; the bootloader is a model over real boot variables, and the test is `vigild`.

// A device that does not stand up fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use vigil_tests::courier::Courier;
use vigil_tests::disk::{Disks, Lie};
use vigil_tests::image::SOUND;
use vigil_tests::machine::{Backend, Behaviour, Machine, SLOT_BYTES, Start, Times, World, is_judged};
use vigil_tests::vendor::PRODUCT;
use vigil_wire::{Control, Request, Response, State, UpdateStatus};

const RELEASE: &str = "2.0.0";
const LIMIT: Duration = Duration::from_secs(60);
/// `wait`: longer than any deadline of the devices here.
const WAIT: Duration = Duration::from_secs(5);

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What is wrong, in a sentence.
    about: String,
    #[serde(default)]
    release: Release,
    #[serde(default)]
    room: RoomIs,
    expect: Expect,
}

/// How the release behaves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Release {
    start: Start,
    /// A shell script; exit code 0 is passed.
    self_test: Option<String>,
    /// Whether its vigild is ready.
    agent: bool,
    reaches_repository: bool,
}

impl Default for Release {
    fn default() -> Self {
        Self { start: Start::Sound, self_test: None, agent: true, reaches_repository: true }
    }
}

/// How the room is, and what happens in it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RoomIs {
    /// Of all releases.
    self_test: Option<String>,
    tells_power: bool,
    /// The data partition is a small one.
    small_data: bool,
    slot_b: SlotIs,
    frames: FramesAre,
    at_writing: Vec<Happens>,
    at_trial: Vec<Happens>,
    /// After all of these.
    then: Vec<Happens>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SlotIs {
    #[default]
    Sound,
    Small,
    Missing,
    ReadOnly,
    Forgetful,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FramesAre {
    #[default]
    Sound,
    Missing,
    Garbage,
    Half,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Happens {
    UnplugCamera,
    PullCable,
    PlugCable,
    StopRepository,
    StartRepository,
    StopBroker,
    CutPower,
    FillDisk,
    FreeDisk,
    Pause,
    Resume,
    Cancel,
    RollBack,
    Wait,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    state: State,
    /// The version that runs at the end.
    runs: String,
    /// A state that it must be in when it has waited.
    passes: Option<State>,
    cause: Option<String>,
    /// A part of the cause's message.
    message: Option<String>,
    fault: Option<String>,
    /// A part of what the release before says.
    after: Option<String>,
    floor: Option<u64>,
    /// Whether the release is, when the same happened twice.
    quarantined: Option<bool>,
    /// Slot B holds what it held.
    #[serde(default)]
    untouched: bool,
}

struct Room<'w> {
    scenario: &'w Scenario,
    world: &'w World,
    machine: Machine<'w>,
    courier: Courier,
    data: PathBuf,
    slot_b: PathBuf,
    waits_until: Option<Instant>,
    passed: Option<State>,
    orders: u32,
    /// What of it is to be taken down, the last first.
    _disks: Option<Disks>,
    _mounted: Vec<Undo>,
    _directory: tempfile::TempDir,
}

/// A command that undoes something.
struct Undo(Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = Command::new(&self.0[0]).args(&self.0[1..]).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl<'w> Room<'w> {
    fn new(world: &'w World, scenario: &'w Scenario) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let data = path.join("data");
        std::fs::create_dir(&data)?;
        let mut mounted = Vec::new();
        if scenario.room.small_data {
            let at = data.to_string_lossy().into_owned();
            run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &at])?;
            mounted.push(Undo(vec!["umount".into(), "-l".into(), at]));
        }
        let slot_a = path.join("slot-a");
        let mut content = world.images["1.0.0"].clone();
        content.resize(SLOT_BYTES, 0);
        std::fs::write(&slot_a, content)?;
        let mut slot_b = path.join("slot-b");
        let mut disks = None;
        let size = if scenario.room.slot_b == SlotIs::Small { SLOT_BYTES / 2 } else { SLOT_BYTES };
        match scenario.room.slot_b {
            SlotIs::Sound | SlotIs::Small => std::fs::write(&slot_b, vec![0xff; size])?,
            SlotIs::Missing => {}
            SlotIs::ReadOnly => {
                std::fs::write(&slot_b, vec![0xff; size])?;
                let device = run("losetup", &["-r", "-f", "--show", &slot_b.to_string_lossy()])?;
                mounted.push(Undo(vec!["losetup".into(), "-d".into(), device.clone()]));
                slot_b = device.into();
            }
            SlotIs::Forgetful => {
                let mount = Disks::mount(&path.join("disks"), vec![("slot-b", vec![0xff; size])])?;
                mount.record().lie =
                    Some(Lie { disk: 0, at_least: 130_000, after: 1, hidden: false, again: true });
                slot_b = mount.path("slot-b");
                disks = Some(mount);
            }
        }
        let waits_for_courier = scenario.room.frames == FramesAre::Never;
        let times = Times { trial: 3.0, contact: 2.0, courier: if waits_for_courier { 2.0 } else { 30.0 } };
        let mut machine = Machine::new(
            world,
            Backend::File,
            &path.join("work"),
            [slot_a, slot_b.clone()],
            Path::new("/dev/null"),
            &data,
            times,
        )?;
        machine.make()?;
        std::fs::write(machine.work().join("camera"), "")?;
        machine.repository = repository(world, path, scenario.room.frames)?;
        let room_test = scenario.room.self_test.as_deref().map_or_else(|| SOUND.to_owned(), str::to_owned);
        let sound = Behaviour { self_test: room_test.clone(), ..Behaviour::default() };
        let release = &scenario.release;
        let tried = Behaviour {
            start: release.start,
            self_test: release.self_test.clone().unwrap_or(room_test),
            reaches_repository: release.reaches_repository,
            agent: release.agent,
        };
        machine.behaviours = [("1.0.0", sound), (RELEASE, tried)].into();
        let (_, mut courier) = machine.start()?;
        courier.refresh()?;
        Ok(Self {
            scenario,
            world,
            machine,
            courier,
            data,
            slot_b,
            waits_until: None,
            passed: None,
            orders: 0,
            _disks: disks,
            _mounted: mounted,
            _directory: directory,
        })
    }

    /// Orders the release. The refusal's code, empty when there was none.
    fn order(&mut self) -> anyhow::Result<String> {
        self.orders += 1;
        let order = self.world.order(&format!("order-{}", self.orders), RELEASE)?;
        self.courier.install(&order)
    }

    /// Runs to the end, and lets happen what the scenario says.
    fn run(&mut self) -> anyhow::Result<UpdateStatus> {
        let room = &self.scenario.room;
        let mut at_writing: VecDeque<_> = room.at_writing.clone().into();
        let mut at_trial: VecDeque<_> = room.at_trial.clone().into();
        let mut then: VecDeque<_> = room.then.clone().into();
        let until = Instant::now() + LIMIT;
        loop {
            let status = self.courier.status()?;
            let ended = !status.state.is_under_way() && is_judged(&status);
            if ended && then.is_empty() {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "it does not end: {status:?}");
            if room.frames == FramesAre::Never && status.state == State::Writing {
                self.machine.repository_answers = false;
            }
            let next = match status.state {
                State::Writing if !at_writing.is_empty() => at_writing.pop_front(),
                State::Trial if !at_trial.is_empty() => at_trial.pop_front(),
                _ if at_writing.is_empty() && at_trial.is_empty() => self.due(&mut then, &status),
                _ => None,
            };
            if let Some(happens) = next {
                self.let_happen(happens)?;
                continue;
            }
            self.machine.turn(&mut self.courier, &status)?;
        }
    }

    fn due(&mut self, then: &mut VecDeque<Happens>, status: &UpdateStatus) -> Option<Happens> {
        if then.front() == Some(&Happens::Wait) {
            let until = *self.waits_until.get_or_insert_with(|| Instant::now() + WAIT);
            if Instant::now() < until {
                return None;
            }
            self.passed = Some(status.state);
            then.pop_front();
        }
        then.pop_front()
    }

    fn let_happen(&mut self, happens: Happens) -> anyhow::Result<()> {
        let control = |control| Request::Control { control, envelope: None };
        let ballast = self.data.join("ballast");
        match happens {
            Happens::UnplugCamera => {
                let _ = std::fs::remove_file(self.machine.work().join("camera"));
            }
            Happens::PullCable | Happens::PlugCable => {
                let plugged = happens == Happens::PlugCable;
                self.machine.contact.carrier = plugged;
                self.machine.contact.gateway = plugged;
            }
            Happens::StopRepository => self.machine.repository_answers = false,
            Happens::StartRepository => self.machine.repository_answers = true,
            Happens::StopBroker => self.machine.contact.broker = false,
            Happens::CutPower => {
                if self.scenario.room.tells_power {
                    self.machine.reset_reason = "power-on reset";
                }
                self.courier = self.machine.start()?.1;
            }
            // Until the last byte: what fails to be written is what is wanted.
            Happens::FillDisk => drop(std::fs::write(&ballast, vec![0; 1 << 20])),
            Happens::FreeDisk => std::fs::remove_file(&ballast)?,
            Happens::Pause => self.ask(&control(Control::Pause))?,
            Happens::Resume => self.ask(&control(Control::Resume))?,
            Happens::Cancel => self.ask(&control(Control::Cancel))?,
            Happens::RollBack => self.ask(&control(Control::Rollback))?,
            Happens::Wait => {}
        }
        Ok(())
    }

    fn ask(&mut self, request: &Request) -> anyhow::Result<()> {
        let answer = self.courier.ask(request)?;
        ensure!(answer == Response::Done, "{request:?}: {answer:?}");
        Ok(())
    }
}

/// A copy of the repository in which the release's frames are as the scenario says.
fn repository(world: &World, directory: &Path, frames: FramesAre) -> anyhow::Result<PathBuf> {
    let original = world.repository();
    if matches!(frames, FramesAre::Sound | FramesAre::Never) {
        return Ok(original);
    }
    let copy = directory.join("repository");
    run("cp", &["-r", &original.to_string_lossy(), &copy.to_string_lossy()])?;
    let releases = copy.join("targets/releases").join(PRODUCT);
    let manifest = std::fs::read_dir(releases)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(&format!("{RELEASE}.json")))
        .context("no manifest")?;
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    let hash = manifest["images"][0]["frames"]["sha256"].as_str().context("no frames")?;
    let blob = copy.join("blobs").join(hash);
    let content = std::fs::read(&blob)?;
    match frames {
        FramesAre::Missing => std::fs::remove_file(&blob)?,
        FramesAre::Half => std::fs::write(&blob, &content[..content.len() / 2])?,
        _ => std::fs::write(&blob, content.iter().map(|byte| !byte).collect::<Vec<_>>())?,
    }
    Ok(copy)
}

fn play(world: &World, scenario: &Scenario) -> anyhow::Result<()> {
    let mut room = Room::new(world, scenario)?;
    let expect = &scenario.expect;
    let before = std::fs::read(&room.slot_b).unwrap_or_default();
    ensure!(room.order()?.is_empty());
    let status = room.run()?;
    let failure = status.last_failure.clone();
    let runs = room.machine.running();
    ensure!(status.state == expect.state && runs == expect.runs, "{runs} runs: {status:?}");
    let cause = failure.as_ref().map(|failure| failure.cause.clone());
    ensure!(cause == expect.cause, "the cause is {cause:?}: {failure:?}");
    let contains = |text: Option<&str>, part: &Option<String>| {
        part.as_deref().is_none_or(|part| text.is_some_and(|text| text.contains(part)))
    };
    ensure!(
        contains(failure.as_ref().map(|failure| failure.message.as_str()), &expect.message)
            && contains(failure.as_ref().and_then(|failure| failure.after.as_deref()), &expect.after),
        "{failure:?}"
    );
    let fault = failure.as_ref().and_then(|failure| failure.fault).map(|fault| fault.name().to_owned());
    ensure!(fault == expect.fault, "at fault is {fault:?}: {failure:?}");
    ensure!(expect.floor.is_none_or(|floor| floor == status.floor), "{status:?}");
    ensure!(expect.passes.is_none_or(|state| room.passed == Some(state)), "it was {:?}", room.passed);
    if expect.untouched {
        ensure!(std::fs::read(&room.slot_b)? == before, "slot B was touched");
    }
    if let Some(quarantined) = expect.quarantined {
        room.machine.repository_answers = true;
        ensure!(room.order()?.is_empty(), "refused after the first time");
        room.run()?;
        room.machine.repository_answers = true;
        let refusal = room.order()?;
        ensure!((refusal == "quarantined") == quarantined, "the third order: {refusal:?}");
    }
    Ok(())
}

#[test]
fn each_mishap_ends_with_the_right_slot_cause_and_evidence() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/updates");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("VIGIL_SCENARIO").ok();
    files.retain(|file| {
        only.as_ref().is_none_or(|only| file.file_stem().is_some_and(|stem| stem == only.as_str()))
    });
    let world = World::new().unwrap();
    let next = std::sync::Mutex::new(files.into_iter());
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // They mostly wait.
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(file) = { next.lock().unwrap().next() } {
                    let name = file.file_stem().unwrap().to_string_lossy().into_owned();
                    let scenario: Scenario = toml::from_str(&std::fs::read_to_string(&file).unwrap())
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    let begun = Instant::now();
                    let result = play(&world, &scenario);
                    let seconds = begun.elapsed().as_secs_f32();
                    match result {
                        Ok(()) => println!("{name:<44} {seconds:>5.1} s  {}", scenario.about),
                        Err(error) => failures.lock().unwrap().push(format!("{name}: {error:#}")),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
