//! What the shipped units leave open, as systemd itself judges it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, ensure};
use vigil_tests::process::Process;
use vigil_tests::room::LIMIT;
use vigil_tests::wait_for;

/// The exposure that `systemd-analyze` sees in a unit of ours, from 0 (nothing) to 10 (everything).
fn exposure(unit: &str) -> anyhow::Result<f64> {
    let file = format!("{}/../packaging/systemd/{unit}", env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", &file]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{unit}: {}", String::from_utf8_lossy(&output.stderr));
    let last = said.lines().rev().find(|line| line.contains("Overall exposure level"));
    let figure = last.and_then(|line| line.split(": ").nth(1)?.split(' ').next());
    figure
        .with_context(|| format!("{unit}: systemd-analyze names no exposure level"))?
        .parse()
        .context("the level")
}

#[test]
fn the_shipped_units_leave_no_more_open_than_is_allowed() -> anyhow::Result<()> {
    for (unit, most) in [("vigil-updaterd.service", 2.5), ("vigild.service", 1.5)] {
        let seen = exposure(unit)?;
        println!("{unit}: exposure {seen}, at most {most}");
        ensure!(seen <= most, "{unit}: exposure {seen}, {most} are allowed");
    }
    Ok(())
}

/// Numbers of a user and a group that are nobody's.
const USER: u32 = 61_234;

#[test]
fn the_memory_of_vigild_is_closed_to_its_own_user() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    for name in ["data", "run"] {
        std::fs::create_dir(at(name))?;
        std::os::unix::fs::chown(at(name), Some(USER), Some(USER))?;
    }
    let text = format!(
        "[device]\nid = \"room-1\"\ntenant = \"acme\"\nproduct = \"demo-bar\"\n[paths]\nstate = {:?}\nrun = {:?}\n\
         updater_socket = {:?}\n[broker]\nurl = \"mqtts://localhost:1\"\n",
        at("data"),
        at("run"),
        at("updater.sock"),
    );
    std::fs::write(at("vigil.toml"), text)?;
    let mut command = Command::new(vigil_tests::binaries()?.join("vigild"));
    command.arg("--config").arg(at("vigil.toml")).uid(USER).gid(USER);
    let mut process = Process::start("vigild", command, &at("log"))?;
    let log = || std::fs::read_to_string(at("log")).unwrap_or_default();
    wait_for("the sockets", LIMIT, || at("run/status.sock").exists().then_some(())).with_context(log)?;
    // The kernel gives the files of a process that must not be dumped to root: what another process of the same user may
    // not open, it may not trace either.
    let owner = std::fs::metadata(format!("/proc/{}/mem", process.pid()))?.uid();
    process.stop()?;
    ensure!(owner == 0, "its memory is the user's, {owner}");
    Ok(())
}
