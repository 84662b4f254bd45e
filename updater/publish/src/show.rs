//! What a repository holds, for people and for programs.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Value, json};
use vigil_publish::repository::Repository;
use vigil_tuf::Role;

const WARN_DAYS: i64 = 30;

/// The repository as a tree.
pub(crate) fn text(repository: &Repository, now: Timestamp) -> String {
    let mut out = format!("{}\n", repository.directory().display());
    for role in Role::ALL {
        let (version, expires) = repository.state(role);
        let _ = write!(out, "├─ {:<10} version {version}, {}", role.name(), until(expires, now));
        if let Some(keys) = repository.root().role(role) {
            let ids: Vec<_> = keys.keyids.iter().map(|id| short(id)).collect();
            let _ = write!(out, ", {} of keys {}", keys.threshold, ids.join(" "));
        }
        out.push('\n');
    }
    let _ = writeln!(out, "└─ targets/");
    let count = repository.targets().len();
    for (position, (name, target)) in repository.targets().iter().enumerate() {
        let branch = if position + 1 == count { "└─" } else { "├─" };
        let sha256 = target.sha256().map_or_else(String::new, |hash| format!(", sha256 {}…", short(hash)));
        let _ = writeln!(out, "   {branch} {name}, {} bytes{sha256}", target.length);
    }
    for warning in warnings(repository, now) {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

/// The same for programs, keys and hashes in full.
pub(crate) fn json(repository: &Repository) -> Value {
    let roles: serde_json::Map<_, _> = Role::ALL
        .into_iter()
        .map(|role| {
            let (version, expires) = repository.state(role);
            let keys = repository.root().role(role);
            (role.name().to_owned(), json!({"version": version, "expires": expires, "keys": keys}))
        })
        .collect();
    json!({"roles": roles, "targets": repository.targets()})
}

/// What expires soon. (Timestamps always do; a job signs them.)
pub(crate) fn warnings(repository: &Repository, now: Timestamp) -> Vec<String> {
    [Role::Root, Role::Snapshot, Role::Targets]
        .into_iter()
        .map(|role| (role, repository.state(role).1))
        .filter(|(_, expires)| days(*expires, now) < WARN_DAYS)
        .map(|(role, expires)| format!("{role} metadata {}", until(expires, now)))
        .collect()
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

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
