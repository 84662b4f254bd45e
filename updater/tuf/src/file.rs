//! A metadata file: parsed strictly, its signatures counted against the keys of whoever names its role.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER_PERMISSIVE;
use jiff::Timestamp as Time;
use serde::Deserialize;

use crate::canonical::Json;
use crate::document::{Document, Key, MetaFile, RoleKeys, RoleName, Root};
use crate::error::{Error, Subject};
use crate::{MAX_SIGNATURES, MAX_STATED_BYTES};

/// A file that was parsed, with what its signatures are over.
#[derive(Clone, Debug)]
pub(crate) struct File<D> {
    pub(crate) document: D,
    pub(crate) bytes: Vec<u8>,
    message: Vec<u8>,
    signatures: Vec<(String, Vec<u8>)>,
}

#[derive(Deserialize)]
struct Envelope<D> {
    signed: D,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
}

impl<D: Document> File<D> {
    /// Parses a file; who signed it is a question for [`File::check_signatures`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse_as(bytes, &D::ROLE.into())
    }

    /// The same for a file of the delegated role `name`.
    pub(crate) fn parse_as(bytes: &[u8], name: &RoleName) -> Result<Self, Error> {
        Self::parse_or_reason(bytes).map_err(|reason| Error::Malformed(name.clone().into(), reason))
    }

    fn parse_or_reason(bytes: &[u8]) -> Result<Self, String> {
        // Read twice: once for what is signed, unknown fields and all, once for what we know. The first pass has
        // refused duplicate keys, so that the two cannot disagree.
        let Json::Object(mut members) = Json::parse(bytes).map_err(|error| vigil_text::json_fault(&error))?
        else {
            return Err("it is not a JSON object".to_owned());
        };
        let Some(signed @ Json::Object(_)) = members.remove("signed") else {
            return Err("`signed` is not a JSON object".to_owned());
        };
        let envelope: Envelope<D> =
            serde_json::from_slice(bytes).map_err(|error| vigil_text::json_fault(&error))?;
        if envelope.signatures.len() > MAX_SIGNATURES {
            return Err(format!("it has more than {MAX_SIGNATURES} signatures"));
        }
        let mut ids = BTreeSet::new();
        // Nobody has vouched for any of this yet: what is wrong is told by its place, never in its own words.
        let repeated = envelope.signatures.iter().position(|signature| !ids.insert(&signature.keyid));
        if let Some(position) = repeated {
            return Err(format!("signature {} is by a key that is among the signatures twice", position + 1));
        }
        let document = envelope.signed;
        let (kind, spec_version) = document.form();
        if kind != D::ROLE.name() {
            return Err(format!("its _type is not {}", D::ROLE.name()));
        }
        if spec_version.split('.').next() != Some("1") {
            return Err("it follows another version of the specification than 1.x".to_owned());
        }
        if document.version() == 0 {
            return Err("its version is 0".to_owned());
        }
        document.check()?;
        Ok(Self {
            bytes: bytes.to_vec(),
            message: signed.canonical(),
            // One that is no hex does not count, and does not spoil the others.
            signatures: envelope.signatures.into_iter().filter_map(EnvelopeSignature::decode).collect(),
            document,
        })
    }

    /// Whether as many different keys as `root` asks for have signed.
    pub(crate) fn check_signatures(&self, root: &Root) -> Result<(), Error> {
        match root.role(D::ROLE) {
            Some(role) => self.check_signers(&root.keys, role, &D::ROLE.into()),
            None => Err(Error::Malformed(D::ROLE.into(), "root names no keys for it".to_owned())),
        }
    }

    /// Whether as many different keys as `role` asks for have signed.
    pub(crate) fn check_signers(
        &self,
        keys: &BTreeMap<String, Key>,
        role: &RoleKeys,
        name: &RoleName,
    ) -> Result<(), Error> {
        let counted = self.signers(keys, role);
        if counted >= role.threshold {
            return Ok(());
        }
        Err(Error::Threshold { subject: name.clone().into(), needed: role.threshold, counted })
    }

    /// A key counts once, however many ids it has and however often it signed.
    fn signers(&self, keys: &BTreeMap<String, Key>, role: &RoleKeys) -> u32 {
        let mut signers = BTreeSet::new();
        for keyid in role.keyids.iter().collect::<BTreeSet<_>>() {
            let Some(key) = keys.get(keyid).and_then(Key::verifier) else { continue };
            let mut by_this = self.signatures.iter().filter(|(by, _)| by == keyid);
            if !signers.contains(key.identity())
                && by_this.any(|(_, signature)| key.verify(&self.message, signature))
            {
                signers.insert(key.identity().to_vec());
            }
        }
        signers.len() as u32
    }

    pub(crate) fn check_expiry(&self, now: Time) -> Result<(), Error> {
        let expires = self.document.expires();
        if now < expires { Ok(()) } else { Err(Error::Expired { subject: D::ROLE.into(), expires, now }) }
    }

    /// Whether this is the file that `listed` names.
    pub(crate) fn is(&self, listed: &MetaFile) -> bool {
        self.document.version() == listed.version
            && check_content(&self.bytes, listed, D::ROLE.into()).is_ok()
    }
}

impl EnvelopeSignature {
    fn decode(self) -> Option<(String, Vec<u8>)> {
        Some((self.keyid, HEXLOWER_PERMISSIVE.decode(self.sig.as_bytes()).ok()?))
    }
}

/// Length and hashes, as far as they are stated.
pub(crate) fn check_content(bytes: &[u8], listed: &MetaFile, subject: Subject) -> Result<(), Error> {
    let found = bytes.len() as u64;
    if let Some(allowed) = listed.length
        && found != allowed
    {
        return Err(Error::Length { subject, allowed, found });
    }
    match &listed.hashes {
        Some(hashes) if !hashes.matches(bytes) => Err(Error::Hash(subject)),
        _ => Ok(()),
    }
}

/// How many bytes to accept for a listed file.
pub(crate) fn limit(listed: &MetaFile, default: u64) -> u64 {
    listed.length.map_or(default, |stated| stated.min(MAX_STATED_BYTES))
}
