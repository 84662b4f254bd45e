//! What a repository holds, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use vigil_publish::diff::share;
use vigil_publish::public::{label, short};
use vigil_publish::repository::Repository;
use vigil_publish::signers::Lack;
use vigil_tuf::document::{Document, Key, RoleKeys, Targets};
use vigil_tuf::{Role, RoleName};

const WARN_DAYS: i64 = 30;
/// Targets of a role that are listed unless all are asked for.
const SOME: usize = 20;

/// A line and what hangs from it.
struct Node {
    line: String,
    below: Vec<Node>,
}

/// The repository as a tree.
pub(crate) fn text(repository: &Repository, all: bool, now: Timestamp) -> Result<String> {
    let mut out = format!("{}\n", repository.directory().display());
    let mut nodes: Vec<_> = tops(repository)
        .into_iter()
        .map(|(role, version, expires)| {
            let state = format!("{:<10} version {version}, {}", role.name(), until(expires, now));
            let keys = repository.published().root.as_ref().map(|root| &root.document);
            let keys = keys.and_then(|root| Some(signers(&root.keys, root.role(role)?)));
            Node { line: state + &keys.unwrap_or_default(), below: Vec::new() }
        })
        .collect();
    if let Some(top) = nodes.last_mut().filter(|_| repository.published().root.is_some()) {
        top.below = delegated(repository, &Role::Targets.into(), all, now, &mut Vec::new());
    }
    nodes.push(
        staged_node(repository)?.unwrap_or(Node { line: "nothing staged".to_owned(), below: Vec::new() }),
    );
    draw(&mut out, "", &nodes);
    for warning in warnings(repository, now) {
        let _ = writeln!(out, "warning: {warning}");
    }
    Ok(out)
}

fn draw(out: &mut String, indent: &str, nodes: &[Node]) {
    for (position, node) in nodes.iter().enumerate() {
        let (branch, further) =
            if position + 1 == nodes.len() { ("└─", "   ") } else { ("├─", "│  ") };
        let _ = writeln!(out, "{indent}{branch} {}", node.line);
        draw(out, &format!("{indent}{further}"), &node.below);
    }
}

/// A role's targets and the roles that it delegates to. `above` are those that led here: delegations may go in circles.
fn delegated(
    repository: &Repository,
    role: &RoleName,
    all: bool,
    now: Timestamp,
    above: &mut Vec<RoleName>,
) -> Vec<Node> {
    let Some(entry) = repository.published().targets.get(role).filter(|_| !above.contains(role)) else {
        return Vec::new();
    };
    above.push(role.clone());
    let mut nodes = Vec::new();
    if let Some(delegations) = &entry.document.delegations {
        for delegation in delegations.roles.iter().flatten() {
            let name = RoleName::Delegated(delegation.name.clone());
            let state = match repository.published().targets.get(&name) {
                Some(entry) => {
                    format!("version {}, {}", entry.document.version, until(entry.document.expires, now))
                }
                None => "never published".to_owned(),
            };
            let line = format!(
                "{} ({}) {state}{}",
                delegation.name,
                share(delegation),
                signers(&delegations.keys, &delegation.keys)
            );
            nodes.push(Node { line, below: delegated(repository, &name, all, now, above) });
        }
        if let Some(bins) = &delegations.succinct_roles {
            let count = 1_u64 << bins.bit_length.min(32);
            let line =
                format!("{count} bins {}-…{}", bins.name_prefix, signers(&delegations.keys, &bins.keys));
            nodes.push(Node { line, below: Vec::new() });
        }
    }
    nodes.extend(target_nodes(&entry.document, all));
    above.pop();
    nodes
}

fn target_nodes(document: &Targets, all: bool) -> Vec<Node> {
    let leaf = |line| Node { line, below: Vec::new() };
    let count = if all { usize::MAX } else { SOME };
    let mut nodes: Vec<_> = document
        .targets
        .iter()
        .take(count)
        .map(|(name, target)| {
            let sha256 =
                target.sha256().map_or_else(String::new, |hash| format!(", sha256 {}…", short(hash)));
            leaf(format!("{name}, {} bytes{sha256}", target.length))
        })
        .collect();
    if let Some(more) = document.targets.len().checked_sub(count).filter(|more| *more > 0) {
        nodes.push(leaf(format!("… and {more} more; --all lists them")));
    }
    nodes
}

