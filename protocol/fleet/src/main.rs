//! `vigil-fleet`: the operator's command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use vigil_fleet::failure::Failure;
use vigil_fleet::run::{self, Context};
use vigil_fleet::settings::{self, Layer};
use vigil_fleet::{order, text};

const AFTER: &str = "\
Settings come from the command line, then from VIGIL_FLEET_BROKER, VIGIL_FLEET_CA and so on, then from
~/.config/vigil/fleet.toml, whose keys are the long options with '_' for '-'.

Exit codes: 0 done; 1 failed, refused, or a check found something; 2 wrong usage or settings; 3 the broker cannot be
reached; 4 no answer in time.";

/// See the fleet, ask it, check what it says: the operator's end of Vigil
#[derive(Parser)]
#[command(name = "vigil-fleet", version, after_help = AFTER)]
struct Cli {
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    json: bool,
    /// The settings file [default: ~/.config/vigil/fleet.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Layer,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an operator's key, or show its public half
    #[command(subcommand)]
    Key(run::Key),
    /// The former name of 'key new'
    #[command(hide = true)]
    Keygen {
        /// The file, readable by its owner only
        file: PathBuf,
    },
    /// List the devices
    Ls(run::Ls),
    /// Show all that a device says of itself
    Status {
        /// The device
        device: String,
        /// How long the broker may take to deliver
        #[arg(long, value_name = "TIME", default_value = "3s", value_parser = order::duration)]
        wait: Duration,
    },
    /// Follow what is said, one line a message
    Watch(run::Watch),
    /// Send a signed command and follow the answers
    Send(Box<run::Send>),
    /// Sign a command without a broker, or add a signature to one
    Sign(Box<run::Sign>),
    /// Install a release on a device or a group, and follow it to the end
    Update(Box<run::Update>),
    /// Show or change a device's configuration
    #[command(subcommand)]
    Config(run::Config),
    /// Show what each device would do with a command, before anyone signs it
    Plan(Box<run::Plan>),
    /// Have a device test its network: whose fault is it?
    Diagnose(run::Diagnose),
    /// Verify a device's signature over all that the broker keeps of it
    Check(run::Check),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if !matches!(failure, Failure::Said(_)) {
                if json {
                    // The line is the last thing to say; where it cannot be written, the exit code still tells.
                    let _ = text::json(&serde_json::json!({"error": failure.to_string(), "exit_code": code}));
                } else {
                    eprintln!("vigil-fleet: {failure}");
                }
            }
            ExitCode::from(code)
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let directory = settings::directory(variable);
    let file = cli.config.clone().unwrap_or_else(|| directory.join("fleet.toml"));
    let settings = cli
        .settings
        .over(Layer::from_environment(variable))
        .over(Layer::from_file(&file, cli.config.is_some())?);
    let context = Context { settings, known_devices: directory.join("known_devices.json"), json: cli.json };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let work = async {
            match &cli.command {
                Command::Key(key) => run::key(&context, key),
                Command::Keygen { file } => run::key(&context, &run::Key::New { file: file.clone() }),
                Command::Ls(ls) => run::ls(&context, ls).await,
                Command::Status { device, wait } => run::status(&context, device, *wait).await,
                Command::Watch(watch) => run::watch(&context, watch).await,
                Command::Send(send) => run::send(&context, send).await,
                Command::Sign(sign) => run::sign(&context, sign),
                Command::Update(update) => run::update(&context, update).await,
                Command::Config(config) => run::config(&context, config).await,
                Command::Plan(plan) => run::plan(&context, plan).await,
                Command::Diagnose(diagnose) => run::diagnose(&context, diagnose).await,
                Command::Check(check) => run::check(&context, check).await,
            }
        };
        tokio::select! {
            result = work => result,
            // Watching ends so; anything else was cut short.
            _ = tokio::signal::ctrl_c() => match cli.command {
                Command::Watch(_) => Ok(()),
                _ => Err(Failure::Said(1)),
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
