//! Delegations: which other role may sign which targets ("The Update Framework Specification", 4.5, and TAP 15).

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::document::{Role, RoleKeys, RoleName};
use crate::key::Key;

/// Longest file name of a delegated role without version and `.json`, in bytes: file systems allow 255 in all.
const MAX_STEM_BYTES: usize = 200;
/// Most bits of a bin's number (TAP 15).
const MAX_BIT_LENGTH: u8 = 32;

/// The delegations of a targets role: named roles, or bins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations {
    /// By key id.
    pub keys: BTreeMap<String, Key>,
    /// In the order of their priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<DelegatedRole>>,
    /// Bins that need not be named one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succinct_roles: Option<SuccinctRoles>,
}

/// A role that may sign some targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name, any text.
    pub name: String,
    /// Who signs for it.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// Whether the search ends with this role when one of its patterns fits.
    pub terminating: bool,
    /// Patterns of target names, in which `*`, `?` and `[…]` never match `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Beginnings of the SHA-256 of target names, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
}

/// Bins by the leading bits of the SHA-256 of target names. All are terminating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccinctRoles {
    /// Who signs for each bin.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// There are 2 to the power of this many bins; 1 to 32.
    pub bit_length: u8,
    /// A bin's name is this, `-`, and its number in hex.
    pub name_prefix: String,
}

/// A role that a search must look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate<'a> {
    /// Its name.
    pub name: String,
    /// Who signs for it.
    pub keys: &'a RoleKeys,
    /// Whether no role after it is asked.
    pub terminating: bool,
}

impl Delegations {
    /// The roles that may sign `target`, first those to be asked first.
    pub fn delegates(&self, target: &str) -> Vec<Delegate<'_>> {
        let hash = Sha256::digest(target.as_bytes());
        if let Some(bins) = &self.succinct_roles {
            return vec![Delegate { name: bins.bin(&hash), keys: &bins.keys, terminating: true }];
        }
        let hash = HEXLOWER.encode(&hash);
        let roles = self.roles.iter().flatten().filter(|role| role.covers(target, &hash));
        roles
            .map(|role| Delegate { name: role.name.clone(), keys: &role.keys, terminating: role.terminating })
            .collect()
    }

    /// What the shape does not say by itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (&self.roles, &self.succinct_roles) {
            (Some(roles), None) => {
                let mut names = BTreeSet::new();
                // Who signed this is not known yet: a role is told by its place.
                for (position, role) in roles.iter().enumerate() {
                    let delegation = format!("delegation {}", position + 1);
                    check_role_name(&delegation, &role.name)?;
                    if !names.insert(&role.name) {
                        return Err(format!("{delegation} is to a role that is delegated to twice"));
                    }
                    role.check(&delegation)?;
                }
                Ok(())
            }
            (None, Some(bins)) => {
                check_role_name("the delegation to bins", &bins.name_prefix)?;
                check_threshold("the delegation to bins", &bins.keys)?;
                if !(1..=MAX_BIT_LENGTH).contains(&bins.bit_length) {
                    return Err(format!("bit_length is {}, not 1 to {MAX_BIT_LENGTH}", bins.bit_length));
                }
                Ok(())
            }
            _ => Err("delegations have either roles or succinct_roles".to_owned()),
        }
    }
}

impl DelegatedRole {
    fn covers(&self, target: &str, hash: &str) -> bool {
        let by_hash = self.path_hash_prefixes.iter().flatten().any(|prefix| hash.starts_with(prefix));
        by_hash || self.paths.iter().flatten().any(|pattern| fits(pattern, target))
    }

    fn check(&self, delegation: &str) -> Result<(), String> {
        check_threshold(delegation, &self.keys)?;
        if self.paths.is_some() == self.path_hash_prefixes.is_some() {
            return Err(format!("{delegation} has not either paths or path_hash_prefixes"));
        }
        Ok(())
    }
}

impl SuccinctRoles {
    fn bin(&self, hash: &[u8]) -> String {
        let head = hash.iter().take(4).fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
        let number = head >> (32 - u32::from(self.bit_length.min(MAX_BIT_LENGTH)));
        let digits = usize::from(self.bit_length).div_ceil(4);
        format!("{}-{number:0digits$x}", self.name_prefix)
    }
}

fn check_threshold(delegation: &str, keys: &RoleKeys) -> Result<(), String> {
    if keys.threshold == 0 { Err(format!("the threshold of {delegation} is 0")) } else { Ok(()) }
}

/// A delegated role may have any name but a top-level role's, and one that makes a file name.
fn check_role_name(delegation: &str, name: &str) -> Result<(), String> {
    let stem = RoleName::Delegated(name.to_owned()).file_stem();
    if name.is_empty() || Role::ALL.iter().any(|role| role.name() == name) {
        return Err(format!("{delegation} is to a role without a name of its own"));
    }
    if stem.len() > MAX_STEM_BYTES {
        return Err(format!("{delegation} is to a role whose file name has {} bytes", stem.len()));
    }
    Ok(())
}

/// Shell patterns, part by part: `*.json` fits `a.json` and not `b/a.json`. A pattern that is none fits nothing.
fn fits(pattern: &str, target: &str) -> bool {
    let (patterns, parts) = (pattern.split('/'), target.split('/'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| {
            // `**` is `*` here, and must not become what the crate makes of it.
            let mut single = String::with_capacity(pattern.len());
            for c in pattern.chars() {
                if c != '*' || !single.ends_with('*') {
                    single.push(c);
                }
            }
            glob::Pattern::new(&single).is_ok_and(|pattern| pattern.matches(part))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stop_at_slashes() {
        let good = [
            ("targets/*.tgz", "targets/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-a.tgz"),
            ("*", "a"),
            ("*/*", "a/b"),
            ("a/**", "a/b"),
            ("[ab].json", "b.json"),
            ("[!ab].json", "c.json"),
            ("x", "x"),
        ];
        for (pattern, target) in good {
            assert!(fits(pattern, target), "{pattern} {target}");
        }
        let bad = [
            ("targets/*.tgz", "targets/foo.txt"),
            ("foo-version-?.tgz", "foo-version-alpha.tgz"),
            ("*", "a/b"),
            ("*.tgz", "targets/foo.tgz"),
            ("**", "a/b"),
            ("a/*", "a/b/c"),
            ("[ab].json", "c.json"),
            ("a[", "a["),
            ("?", "/"),
            ("", "a"),
        ];
        for (pattern, target) in bad {
            assert!(!fits(pattern, target), "{pattern} {target}");
        }
    }

    #[test]
    fn bins_are_those_of_python_tuf() {
        // SuccinctRoles([], 1, bits, "bin").get_role_for_target(name) of python-tuf 7.0.1.
        let keys = RoleKeys { keyids: Vec::new(), threshold: 1 };
        for (bits, name, bin) in BINS {
            let bins = SuccinctRoles { keys: keys.clone(), bit_length: bits, name_prefix: "bin".to_owned() };
            assert_eq!(bins.bin(&Sha256::digest(name.as_bytes())), bin, "{bits} {name}");
        }
    }

    const BINS: [(u8, &str, &str); 5] = [
        (1, "a", "bin-1"),
        (8, "operators/acme.json", "bin-da"),
        (8, "a", "bin-ca"),
        (9, "a", "bin-195"),
        (32, "a", "bin-ca978112"),
    ];
}
