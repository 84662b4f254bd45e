//! `vigild`: the daemon. One current-thread runtime.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use vigil_agent::config::Config;
use vigil_agent::daemon::{self, Ended};
use vigil_agent::identity::Identity;

const HELP: &str = "\
vigild: reports this device's health, tests its network, takes signed commands, fetches updates

Usage: vigild [--config FILE] [--check-config | --make-identity]

  --config FILE      settings (default /etc/vigil/vigil.toml)
  --check-config     read the settings, say what is wrong and where, and end
  --make-identity    make the device's keys and its certificate request, print where, and end
  --version, --help

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage, 3 wrong configuration.
Log level: [log] level, or VIGIL_LOG (error, warn, info, debug, trace).";

#[derive(PartialEq)]
enum Job {
    Run,
    CheckConfig,
    MakeIdentity,
}

fn arguments() -> Result<Option<(PathBuf, Job)>, lexopt::Error> {
    let mut config = PathBuf::from("/etc/vigil/vigil.toml");
    let mut job = Job::Run;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => config = parser.value()?.into(),
            Long("check-config") => job = Job::CheckConfig,
            Long("make-identity") => job = Job::MakeIdentity,
            Long("version") => {
                println!("vigild {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some((config, job)))
}

fn main() -> ExitCode {
    let (path, job) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigild: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let config = match daemon::load_config(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(3);
        }
    };
    let result = match job {
        Job::Run => run(&path, &config),
        Job::CheckConfig => check(&path, &config),
        Job::MakeIdentity => make_identity(&config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigild: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(path: &Path, config: &Config) -> anyhow::Result<()> {
    let overlay = config.paths.state.join("overlay.json");
    for warning in Config::check(path, Some(&overlay))? {
        eprintln!("warning: {warning}");
    }
    println!("{}: no errors", path.display());
    Ok(())
}

fn make_identity(config: &Config) -> anyhow::Result<()> {
    let identity = Identity::open(&config.paths.state, &config.device.id)?;
    println!("device key           {}", identity.public_key());
    println!("certificate request  {}", identity.tls_request_path().display());
    println!("put the certificate  {}", config.client_cert_file().display());
    Ok(())
}

fn run(path: &Path, config: &Config) -> anyhow::Result<()> {
    let level = config.log.level.as_str();
    let filter = tracing_subscriber::EnvFilter::try_from_env("VIGIL_LOG").unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    loop {
        // All tasks of one configuration end with their set.
        let local = tokio::task::LocalSet::new();
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        if local.block_on(&runtime, daemon::run(path, stop))? == Ended::Stopped {
            return Ok(());
        }
    }
}
