//! Two builds of ours take turns on one data partition: what the release before wrote is read by this one, and what this
//! one writes is read by the release before when it comes back. `$VIGIL_PREVIOUS` is the directory that `tests/previous`
//! prints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use vigil_tests::device::Daemon;
use vigil_tests::files::Fault;
use vigil_tests::image::{self, CAMERA_MISSING, SOUND};
use vigil_tests::room::{DEVICE, LIMIT, Room};
use vigil_tests::{binaries, wait_for};

/// A build of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    /// Of the release before.
    Previous,
    /// The one under test.
    Present,
}

impl Build {
    fn programs(self) -> anyhow::Result<PathBuf> {
        match self {
            Self::Previous => Ok(previous().context("no release before")?),
            Self::Present => Ok(binaries()?.to_owned()),
        }
    }
}

fn previous() -> Option<PathBuf> {
    std::env::var_os("VIGIL_PREVIOUS").map(PathBuf::from)
}

/// Whether there is no release before to test against; says so.
fn skipped() -> bool {
    let skipped = previous().is_none();
    if skipped {
        eprintln!("SKIPPED: VIGIL_PREVIOUS is not set; VIGIL_PREVIOUS=$(tests/previous) sets it");
    }
    skipped
}

/// A device, and what was seen of it while the build before ran.
struct Life {
    room: Room,
    /// What `vigil-fleet check` remembers: the number of the newest digest, and how long the audit log was.
    known: PathBuf,
    /// Envelopes of commands that were obeyed.
    obeyed: Vec<PathBuf>,
}

/// What must not go back when another build takes over.
#[derive(Debug)]
struct Seen {
    session: u64,
    floor: u64,
    entries: u64,
    event: u64,
    versions: BTreeMap<String, u64>,
}

impl Life {
    /// A device that runs the factory's release, 1.0.0. `builds` says which release brings which build.
    fn begin(builds: &[(&str, Build)]) -> anyhow::Result<Self> {
        let mut programs = Vec::new();
        for (version, build) in builds {
            programs.push(((*version).to_owned(), build.programs()?));
        }
        let room = Room::with(|options| {
            // One file for both builds here; on a device each image brings its own.
            options.broker = options.broker.replace("fleet_size = 1\n", "");
            options.programs = programs;
            // Long enough for a release that fails its test to be given work first.
            options.trial = options.trial.replace("deadline_seconds = 6", "deadline_seconds = 12");
        })?;
        let known = room.directory.path().join("known.json");
        let mut life = Self { room, known, obeyed: Vec::new() };
        life.room.device.power_on()?;
        life.work(builds[0].1)?;
        Ok(life)
    }

    /// The build that runs does its work, and stores what comes of it.
    fn work(&mut self, build: Build) -> anyhow::Result<()> {
        self.runs(build)?;
        self.room.wait_ready()?;
        self.room.wait("the repository's metadata", |status| status["metadata"]["timestamp"].as_u64())?;
        let envelope = self.room.directory.path().join(format!("ping-{}.json", self.obeyed.len()));
        let signed = self.room.operator()?.run(&["send", DEVICE, "ping", "--print-envelope"])?;
        ensure!(signed.status.success(), "{signed:?}");
        std::fs::write(&envelope, signed.stdout)?;
        ensure!(self.send(&envelope)? == "ok", "a ping was not obeyed");
        self.obeyed.push(envelope);
        self.check()
    }

    fn send(&self, envelope: &Path) -> anyhow::Result<String> {
        self.room.send("--envelope", &[&envelope.to_string_lossy()])
    }

