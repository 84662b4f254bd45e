//! Options that several commands have, and how their values are read.

use std::path::PathBuf;

use clap::Args;
use vigil_publish::passphrase::Passphrase;
use vigil_publish::rotate::top_level;
use vigil_publish::settings::Lifetimes;
use vigil_tuf::Role;

#[derive(Args)]
pub(crate) struct Place {
    /// The repository's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) repo: PathBuf,
    /// Where metadata waits for signatures [default: the repository's name and `.staged`]
    #[arg(long, value_name = "DIR")]
    pub(crate) staged: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct KeyDirectory {
    /// The directory of the private keys
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Secret {
    /// A file whose first line is the passphrase of the private keys; also as VIGIL_PASSPHRASE. Otherwise it is asked
    /// for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Secret {
    pub(crate) fn passphrase(&self) -> Passphrase {
        Passphrase::new(self.passphrase_file.clone(), false)
    }
}

#[derive(Args)]
pub(crate) struct NewSecret {
    #[command(flatten)]
    secret: Secret,
    /// Ask for a passphrase and encrypt the new private key with it
    #[arg(long)]
    encrypt: bool,
}

impl NewSecret {
    pub(crate) fn passphrase(&self) -> Passphrase {
        Passphrase::new(self.secret.passphrase_file.clone(), self.encrypt)
    }
}

/// What a command needs that changes a repository.
#[derive(Args)]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) keys: KeyDirectory,
    #[command(flatten)]
    pub(crate) lifetimes: Lifetimes,
}

/// The same, of a new target.
#[derive(Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) change: Change,
    /// Stage it even if no key at hand may sign it
    #[arg(long)]
    pub(crate) stage: bool,
}

pub(super) fn parse_image(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE, e.g. rootfs=rootfs.ext4")?;
    Ok((name.to_owned(), path.into()))
}

pub(super) fn parse_role_key(text: &str) -> Result<(Role, String), String> {
    let (role, key) = text.split_once('=').ok_or("expected ROLE=KEY, e.g. root=alice or root=@alice.pub")?;
    Ok((top_level(role)?, key.to_owned()))
}

pub(super) fn parse_threshold(text: &str) -> Result<(Role, u32), String> {
    let (role, threshold) = text.split_once('=').ok_or("expected ROLE=N, e.g. root=2")?;
    Ok((top_level(role)?, threshold.parse().map_err(|_| format!("{threshold:?} is no number"))?))
}
