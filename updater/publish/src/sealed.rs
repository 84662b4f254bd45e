//! A metadata file as its signers handle it: what is signed, byte for byte, and the signatures so far.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vigil_tuf::Role;
use vigil_tuf::canonical::Json;
use vigil_tuf::document::{Document, Key, RoleKeys};

/// A signature. One without `sig` asks the key's holder for it: only staged files have such.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose.
    pub keyid: String,
    /// In hex; empty when it is still to be made.
    pub sig: String,
}

/// What is signed, with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    signed: Value,
    message: Vec<u8>,
    signatures: Vec<Signature>,
}

impl Sealed {
    /// A document that nobody has signed yet.
    pub fn of<D: Document + Serialize>(document: &D) -> Result<Self> {
        let signed = serde_json::to_value(document)?;
        let message = canonical(document)?;
        Ok(Self { signed, message, signatures: Vec::new() })
    }

    /// Reads a file; who signed it is another question.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            signed: Value,
            signatures: Vec<Signature>,
        }
        // The strict reading comes first: it refuses what two readers might understand differently.
        let Json::Object(mut members) = Json::parse(bytes)? else { bail!("it is not a JSON object") };
        let message = members.remove("signed").context("it has no `signed`")?.canonical();
        let File { signed, signatures } = serde_json::from_slice(bytes)?;
        Ok(Self { signed, message, signatures })
    }

    /// The document, and whether nothing of the file would be lost when it is signed anew.
    pub fn document<D: Document + Serialize>(&self) -> Result<(D, bool)> {
        let document: D = serde_json::from_value(self.signed.clone())?;
        let (kind, _) = document.form();
        if kind != D::ROLE.name() {
            bail!("its _type is {kind:?}, not {:?}", D::ROLE.name());
        }
        document.check().map_err(anyhow::Error::msg)?;
        let whole = canonical(&document)? == self.message;
        Ok((document, whole))
    }

    /// What the file says it is.
    pub fn kind(&self) -> Result<Role> {
        let kind = self.signed.get("_type").and_then(Value::as_str).context("it has no _type")?;
        let role = Role::ALL.into_iter().find(|role| role.name() == kind);
        role.with_context(|| format!("its _type is {kind:?}"))
    }

    /// Its version.
    pub fn version(&self) -> Result<u64> {
        self.signed.get("version").and_then(Value::as_u64).context("it has no version")
    }

    /// Whether both have the same content, whoever signed it.
    pub fn same_content(&self, other: &Self) -> bool {
        self.message == other.message
    }

    /// The signatures, and the requests for some.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The file as it is published: without requests for signatures.
    pub fn published_bytes(&self) -> Result<Vec<u8>> {
        let given: Vec<_> = self.signatures.iter().filter(|signature| !signature.sig.is_empty()).collect();
        file(&json!({"signatures": given, "signed": self.signed}))
    }

    /// The file as it is staged.
    pub fn staged_bytes(&self) -> Result<Vec<u8>> {
        file(&json!({"signatures": self.signatures, "signed": self.signed}))
    }

    /// Signs in place of what the key signed before.
    pub fn sign(&mut self, keyid: &str, key: &SigningKey) {
        let sig = HEXLOWER.encode(&key.sign(&self.message).to_bytes());
        self.put(Signature { keyid: keyid.to_owned(), sig });
    }

    /// Takes a signature, or a request for one, in place of what was there by this key.
    pub fn put(&mut self, signature: Signature) {
        match self.signatures.iter_mut().find(|there| there.keyid == signature.keyid) {
            Some(there) => *there = signature,
            None => self.signatures.push(signature),
        }
    }

    /// Forgets all signatures and requests.
    pub(crate) fn clear_signatures(&mut self) {
        self.signatures.clear();
    }

    /// Whether there is something in the place of this key's signature.
    pub fn has_signature_of(&self, keyid: &str) -> bool {
        self.signatures.iter().any(|signature| signature.keyid == keyid && !signature.sig.is_empty())
    }

    /// Whether this key signed exactly this content.
    pub fn is_signed_by(&self, keyid: &str, key: &Key) -> bool {
        self.signatures.iter().any(|signature| signature.keyid == keyid && self.is_signature(signature, key))
    }

    /// Whether that is this key's signature over exactly this content.
    pub fn is_signature(&self, signature: &Signature, key: &Key) -> bool {
        let bytes = HEXLOWER_PERMISSIVE.decode(signature.sig.as_bytes());
        let verifier = key.verifier();
        bytes.is_ok_and(|bytes| verifier.is_some_and(|verifier| verifier.verify(&self.message, &bytes)))
    }

    /// How many different keys of the role signed it.
    pub fn signers(&self, keys: &BTreeMap<String, Key>, role: &RoleKeys) -> usize {
        let mut signers = BTreeSet::new();
        for id in &role.keyids {
            if let Some(key) = keys.get(id)
                && self.is_signed_by(id, key)
                && let Some(verifier) = key.verifier()
            {
                signers.insert(verifier.identity().to_vec());
            }
        }
        signers.len()
    }

    /// Whether as many of them signed as must.
    pub fn is_complete(&self, keys: &BTreeMap<String, Key>, role: &RoleKeys) -> bool {
        self.signers(keys, role) >= role.threshold as usize
    }
}

/// The bytes that are signed.
pub(crate) fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok(Json::parse(&serde_json::to_vec(value)?)?.canonical())
}

fn file(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
