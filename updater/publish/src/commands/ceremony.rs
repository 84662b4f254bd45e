//! Keys, roles and signatures.

use std::io::{IsTerminal, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::json;
use vigil_publish::keyring::Keyring;
use vigil_publish::repository::Repository;
use vigil_publish::roles::{NewRole, RoleChange, Share};
use vigil_publish::rotate::Rotation;
use vigil_publish::sign::{Offline, Preview};
use vigil_publish::{public, roles, rotate, sign as signing};

use super::{Said, said};
use crate::cli::{AddRole, Change, Init, RoleKind, Sign};

pub(super) fn init(init: Init, now: Timestamp) -> Result<Said> {
    let what = vigil_publish::init::Init {
        directory: &init.place.repo,
        staged: init.place.staged,
        keys: &init.keys,
        role_keys: init.role_key,
        thresholds: init.threshold,
        root_days: init.root_days,
        lifetimes: init.lifetimes,
    };
    let (repository, outcome) = vigil_publish::init::init(what, &init.secret.passphrase(), now)?;
    let root = repository.directory().join("metadata/1.root.json");
    let done = format!(
        "Made a repository in {} and its keys in {}.\nDevices need {} as /etc/vigil/root.json.\nKeep the root keys \
         offline.",
        init.place.repo.display(),
        init.keys.display(),
        root.display()
    );
    Ok(said(&repository, &outcome, done, json!({"root": root})))
}

pub(super) fn rotate(change: &Change, rotation: &Rotation, now: Timestamp) -> Result<Said> {
    let (mut repository, ring) = change.open()?;
    rotate::rotate(&mut repository, rotation, Some(&change.keys.keys))?;
    let outcome = repository.settle(&ring, now)?;
    let done =
        format!("Published root {}, good until {}.", repository.root().version, repository.root().expires);
    Ok(said(&repository, &outcome, done, json!({"root": repository.root().version})))
}

pub(super) fn revoke(change: &Change, key: &str, replace_by: Option<&str>, now: Timestamp) -> Result<Said> {
    let (mut repository, ring) = change.open()?;
    let replacement = replace_by.map(|text| public::find(text, Some(&change.keys.keys))).transpose()?;
    let roles = rotate::revoke(&mut repository, key, replacement.as_ref())?;
    let outcome = repository.settle(&ring, now)?;
    let done = format!("{key} is no key of {} any more.", roles.join(", "));
    Ok(said(&repository, &outcome, done, json!({"roles": roles})))
}

pub(super) fn add_role(add: AddRole, now: Timestamp) -> Result<Said> {
    let (mut repository, _) = add.change.open()?;
    let keys_in = Some(add.change.keys.keys.as_path());
    let share = match (add.bins, add.kind) {
        (Some(bins), _) => Share::Bins(bins),
        (None, Some(kind)) => {
            Share::Paths(vec![pattern(kind, add.product.as_deref(), add.tenant.as_deref())?])
        }
        (None, None) => Share::Paths(add.path),
    };
    let keys = if add.key.is_empty() {
        vec![roles::own_key(&add.name, keys_in, &add.change.keys.secret.passphrase())?]
    } else {
        add.key.iter().map(|text| public::find(text, keys_in)).collect::<Result<_>>()?
    };
    let new = NewRole {
        name: add.name.clone(),
        share,
        keys,
        threshold: add.threshold,
        terminating: add.terminating,
        before: add.before,
        days: add.days,
    };
    let moved = roles::add(&mut repository, &new, now)?;
    // Opened only now: the role's own key may just have been made.
    let outcome = repository.settle(&add.change.keys.open()?, now)?;
    let done = format!("Delegated to {}; {moved} targets moved to it.", add.name);
    Ok(said(&repository, &outcome, done, json!({"role": add.name, "moved": moved})))
}

fn pattern(kind: RoleKind, product: Option<&str>, tenant: Option<&str>) -> Result<String> {
    let name = |text: &str| {
        if vigil_protocol::topic::is_name(text) { Ok(()) } else { bail!("{text:?} is no name") }
    };
    let fits = match kind {
        RoleKind::Firmware => tenant.is_none(),
        RoleKind::Operators => product.is_none(),
        _ => product.is_none() && tenant.is_none(),
    };
    if !fits {
        bail!("--product goes with --kind firmware, --tenant with --kind operators");
    }
    [product, tenant].into_iter().flatten().try_for_each(name)?;
    Ok(match kind {
        RoleKind::Firmware => {
            format!("releases/{}/*", product.context("--kind firmware needs a --product")?)
        }
        RoleKind::Operators => {
            tenant.map_or_else(|| "operators/*".to_owned(), |tenant| format!("operators/{tenant}.json"))
        }
        RoleKind::Partners => "partners/*".to_owned(),
        RoleKind::Remedies => "remedies.json".to_owned(),
        RoleKind::Entitlements => "entitlements.json".to_owned(),
    })
}

pub(super) fn set_role(
    change: &Change,
    name: &str,
    add: &[String],
    remove: Vec<String>,
    threshold: Option<u32>,
    days: Option<u16>,
    now: Timestamp,
) -> Result<Said> {
    let (mut repository, ring) = change.open()?;
    let add = add.iter().map(|text| public::find(text, Some(&change.keys.keys))).collect::<Result<_>>()?;
    roles::set(&mut repository, name, RoleChange { add, remove, threshold, days })?;
    let outcome = repository.settle(&ring, now)?;
    Ok(said(&repository, &outcome, format!("Changed the role {name}."), json!({"role": name})))
}

pub(super) fn remove_role(change: &Change, name: &str, with_targets: bool, now: Timestamp) -> Result<Said> {
    let (mut repository, ring) = change.open()?;
    roles::remove(&mut repository, name, with_targets)?;
    let outcome = repository.settle(&ring, now)?;
    Ok(said(
        &repository,
        &outcome,
        format!("Nothing is delegated to {name} any more."),
        json!({"role": name}),
    ))
}

pub(super) fn sign(sign: Sign, json: bool, now: Timestamp) -> Result<Said> {
    let passphrase = sign.secret.passphrase();
    let ring = match &sign.keys {
        Some(directory) => Keyring::open(directory, &passphrase)?,
        None => Keyring::default(),
    };
    let ask = !sign.yes && !json && std::io::stdin().is_terminal();
    if let Some(file) = &sign.file {
        return sign_file(file, sign.against.as_deref(), &ring, ask);
    }
    let directory = sign.repo.context("give --repo or a staged file")?;
    let mut repository = Repository::open(&directory, sign.staged.as_deref())?;
    repository.set_lifetimes(sign.lifetimes);
    for file in &sign.from {
        signing::merge(&mut repository, file)?;
    }
    let previews = signing::previews(&repository, &ring)?;
    let shown = shown(&previews);
    agree(&shown, ask && !previews.is_empty())?;
    let outcome = repository.settle(&ring, now)?;
    let value = json!({"signed": previews, "roles": outcome.roles});
    let signed: Vec<_> = outcome.roles.iter().map(|(role, version)| format!("{role} {version}")).collect();
    let done = match signed.as_slice() {
        [] => "There is nothing to sign.".to_owned(),
        signed => format!("Published {}.", signed.join(", ")),
    };
    let (text, value) = said(&repository, &outcome, done, value);
    let shown = if ask { String::new() } else { shown };
    Ok((format!("{shown}{text}"), value))
}

fn sign_file(file: &Path, against: Option<&Path>, ring: &Keyring, ask: bool) -> Result<Said> {
    let offline = Offline::open(file, ring)?;
    let preview = offline.preview(against)?;
    let shown = shown(std::slice::from_ref(&preview));
    agree(&shown, ask)?;
    let ids = offline.sign(ring)?;
    let by: Vec<_> = ids.iter().map(|id| public::short(id)).collect();
    let text = format!(
        "{}Signed {} by {}. Bring it back: `vigil-publish sign --repo DIR --from {}`",
        if ask { "" } else { &shown },
        file.display(),
        by.join(", "),
        file.display()
    );
    Ok((text, json!({"file": file, "by": ids, "signed": [preview]})))
}

fn shown(previews: &[Preview]) -> String {
    let mut text = String::new();
    for preview in previews {
        text.push_str(&format!("{}:\n", preview.role));
        for line in &preview.changes {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn agree(shown: &str, ask: bool) -> Result<()> {
    if !ask {
        return Ok(());
    }
    anstream::print!("{shown}Sign this? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("not signed");
    }
    Ok(())
}
