//! What does not end, and what cannot be written: checks whose children stay, a restart that hangs, boot variables that turn
//! read-only, pipes in the place of files. The updater goes on, says so, and leaves nothing behind.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vigil_tests::courier::Courier;
use vigil_tests::device::Daemon;
use vigil_tests::image::{self, CAMERA_MISSING, SOUND};
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::wait_for;
use vigil_wire::{Request, Response};

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Publishes 2.0.0 with this self-test and has it installed, up to the restart.
fn install(room: &mut Room, self_test: &str) -> anyhow::Result<()> {
    let path = room.directory.path().join("2.0.0.img");
    image::build(&path, "2.0.0", self_test, 1 << 20)?;
    room.vendor.release("2.0.0", 2, &path, "automatic")?;
    room.device.power_on()?;
    room.wait("the first refresh", |status| status["trust"]["refreshed_at"].is_number().then_some(()))?;
    let mut courier = Courier::connect(&room.device.updater_socket(), &room.vendor.repository())?;
    ensure!(courier.install_by_policy("2.0.0")?.is_empty(), "refused");
    wait_for("the restart to be asked for", LIMIT, || {
        room.device.disk.join("run/reboot").exists().then_some(())
    })
}

/// Processes whose command line has this in it.
fn processes(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark)
        })
        .count()
}

/// How long the updater takes to answer.
fn answer(socket: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut courier = Courier::connect(socket, Path::new("/nonexistent"))?;
    ensure!(matches!(courier.ask(&Request::Status)?, Response::Status(_)));
    Ok(began.elapsed())
}

#[test]
fn what_a_check_starts_ends_with_it_wherever_it_has_gone() -> anyhow::Result<()> {
    let mark = format!("7{}", std::process::id());
    let mut room = Room::elsewhere(|options| {
        options.updater_more = format!(
            "[[gate]]\nname = \"nest\"\ncommand = [\"/bin/sh\", \"-c\", \"setsid sleep {mark} & setsid sh -c 'sleep {mark} & exit' & echo no >&2; exit 1\"]\n\
             timeout_seconds = 5\n"
        );
        options.trial = options.trial.replace("deadline_seconds = 6", "deadline_seconds = 3");
    })?;
    install(&mut room, SOUND)?;
    let update = room.device.run_until(&["rolled_back"], LIMIT, |_| ())?;
    ensure!(
        update["last_failure"]["message"].as_str().is_some_and(|message| message.contains("nest")),
        "{update}"
    );
    room.device.power_off();
    wait_for("nothing to be left of the checks", Duration::from_secs(10), || {
        (processes(&mark) == 0).then_some(())
    })
    .with_context(|| format!("{} are left", processes(&mark)))
}

#[test]
fn a_restart_that_hangs_holds_nobody_up() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    let config = room.device.disk.join("etc/updater.toml");
    let text = std::fs::read_to_string(&config)?;
    let line = text.lines().find(|line| line.starts_with("reboot = ")).context("no reboot")?;
    let asked = room.device.disk.join("run/reboot");
    let script = format!("trap '' TERM; touch {}; sleep 600", asked.display());
    std::fs::write(&config, text.replace(line, &format!("reboot = [\"/bin/sh\", \"-c\", {script:?}]")))?;
    install(&mut room, SOUND)?;
    for _ in 0..20 {
        let took = answer(&room.device.updater_socket())?;
        ensure!(took < Duration::from_secs(1), "it answered after {took:?}");
    }
    room.lives()
}

#[test]
fn boot_variables_that_turn_read_only_under_a_failing_release_are_told_and_the_device_restarts_to_go_back()
-> anyhow::Result<()> {
    let mut room = Room::elsewhere(|options| {
        options.trial = options.trial.replace("deadline_seconds = 6", "deadline_seconds = 2");
    })?;
    install(&mut room, CAMERA_MISSING)?;
    room.device.daemon(Daemon::Vigild)?.stop()?;
    room.device.power_off();
    ensure!(room.device.power_on_without_agent()? == "B");
    let boot = room.device.disk.join("boot").display().to_string();
    run("mount", &["--bind", &boot, &boot])?;
    run("mount", &["-o", "remount,bind,ro", &boot])?;
    room.device.start_vigild()?;
    let asked = room.device.disk.join("run/reboot");
    let told = room.wait("the problem to be told", |status| {
        let problems = status["problems"].as_array()?;
        let told = problems.iter().filter_map(|problem| problem.as_str());
        told.into_iter().find(|problem| problem.contains("boot variables")).map(str::to_owned)
    });
    let restarts = told.and_then(|_| {
        wait_for("the restart that costs the release a try", Duration::from_secs(90), || {
            asked.exists().then_some(())
        })
    });
    run("umount", &["--lazy", &boot])?;
    restarts
}

#[test]
fn on_a_read_only_disk_the_updater_says_so_installs_nothing_and_comes_back_by_itself() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    room.device.power_on()?;
    room.status()?;
    room.device.power_off();
    let state = room.device.disk.join("updater").display().to_string();
    run("mount", &["--bind", &state, &state])?;
    run("mount", &["-o", "remount,bind,ro", &state])?;
    let started = room.device.start_updaterd().and_then(|()| room.device.start_vigild());
    let problem = |status: &serde_json::Value| status["problems"].to_string().contains("installs nothing");
    let told = started.and_then(|()| room.wait("the reason", |status| problem(status).then_some(())));
    let direct = Command::new(room.device.program("vigil"))
        .arg("--updater")
        .arg(room.device.updater_socket())
        .args(["update", "--direct"])
        .output();
    run("umount", &["--lazy", &state])?;
    told?;
    let direct = direct?;
    let said = String::from_utf8_lossy(&direct.stdout);
    ensure!(direct.status.code() == Some(5) && said.contains("Read-only"), "{said}");
    wait_for("the updater to use its state again", Duration::from_secs(90), || {
        let status = room.status().ok()?;
        (!problem(&status) && status["update"]["state"] == "idle").then_some(())
    })
}

#[test]
fn a_pipe_in_the_place_of_a_state_file_is_a_reason_and_no_wait() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    room.device.power_on_without_agent()?;
    answer(&room.device.updater_socket())?;
    for name in ["events.jsonl", "floor", "journal.json", "witness"] {
        room.device.power_off();
        let path = room.device.disk.join("updater").join(name);
        let aside = path.with_extension("aside");
        let had = std::fs::rename(&path, &aside).is_ok();
        run("mkfifo", &[&path.display().to_string()])?;
        room.device.start_updaterd()?;
        wait_for(&format!("an answer with a pipe as {name}"), LIMIT, || {
            answer(&room.device.updater_socket()).ok()
        })?;
        room.lives()?;
        std::fs::remove_file(&path)?;
        if had {
            std::fs::rename(&aside, &path)?;
        }
    }
    Ok(())
}
