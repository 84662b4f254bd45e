//! Commands and options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use semver::Version;
use vigil_publish::release::DEFAULT_LEVEL;
use vigil_publish::settings::{Lifetimes, TimestampLifetime};
use vigil_tuf::Role;

mod shared;

pub(crate) use shared::{Change, KeyDirectory, NewSecret, Place, Publish, Secret};
use shared::{parse_image, parse_role_key, parse_threshold};

/// Publishes firmware releases and operators' keys to Vigil devices, as a TUF repository in a directory
#[derive(Parser)]
#[command(name = "vigil-publish", version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(crate) struct Cli {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a repository, its roles and their keys
    Init(Init),
    /// Keys of roles and operators
    #[command(subcommand)]
    Key(KeyCommand),
    /// The root: keys, thresholds and expiry of the top-level roles
    #[command(subcommand)]
    Root(RootCommand),
    /// Delegated roles: who else signs which targets
    #[command(subcommand)]
    Role(RoleCommand),
    /// Who may command a tenant's devices
    #[command(subcommand)]
    Operators(OperatorsCommand),
    /// Firmware releases
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Publish a file as a target, or all files in a directory
    Add {
        #[command(flatten)]
        publish: Publish,
        /// The target's name; of a directory's files the beginning of their names
        target: String,
        /// The file or directory
        file: PathBuf,
    },
    /// Take a target out of the repository
    Remove {
        #[command(flatten)]
        publish: Publish,
        /// The target's name
        target: String,
    },
    /// Sign what is staged, or a staged file that was brought here
    Sign(Sign),
    /// Forget what is staged
    Discard(Place),
    /// Sign targets or delegated roles anew, before they expire
    Renew {
        #[command(flatten)]
        change: Change,
        /// `targets` or delegated roles
        #[arg(required = true)]
        role: Vec<String>,
    },
    /// Sign the timestamp anew, before it expires: a daily job that needs only the timestamp key
    Timestamp {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        keys: KeyDirectory,
        #[command(flatten)]
        lifetime: TimestampLifetime,
    },
    /// Read the repository as a new device would, and check every file in it
    Verify(Place),
    /// Show roles, keys, expiry, targets and what is staged
    Show {
        #[command(flatten)]
        place: Place,
        /// List all targets, not the first of each role alone
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args)]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The directory of the private keys
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) secret: NewSecret,
    #[command(flatten)]
    pub(crate) lifetimes: Lifetimes,
    /// Days until the root expires
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub(crate) root_days: u16,
    /// A key of a role, by its name in --keys or as @FILE of a public key; repeatable. A role without one gets a new
    /// key of its own name
    #[arg(long, value_name = "ROLE=KEY", value_parser = parse_role_key)]
    pub(crate) role_key: Vec<(Role, String)>,
    /// How many of a role's keys must sign, if not one; repeatable
    #[arg(long, value_name = "ROLE=N", value_parser = parse_threshold)]
    pub(crate) threshold: Vec<(Role, u32)>,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an Ed25519 key and print its public half
    New {
        /// The key's name, e.g. the operator's
        name: String,
        /// The directory of the private keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        #[command(flatten)]
        secret: NewSecret,
    },
    /// Take in a private key (Ed25519, PKCS#8 PEM) or a public one (PEM, or JSON as securesystemslib writes it)
    Import {
        /// The name it gets here
        name: String,
        /// The key's file
        file: PathBuf,
        /// The directory of the private keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        #[command(flatten)]
        secret: NewSecret,
    },
    /// Take a key out of every role, and sign anew what it had signed
    Revoke {
        #[command(flatten)]
        change: Change,
        /// The key's name, its id or the beginning of that
        key: String,
        /// The key that takes its place
        #[arg(long, value_name = "KEY")]
        replace_by: Option<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum RootCommand {
    /// Make the next root: signed by enough keys of the old one and of itself
    Rotate {
        #[command(flatten)]
        change: Change,
        /// A key that a role gets; repeatable
        #[arg(long, value_name = "ROLE=KEY", value_parser = parse_role_key)]
        add: Vec<(Role, String)>,
        /// A key that a role loses, by name or id; repeatable
        #[arg(long, value_name = "ROLE=KEY", value_parser = parse_role_key)]
        remove: Vec<(Role, String)>,
        /// How many of a role's keys must sign; repeatable
        #[arg(long, value_name = "ROLE=N", value_parser = parse_threshold)]
        threshold: Vec<(Role, u32)>,
        /// Days until this and later roots expire
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
        root_days: Option<u16>,
    },
}

#[derive(Subcommand)]
pub(crate) enum RoleCommand {
    /// Delegate targets to a new role
    Add(AddRole),
    /// Change a delegated role's keys, threshold or expiry
    Set {
        #[command(flatten)]
        change: Change,
        /// The role
        name: String,
        /// A key that it gets; repeatable
        #[arg(long, value_name = "KEY")]
        add_key: Vec<String>,
        /// A key that it loses, by name or id; repeatable
        #[arg(long, value_name = "KEY")]
        remove_key: Vec<String>,
        /// How many of its keys must sign
        #[arg(long, value_name = "N")]
        threshold: Option<u32>,
        /// Days until what it signs expires
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: Option<u16>,
    },
    /// End a delegation
    Remove {
        #[command(flatten)]
        change: Change,
        /// The role
        name: String,
        /// Even if it lists targets, which devices lose
        #[arg(long)]
        with_targets: bool,
    },
}

#[derive(Args)]
pub(crate) struct AddRole {
    #[command(flatten)]
    pub(crate) change: Change,
    /// Its name; with --bins the beginning of their names
    pub(crate) name: String,
    /// What it signs
    #[arg(long, required_unless_present_any = ["path", "bins"], conflicts_with_all = ["path", "bins"])]
    pub(crate) kind: Option<RoleKind>,
    /// The product (with --kind firmware)
    #[arg(long)]
    pub(crate) product: Option<String>,
    /// The tenant (with --kind operators; otherwise all)
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// A pattern of target names, e.g. `notes/*.txt`; `*` stops at `/`; repeatable
    #[arg(long, value_name = "PATTERN", conflicts_with = "bins")]
    pub(crate) path: Vec<String>,
    /// Spread all targets over so many roles, a power of two
    #[arg(long, value_name = "N")]
    pub(crate) bins: Option<u32>,
    /// A key of it, by its name in --keys or as @FILE of a public key; repeatable. Without one it gets the key of its
    /// own name, made if there is none
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<String>,
    /// How many of its keys must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threshold: u32,
    /// Ask no role after it for the targets that it may sign
    #[arg(long)]
    pub(crate) terminating: bool,
    /// Ask it before this role, not after all others
    #[arg(long, value_name = "ROLE")]
    pub(crate) before: Option<String>,
    /// Days until what it signs expires [default: 180]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub(crate) days: Option<u16>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RoleKind {
    /// Releases of a product
    Firmware,
    /// Operators' lists, of one tenant or of all
    Operators,
    /// Partner profiles
    Partners,
    /// The remedies
    Remedies,
    /// The entitlements
    Entitlements,
}

#[derive(Args)]
pub(crate) struct Sign {
    /// A staged file, on a machine that has no repository
    #[arg(required_unless_present = "repo", conflicts_with = "repo")]
    pub(crate) file: Option<PathBuf>,
    /// The repository's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) repo: Option<PathBuf>,
    /// Where metadata waits for signatures [default: the repository's name and `.staged`]
    #[arg(long, value_name = "DIR", requires = "repo")]
    pub(crate) staged: Option<PathBuf>,
    /// The directory of the private keys
    #[arg(long, value_name = "DIR", required_unless_present = "from")]
    pub(crate) keys: Option<PathBuf>,
    /// Take the signatures from a staged file that was signed elsewhere; repeatable
    #[arg(long, value_name = "FILE", requires = "repo")]
    pub(crate) from: Vec<PathBuf>,
    /// Show a staged file's changes against this published one
    #[arg(long, value_name = "FILE", conflicts_with = "repo")]
    pub(crate) against: Option<PathBuf>,
    /// Do not ask whether to sign
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) secret: Secret,
    #[command(flatten)]
    pub(crate) lifetimes: Lifetimes,
}

