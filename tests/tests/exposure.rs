//! What the shipped units leave open, as systemd itself judges it.

use std::process::Command;

use anyhow::{Context, ensure};

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