    /// What the broker keeps is what the device said, and nothing in it went back since the last time.
    fn check(&self) -> anyhow::Result<()> {
        let known = self.known.to_string_lossy();
        let check = self.room.operator()?.run(&["check", DEVICE, "--accept-new", "--known", &known])?;
        let said = [check.stdout, check.stderr].concat();
        ensure!(check.status.success(), "vigil-fleet check: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    /// Both daemons are this build's.
    fn runs(&mut self, build: Build) -> anyhow::Result<()> {
        let programs = build.programs()?.canonicalize()?;
        for (daemon, name) in [(Daemon::Vigild, "vigild"), (Daemon::Updaterd, "vigil-updaterd")] {
            let pid = self.room.device.daemon(daemon)?.pid();
            let runs = std::fs::read_link(format!("/proc/{pid}/exe"))?;
            ensure!(runs == programs.join(name), "{} runs, not that of {build:?}", runs.display());
        }
        Ok(())
    }

    fn look(&self) -> anyhow::Result<Seen> {
        let status = self
            .room
            .wait("the updater's state", |status| status["metadata"].is_object().then(|| status.clone()))?;
        let number = |value: &Value| value.as_u64().with_context(|| format!("a number is missing: {status}"));
        let versions = status["metadata"].as_object().into_iter().flatten();
        Ok(Seen {
            session: number(&status["broker"]["session"])?,
            floor: number(&status["update"]["floor"])?,
            entries: number(&status["audit"]["entries"])?,
            event: self.updater_events()?.last().copied().unwrap_or(0),
            versions: versions
                .filter_map(|(role, version)| Some((role.clone(), version.as_u64()?)))
                .collect(),
        })
    }

    /// The numbers of the updater's own events.
    fn updater_events(&self) -> anyhow::Result<Vec<u64>> {
        let text = std::fs::read_to_string(self.room.device.disk.join("updater/events.jsonl"))?;
        let lines = text.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?["number"].as_u64()));
        lines.collect::<anyhow::Result<Option<Vec<_>>>>()?.context("an event without a number")
    }

    /// The audit log, from its first entry.
    fn audit(&self) -> anyhow::Result<Vec<Value>> {
        let mut entries = Vec::new();
        loop {
            let first = entries.len().to_string();
            let page = self.room.device.vigil(&["audit", "show", "--first", &first, "--limit", "100"])?;
            let page = page["entries"].as_array().cloned().unwrap_or_default();
            if page.is_empty() {
                return Ok(entries);
            }
            entries.extend(page);
        }
    }

    /// Publishes a release and orders it.
    fn install(&self, version: &str, sequence: u64, self_test: &str) -> anyhow::Result<()> {
        let release = self.room.directory.path().join(format!("{version}.img"));
        image::build(&release, version, self_test, 1 << 20)?;
        // What both builds read.
        self.room.vendor.release_with(version, sequence, &release, "operator", &["--format", "1"])?;
        let version = format!("version={version}");
        let arguments = ["send", DEVICE, "update.install", "--arg", &version, "--no-wait"];
        let sent = self.room.operator()?.run(&arguments)?;
        ensure!(sent.status.success(), "{sent:?}");
        Ok(())
    }

    /// The restart that the updater asks for, into `build`, which reads all that is stored: the repository cannot be
    /// asked meanwhile.
    fn restart_into(&mut self, build: Build) -> anyhow::Result<()> {
        let asked = self.room.device.disk.join("run/reboot");
        wait_for("the updater to ask for a restart", LIMIT, || asked.exists().then_some(()))?;
        // vigild looks at the updater now and then: what it tells is to be of now.
        self.room.wait("vigild to tell of it", |status| {
            matches!(status["update"]["state"].as_str()?, "rebooting" | "rolled_back" | "trial" | "good")
                .then_some(())
        })?;
        let before = self.look()?;
        self.room.vendor.files.misbehave("timestamp.json", Fault::Unavailable);
        self.room.device.restart_if_asked()?;
        self.runs(build)?;
        self.room.wait_ready().context("what the build before knew of operators is lost")?;
        self.everything_is_read(&before).with_context(|| format!("{build:?} reads what the other wrote"))?;
        self.room.vendor.files.behave();
        Ok(())
    }

    fn everything_is_read(&mut self, before: &Seen) -> anyhow::Result<()> {
        self.nothing_is_damaged()?;
        let now = self.look()?;
        ensure!(now.session > before.session, "sessions: {now:?} after {before:?}");
        ensure!(now.floor >= before.floor, "floor: {now:?} after {before:?}");
        ensure!(now.entries > before.entries, "audit log: {now:?} after {before:?}");
        ensure!(now.event > before.event, "the updater's events: {now:?} after {before:?}");
        ensure!(now.versions == before.versions, "metadata: {now:?} after {before:?}");
        for envelope in &self.obeyed {
            let said = self.send(envelope)?;
            ensure!(said == "replayed", "{}: {said}, not replayed", envelope.display());
        }
        self.numbers_go_on()?;
        self.log_verifies(before.entries)?;
        self.check()?;
        self.nothing_is_damaged()?;
        self.room.lives()
    }

    fn nothing_is_damaged(&self) -> anyhow::Result<()> {
        for entry in self.audit()? {
            let event = entry["event"].as_str().unwrap_or_default();
            ensure!(!event.contains("damaged"), "{entry}");
        }
        for store in ["data", "updater"] {
            no_file_was_set_aside(&self.room.device.disk.join(store))?;
        }
        Ok(())
    }

