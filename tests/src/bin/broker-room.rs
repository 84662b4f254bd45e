//! A device and an operator at a broker that `tests/brokers` has started: vigild connects, says everything under its
//! digest, and answers a ping. With `--rumqttd` it is the broker itself, with `--pki` it makes a broker's certificates.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Parser;
use vigil_tests::pki::Pki;
use vigil_tests::room::{DEVICE, Room};
use vigil_tests::vendor::TENANT;

#[derive(Parser)]
struct Arguments {
    /// Serve rumqttd at this port of loopback, until killed
    #[arg(long, value_name = "PORT")]
    rumqttd: Option<u16>,
    /// Its MQTT 3.1.1 instead of its 5
    #[arg(long)]
    v4: bool,
    /// Write ca.crt, server.crt and server.key for localhost
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// The broker to try
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The authority of its certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The version that the device must end up with: "3.1.1" is also what it is told to speak
    #[arg(long, value_name = "VERSION", default_value = "5")]
    mqtt: String,
    /// Let the device find the version out
    #[arg(long)]
    auto: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.rumqttd {
        return vigil_tests::broker::serve_rumqttd(port, arguments.v4);
    }
    if let Some(directory) = arguments.pki {
        return Pki::new(&directory)?.server().map(drop);
    }
    let broker = arguments.broker.context("one of --broker, --rumqttd and --pki; see --help")?;
    try_out(&broker, arguments.ca, &arguments.mqtt, arguments.auto)
}

fn try_out(broker: &str, ca: Option<PathBuf>, mqtt: &str, auto: bool) -> anyhow::Result<()> {
    let mut room = Room::elsewhere(|options| {
        let authority = ca.as_ref().map(|ca| format!("ca_file = {ca:?}\n")).unwrap_or_default();
        options.broker = format!(
            "url = {broker:?}\nallow_plaintext = true\n{authority}keep_alive = \"10s\"\nfleet_size = 1\nmqtt_version = {:?}\n",
            if auto { "auto" } else { mqtt }
        );
        // A common name that the broker has no authority for is none of its business.
        options.broker.push_str("client_cert_file = \"/nonexistent\"\n");
    })?;
    room.device.power_on()?;
    room.wait_ready()?;
    let spoken = &room.status()?["broker"]["mqtt"];
    ensure!(spoken == mqtt, "the device speaks {spoken}");
    let fleet = |arguments: &[&str]| -> anyhow::Result<()> {
        let mut command = Command::new(vigil_tests::binaries()?.join("vigil-fleet"));
        command.args(arguments).args(["--allow-plaintext", "--broker", broker, "--tenant", TENANT]);
        command.arg("--operator-key").arg(room.vendor.operator_key());
        if let Some(ca) = &ca {
            command.arg("--ca").arg(ca);
        }
        let output = command.output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "vigil-fleet {}: {}", arguments[0], String::from_utf8_lossy(&said));
        Ok(())
    };
    fleet(&["send", DEVICE, "ping"])?;
    let known = room.directory.path().join("known.json");
    fleet(&["check", DEVICE, "--accept-new", "--known", known.to_str().context("no path")?])
}
