//! `vigil`: the technician's tool, at the device.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use vigil_agent::audit::{VerifyError, verify};
use vigil_agent::technician::{self, AskError, ask};
use vigil_protocol::keys::PublicKey;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and all is well
  1  failed
  2  wrong usage
  3  vigild cannot be reached
  4  permission denied
  5  done, and something needs attention: not connected, a fault found, an update failed, a log not believed";

/// Asks this device's vigild how it stands.
#[derive(Parser)]
#[command(name = "vigil", version, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    job: Job,
}

#[derive(Args)]
struct Common {
    /// Where vigild's sockets are
    #[arg(long, global = true, default_value = "/run/vigil", value_name = "DIR")]
    run_dir: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Job {
    /// Broker, operators, update, audit: how the device stands
    Status,
    /// CPU, memory, disks, interfaces, temperatures
    Health,
    /// Test the network and say whose fault it is (needs the admin group)
    Diagnose,
    /// Slots, releases, progress, last failure
    Update {
        /// Show it again whenever it changes, until it is settled
        #[arg(long)]
        watch: bool,
    },
    /// The audit log
    #[command(subcommand)]
    Audit(AuditJob),
}

#[derive(Subcommand)]
enum AuditJob {
    /// The newest entries, over the socket
    Show {
        /// From this index on
        #[arg(long)]
        first: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Verify the log's files against the device's key: nothing changed, nothing removed
    Verify {
        /// The state directory
        #[arg(long, default_value = "/var/lib/vigil", value_name = "DIR")]
        state: PathBuf,
        /// The device's key in base64, if not the one in the state directory
        #[arg(long, value_name = "BASE64")]
        key: Option<String>,
        /// The log's name, if not the one in its checkpoint
        #[arg(long)]
        origin: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(5),
        Err(error) => {
            anstream::eprintln!("vigil: {error:#}");
            ExitCode::from(match error.downcast_ref::<AskError>() {
                Some(AskError::Unreachable(..)) => 3,
                Some(AskError::NotPermitted(_)) => 4,
                _ => 1,
            })
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let status = arguments.common.run_dir.join("status.sock");
    let admin = arguments.common.run_dir.join("admin.sock");
    let get = |path: &str| ask(&status, Method::GET, path);
    let show = |value: Value, show: fn(&Value) -> (String, bool)| print(&arguments.common, &value, show);
    match &arguments.job {
        Job::Status => show(get("/v1/status")?, technician::status),
        Job::Health => show(get("/v1/health")?, technician::health),
        Job::Diagnose => show(ask(&admin, Method::POST, "/v1/diagnose")?, technician::diagnosis),
        Job::Update { watch: false } => show(get("/v1/update")?, technician::update),
        Job::Update { watch: true } => watch(&arguments.common, || Ok(get("/v1/update")?)),
        Job::Audit(AuditJob::Show { first, limit }) => {
            let first = first.map_or_else(String::new, |first| format!("&first={first}"));
            show(get(&format!("/v1/audit?limit={limit}{first}"))?, technician::audit)
        }
        Job::Audit(AuditJob::Verify { state, key, origin }) => {
            verify_audit(&arguments.common, state, key.as_deref(), origin.as_deref())
        }
    }
}

fn print(common: &Common, value: &Value, show: fn(&Value) -> (String, bool)) -> anyhow::Result<bool> {
    let (text, well) = show(value);
    if common.json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        anstream::print!("{text}");
    }
    Ok(well)
}

fn watch(common: &Common, get: impl Fn() -> anyhow::Result<Value>) -> anyhow::Result<bool> {
    let mut shown = Value::Null;
    loop {
        let value = get()?;
        if value != shown {
            let well = print(common, &value, technician::update)?;
            let state = value.get("state").and_then(Value::as_str).unwrap_or_default();
            if matches!(state, "idle" | "confirmed" | "rolled_back" | "failed" | "") {
                return Ok(well);
            }
            shown = value;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn verify_audit(
    common: &Common,
    state: &std::path::Path,
    key: Option<&str>,
    origin: Option<&str>,
) -> anyhow::Result<bool> {
    let directory = state.join("audit");
    let key = if let Some(key) = key {
        key.to_owned()
    } else {
        let path = state.join("identity/device.pub");
        let bytes = vigil_durable::read_bounded(&path, 1024).with_context(|| path.display().to_string())?;
        let bytes = bytes.with_context(|| format!("{}: no device key there; give --key", path.display()))?;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let key = PublicKey::try_from(key)?;
    let origin = if let Some(origin) = origin {
        origin.to_owned()
    } else {
        let path = directory.join("checkpoint");
        let bytes = vigil_durable::read_bounded(&path, 4096).with_context(|| path.display().to_string())?;
        let bytes = bytes.with_context(|| {
            format!("{}: no checkpoint there; is this the state directory?", path.display())
        })?;
        String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned()
    };
    match verify(&directory, &origin, &key) {
        Ok(report) => {
            if common.json {
                println!("{}", serde_json::to_string_pretty(&json!({ "verified": true, "report": report }))?);
            } else {
                println!("verified: entries {} to {} of {}", report.first, report.size, report.origin);
                println!("root {}", report.root);
                if report.unsigned > 0 {
                    println!("{} newer entries are not under the checkpoint yet", report.unsigned);
                }
            }
            Ok(true)
        }
        Err(VerifyError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => Err(error.into()),
        Err(error) => {
            if common.json {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&json!({ "verified": false, "error": error.to_string() }))?
                );
            } else {
                anstream::eprintln!("NOT verified: {error}");
            }
            Ok(false)
        }
    }
}
