//! `vigil-updaterd`: what has authority over the boot, and no network.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use lexopt::prelude::*;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::warn;
use vigil_updater::config::{BootConfig, Config};
use vigil_updater::service::{self, Access, Service};
use vigil_updater::{boot, memory, sandbox};

const HELP: &str = "\
vigil-updaterd: installs signed releases into the other slot; speaks AF_UNIX only

Usage: vigil-updaterd [--config FILE] [--check-config]
       vigil-updaterd [--config FILE] --boot-order [--json]
       vigil-updaterd --config FILE --power-on BOOT_ID

  --config FILE      settings (default /etc/vigil/updater.toml)
  --check-config     read the settings, say what is wrong, and end
  --boot-order       read what the bootloader will choose from, print it, and end;
                     changes nothing
  --json             print it as JSON
  --power-on ID      for boot kind 'file': do what the first stage does at power-on
                     (choose a slot, spend a try), print the slot, and end
  --version, --help

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong configuration.
Log level: VIGIL_LOG (error, warn, info, debug).";

struct Arguments {
    config: PathBuf,
    check: bool,
    boot_order: bool,
    json: bool,
    power_on: Option<String>,
}

fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments {
        config: "/etc/vigil/updater.toml".into(),
        check: false,
        boot_order: false,
        json: false,
        power_on: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => arguments.config = parser.value()?.into(),
            Long("check-config") => arguments.check = true,
            Long("boot-order") => arguments.boot_order = true,
            Long("json") => arguments.json = true,
            Long("power-on") => arguments.power_on = Some(parser.value()?.string()?),
            Long("version") => {
                println!("vigil-updaterd {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    // First of all, so that nothing of the updater's own is open or read in a hook's process.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--run-hook") {
        return run_hook();
    }
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigil-updaterd: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("VIGIL_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("vigil-updaterd: {error}");
            return ExitCode::from(3);
        }
    };
    let result = if arguments.check {
        println!("{}: no errors", arguments.config.display());
        Ok(())
    } else if arguments.boot_order {
        print_boot_order(&config, arguments.json)
    } else if let Some(boot_id) = arguments.power_on {
        power_on(&config, &boot_id)
    } else {
        run(config)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigil-updaterd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--run-hook --user USER [--writes PATH]... -- PROGRAM [ARGUMENT]...`, for the updater's own use.
fn run_hook() -> ExitCode {
    let (mut user, mut writes) = (String::new(), Vec::new());
    let mut arguments = std::env::args().skip(2);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--user" => user = arguments.next().unwrap_or_default(),
            "--writes" => writes.extend(arguments.next().map(PathBuf::from)),
            _ => break,
        }
    }
    let command: Vec<String> = arguments.collect();
    eprintln!("{}", vigil_updater::hook::become_hook(&user, &writes, &command));
    ExitCode::FAILURE
}

fn power_on(config: &Config, boot_id: &str) -> anyhow::Result<()> {
    let BootConfig::File { directory } = &config.boot else {
        anyhow::bail!("--power-on is for boot kind 'file': with another one the bootloader does it");
    };
    println!("{}", boot::FileBoot::new(directory).power_on(boot_id)?);
    Ok(())
}

fn print_boot_order(config: &Config, json: bool) -> anyhow::Result<()> {
    let boot = boot::open(&config.boot, boot::Claims::default());
    let reading = boot.read()?;
    let running = boot.booted().ok().map(|booted| booted.slot);
    let next = reading.order.clone().select();
    if json {
        let object = serde_json::json!({
            "order": reading.order.order, "left": reading.order.left, "next": next, "running": running,
            "damage": reading.damage, "guarantee": boot.guarantee(),
        });
        println!("{object}");
        return Ok(());
    }
    println!("next     {}", next.as_deref().unwrap_or("none"));
    println!("running  {}", running.as_deref().unwrap_or("unknown"));
    for slot in &reading.order.order {
        println!("slot {slot}: {} tries left", reading.order.left.get(slot).copied().unwrap_or_default());
    }
    for slot in config.slots.iter().filter(|slot| !reading.order.may_boot(&slot.name)) {
        println!("slot {}: not in the boot order", slot.name);
    }
    if let Some(damage) = reading.damage {
        println!("damage   {damage}");
    }
    println!("a write  {}", boot.guarantee());
    Ok(())
}

fn run(config: Config) -> anyhow::Result<()> {
    memory::give_back_large();
    vigil_turns::open("vigil-updaterd");
    // Neither a core file nor another process of the same user tells what is in its memory.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "its memory can be dumped");
    }
    let confined = match sandbox::confine() {
        Ok(()) => true,
        Err(error) if config.require_seccomp => {
            return Err(error).context("set require_seccomp = false to run without");
        }
        Err(error) => {
            warn!("{error}; running without it");
            false
        }
    };
    let courier = match &config.courier {
        None => None,
        Some(name) => Some(match name.parse() {
            Ok(uid) => uid,
            Err(_) => nix::unistd::User::from_name(name)?
                .with_context(|| format!("courier: there is no user {name:?} on this system"))?
                .uid
                .as_raw(),
        }),
    };
    service::adopt_orphans();
    let socket = config.socket.clone();
    let listener = service::bind(&socket).with_context(|| format!("socket {}", socket.display()))?;
    let mut service = Service::open(config, confined);
    let own = rustix::process::geteuid().as_raw();
    // Root is a person at the device only where vigild is not root as well.
    let courier_is_root = courier.unwrap_or(own) == 0;
    service::serve(&mut service, &listener, |uid| match uid {
        0 if !courier_is_root => Access::Root,
        _ if uid == 0 || uid == own || Some(uid) == courier => Access::Courier,
        _ => Access::None,
    })
}
