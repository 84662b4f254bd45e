//! Delegated roles: who else signs which targets.

use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use vigil_tuf::document::{DelegatedRole, RoleKeys};
use vigil_tuf::{Role, RoleName};

use crate::public::NamedKey;
use crate::repository::{Repository, empty_targets};
use crate::rotate::{add as add_key, check_threshold, prune, remove as remove_key};
use crate::{keys, passphrase::Passphrase, public};

/// Most bins: each is a file of its own, and listed in the snapshot that every device fetches.
pub const MAX_BINS: u32 = 16384;

/// What a role may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// Targets whose names fit one of these.
    Paths(Vec<String>),
    /// All targets, spread over so many roles by the hashes of their names. A power of two.
    Bins(u32),
}

/// A role to delegate to.
#[derive(Clone, Debug)]
pub struct NewRole {
    /// Its name, or the beginning of those of its bins.
    pub name: String,
    /// What it signs.
    pub share: Share,
    /// Its keys.
    pub keys: Vec<NamedKey>,
    /// How many of them must sign.
    pub threshold: u32,
    /// Whether no role after it is asked.
    pub terminating: bool,
    /// The role that it goes before, if not to the end.
    pub before: Option<String>,
    /// Days until what it signs expires.
    pub days: Option<u16>,
}

/// Delegates to a new role, and moves to it the targets that are now its. How many those are.
pub fn add(repository: &mut Repository, new: &NewRole, now: Timestamp) -> Result<usize> {
    let roles = delegated_roles(new)?;
    for role in &roles {
        check_new_name(repository, &role.name)?;
        if let Some(hiding) = first_hiding(repository, role, new.before.as_deref()) {
            bail!("{hiding} is asked first for what {} would sign; add --before {hiding}", role.name);
        }
    }
    let delegations = repository.delegations_to_change()?;
    for NamedKey { id, key } in &new.keys {
        delegations.keys.insert(id.clone(), key.clone());
    }
    let listed = delegations.roles.get_or_insert_default();
    let place = match &new.before {
        Some(before) => listed
            .iter()
            .position(|role| role.name == *before)
            .with_context(|| format!("there is no role {before} to go before"))?,
        None => listed.len(),
    };
    let names: Vec<_> = roles.iter().map(|role| role.name.clone()).collect();
    listed.splice(place..place, roles);
    for name in &names {
        if let Some(days) = new.days {
            repository.settings.days.insert(name.clone(), days);
        }
        let role = RoleName::Delegated(name.clone());
        repository.roles.insert(role.clone(), empty_targets(now));
        repository.touched.insert(role);
    }
    if new.days.is_some() {
        repository.settings.write(&repository.directory)?;
    }
    move_targets(repository, &names)
}

/// A key for a role that was given none: that of its own name, made if there is none.
pub fn own_key(name: &str, keys_in: Option<&Path>, passphrase: &Passphrase) -> Result<NamedKey> {
    let directory = keys_in.context("give the role's keys as --key, or --keys DIR to make one there")?;
    if !keys::path(directory, name).exists() && !keys::public_path(directory, name).exists() {
        keys::create_operator(directory, name, passphrase)?;
    }
    public::find(name, Some(directory))
}

/// What changes about a delegated role.
#[derive(Clone, Debug, Default)]
pub struct RoleChange {
    /// Keys that it gets.
    pub add: Vec<NamedKey>,
    /// Keys that it loses, by name or id.
    pub remove: Vec<String>,
    /// New threshold.
    pub threshold: Option<u32>,
    /// Days until what it signs expires.
    pub days: Option<u16>,
}

/// Changes a delegated role.
pub fn set(repository: &mut Repository, name: &str, change: RoleChange) -> Result<()> {
    let delegations = repository.delegations_to_change()?;
    let listed = delegations.roles.iter_mut().flatten();
    let role = listed.into_iter().find(|role| role.name == name);
    let role =
        role.with_context(|| format!("there is no delegated role {name}; `vigil-publish show` lists them"))?;
    for key in change.add {
        add_key(name, &mut delegations.keys, &mut role.keys, key)?;
    }
    for text in &change.remove {
        remove_key(name, &delegations.keys, &mut role.keys, text)?;
    }
    role.keys.threshold = change.threshold.unwrap_or(role.keys.threshold);
    check_threshold(name, &role.keys, false)?;
    prune(&mut delegations.keys, delegations.roles.iter().flatten().map(|role| &role.keys));
    if let Some(days) = change.days {
        repository.settings.days.insert(name.to_owned(), days);
        repository.settings.write(&repository.directory)?;
        repository.role_to_change(&RoleName::Delegated(name.to_owned()))?;
    }
    Ok(())
}

