//! Runs one network test and prints the diagnosis as JSON: `diagnose CONFIG`. What the network lab runs.

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: diagnose CONFIG")?;
    let config = vigil_agent::config::Config::load(Path::new(&path), None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let diagnosis =
        runtime.block_on(vigil_agent::network::diagnose(&config, "local", jiff::Timestamp::now()));
    println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    Ok(())
}
