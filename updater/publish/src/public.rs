//! Public keys: as TUF lists them, with a name for people and the id that securesystemslib gives them.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use data_encoding::HEXLOWER;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::{DecodePublicKey, EncodePublicKey};
use pkcs8::der::pem::LineEnding;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vigil_tuf::document::Key;

use crate::{files, keys};

const FILE_BYTES: u64 = 16 * 1024;
/// Letters of an id that people are shown.
const SHORT: usize = 12;

/// A public key and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// SHA-256 of its canonical JSON.
    pub id: String,
    /// The key, with its name.
    pub key: Key,
}

impl NamedKey {
    /// An Ed25519 key.
    pub fn from_ed25519(name: &str, key: &VerifyingKey) -> Result<Self> {
        Self::new(name, Key::from_ed25519(key))
    }

    fn new(name: &str, key: Key) -> Result<Self> {
        if key.verifier().is_none() {
            bail!(
                "a key of the type {} with the scheme {} is not known here, or it is unsound",
                key.keytype,
                key.scheme
            );
        }
        // The name is for people: the id is the one that other tools give the same key.
        let key = Key { name: None, ..key };
        let id = HEXLOWER.encode(&Sha256::digest(crate::sealed::canonical(&key)?));
        Ok(Self { id, key: Key { name: Some(name.to_owned()), ..key } })
    }
}

/// The key that a person means: `@FILE` is a public key in a file, anything else a name in the directory of the keys.
pub fn find(text: &str, directory: Option<&Path>) -> Result<NamedKey> {
    if let Some(file) = text.strip_prefix('@') {
        let file = Path::new(file);
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or("unnamed");
        let bytes = files::read(file, FILE_BYTES)?;
        return parse(name, &bytes).with_context(|| format!("{} is no public key", file.display()));
    }
    let Some(directory) = directory else {
        bail!("{text:?} names a key in the directory of the keys; give that as --keys, or a file as @FILE");
    };
    let public = keys::public_path(directory, text);
    if let Some(bytes) = vigil_durable::read_bounded(&public, FILE_BYTES)? {
        return parse(text, &bytes).with_context(|| format!("{} is no public key", public.display()));
    }
    let private = keys::path(directory, text);
    if !private.exists() {
        bail!(
            "there is no key {text} in {}; make it with `vigil-publish key new`, take it in with `key import`, or give \
             the file of a public key as @FILE",
            directory.display()
        );
    }
    let key = keys::open(&private, &crate::passphrase::Passphrase::default())?;
    NamedKey::from_ed25519(text, &key.verifying_key())
}

/// Reads a public key: SubjectPublicKeyInfo in PEM, or the JSON of securesystemslib.
pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<NamedKey> {
    #[derive(Deserialize)]
    struct Listed {
        keytype: String,
        scheme: String,
        keyval: Value,
    }
    if let Ok(Listed { keytype, scheme, keyval }) = serde_json::from_slice(bytes) {
        return NamedKey::new(name, Key { keytype, scheme, keyval, name: None });
    }
    let text = std::str::from_utf8(bytes).context("it is neither PEM nor JSON")?;
    if text.contains("PRIVATE KEY") {
        bail!("it is a private key, which stays with its holder; give its public half");
    }
    if let Ok(key) = VerifyingKey::from_public_key_pem(text) {
        return NamedKey::from_ed25519(name, &key);
    }
    let schemes =
        [("ecdsa", "ecdsa-sha2-nistp256"), ("ecdsa", "ecdsa-sha2-nistp384"), ("rsa", "rsassa-pss-sha256")];
    let keys = schemes.into_iter().map(|(keytype, scheme)| Key {
        keytype: keytype.to_owned(),
        scheme: scheme.to_owned(),
        keyval: json!({"public": text}),
        name: None,
    });
    let known = keys.into_iter().find(|key| key.verifier().is_some());
    NamedKey::new(name, known.context("it is no Ed25519, ECDSA or RSA key")?)
}

/// The file of a public key.
pub(crate) fn to_bytes(key: &NamedKey) -> Result<Vec<u8>> {
    if let Some(vigil_tuf::Verifier::Ed25519(key)) = key.key.verifier() {
        let pem = key
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| anyhow!("cannot encode the key: {error}"))?;
        return Ok(pem.into_bytes());
    }
    let Key { keytype, scheme, keyval, .. } = &key.key;
    Ok(serde_json::to_vec_pretty(&json!({"keytype": keytype, "scheme": scheme, "keyval": keyval}))?)
}

/// A key as people are told of it.
pub fn label(id: &str, key: Option<&Key>) -> String {
    match key.and_then(|key| key.name.as_deref()) {
        Some(name) => format!("{name} ({})", short(id)),
        None => short(id).to_owned(),
    }
}

/// The beginning of a hash.
pub fn short(hash: &str) -> &str {
    hash.get(..SHORT).unwrap_or(hash)
}
