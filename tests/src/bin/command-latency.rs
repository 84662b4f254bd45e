//! How long a signed command takes, from the operator to the answer, beside a bare client at the same Mosquitto that
//! writes each message to a small file, flushes it, and sends it back. In turns, in one run.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use jiff::Timestamp;
use serde_json::Value;
use vigil_fleet::link::Link;
use vigil_fleet::order::{Order, Request};
use vigil_fleet::settings::Layer;
use vigil_protocol::command::Target;
use vigil_tests::process::Process;
use vigil_tests::room::{DEVICE, Room};
use vigil_tests::vendor::TENANT;

/// The most that is allowed, in times of the bare client.
const RATIO: f64 = 2.0;
const PREFIX: &str = "vigil/v1";
const BARE: &str = "bare-1";
const LIMIT: Duration = Duration::from_secs(10);

/// Times commands beside a bare client that flushes one small file a message.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 within 2 times of the bare client, 1 not.")]
struct Arguments {
    /// Commands, and as many messages to the bare client
    #[arg(long, default_value_t = 500)]
    count: usize,
    /// Be the bare client: broker's port, the authority's certificate, own certificate, own key, directory for files
    #[arg(long, num_args = 5, value_names = ["PORT", "CA", "CERT", "KEY", "DIR"])]
    bare: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("command-latency: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.bare.as_slice() {
        [] => runtime.block_on(compare(arguments.count)),
        [port, ca, certificate, key, directory] => {
            let settings = settings(port.parse()?, ca, certificate, key);
            runtime.block_on(be_bare(&settings, Path::new(directory))).map(|()| true)
        }
        _ => anyhow::bail!("--bare takes five values"),
    }
}

fn settings(port: u16, ca: impl AsRef<Path>, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Layer {
    Layer {
        broker: Some(format!("mqtts://localhost:{port}")),
        ca: Some(ca.as_ref().to_owned()),
        cert: Some(certificate.as_ref().to_owned()),
        key: Some(key.as_ref().to_owned()),
        ..Layer::default()
    }
}

/// The bare client: what comes is written to a new file, flushed, and sent back.
async fn be_bare(settings: &Layer, directory: &Path) -> anyhow::Result<()> {
    let mut link = Link::open(settings).await?;
    link.subscribe(&[format!("{PREFIX}/{BARE}/command")]).await?;
    for number in 0_u64.. {
        let message = link.next(tokio::time::Instant::now() + Duration::from_secs(600)).await?;
        let message = message.context("nobody asks any more")?;
        let mut file = File::create(directory.join(number.to_string()))?;
        file.write_all(&message.payload)?;
        file.sync_all()?;
        let topic = format!("{PREFIX}/{BARE}/result/{number}");
        link.publish(&topic, message.payload, Duration::from_secs(60)).await?;
    }
    Ok(())
}

async fn compare(count: usize) -> anyhow::Result<bool> {
    let mut room = Room::with(|options| options.broker.push_str("max_commands_per_minute = 1000000\n"))?;
    room.device.power_on()?;
    room.wait_ready()?;
    let (port, pki) = (room.broker_port()?, room.pki());
    let files = room.directory.path().join("bare");
    std::fs::create_dir(&files)?;
    let (certificate, key) = pki.client(BARE)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--bare").arg(port.to_string()).arg(pki.ca()).arg(certificate).arg(key).arg(&files);
    let _bare = Process::start("the bare client", command, &room.directory.path().join("bare.log"))?;

    let (certificate, key) = pki.client("olga")?;
    let settings = settings(port, pki.ca(), certificate, key);
    let mut link = Link::open(&settings).await?;
    let filters = [BARE, DEVICE].map(|device| format!("{PREFIX}/{device}/result/#"));
    link.subscribe(&filters).await?;
    // Until the bare client has subscribed, nobody answers.
    while exchange(&mut link, BARE, b"{}".to_vec(), |_| true).await.is_err() {}

    let operator = vigil_fleet::keys::load(&room.vendor.operator_key())?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let request = Request {
            id: None,
            kind: "ping",
            args: [].into(),
            tenant: TENANT,
            target: Target::Device(DEVICE.to_owned()),
            lifetime: Duration::from_secs(30),
            nonce: None,
        };
        let order = Order::sign(request, &operator, Timestamp::now())?;
        let envelope = order.envelope.clone();
        bare.push(exchange(&mut link, BARE, envelope.clone(), |_| true).await?);
        let id = order.command.id;
        let is_answer = |answer: &Value| answer["id"] == id.as_str() && answer["status"] == "succeeded";
        ours.push(exchange(&mut link, DEVICE, envelope, is_answer).await?);
    }
    let mut enough = true;
    println!("{count} commands, milliseconds from the operator and back");
    println!("{:<12} {:>10} {:>18} {:>6}", "", "vigil", "bare client", "ratio");
    for (what, permille) in [("median", 500), ("99th of 100", 990)] {
        let (own, other) = (quantile(&mut ours, permille), quantile(&mut bare, permille));
        let ratio = own / other;
        println!("{what:<12} {:>10.2} {:>18.2} {ratio:>6.2}", own * 1e3, other * 1e3);
        enough &= ratio <= RATIO;
    }
    ensure!(std::fs::read_dir(&files)?.count() >= count, "the bare client kept less than it sent back");
    Ok(enough)
}

/// Sends a message, and waits for an answer. In seconds.
async fn exchange(
    link: &mut Link,
    device: &str,
    payload: Vec<u8>,
    is_answer: impl Fn(&Value) -> bool,
) -> anyhow::Result<f64> {
    let results = format!("{PREFIX}/{device}/result/");
    let began = Instant::now();
    let topic = format!("{PREFIX}/{device}/command");
    link.publish(&topic, payload, Duration::from_secs(60)).await?;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while let Some(message) = link.next(deadline).await? {
        let answer = serde_json::from_slice(&message.payload).unwrap_or_default();
        if message.topic.starts_with(&results) && is_answer(&answer) {
            return Ok(began.elapsed().as_secs_f64());
        }
    }
    anyhow::bail!("{device} did not answer within {} s", LIMIT.as_secs())
}

fn quantile(seconds: &mut [f64], permille: usize) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[(seconds.len() * permille / 1000).min(seconds.len() - 1)]
}