    /// The updater's events have no gap, and the audit log has each of them once.
    fn numbers_go_on(&self) -> anyhow::Result<()> {
        let mut seen = (Vec::new(), Vec::new());
        wait_for("all of the updater's events, once, in the audit log", LIMIT, || {
            let events = self.updater_events().ok()?;
            let whole: Vec<u64> = (1..=events.len() as u64).collect();
            let entries = self.audit().ok()?;
            let recorded = entries.iter().filter_map(|entry| entry["detail"]["number"].as_u64());
            seen = (events, recorded.collect());
            (seen.0 == whole && seen.1 == whole).then_some(())
        })
        .with_context(|| format!("{seen:?}"))
    }

    fn log_verifies(&self, entries: u64) -> anyhow::Result<()> {
        let verify = || {
            let mut command = Command::new(self.room.device.program("vigil"));
            command.args(["--json", "audit", "verify", "--state"]).arg(self.room.device.disk.join("data"));
            let report: Value = serde_json::from_slice(&command.output().ok()?.stdout).ok()?;
            let whole = report["report"]["size"].as_u64() >= Some(entries) && report["report"]["first"] == 0;
            (report["verified"] == true && whole).then_some(())
        };
        // It may be looked at between an entry and its checkpoint.
        wait_for(
            "vigil audit verify to believe the log from its first entry",
            Duration::from_secs(10),
            verify,
        )
    }

    fn ends_in(&mut self, state: &str) -> anyhow::Result<Value> {
        let states = ["confirmed", "failed", "rolled_back"];
        let update = self.room.device.run_until(&states, LIMIT, |_| {})?;
        ensure!(update["state"] == state, "{update}");
        Ok(update)
    }
}

fn no_file_was_set_aside(directory: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        ensure!(!name.to_string_lossy().contains("damaged"), "{} was set aside", entry.path().display());
        if entry.file_type()?.is_dir() {
            no_file_was_set_aside(&entry.path())?;
        }
    }
    Ok(())
}

#[test]
fn this_build_reads_what_the_one_before_wrote_and_is_confirmed() -> anyhow::Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut life = Life::begin(&[("1.0.0", Build::Previous), ("2.0.0", Build::Present)])?;
    life.install("2.0.0", 2, SOUND)?;
    life.restart_into(Build::Present)?;
    let update = life.ends_in("confirmed")?;
    assert_eq!((&update["running_slot"], update["floor"].as_u64()), (&"B".into(), Some(2)), "{update}");
    life.work(Build::Present)
}

#[test]
fn the_build_before_comes_back_and_reads_what_this_one_wrote() -> anyhow::Result<()> {
    if skipped() {
        return Ok(());
    }
    let builds = [("1.0.0", Build::Previous), ("2.0.0", Build::Present), ("3.0.0", Build::Present)];
    let mut life = Life::begin(&builds)?;
    life.install("2.0.0", 2, CAMERA_MISSING)?;
    life.restart_into(Build::Present)?;
    // It works while it is on trial, and refuses what the build before does not even know.
    life.work(Build::Present)?;
    assert_eq!(life.room.send("update.cancel", &[])?, "not_now");
    life.restart_into(Build::Previous)?;
    let update = life.ends_in("rolled_back")?;
    assert_eq!(update["running_slot"], "A", "{update}");
    assert_eq!(update["last_failure"]["cause"], "gate", "{update}");
    life.work(Build::Previous)?;
    // And it can be left again.
    life.install("3.0.0", 3, SOUND)?;
    life.restart_into(Build::Present)?;
    let update = life.ends_in("confirmed")?;
    assert_eq!(update["floor"], 3, "{update}");
    life.work(Build::Present)
}

#[test]
fn the_build_before_in_a_newer_release_reads_what_this_one_wrote_and_is_confirmed() -> anyhow::Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut life = Life::begin(&[("1.0.0", Build::Present), ("2.0.0", Build::Previous)])?;
    assert_eq!(life.room.send("update.cancel", &[])?, "not_now");
    life.install("2.0.0", 2, SOUND)?;
    life.restart_into(Build::Previous)?;
    let update = life.ends_in("confirmed")?;
    assert_eq!((&update["running_slot"], update["floor"].as_u64()), (&"B".into(), Some(2)), "{update}");
    life.work(Build::Previous)
}
