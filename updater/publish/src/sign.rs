//! Signatures of several people, one at a time: at the repository, or on a machine that has a staged file alone.

use std::path::Path;

use anyhow::{Context, Result, bail};
use vigil_tuf::RoleName;

use crate::keyring::Keyring;
use crate::repository::Repository;
use crate::sealed::Sealed;
use crate::settings::name;
use crate::{diff, public, staged};

/// A file that would be signed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Preview {
    /// Whose metadata it is.
    pub role: String,
    /// What would change: see [`diff::lines`].
    pub changes: Vec<String>,
}

/// What is staged and would be signed by a key at hand, with what it would change.
pub fn previews(repository: &Repository, ring: &Keyring) -> Result<Vec<Preview>> {
    let mut previews = Vec::new();
    for (role, sealed) in repository.staged() {
        if repository.would_sign(role, sealed, ring)? {
            previews.push(preview(role, sealed, repository.published().sealed(role))?);
        }
    }
    Ok(previews)
}

/// A staged file against another version of it.
pub fn preview(role: &RoleName, sealed: &Sealed, against: Option<&Sealed>) -> Result<Preview> {
    Ok(Preview { role: name(role).to_owned(), changes: diff::lines(sealed, against)? })
}

/// Takes the signatures that someone gave elsewhere, each verified. How many were new.
pub fn merge(repository: &mut Repository, file: &Path) -> Result<usize> {
    let brought = staged::read_file(file)?;
    let role =
        repository.staged().iter().find(|(_, sealed)| sealed.same_content(&brought)).map(|(role, _)| role);
    let Some(role) = role.cloned() else {
        bail!(
            "{} has not the content of any file in {}: it was changed after it was copied, or what is staged was; sign \
             a new copy",
            file.display(),
            repository.staged_directory().display()
        );
    };
    let mut good = Vec::new();
    for signature in brought.signatures().iter().filter(|signature| !signature.sig.is_empty()) {
        let signers = repository.signers(&role)?;
        let mut keys = signers.iter().filter(|signers| signers.role.keyids.contains(&signature.keyid));
        let key = keys.find_map(|signers| signers.keys.get(&signature.keyid));
        let Some(key) = key else {
            bail!(
                "{} is signed by {}, which is no key of {role}; nothing was taken from it",
                file.display(),
                public::short(&signature.keyid)
            );
        };
        if !brought.is_signature(signature, key) {
            bail!(
                "the signature by {} in {} is not over its content; nothing was taken from it",
                public::label(&signature.keyid, Some(key)),
                file.display()
            );
        }
        good.push(signature.clone());
    }
    let mut count = 0;
    if let Some(sealed) = repository.staged.get_mut(&role) {
        for signature in good {
            count += usize::from(!sealed.has_signature_of(&signature.keyid));
            sealed.put(signature);
        }
    }
    Ok(count)
}

/// A staged file on a machine that has no repository.
#[derive(Debug)]
pub struct Offline<'a> {
    file: &'a Path,
    role: RoleName,
    sealed: Sealed,
}

impl<'a> Offline<'a> {
    /// Reads it, and checks that a key at hand is asked for.
    pub fn open(file: &'a Path, ring: &Keyring) -> Result<Self> {
        let sealed = staged::read_file(file)?;
        let role = staged::role_of(file).with_context(|| {
            format!("{} is not named as a staged file is, e.g. 2.root.json", file.display())
        })?;
        if asks_for(&sealed, ring).next().is_none() {
            let asked = diff::asked(&sealed);
            if asked.is_empty() {
                bail!("{} asks for no more signatures; bring it back with `sign --from`", file.display());
            }
            bail!(
                "{} asks for signatures by {}, of which none is in {}",
                file.display(),
                asked.join(", "),
                ring.directory().display()
            );
        }
        Ok(Self { file, role, sealed })
    }

    /// What is to be signed, against the published file if there is a copy of it.
    pub fn preview(&self, against: Option<&Path>) -> Result<Preview> {
        let published = against.map(staged::read_file).transpose()?;
        preview(&self.role, &self.sealed, published.as_ref())
    }

    /// Signs with every key at hand that is asked for; their ids.
    pub fn sign(mut self, ring: &Keyring) -> Result<Vec<String>> {
        let ids: Vec<_> = asks_for(&self.sealed, ring).map(str::to_owned).collect();
        for id in &ids {
            let key = ring.signer(id)?.context("the key has gone")?;
            self.sealed.sign(id, &key);
        }
        staged::write_file(self.file, &self.sealed)?;
        Ok(ids)
    }
}

fn asks_for<'a>(sealed: &'a Sealed, ring: &'a Keyring) -> impl Iterator<Item = &'a str> {
    let open = sealed.signatures().iter().filter(|signature| signature.sig.is_empty());
    open.map(|signature| signature.keyid.as_str()).filter(|id| ring.holds(id))
}
