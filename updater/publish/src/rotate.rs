//! Keys come and go: of the top-level roles in a new root, of delegated roles in new targets.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use vigil_tuf::Role;
use vigil_tuf::document::{Key, RoleKeys};

use crate::public::{self, NamedKey};
use crate::repository::Repository;
use crate::settings::name;

/// Letters of a key's id that are enough to name it.
const ID_LETTERS: usize = 8;

/// What a new root changes. Without anything it only expires later.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Keys that a role gets.
    pub add: Vec<(Role, String)>,
    /// Keys that a role loses.
    pub remove: Vec<(Role, String)>,
    /// New thresholds.
    pub thresholds: Vec<(Role, u32)>,
    /// Days until it and its successors expire.
    pub root_days: Option<u16>,
}

/// Changes the root.
pub fn rotate(repository: &mut Repository, rotation: &Rotation, keys_in: Option<&Path>) -> Result<()> {
    if let Some(days) = rotation.root_days {
        repository.settings.days.insert(Role::Root.name().to_owned(), days);
        repository.settings.write(&repository.directory)?;
    }
    let root = repository.root_to_change()?;
    for (role, text) in &rotation.add {
        let key = public::find(text, keys_in)?;
        let Some(of_role) = root.roles.get_mut(role.name()) else { bail!("root has no role {role}") };
        add(role.name(), &mut root.keys, of_role, key)?;
    }
    for (role, text) in &rotation.remove {
        let Some(of_role) = root.roles.get_mut(role.name()) else { bail!("root has no role {role}") };
        remove(role.name(), &root.keys, of_role, text)?;
    }
    for (role, threshold) in &rotation.thresholds {
        if let Some(of_role) = root.roles.get_mut(role.name()) {
            of_role.threshold = *threshold;
        }
    }
    for (role, of_role) in &root.roles {
        check_threshold(role, of_role, true)?;
    }
    prune(&mut root.keys, root.roles.values());
    Ok(())
}

/// Takes a key out of every role, or puts another in its place; the roles. What it had signed alone is signed anew by
/// the next [`Repository::settle`].
pub fn revoke(
    repository: &mut Repository,
    text: &str,
    replacement: Option<&NamedKey>,
) -> Result<Vec<String>> {
    let id = find_anywhere(repository, text)?;
    let mut changed = Vec::new();
    if repository.root.roles.values().any(|role| role.keyids.contains(&id)) {
        let root = repository.root_to_change()?;
        for (role, of_role) in &mut root.roles {
            if exchange(&id, &mut root.keys, of_role, replacement) {
                check_threshold(role, of_role, true)?;
                changed.push(role.clone());
            }
        }
        prune(&mut root.keys, root.roles.values());
    }
    let parents: Vec<_> = repository
        .roles
        .iter()
        .filter(|(_, document)| {
            document.delegations.as_ref().is_some_and(|delegations| delegations.keys.contains_key(&id))
        })
        .map(|(role, _)| role.clone())
        .collect();
    for parent in parents {
        let Some(delegations) = &mut repository.role_to_change(&parent)?.delegations else { continue };
        for role in delegations.roles.iter_mut().flatten() {
            if exchange(&id, &mut delegations.keys, &mut role.keys, replacement) {
                check_threshold(&role.name, &role.keys, false)?;
                changed.push(role.name.clone());
            }
        }
        if let Some(bins) = &mut delegations.succinct_roles
            && exchange(&id, &mut delegations.keys, &mut bins.keys, replacement)
        {
            check_threshold(&bins.name_prefix, &bins.keys, false)?;
            changed.push(bins.name_prefix.clone());
        }
        delegations.keys.remove(&id);
    }
    Ok(changed)
}

pub(crate) fn add(
    role: &str,
    keys: &mut BTreeMap<String, Key>,
    of_role: &mut RoleKeys,
    key: NamedKey,
) -> Result<()> {
    if of_role.keyids.contains(&key.id) {
        bail!("{} is a key of {role} already", public::label(&key.id, Some(&key.key)));
    }
    of_role.keyids.push(key.id.clone());
    keys.insert(key.id, key.key);
    Ok(())
}