/// Ends a delegation. Targets of the role are gone with it, so that must be meant.
pub fn remove(repository: &mut Repository, name: &str, with_targets: bool) -> Result<()> {
    let role = RoleName::Delegated(name.to_owned());
    let count = repository.roles.get(&role).map_or(0, |document| document.targets.len());
    if count > 0 && !with_targets {
        bail!("{name} lists {count} targets, which devices would lose; add --with-targets if that is meant");
    }
    let delegations = repository.delegations_to_change()?;
    let listed = delegations.roles.get_or_insert_default();
    let before = listed.len();
    listed.retain(|role| role.name != name);
    if listed.len() == before {
        bail!("there is no delegated role {name}; `vigil-publish show` lists them");
    }
    prune(&mut delegations.keys, delegations.roles.iter().flatten().map(|role| &role.keys));
    repository.roles.remove(&role);
    repository.touched.remove(&role);
    Ok(())
}

fn delegated_roles(new: &NewRole) -> Result<Vec<DelegatedRole>> {
    let keyids: Vec<_> = new.keys.iter().map(|key| key.id.clone()).collect();
    let keys = RoleKeys { keyids, threshold: new.threshold };
    check_threshold(&new.name, &keys, false)?;
    let role = |name: String, paths, path_hash_prefixes| DelegatedRole {
        name,
        keys: keys.clone(),
        terminating: new.terminating,
        paths,
        path_hash_prefixes,
    };
    match &new.share {
        Share::Paths(paths) => Ok(vec![role(new.name.clone(), Some(paths.clone()), None)]),
        Share::Bins(count) => {
            if !count.is_power_of_two() || !(2..=MAX_BINS).contains(count) {
                bail!("the number of bins is a power of two from 2 to {MAX_BINS}, not {count}");
            }
            let digits = count.ilog2().div_ceil(4) as usize;
            let each = 16_u32.pow(digits as u32) / count;
            Ok((0..*count)
                .map(|bin| {
                    let prefixes = (bin * each..(bin + 1) * each).map(|prefix| format!("{prefix:0digits$x}"));
                    role(format!("{}-{bin:0digits$x}", new.name), None, Some(prefixes.collect()))
                })
                .collect())
        }
    }
}

fn check_new_name(repository: &Repository, name: &str) -> Result<()> {
    if !vigil_protocol::topic::is_name(name) || Role::ALL.iter().any(|role| role.name() == name) {
        bail!(
            "{name:?} is no name for a role: use letters, digits, '.', '_' and '-', and not that of a top-level role"
        );
    }
    if repository.roles.contains_key(&RoleName::Delegated(name.to_owned())) {
        bail!("there is a role {name} already; `vigil-publish role set` changes its keys");
    }
    Ok(())
}

/// An earlier role that has the same patterns, or signs one of them that is a name.
fn first_hiding(repository: &Repository, new: &DelegatedRole, before: Option<&str>) -> Option<String> {
    let top = repository.roles.get(&Role::Targets.into())?;
    let listed = top.delegations.as_ref()?.roles.as_ref()?;
    let earlier = listed.iter().take_while(|role| Some(role.name.as_str()) != before);
    let paths = new.paths.as_deref().unwrap_or_default();
    for role in earlier {
        let same = |path| role.paths.iter().flatten().any(|other| other == path);
        let is_plain = |path: &str| !path.contains(['*', '?', '[']);
        if paths.iter().any(|path| {
            same(path)
                || is_plain(path) && repository.responsible(path) == RoleName::Delegated(role.name.clone())
        }) {
            return Some(role.name.clone());
        }
    }
    None
}

/// A role that is asked earlier must not go on listing what is now another's.
fn move_targets(repository: &mut Repository, to: &[String]) -> Result<usize> {
    let moving: Vec<_> = repository
        .targets()
        .filter_map(|(role, name, _)| {
            let new = repository.responsible(name);
            let RoleName::Delegated(delegated) = &new else { return None };
            (new != *role && to.contains(delegated)).then(|| (role.clone(), new, name.clone()))
        })
        .collect();
    for (from, new, name) in &moving {
        if let Some(target) = repository.role_to_change(from)?.targets.remove(name) {
            repository.role_to_change(new)?.targets.insert(name.clone(), target);
        }
    }
    Ok(moving.len())
}
