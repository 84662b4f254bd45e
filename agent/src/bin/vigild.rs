//! `vigild`: the daemon. One current-thread runtime.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use lexopt::prelude::*;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;
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

/// Made by root, the identity would be root's, and `vigild` could not read it: it is made as the user whom the state directory
/// belongs to.
fn become_owner(state: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(state).with_context(|| {
        format!(
            "{}: make the state directory first, owned by vigild's user (install -d -o vigil -g vigil -m 750 DIR), or run this \
             as that user",
            state.display()
        )
    })?;
    if owner.uid() != 0 {
        let program = std::env::current_exe()?;
        let error = std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .uid(owner.uid())
            .gid(owner.gid())
            .exec();
        return Err(error).context("cannot run as the owner of the state directory");
    }
    Ok(())
}

fn make_identity(config: &Config) -> anyhow::Result<()> {
    become_owner(&config.paths.state)?;
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
    vigil_turns::open("vigild");
    // Neither a core file nor another process of the same user tells what is in its memory.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "its memory can be dumped");
    }
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
        let ended = local.block_on(&runtime, daemon::run(path, stop));
        if !matches!(ended, Ok(Ended::Reload)) {
            drop(local);
            // A name that is being looked up may take a minute: nobody waits for it any more.
            runtime.shutdown_background();
            return ended.map(drop);
        }
    }
}