pub(crate) fn remove(
    role: &str,
    keys: &BTreeMap<String, Key>,
    of_role: &mut RoleKeys,
    text: &str,
) -> Result<()> {
    let named = of_role.keyids.iter().filter_map(|id| Some((id, keys.get(id)?)));
    let id = one_of(named, text, role)?;
    of_role.keyids.retain(|other| *other != id);
    Ok(())
}

/// That a role can still be signed for.
pub(crate) fn check_threshold(role: &str, of_role: &RoleKeys, top: bool) -> Result<()> {
    let (threshold, count) = (of_role.threshold, of_role.keyids.len());
    if threshold == 0 {
        bail!("the threshold of {role} cannot be 0");
    }
    if threshold as usize > count {
        let add = if top {
            format!("root rotate --add {role}=KEY")
        } else {
            format!("role set {role} --add-key KEY")
        };
        bail!(
            "{role} needs {threshold} signatures and would be left with {count} keys; first add one with \
             `vigil-publish {add}`, or replace the key in one step (--replace-by KEY), or lower the threshold"
        );
    }
    Ok(())
}

/// Forgets keys that no role has.
pub(crate) fn prune<'a>(keys: &mut BTreeMap<String, Key>, roles: impl Iterator<Item = &'a RoleKeys>) {
    let used: Vec<_> = roles.flat_map(|role| &role.keyids).collect();
    keys.retain(|id, _| used.contains(&id));
}

fn exchange(
    id: &str,
    keys: &mut BTreeMap<String, Key>,
    of_role: &mut RoleKeys,
    by: Option<&NamedKey>,
) -> bool {
    let Some(place) = of_role.keyids.iter().position(|other| other == id) else { return false };
    of_role.keyids.remove(place);
    if let Some(new) = by
        && !of_role.keyids.contains(&new.id)
    {
        of_role.keyids.insert(place, new.id.clone());
        keys.insert(new.id.clone(), new.key.clone());
    }
    true
}

fn find_anywhere(repository: &Repository, text: &str) -> Result<String> {
    let delegated = repository.roles.values().filter_map(|document| document.delegations.as_ref());
    let all = repository.root.keys.iter().chain(delegated.flat_map(|delegations| &delegations.keys));
    one_of(all, text, "any role")
}

/// The one key that a person means: by its name, its id, or the beginning of that.
fn one_of<'a>(keys: impl Iterator<Item = (&'a String, &'a Key)>, text: &str, role: &str) -> Result<String> {
    let mut found: Vec<_> = keys
        .filter(|(id, key)| {
            key.name.as_deref() == Some(text) || (text.len() >= ID_LETTERS && id.starts_with(text))
        })
        .map(|(id, _)| id.clone())
        .collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => bail!("{text:?} is no key of {role}; `vigil-publish show` lists names and ids"),
        several => bail!("{text:?} could be one of several keys; give one of the ids {}", several.join(", ")),
    }
}

/// What a role is called in an option: one of the four.
pub fn top_level(text: &str) -> Result<Role, String> {
    let role = Role::ALL.into_iter().find(|role| role.name() == text);
    role.ok_or_else(|| format!("{text:?} is none of root, targets, snapshot, timestamp"))
}

/// A role that can be signed anew by its name.
pub fn renew(repository: &mut Repository, role: &str) -> Result<()> {
    let found = repository.roles.keys().find(|known| name(known) == role).cloned();
    let Some(found) = found else {
        match top_level(role) {
            Ok(Role::Root) => bail!("`vigil-publish root rotate` signs a new root"),
            Ok(_) => bail!("{role} is signed anew with every publication, and by `vigil-publish timestamp`"),
            Err(_) => bail!("there is no role {role}; `vigil-publish show` lists them"),
        }
    };
    repository.role_to_change(&found).map(drop)
}
