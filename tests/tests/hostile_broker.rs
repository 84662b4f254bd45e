//! A device at a hostile broker: whatever it delivers, nothing forged is carried out, every refusal is recorded with its
//! reason, and afterwards a legitimate command is carried out exactly once. Scenarios are data, `scenarios/broker/*.toml`:
//! see `hostile_broker/scenario.rs` for what one may say. The daemons are real, and so is the repository that the
//! operators list comes from; the broker is `src/hostile`.

// A device that does not stand up fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "hostile_broker/people.rs"]
mod people;
#[path = "hostile_broker/play.rs"]
mod play;
#[path = "hostile_broker/scenario.rs"]
mod scenario;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use play::{FAKETIME, Stand};
use scenario::{Scenario, Step};

/// After so many the rest tells nothing new, and each waits for long.
const FAILURES: usize = 8;

fn scenarios() -> Vec<(String, Scenario)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/broker");
    let only = std::env::var("VIGIL_SCENARIO").ok();
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let scenario = toml::from_str(&std::fs::read_to_string(file).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, scenario)
    };
    let all: Vec<_> = files.iter().map(read).collect();
    all.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)).collect()
}

fn loses_ids(scenario: &Scenario) -> bool {
    scenario.steps.iter().any(|step| matches!(step, Step::LoseIds))
}

#[test]
fn a_hostile_broker_forges_nothing_and_a_legitimate_command_runs_exactly_once() {
    let sets_clock = |scenario: &Scenario| {
        scenario.steps.iter().any(|step| matches!(step, Step::Clock(_) | Step::UpdaterClock(_)))
    };
    let (of_clock, others): (VecDeque<_>, VecDeque<_>) =
        scenarios().into_iter().partition(|(_, scenario)| sets_clock(scenario));
    let (of_clock, others, failures) = (Mutex::new(of_clock), Mutex::new(others), Mutex::new(Vec::new()));
    let play = |queue: &Mutex<VecDeque<(String, Scenario)>>, with_clock: bool| {
        let mut stand = None;
        while let Some((name, scenario)) = { queue.lock().unwrap().pop_front() } {
            if failures.lock().unwrap().len() >= FAILURES {
                break;
            }
            if with_clock && !Path::new(FAKETIME).exists() {
                println!("{name:<44} skipped: tests/run installs libfaketime");
                continue;
            }
            let begun = Instant::now();
            let mut taken = stand.take().unwrap_or_else(|| Stand::new(with_clock).unwrap());
            let result = taken.play(&name, &scenario);
            let seconds = begun.elapsed().as_secs_f32();
            match result {
                Ok(()) => {
                    println!("{name:<44} {seconds:>5.1} s  {}", scenario.about);
                    // A device that has lost its ids refuses what is older than the loss, ever after.
                    stand = (!loses_ids(&scenario)).then_some(taken);
                }
                // The next one has a device of its own.
                Err(error) => failures.lock().unwrap().push(format!("{name}: {error:#}")),
            }
        }
    };
    std::thread::scope(|scope| {
        // They mostly wait.
        for _ in 0..3 {
            scope.spawn(|| play(&others, false));
        }
        scope.spawn(|| play(&of_clock, true));
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