#[derive(Subcommand)]
pub(crate) enum OperatorsCommand {
    /// Replace a tenant's list
    Set(SetOperators),
}

#[derive(Args)]
pub(crate) struct SetOperators {
    #[command(flatten)]
    pub(crate) publish: Publish,
    /// The tenant
    #[arg(long)]
    pub(crate) tenant: String,
    /// `name=alice,key=BASE64,scopes=observe+operate,devices=*,groups=a+b,expires=TIME`; repeatable. Scopes:
    /// observe, operate, update, admin; one of devices and groups is needed, expires is not
    #[arg(long, value_name = "OPERATOR", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) operator: Vec<String>,
    /// How many operators must sign a kind of command, e.g. config.apply=2; repeatable. A device whose agent
    /// knows no thresholds reads no list that has one: update all of them first
    #[arg(long, value_name = "KIND=COUNT", conflicts_with = "file")]
    pub(crate) threshold: Vec<String>,
    /// The whole list as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Days until the list expires (with --operator)
    #[arg(long, default_value_t = 180, value_name = "DAYS")]
    pub(crate) list_days: u16,
}

#[derive(Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Publish a release
    Add(AddRelease),
    /// Take patches that start from old releases out of the manifests, and remove the blobs that then nothing names
    Prune(Prune),
}

#[derive(Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    pub(crate) publish: Publish,
    /// The product whose patches are pruned
    #[arg(long)]
    pub(crate) product: String,
    /// Patches that start from one of the N newest releases stay
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) keep: usize,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args)]
pub(crate) struct AddRelease {
    #[command(flatten)]
    pub(crate) publish: Publish,
    /// The product it is for
    #[arg(long)]
    pub(crate) product: String,
    /// Its semantic version
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Version,
    /// Greater than that of every release of the product before
    #[arg(long)]
    pub(crate) sequence: u64,
    /// A hardware revision it is for; repeatable
    #[arg(long, required = true)]
    pub(crate) hardware: Vec<String>,
    /// Part of a slot and its image, e.g. `rootfs=rootfs.ext4`; repeatable
    #[arg(long, required = true, value_name = "NAME=FILE", value_parser = parse_image)]
    pub(crate) image: Vec<(String, PathBuf)>,
    /// Who may start its install
    #[arg(long, default_value = "operator")]
    pub(crate) install_policy: Policy,
    /// Accept a sequence that is not above all published ones
    #[arg(long)]
    pub(crate) allow_lower: bool,
    /// zstd's level
    #[arg(long, default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: i32,
    /// From how many of the newest releases of the product to make patches
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) patches: usize,
    /// The manifest's format: 2 lets devices fetch only what they lack; 1 is for updaters that do not read 2 [default: as the
    /// version was published before, or 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2))]
    pub(crate) format: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Policy {
    /// Only an operator's signed command
    Operator,
    /// The device itself
    Automatic,
}
