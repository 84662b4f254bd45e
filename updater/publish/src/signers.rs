//! Who must sign what, and who still has to.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use vigil_tuf::document::{Key, RoleKeys};
use vigil_tuf::{Role, RoleName};

use crate::keyring::Keyring;
use crate::public;
use crate::repository::Repository;
use crate::sealed::{Sealed, Signature};
use crate::settings::name;

/// Keys that sign a role, as one document says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signers<'a> {
    pub(crate) named_by: (&'a str, u64),
    pub(crate) keys: &'a BTreeMap<String, Key>,
    pub(crate) role: &'a RoleKeys,
    /// Whether publication waits for them. The keys of the root before need not sign what is not a root; if they do,
    /// devices can read the repository whichever of the two roots they know.
    pub(crate) required: bool,
}

/// What a file lacks before it can be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// Whose metadata it is.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// The name of the staged file.
    pub file: String,
    /// Each must be met.
    pub needs: Vec<Need>,
}

/// So many of certain keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The role and version of the metadata that names the keys.
    pub named_by: String,
    /// How many must sign.
    pub threshold: u32,
    /// How many have signed.
    pub signed: usize,
    /// Those that have not.
    pub missing: Vec<MissingKey>,
}

/// A key that could sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingKey {
    /// Its id.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let missing: Vec<_> = self
            .missing
            .iter()
            .map(|key| match &key.name {
                Some(name) => format!("{name} ({})", public::short(&key.id)),
                None => public::short(&key.id).to_owned(),
            })
            .collect();
        let more = (self.threshold as usize).saturating_sub(self.signed);
        write!(f, "{more} more of {}, named by {}", missing.join(", "), self.named_by)
    }
}

impl Signers<'_> {
    fn need(&self, sealed: &Sealed) -> Need {
        let missing = self
            .role
            .keyids
            .iter()
            .filter(|id| !self.keys.get(*id).is_some_and(|key| sealed.is_signed_by(id, key)));
        Need {
            named_by: format!("{} {}", self.named_by.0, self.named_by.1),
            threshold: self.role.threshold,
            signed: sealed.signers(self.keys, self.role),
            missing: missing
                .map(|id| MissingKey {
                    id: id.clone(),
                    name: self.keys.get(id).and_then(|key| key.name.clone()),
                })
                .collect(),
        }
    }

    fn is_met(&self, sealed: &Sealed) -> bool {
        sealed.is_complete(self.keys, self.role)
    }
}

impl Repository {
    /// Who signs a role's next version.
    pub(crate) fn signers(&self, role: &RoleName) -> Result<Vec<Signers<'_>>> {
        let top = match role {
            RoleName::Top(top) => *top,
            RoleName::Delegated(delegated) => return Ok(vec![self.delegated_signers(delegated)?]),
        };
        let working = Signers {
            named_by: ("root", self.root.version),
            keys: &self.root.keys,
            role: self.root.role(top).with_context(|| format!("root names no keys for {top}"))?,
            required: true,
        };
        let mut signers = vec![working];
        if let Some(before) = &self.published.root
            && before.document != self.root
            && let Some(keys) = before.document.role(top)
        {
            let named_by = ("root", before.document.version);
            let required = top == Role::Root;
            signers.push(Signers { named_by, keys: &before.document.keys, role: keys, required });
        }
        Ok(signers)
    }

    fn delegated_signers(&self, delegated: &str) -> Result<Signers<'_>> {
        for (parent, targets) in &self.roles {
            let Some(delegations) = &targets.delegations else { continue };
            let named = delegations.roles.iter().flatten().find(|role| role.name == delegated);
            let bins = delegations.succinct_roles.as_ref().filter(|bins| {
                delegated.strip_prefix(&bins.name_prefix).is_some_and(|rest| rest.starts_with('-'))
            });
            if let Some(role) = named.map(|role| &role.keys).or_else(|| bins.map(|bins| &bins.keys)) {
                let named_by = (name(parent), targets.version);
                return Ok(Signers { named_by, keys: &delegations.keys, role, required: true });
            }
        }
        bail!("nothing delegates to {delegated:?}")
    }

    /// Whether devices that know the working root and delegations would take this file of the role.
    pub(crate) fn is_complete(&self, role: &RoleName, sealed: &Sealed) -> Result<bool> {
        Ok(self
            .signers(role)?
            .iter()
            .filter(|signers| signers.required)
            .all(|signers| signers.is_met(sealed)))
    }

    /// Whether devices that know only the published root would take it.
    pub(crate) fn is_complete_for_published_root(&self, role: Role, sealed: &Sealed) -> bool {
        let Some(before) = &self.published.root else { return false };
        before.document.role(role).is_some_and(|keys| sealed.is_complete(&before.document.keys, keys))
    }

    /// Signs with all keys at hand that count, drops what does not count, and asks for the rest.
    pub(crate) fn sign_at_hand(&self, role: &RoleName, sealed: &mut Sealed, ring: &Keyring) -> Result<()> {
        let signers = self.signers(role)?;
        let before = sealed.signatures().to_vec();
        sealed.clear_signatures();
        for signers in &signers {
            for id in &signers.role.keyids {
                let Some(key) = signers.keys.get(id) else { continue };
                let given = before.iter().find(|given| given.keyid == *id && sealed.is_signature(given, key));
                if sealed.has_signature_of(id) {
                    continue;
                }
                if let Some(given) = given {
                    sealed.put(given.clone());
                } else if let Some(key) = ring.signer(id)? {
                    sealed.sign(id, &key);
                } else if signers.required {
                    sealed.put(Signature { keyid: id.clone(), sig: String::new() });
                }
            }
        }
        Ok(())
    }

    /// Whether [`Self::sign_at_hand`] would add a signature: whatever the file itself asks for.
    pub(crate) fn would_sign(&self, role: &RoleName, sealed: &Sealed, ring: &Keyring) -> Result<bool> {
        Ok(self.signers(role)?.iter().any(|signers| {
            let mut ids = signers.role.keyids.iter().filter(|id| ring.holds(id));
            ids.any(|id| signers.keys.get(id).is_some_and(|key| !sealed.is_signed_by(id, key)))
        }))
    }

    /// What the file still lacks, if anything.
    pub fn lack(&self, role: &RoleName, sealed: &Sealed) -> Result<Option<Lack>> {
        let signers = self.signers(role)?;
        let required = signers.iter().filter(|signers| signers.required);
        let needs: Vec<_> =
            required.filter(|signers| !signers.is_met(sealed)).map(|signers| signers.need(sealed)).collect();
        let version = sealed.version()?;
        let file = crate::staged::file_name(role, version);
        Ok((!needs.is_empty()).then(|| Lack { role: name(role).to_owned(), version, file, needs }))
    }

    /// Every signature in a staged file must be over what the file says now.
    pub(crate) fn check_unaltered(&self, role: &RoleName, sealed: &Sealed) -> Result<()> {
        for signers in self.signers(role)? {
            for (id, key) in signers.role.keyids.iter().filter_map(|id| Some((id, signers.keys.get(id)?))) {
                if sealed.has_signature_of(id) && !sealed.is_signed_by(id, key) {
                    bail!(
                        "the staged file {} was changed after {} signed it; restore it, or `vigil-publish discard` \
                         what is staged and begin again",
                        crate::staged::file_name(role, sealed.version()?),
                        public::label(id, Some(key))
                    );
                }
            }
        }
        Ok(())
    }
}