fn staged_node(repository: &Repository) -> Result<Option<Node>> {
    if repository.staged().is_empty() {
        return Ok(None);
    }
    let mut below = Vec::new();
    for (role, sealed) in repository.staged() {
        let line = match repository.lack(role, sealed)? {
            Some(Lack { file, needs, .. }) => {
                let needs: Vec<_> = needs.iter().map(ToString::to_string).collect();
                format!("{file} lacks {}", needs.join("; and "))
            }
            None => format!("{role} {} is complete", sealed.version()?),
        };
        below.push(Node { line, below: Vec::new() });
    }
    Ok(Some(Node { line: format!("staged in {}", repository.staged_directory().display()), below }))
}

/// The same for programs, keys and hashes in full.
pub(crate) fn json(repository: &Repository) -> Result<Value> {
    let published = repository.published();
    let root = published.root.as_ref().map(|root| &root.document);
    let roles: serde_json::Map<_, _> = tops(repository)
        .into_iter()
        .map(|(role, version, expires)| {
            let keys = root.and_then(|root| root.role(role));
            (role.name().to_owned(), json!({"version": version, "expires": expires, "keys": keys}))
        })
        .collect();
    let mut targets = BTreeMap::new();
    let mut delegated = serde_json::Map::new();
    for (role, entry) in &published.targets {
        targets.extend(&entry.document.targets);
        for delegation in entry.document.delegations.iter().flat_map(|all| all.roles.iter().flatten()) {
            let name = RoleName::Delegated(delegation.name.clone());
            let file = published.targets.get(&name).map(|entry| &entry.document);
            delegated.insert(
                delegation.name.clone(),
                json!({
                    "by": role.file_stem(), "keys": delegation.keys, "terminating": delegation.terminating,
                    "paths": delegation.paths, "path_hash_prefixes": delegation.path_hash_prefixes,
                    "version": file.map(|file| file.version), "expires": file.map(|file| file.expires),
                    "targets": file.map(|file| file.targets.keys().collect::<Vec<_>>()),
                }),
            );
        }
    }
    let lacks =
        repository.staged().iter().filter_map(|(role, sealed)| repository.lack(role, sealed).transpose());
    let lacks: Vec<_> = lacks.collect::<Result<_>>()?;
    let keys = root.map(|root| &root.keys);
    Ok(json!({"roles": roles, "keys": keys, "delegated": delegated, "targets": targets, "staged": lacks}))
}

/// What expires soon. (Timestamps always do; a job signs them.)
pub(crate) fn warnings(repository: &Repository, now: Timestamp) -> Vec<String> {
    let tops = tops(repository).into_iter().filter(|(role, ..)| *role != Role::Timestamp);
    let tops = tops.map(|(role, _, expires)| (role.to_string(), expires));
    let delegated = repository.published().targets.iter().filter_map(|(role, entry)| match role {
        RoleName::Top(_) => None,
        RoleName::Delegated(name) => Some((name.clone(), entry.document.expires)),
    });
    tops.chain(delegated)
        .filter(|(_, expires)| days(*expires, now) < WARN_DAYS)
        .map(|(role, expires)| format!("{role} metadata {}", until(expires, now)))
        .collect()
}

/// Version and expiry of the top-level roles.
fn tops(repository: &Repository) -> Vec<(Role, u64, Timestamp)> {
    fn state<D: Document>(document: &D) -> (Role, u64, Timestamp) {
        (D::ROLE, document.version(), document.expires())
    }
    let published = repository.published();
    let targets = published.targets.get(&Role::Targets.into());
    let states = [
        published.root.as_ref().map(|entry| state(&entry.document)),
        published.timestamp.as_ref().map(|entry| state(&entry.document)),
        published.snapshot.as_ref().map(|entry| state(&entry.document)),
        targets.map(|entry| state(&entry.document)),
    ];
    states.into_iter().flatten().collect()
}

fn signers(keys: &BTreeMap<String, Key>, role: &RoleKeys) -> String {
    let names: Vec<_> = role.keyids.iter().map(|id| label(id, keys.get(id))).collect();
    format!(", {} of {}", role.threshold, names.join(" "))
}

fn until(expires: Timestamp, now: Timestamp) -> String {
    match days(expires, now) {
        _ if expires <= now => format!("EXPIRED on {expires}"),
        0 => "expires today".to_owned(),
        1 => "expires in 1 day".to_owned(),
        days => format!("expires in {days} days"),
    }
}

fn days(expires: Timestamp, now: Timestamp) -> i64 {
    expires.duration_since(now).as_hours().div_euclid(24)
}
