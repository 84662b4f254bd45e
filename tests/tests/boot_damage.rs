//! Boot variables that somebody damaged, under a running updater.

use std::process::Command;

use anyhow::ensure;
use serde_json::Value;
use vigil_tests::room::{LIMIT, Room};
use vigil_tests::{binaries, wait_for};

/// What `vigil-updaterd --boot-order` says.
fn boot_order(room: &Room) -> anyhow::Result<Value> {
    let config = room.device.disk.join("etc/updater.toml");
    let output = Command::new(binaries()?.join("vigil-updaterd"))
        .arg("--config")
        .arg(config)
        .args(["--boot-order", "--json"])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn damaged_boot_variables_are_told_once_and_repaired_by_the_next_good_boot() -> anyhow::Result<()> {
    let mut room = Room::alone("")?;
    ensure!(room.device.power_on_without_agent()? == "A");
    let claims = room.device.disk.join("updater/boot-claims");
    wait_for("the updater to remember its boot variables", LIMIT, || claims.exists().then_some(()))?;
    room.device.power_off();
    let variables = room.device.disk.join("boot/boot.env");
    std::fs::write(&variables, "garbage")?;
    let said = boot_order(&room)?;
    ensure!(
        said["next"] == "A" && said["damage"].as_str().is_some_and(|what| what.contains("slot A")),
        "{said}"
    );
    ensure!(std::fs::read(&variables)? == b"garbage", "reading has changed it");

    room.device.start_updaterd()?;
    wait_for("the boot variables to be repaired", LIMIT, || {
        let said = boot_order(&room).ok()?;
        (said["damage"].is_null() && said["order"] == serde_json::json!(["A"])).then_some(())
    })?;
    let events = std::fs::read_to_string(room.device.disk.join("updater/events.jsonl"))?;
    let told = events.matches("\"boot.damaged\"").count();
    ensure!(told == 1, "told {told} times: {events}");
    Ok(())
}
