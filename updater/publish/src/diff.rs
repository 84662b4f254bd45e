//! What a signature would change, for the person who gives it.

use std::collections::BTreeMap;

use anyhow::Result;
use vigil_tuf::Role;
use vigil_tuf::document::{
    self, DelegatedRole, Delegations, Document, Key, MetaFile, RoleKeys, Root, Snapshot, Target, Targets,
};

use crate::public::{label, short};
use crate::sealed::Sealed;

/// A file line by line, against the published one: `+` what comes, `-` what goes, `~` what changes.
pub fn lines(file: &Sealed, published: Option<&Sealed>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    match file.kind()? {
        Role::Root => {
            let new: Root = file.document()?.0;
            let old: Option<Root> = published.map(Sealed::document).transpose()?.map(|(old, _)| old);
            head(&mut lines, &new, old.as_ref());
            let (no_roles, no_keys) = (BTreeMap::new(), BTreeMap::new());
            let (old_roles, old_keys) =
                old.as_ref().map_or((&no_roles, &no_keys), |old| (&old.roles, &old.keys));
            for (role, keys) in &new.roles {
                role_keys(&mut lines, role, old_roles.get(role), old_keys, keys, &new.keys);
            }
        }
        Role::Targets => {
            let new: Targets = file.document()?.0;
            let old: Option<Targets> = published.map(Sealed::document).transpose()?.map(|(old, _)| old);
            head(&mut lines, &new, old.as_ref());
            delegations(
                &mut lines,
                old.as_ref().and_then(|old| old.delegations.as_ref()),
                new.delegations.as_ref(),
            );
            let none = BTreeMap::new();
            maps(
                &mut lines,
                old.as_ref().map_or(&none, |old| &old.targets),
                &new.targets,
                |name, target: &Target| {
                    format!(
                        "target {name}, {} bytes, sha256 {}",
                        target.length,
                        target.sha256().unwrap_or("none")
                    )
                },
            );
        }
        Role::Snapshot => {
            let new: Snapshot = file.document()?.0;
            let old: Option<Snapshot> = published.map(Sealed::document).transpose()?.map(|(old, _)| old);
            head(&mut lines, &new, old.as_ref());
            let none = BTreeMap::new();
            maps(&mut lines, old.as_ref().map_or(&none, |old| &old.meta), &new.meta, listed);
        }
        Role::Timestamp => {
            let new: document::Timestamp = file.document()?.0;
            let old: Option<document::Timestamp> =
                published.map(Sealed::document).transpose()?.map(|(old, _)| old);
            head(&mut lines, &new, old.as_ref());
            let none = BTreeMap::new();
            maps(&mut lines, old.as_ref().map_or(&none, |old| &old.meta), &new.meta, listed);
        }
    }
    if lines.len() == 1 {
        lines.push("= the same content, signed anew".to_owned());
    }
    Ok(lines)
}

fn head<D: Document>(lines: &mut Vec<String>, new: &D, old: Option<&D>) {
    let before = old.map_or_else(
        || "nothing to compare with".to_owned(),
        |old| format!("published: {}, until {}", old.version(), old.expires()),
    );
    lines.push(format!("version {}, until {} ({before})", new.version(), new.expires()));
}

fn listed(name: &String, file: &MetaFile) -> String {
    format!("{name} version {}", file.version)
}

fn role_keys(
    lines: &mut Vec<String>,
    role: &str,
    old: Option<&RoleKeys>,
    old_keys: &BTreeMap<String, Key>,
    new: &RoleKeys,
    new_keys: &BTreeMap<String, Key>,
) {
    let old_ids = old.map(|old| old.keyids.as_slice()).unwrap_or_default();
    for id in old_ids.iter().filter(|id| !new.keyids.contains(id)) {
        lines.push(format!("- key {} of {role}", label(id, old_keys.get(id))));
    }
    for id in new.keyids.iter().filter(|id| !old_ids.contains(id)) {
        lines.push(format!("+ key {} of {role}", label(id, new_keys.get(id))));
    }
    match old {
        Some(old) if old.threshold == new.threshold => {}
        Some(old) => lines.push(format!("~ threshold of {role}: {}, was {}", new.threshold, old.threshold)),
        None => lines.push(format!("+ threshold of {role}: {}", new.threshold)),
    }
}

fn delegations(lines: &mut Vec<String>, old: Option<&Delegations>, new: Option<&Delegations>) {
    let none = Delegations { keys: BTreeMap::new(), roles: None, succinct_roles: None };
    let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
    let (before, after): (Vec<_>, Vec<_>) =
        (old.roles.iter().flatten().collect(), new.roles.iter().flatten().collect());
    for gone in before.iter().filter(|role| !after.iter().any(|other| other.name == role.name)) {
        lines.push(format!("- delegation to {}", gone.name));
    }
    for role in &after {
        let was = before.iter().find(|other| other.name == role.name);
        match was {
            None => lines.push(format!("+ delegation to {}: {}", role.name, share(role))),
            Some(was) if share(was) != share(role) => {
                lines.push(format!("~ delegation to {}: {}, was {}", role.name, share(role), share(was)));
            }
            Some(_) => {}
        }
        role_keys(lines, &role.name, was.map(|was| &was.keys), &old.keys, &role.keys, &new.keys);
    }
    let order = |roles: &[&DelegatedRole], others: &[&DelegatedRole]| -> Vec<String> {
        let kept = roles.iter().filter(|role| others.iter().any(|other| other.name == role.name));
        kept.map(|role| role.name.clone()).collect()
    };
    let (was, is) = (order(&before, &after), order(&after, &before));
    if was != is {
        lines.push(format!("~ order of the delegations: {}", is.join(", ")));
    }
    if old.succinct_roles != new.succinct_roles {
        lines.push("~ bins without names (TAP 15)".to_owned());
    }
}

/// What a delegated role may sign.
pub fn share(role: &DelegatedRole) -> String {
    let mut text = match (&role.paths, &role.path_hash_prefixes) {
        (Some(paths), _) => paths.join(" "),
        (None, Some(prefixes)) => format!("name hashes {}…", prefixes.join("… ")),
        (None, None) => "nothing".to_owned(),
    };
    if role.terminating {
        text.push_str(", terminating");
    }
    text
}

fn maps<V: PartialEq>(
    lines: &mut Vec<String>,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
    tell: impl Fn(&String, &V) -> String,
) {
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        lines.push(format!("- {name}"));
    }
    for (name, value) in new {
        match old.get(name) {
            Some(same) if same == value => {}
            Some(_) => lines.push(format!("~ {}", tell(name, value))),
            None => lines.push(format!("+ {}", tell(name, value))),
        }
    }
}

/// The keys that a staged file asks to sign, as it says itself.
pub fn asked(file: &Sealed) -> Vec<String> {
    let open = file.signatures().iter().filter(|signature| signature.sig.is_empty());
    open.map(|signature| short(&signature.keyid).to_owned()).collect()
}
