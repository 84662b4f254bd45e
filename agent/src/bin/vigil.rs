//! `vigil`: the technician's tool, at the device.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use vigil_agent::audit::{VerifyError, verify};
use vigil_agent::technician::{self, AskError, Install, Updater, UpdaterError, ask};
use vigil_protocol::keys::PublicKey;
use vigil_wire::{Control, UpdateStatus};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and all is well
  1  failed
  2  wrong usage
  3  vigild, or the updater, cannot be reached
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
    /// vigil-updaterd's socket
    #[arg(long, global = true, default_value = "/run/vigil-updater/updater.sock", value_name = "FILE")]
    updater: PathBuf,
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
    /// Slots, releases, progress, last failure; and take an install in hand
    #[command(args_conflicts_with_subcommands = true)]
    Update {
        /// Show it again whenever it changes, until it is settled
        #[arg(long)]
        watch: bool,
        /// Ask vigil-updaterd itself, as root: also when vigild is dead
        #[arg(long)]
        direct: bool,
        #[command(subcommand)]
        act: Option<Act>,
    },
    /// Install a signed release from a directory or USB stick, as root: also when vigild is dead
    Install {
        /// The directory that holds metadata/, targets/ and blobs/
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The release's version [default: the newest in the directory]
        #[arg(long, value_name = "VERSION")]
        release: Option<semver::Version>,
        /// An operator's signed update.install; without it root at the device answers for the install
        #[arg(long, value_name = "FILE", conflicts_with = "release")]
        command: Option<PathBuf>,
        /// Also when the release runs already: it is written over the other slot, and the fall-back there is gone
        #[arg(long, conflicts_with = "command")]
        reinstall: bool,
    },
    /// The audit log
    #[command(subcommand)]
    Audit(AuditJob),
}

#[derive(Subcommand)]
enum Act {
    /// Stop the install until it is resumed
    Pause(By),
    /// Go on with it
    Resume(By),
    /// Give it up, before the new release runs
    Cancel(By),
    /// Go back from a release that is not confirmed yet
    Rollback(By),
    /// Forget what time it is at least, where that was proven wrong; as root. What is signed proves it anew
    ForgetTime,
}

#[derive(Args)]
struct By {
    /// An operator's signed command of this kind; without it root at the device answers for it
    #[arg(long, value_name = "FILE")]
    command: Option<PathBuf>,
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
    /// Say, as root, that it is known why the log begins anew or is shorter than it was
    ForgetWitness,
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
                _ => match error.downcast_ref::<UpdaterError>() {
                    Some(UpdaterError::Unreachable(..)) => 3,
                    Some(error) if error.is_permission() => 4,
                    _ if is_denied(&error) => 4,
                    _ => 1,
                },
            })
        }
    }
}

/// Whether a file may not be read by whoever runs this.
fn is_denied(error: &anyhow::Error) -> bool {
    let errors = error.chain().filter_map(|error| error.downcast_ref::<std::io::Error>());
    errors.into_iter().any(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
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
        Job::Update { act: Some(act), .. } => {
            let mut updater = Updater::connect(&arguments.common.updater)?;
            let (control, by) = match act {
                Act::Pause(by) => (Control::Pause, by),
                Act::Resume(by) => (Control::Resume, by),
                Act::Cancel(by) => (Control::Cancel, by),
                Act::Rollback(by) => (Control::Rollback, by),
                Act::ForgetTime => return updater.forget_time().map(|()| true).map_err(Into::into),
            };
            updater.control(control, by.command.as_deref())?;
            print(&arguments.common, &state(&updater.status()?), technician::update).map(|_| true)
        }
        Job::Update { watch: again, direct, act: None } => {
            let get = || {
                Ok(if *direct {
                    state(&Updater::connect(&arguments.common.updater)?.status()?)
                } else {
                    get("/v1/update")?
                })
            };
            if *again { watch(&arguments.common, get) } else { show(get()?, technician::update) }
        }
        Job::Install { from, release, command, reinstall } => {
            let (release, command) = (release.clone(), command.clone());
            let install = Install { from: from.clone(), release, command, reinstall: *reinstall };
            install_from(&arguments.common, &install)
        }
        Job::Audit(AuditJob::Show { first, limit }) => {
            let first = first.map_or_else(String::new, |first| format!("&first={first}"));
            show(get(&format!("/v1/audit?limit={limit}{first}"))?, technician::audit)
        }
        Job::Audit(AuditJob::ForgetWitness) => {
            Updater::connect(&arguments.common.updater)?.forget_witness()?;
            Ok(true)
        }
        Job::Audit(AuditJob::Verify { state, key, origin }) => {
            verify_audit(&arguments.common, state, key.as_deref(), origin.as_deref())
        }
    }
}

/// What `vigild` would tell of this.
fn state(status: &UpdateStatus) -> Value {
    json!(vigil_agent::report::update_state(Some(status)))
}

fn install_from(common: &Common, install: &Install) -> anyhow::Result<bool> {
    let mut updater = Updater::connect(&common.updater)?;
    let mut progress = Progress::new();
    let status = match updater.install(install, |status| progress.show(status)) {
        Ok(status) => status,
        // What was asked for is so.
        Err(UpdaterError::Refused { code, message }) if code == "nothing_to_do" => {
            anstream::eprintln!("{message}");
            updater.status()?
        }
        Err(error) => return Err(error.into()),
    };
    progress.end();
    print(common, &state(&status), technician::update)
}

/// One line on a terminal's standard error; elsewhere a line for each state.
struct Progress {
    is_terminal: bool,
    shown: String,
}

impl Progress {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), shown: String::new() }
    }

    fn show(&mut self, status: &UpdateStatus) {
        let mut text = status.state.name().to_owned();
        if let Some(progress) =
            status.progress.filter(|progress| self.is_terminal && progress.total_bytes > 0)
        {
            let percent = progress.done_bytes * 100 / progress.total_bytes;
            let total = progress.total_bytes / 1_000_000;
            text = format!("{text:<12} {percent:>3} % of {total} MB");
        }
        if text == self.shown {
            return;
        }
        if self.is_terminal {
            eprint!("\r{text:<40}");
        } else {
            eprintln!("{text}");
        }
        self.shown = text;
    }

    fn end(&self) {
        if self.is_terminal && !self.shown.is_empty() {
            eprintln!();
        }
    }
}

fn print(common: &Common, value: &Value, show: fn(&Value) -> (String, bool)) -> anyhow::Result<bool> {
    let (text, well) = show(value);
    let mut out = anstream::stdout().lock();
    let written = if common.json {
        writeln!(out, "{}", serde_json::to_string_pretty(value)?)
    } else {
        write!(out, "{text}")
    };
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(well),
        written => Ok(written.map(|()| well)?),
    }
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
