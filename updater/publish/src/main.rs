//! `vigil-publish`: the release engineer's command line.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use rustix::fs::Mode;
use rustix::process::umask;
use semver::Version;
use serde_json::{Value, json};
use vigil_protocol::keys::PublicKey;
use vigil_protocol::operators::Operators;
use vigil_publish::release::{DEFAULT_LEVEL, Release};
use vigil_publish::repository::{Lifetimes, Repository, TimestampLifetime};
use vigil_publish::{keys, operators, release, verify};
use vigil_tuf::Role;
use vigil_updater::release::InstallPolicy;

mod show;

/// Publishes firmware releases and operators' keys to Vigil devices, as a TUF repository in a directory
#[derive(Parser)]
#[command(name = "vigil-publish", version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
struct Cli {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Place {
    /// The repository's directory
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
}

#[derive(Args)]
struct Publish {
    #[command(flatten)]
    place: Place,
    /// The directory of the private keys
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    lifetimes: Lifetimes,
}

#[derive(Subcommand)]
enum Command {
    /// Make the four role keys and an empty repository
    Init {
        #[command(flatten)]
        publish: Publish,
        /// Days until the root expires
        #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
        root_days: u16,
    },
    /// Keys of operators
    #[command(subcommand)]
    Key(KeyCommand),
    /// Who may command a tenant's devices
    #[command(subcommand)]
    Operators(OperatorsCommand),
    /// Firmware releases
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Sign the timestamp anew, before it expires: a daily job that needs only the timestamp key
    Timestamp {
        #[command(flatten)]
        place: Place,
        /// The directory of the private keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        #[command(flatten)]
        lifetime: TimestampLifetime,
    },
    /// Read the repository as a new device would, and check every file in it
    Verify(Place),
    /// Show roles, keys, expiry and targets
    Show(Place),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make an Ed25519 key and print its public half
    New {
        /// The key's name, e.g. the operator's
        name: String,
        /// The directory of the private keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
    },
}

#[derive(Subcommand)]
enum OperatorsCommand {
    /// Replace a tenant's list
    Set {
        #[command(flatten)]
        publish: Publish,
        /// The tenant
        #[arg(long)]
        tenant: String,
        /// `name=alice,key=BASE64,scopes=observe+operate,devices=*,groups=a+b,expires=TIME`; repeatable. Scopes:
        /// observe, operate, update, admin; one of devices and groups is needed, expires is not
        #[arg(long, value_name = "OPERATOR", required_unless_present = "file", conflicts_with = "file")]
        operator: Vec<String>,
        /// The whole list as JSON
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Days until the list expires (with --operator)
        #[arg(long, default_value_t = 180, value_name = "DAYS")]
        list_days: u16,
    },
}

#[derive(Subcommand)]
enum ReleaseCommand {
    /// Publish a release
    Add(AddRelease),
}

#[derive(Args)]
struct AddRelease {
    #[command(flatten)]
    publish: Publish,
    /// The product it is for
    #[arg(long)]
    product: String,
    /// Its semantic version
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// Greater than that of every release of the product before
    #[arg(long)]
    sequence: u64,
    /// A hardware revision it is for; repeatable
    #[arg(long, required = true)]
    hardware: Vec<String>,
    /// Part of a slot and its image, e.g. `rootfs=rootfs.ext4`; repeatable
    #[arg(long, required = true, value_name = "NAME=FILE", value_parser = parse_image)]
    image: Vec<(String, PathBuf)>,
    /// Who may start its install
    #[arg(long, default_value = "operator")]
    install_policy: Policy,
    /// Accept a sequence that is not above all published ones
    #[arg(long)]
    allow_lower: bool,
    /// zstd's level
    #[arg(long, default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    /// Only an operator's signed command
    Operator,
    /// The device itself
    Automatic,
}

fn parse_image(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE, e.g. rootfs=rootfs.ext4")?;
    Ok((name.to_owned(), path.into()))
}

fn main() -> ExitCode {
    // What is published must be readable by the web server, whatever the umask of the person or job.
    umask(Mode::WGRP | Mode::WOTH);
    let cli = Cli::parse();
    match run(cli.command, Timestamp::now()) {
        Ok((text, value)) => {
            let out = if cli.json { value.to_string() } else { text };
            anstream::println!("{}", out.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            if cli.json {
                anstream::println!("{}", json!({"error": format!("{error:#}")}));
            } else {
                anstream::eprintln!("vigil-publish: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What to print: for people, and as JSON.
fn run(command: Command, now: Timestamp) -> Result<(String, Value)> {
    match command {
        Command::Init { publish, root_days } => {
            let repository =
                Repository::init(&publish.place.repo, &publish.keys, root_days, publish.lifetimes, now)?;
            let root = repository.directory().join("metadata/1.root.json");
            let text = format!(
                "Made a repository in {} and its keys in {}.\nDevices need {} as /etc/vigil/root.json.\n\
                 Keep the root key offline.",
                publish.place.repo.display(),
                publish.keys.display(),
                root.display()
            );
            Ok((text, json!({"root": root, "versions": versions(&repository)})))
        }
        Command::Key(KeyCommand::New { name, keys: directory }) => {
            let key = PublicKey::from(keys::create_operator(&directory, &name)?.verifying_key());
            let file = keys::path(&directory, &name);
            let text = format!("key   {key}\nid    {}\nfile  {}", key.id(), file.display());
            Ok((text, json!({"name": name, "key": key, "id": key.id(), "file": file})))
        }
        Command::Operators(OperatorsCommand::Set { publish, tenant, operator, file, list_days }) => {
            let list = match file {
                Some(path) => {
                    let bytes =
                        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    Operators::parse(&bytes).with_context(|| path.display().to_string())?
                }
                None => operators::list(&tenant, &operator, list_days, now)?,
            };
            let mut repository = Repository::open(&publish.place.repo)?;
            repository.check_keys(&publish.keys)?;
            let target = operators::put(&mut repository, &tenant, &list)?;
            repository.publish(&publish.keys, publish.lifetimes, now)?;
            let text =
                format!("Published {target}: {} operators, until {}.", list.operators.len(), list.expires);
            Ok((text, json!({"target": target, "versions": versions(&repository)})))
        }
        Command::Release(ReleaseCommand::Add(add)) => add_release(add, now),
        Command::Timestamp { place, keys, lifetime } => {
            let mut repository = Repository::open(&place.repo)?;
            repository.publish_timestamp(&keys, lifetime, now)?;
            let (version, expires) = repository.state(Role::Timestamp);
            let warnings = show::warnings(&repository, now);
            let mut text = format!("Signed timestamp {version}, good until {expires}.");
            for warning in &warnings {
                let _ = write!(text, "\nwarning: {warning}");
            }
            Ok((text, json!({"version": version, "expires": expires, "warnings": warnings})))
        }
        Command::Verify(place) => {
            let verified = verify::repository(&place.repo, now)?;
            let text = format!(
                "Good: root version {}, {} targets, {} blobs of {} bytes.",
                verified.root, verified.targets, verified.blobs, verified.blob_bytes
            );
            Ok((text, json!(verified)))
        }
        Command::Show(place) => {
            let repository = Repository::open_to_read(&place.repo)?;
            Ok((show::text(&repository, now), show::json(&repository)))
        }
    }
}

fn add_release(add: AddRelease, now: Timestamp) -> Result<(String, Value)> {
    let mut repository = Repository::open(&add.publish.place.repo)?;
    repository.check_keys(&add.publish.keys)?;
    let release = Release {
        product: add.product,
        version: add.version,
        sequence: add.sequence,
        hardware: add.hardware,
        images: add.image,
        install: match add.install_policy {
            Policy::Operator => InstallPolicy::Operator,
            Policy::Automatic => InstallPolicy::Automatic,
        },
        allow_lower: add.allow_lower,
        level: add.level,
    };
    let added = release::add(&mut repository, &release)?;
    let mut text = String::new();
    for image in &added.manifest.images {
        let _ = writeln!(
            text,
            "{}: {} bytes, {} to fetch",
            image.name,
            image.size,
            image.frames.size + image.index.size
        );
    }
    if added.unchanged {
        let _ = write!(text, "{} was published before, with the same content.", added.target);
    } else {
        repository.publish(&add.publish.keys, add.publish.lifetimes, now)?;
        let _ = write!(text, "Published {}.", added.target);
    }
    let value = json!({
        "target": added.target, "manifest": added.manifest, "unchanged": added.unchanged,
        "versions": versions(&repository),
    });
    Ok((text, value))
}

fn versions(repository: &Repository) -> Value {
    Role::ALL.into_iter().map(|role| (role.name().to_owned(), json!(repository.state(role).0))).collect()
}
