//! What each command does, and what it says of it.

mod ceremony;
mod target;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use vigil_protocol::keys::PublicKey;
use vigil_publish::keyring::Keyring;
use vigil_publish::public::NamedKey;
use vigil_publish::repository::Repository;
use vigil_publish::settle::Outcome;
use vigil_publish::{keys, verify};
use vigil_tuf::Role;

use crate::cli::{
    Change, Command, KeyCommand, KeyDirectory, OperatorsCommand, Place, Publish, ReleaseCommand, RoleCommand,
    RootCommand,
};
use crate::show;

/// What to print: for people, and as JSON.
pub(crate) type Said = (String, Value);

pub(crate) fn run(command: Command, json: bool, now: Timestamp) -> Result<Said> {
    match command {
        Command::Init(init) => ceremony::init(init, now),
        Command::Key(KeyCommand::New { name, keys: directory, secret }) => {
            let key = keys::create_operator(&directory, &name, &secret.passphrase())?;
            let tuf = NamedKey::from_ed25519(&name, &key.verifying_key())?;
            let file = keys::path(&directory, &name);
            Ok(key_said(&name, Some(&PublicKey::from(key.verifying_key())), &tuf, file))
        }
        Command::Key(KeyCommand::Import { name, file, keys: directory, secret }) => {
            let tuf = keys::import(&directory, &name, &file, &secret.passphrase())?;
            let public = match tuf.key.verifier() {
                Some(vigil_tuf::Verifier::Ed25519(key)) => Some(PublicKey::from(key)),
                _ => None,
            };
            let private = keys::path(&directory, &name);
            let file = if private.exists() { private } else { keys::public_path(&directory, &name) };
            Ok(key_said(&name, public.as_ref(), &tuf, file))
        }
        Command::Key(KeyCommand::Revoke { change, key, replace_by }) => {
            ceremony::revoke(&change, &key, replace_by.as_deref(), now)
        }
        Command::Root(RootCommand::Rotate { change, add, remove, threshold, root_days }) => {
            let rotation = vigil_publish::rotate::Rotation { add, remove, thresholds: threshold, root_days };
            ceremony::rotate(&change, &rotation, now)
        }
        Command::Role(RoleCommand::Add(add)) => ceremony::add_role(add, now),
        Command::Role(RoleCommand::Set { change, name, add_key, remove_key, threshold, days }) => {
            ceremony::set_role(&change, &name, &add_key, remove_key, threshold, days, now)
        }
        Command::Role(RoleCommand::Remove { change, name, with_targets }) => {
            ceremony::remove_role(&change, &name, with_targets, now)
        }
        Command::Operators(OperatorsCommand::Set(set)) => target::set_operators(set, now),
        Command::Release(ReleaseCommand::Add(add)) => target::add_release(add, now),
        Command::Release(ReleaseCommand::Prune(prune)) => target::prune(&prune, now),
        Command::Add { publish, target, file } => target::add(&publish, &target, &file, now),
        Command::Remove { publish, target } => target::remove(&publish, &target, now),
        Command::Sign(sign) => ceremony::sign(sign, json, now),
        Command::Discard(place) => {
            let mut repository = Repository::open(&place.repo, place.staged.as_deref())?;
            let count = repository.discard()?;
            Ok((format!("Forgot {count} staged files."), json!({"discarded": count})))
        }
        Command::Renew { change, role } => {
            let (mut repository, ring) = change.open()?;
            for role in &role {
                vigil_publish::rotate::renew(&mut repository, role)?;
            }
            let outcome = repository.settle(&ring, now)?;
            Ok(said(&repository, &outcome, format!("Signed {} anew.", role.join(", ")), json!({})))
        }
        Command::Timestamp { place, keys, lifetime } => timestamp(&place, &keys, lifetime, now),
        Command::Verify(place) => {
            let verified = verify::repository(&place.repo, now)?;
            let text = format!(
                "Good: root version {}, {} delegated roles, {} targets, {} blobs of {} bytes.",
                verified.root, verified.delegated, verified.targets, verified.blobs, verified.blob_bytes
            );
            Ok((text, json!(verified)))
        }
        Command::Show { place, all } => {
            let repository = Repository::open_to_read(&place.repo, place.staged.as_deref())?;
            Ok((show::text(&repository, all, now)?, show::json(&repository)?))
        }
    }
}

fn timestamp(
    place: &Place,
    keys: &KeyDirectory,
    lifetime: vigil_publish::settings::TimestampLifetime,
    now: Timestamp,
) -> Result<Said> {
    let mut repository = Repository::open(&place.repo, place.staged.as_deref())?;
    repository
        .set_lifetimes(vigil_publish::settings::Lifetimes { timestamp: lifetime, ..Default::default() });
    let outcome = repository.settle_timestamp(&keys.open()?, now)?;
    let entry = repository.published().timestamp.as_ref().context("there is no timestamp")?;
    let (version, expires) = (entry.document.version, entry.document.expires);
    let warnings = show::warnings(&repository, now);
    let mut done = format!("Signed timestamp {version}, good until {expires}.");
    for warning in &warnings {
        let _ = write!(done, "\nwarning: {warning}");
    }
    let value = json!({"version": version, "expires": expires, "warnings": warnings});
    Ok(said(&repository, &outcome, done, value))
}

fn key_said(name: &str, public: Option<&PublicKey>, tuf: &NamedKey, file: PathBuf) -> Said {
    let mut text = String::new();
    if let Some(key) = public {
        let _ = write!(text, "key   {key}\nid    {}\n", key.id());
    }
    let _ = write!(text, "tuf   {}\nfile  {}", tuf.id, file.display());
    let id = public.map(PublicKey::id);
    (text, json!({"name": name, "key": public, "id": id, "tuf_id": tuf.id, "file": file}))
}

/// What became of a change: `done` if it is published, or else what it waits for.
fn said(repository: &Repository, outcome: &Outcome, done: String, mut value: Value) -> Said {
    if let Value::Object(members) = &mut value {
        let versions: serde_json::Map<_, _> = Role::ALL
            .into_iter()
            .map(|role| (role.name().to_owned(), json!(repository.published().version(&role.into()))))
            .collect();
        members.insert("versions".to_owned(), Value::Object(versions));
        members.insert("published".to_owned(), json!(outcome.published));
        members.insert("staged".to_owned(), json!(outcome.lacks));
    }
    if outcome.published {
        return (done, value);
    }
    let mut text = format!("Not published yet; staged in {}:\n", repository.staged_directory().display());
    for lack in &outcome.lacks {
        for need in &lack.needs {
            let _ = writeln!(text, "  {} lacks {need}", lack.file);
        }
    }
    text.push_str("Each of them: `vigil-publish sign --repo DIR --keys DIR`, or `vigil-publish sign FILE --keys DIR` elsewhere.");
    (text, value)
}

impl KeyDirectory {
    pub(crate) fn open(&self) -> Result<Keyring> {
        Keyring::open(&self.keys, &self.secret.passphrase())
    }
}

impl Change {
    pub(crate) fn open(&self) -> Result<(Repository, Keyring)> {
        let mut repository = Repository::open(&self.place.repo, self.place.staged.as_deref())?;
        repository.set_lifetimes(self.lifetimes);
        Ok((repository, self.keys.open()?))
    }
}

impl Publish {
    /// Opens it for a new version of these targets.
    pub(crate) fn open(&self, targets: &[&str]) -> Result<(Repository, Keyring)> {
        let (repository, ring) = self.change.open()?;
        if !self.stage {
            for target in targets {
                repository.check_keys(&ring, target)?;
            }
        }
        Ok((repository, ring))
    }
}
