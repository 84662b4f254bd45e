//! The private keys at hand: those of one directory, opened when they are to sign.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ed25519_dalek::SigningKey;
use vigil_tuf::document::{Key, RoleKeys};

use crate::passphrase::Passphrase;
use crate::public::NamedKey;
use crate::{keys, public};

/// The private keys of a directory, by the ids of their public halves.
#[derive(Debug, Default)]
pub struct Keyring {
    directory: PathBuf,
    by_id: BTreeMap<String, Held>,
    unread: Vec<String>,
    passphrase: Passphrase,
    /// A passphrase is asked for once, and scrypt is meant to be slow.
    opened: RefCell<BTreeMap<String, SigningKey>>,
}

#[derive(Debug)]
struct Held {
    name: String,
    public: NamedKey,
}

impl Keyring {
    /// The keys in a directory. None is opened yet, unless its public half is not beside it.
    pub fn open(directory: &Path, passphrase: &Passphrase) -> Result<Self> {
        let mut ring =
            Self { directory: directory.to_owned(), passphrase: passphrase.clone(), ..Self::default() };
        let entries = std::fs::read_dir(directory).with_context(|| {
            format!("cannot list {}; give the directory that `init` made as --keys", directory.display())
        })?;
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".pem")) else { continue };
            // What is no key of ours may lie here as well, and is told of only when a key is missing.
            match ring.public_half(name) {
                Ok(public) => {
                    ring.by_id.insert(public.id.clone(), Held { name: name.to_owned(), public });
                }
                Err(error) => ring.unread.push(format!("{error:#}")),
            }
        }
        Ok(ring)
    }

    fn public_half(&self, name: &str) -> Result<NamedKey> {
        if keys::public_path(&self.directory, name).exists() {
            return public::find(name, Some(&self.directory));
        }
        let key = keys::open(&keys::path(&self.directory, name), &self.passphrase)?;
        NamedKey::from_ed25519(name, &key.verifying_key())
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether it has that key.
    pub fn holds(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Opens the key of that id, if it is here.
    pub fn signer(&self, id: &str) -> Result<Option<SigningKey>> {
        let Some(held) = self.by_id.get(id) else { return Ok(None) };
        if let Some(key) = self.opened.borrow().get(id) {
            return Ok(Some(key.clone()));
        }
        let key = keys::load(&self.directory, &held.name, &self.passphrase)?;
        if Key::from_ed25519(&key.verifying_key()).keyval != held.public.key.keyval {
            let [private, public] =
                [keys::path(&self.directory, &held.name), keys::public_path(&self.directory, &held.name)];
            bail!("{} is not the public half of {}; remove it", public.display(), private.display());
        }
        self.opened.borrow_mut().insert(id.to_owned(), key.clone());
        Ok(Some(key))
    }

    /// That at least one of a role's keys is here.
    pub fn check_any(&self, role: &str, keys: &BTreeMap<String, Key>, of: &RoleKeys) -> Result<()> {
        if of.keyids.iter().any(|id| self.holds(id)) {
            return Ok(());
        }
        let named = keys::path(&self.directory, role);
        if named.exists() && self.unread.is_empty() {
            bail!("{} is not a key that this repository's root names for {role}", named.display());
        }
        let unread =
            if self.unread.is_empty() { String::new() } else { format!(" ({})", self.unread.join("; ")) };
        let names = of.keyids.iter().map(|id| match keys.get(id).and_then(|key| key.name.as_deref()) {
            Some(name) => format!("{name}.pem"),
            None => public::short(id).to_owned(),
        });
        let names: Vec<_> = names.collect();
        bail!(
            "{role} needs a signature by {}, of which none is in {}{unread}; give another --keys, or --stage to leave \
             the signature to others",
            names.join(" or "),
            self.directory.display()
        );
    }
}
