//! DSSE envelopes (secure-systems-lab/dsse, protocol 1.0.2): a payload, its type, and signatures over both.

use data_encoding::{BASE64, BASE64URL};
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::keys::PublicKey;
use crate::limits;

/// The payload type of a command.
pub const COMMAND_TYPE: &str = "application/vnd.vigil.command+json";
/// The payload type of a device's digest.
pub const DIGEST_TYPE: &str = "application/vnd.vigil.digest+json";

/// Signatures of one envelope that are verified at most: each once, and as many again for a key that is listed twice.
const VERIFICATIONS: usize = 2 * limits::SIGNATURES;

/// Why an envelope could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than the caller's limit.
    #[error("the envelope has {0} bytes, more than the {1} allowed")]
    TooLarge(usize, usize),
    /// Not the JSON of an envelope.
    #[error("not a DSSE envelope: {0}")]
    Malformed(String),
    /// Another kind of payload.
    #[error("the envelope holds another type of payload than {0}")]
    PayloadType(&'static str),
}

/// An envelope as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Envelope {
    /// Base64 of the payload's bytes; standard or URL-safe is read, standard is written.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9+/_-]*={0,2}$")))]
    pub payload: String,
    /// What the payload is.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// Over the pre-authentication encoding of type and payload.
    #[cfg_attr(feature = "schema", schemars(length(max = 16)))]
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnvelopeSignature {
    /// A hint which key it is by; never trusted, only used to choose the key to try.
    #[serde(default)]
    pub keyid: String,
    /// Base64 of the signature's bytes.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9+/_-]*={0,2}$")))]
    pub sig: String,
}

impl Envelope {
    /// Signs `payload` as `payload_type` by one key.
    pub fn sign(payload_type: &str, payload: &[u8], key: &SigningKey) -> Self {
        Self {
            payload: BASE64.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![signature(payload_type, payload, key)],
        }
    }

    /// Adds the signature of one more key, in place of what may stand there under that key's id.
    pub fn cosign(&mut self, key: &SigningKey) -> Result<(), EnvelopeError> {
        let added = signature(&self.payload_type, &self.payload_bytes()?, key);
        self.signatures.retain(|signature| signature.keyid != added.keyid);
        if self.signatures.len() >= limits::SIGNATURES {
            return Err(EnvelopeError::Malformed(format!(
                "it has {} signatures already",
                limits::SIGNATURES
            )));
        }
        self.signatures.push(added);
        Ok(())
    }

    /// Reads an envelope of at most `limit` bytes that holds `payload_type`. Verifies nothing.
    pub fn parse(bytes: &[u8], payload_type: &'static str, limit: usize) -> Result<Self, EnvelopeError> {
        if bytes.len() > limit {
            return Err(EnvelopeError::TooLarge(bytes.len(), limit));
        }
        let envelope: Self = serde_json::from_slice(bytes)
            .map_err(|error| EnvelopeError::Malformed(vigil_text::json_fault(&error)))?;
        if envelope.signatures.len() > limits::SIGNATURES {
            return Err(EnvelopeError::Malformed(format!("more than {} signatures", limits::SIGNATURES)));
        }
        if envelope.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType(payload_type));
        }
        Ok(envelope)
    }

    /// The payload's bytes, unverified.
    pub fn payload_bytes(&self) -> Result<Vec<u8>, EnvelopeError> {
        decode(&self.payload).ok_or_else(|| EnvelopeError::Malformed("the payload is not base64".to_owned()))
    }

    /// The envelope's JSON, on one line.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Which of `keys` signed this envelope: their positions, each once. A signature is held against the keys that its
    /// hint names and no others, and no more than [`VERIFICATIONS`] are tried: what a stranger sends must not cost a
    /// verification for each operator there is.
    pub fn signers<'k>(&self, keys: impl Iterator<Item = &'k PublicKey>) -> Vec<usize> {
        let Ok(payload) = self.payload_bytes() else { return Vec::new() };
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        let signatures: Vec<_> = self
            .signatures
            .iter()
            .filter_map(|signature| Some((signature.keyid.as_str(), decode(&signature.sig)?)))
            .collect();
        let mut left = VERIFICATIONS;
        let mut may_try = move || left.checked_sub(1).inspect(|rest| left = *rest).is_some();
        keys.enumerate()
            .filter(|(_, key)| {
                let id = key.id();
                signatures
                    .iter()
                    .any(|(hint, bytes)| *hint == id && may_try() && key.verifies(&message, bytes))
            })
            .map(|(position, _)| position)
            .collect()
    }
}

fn signature(payload_type: &str, payload: &[u8], key: &SigningKey) -> EnvelopeSignature {
    let signature = key.sign(&pre_authentication_encoding(payload_type, payload));
    EnvelopeSignature {
        keyid: PublicKey::from(key.verifying_key()).id(),
        sig: BASE64.encode(&signature.to_bytes()),
    }
}

/// PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL.decode(text.as_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The test vector of dsse/protocol.md.
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn a_changed_payload_or_type_has_no_signer() {
        let public = PublicKey::from(key(1).verifying_key());
        let envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
        assert_eq!(envelope.signers([&public].into_iter()), [0]);
        let mut changed = envelope.clone();
        changed.payload = BASE64.encode(b"{ }");
        assert!(changed.signers([&public].into_iter()).is_empty());
        let mut changed = envelope;
        changed.payload_type = DIGEST_TYPE.to_owned();
        assert!(changed.signers([&public].into_iter()).is_empty());
    }

    #[test]
    fn a_key_counts_once_however_often_it_signed() {
        let public = PublicKey::from(key(1).verifying_key());
        let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
        envelope.signatures.push(envelope.signatures[0].clone());
        assert_eq!(envelope.signers([&public].into_iter()), [0]);
    }

    #[test]
    fn a_second_key_signs_the_same_bytes_and_a_key_signs_once() {
        let public = [key(1), key(2)].map(|key| PublicKey::from(key.verifying_key()));
        let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
        envelope.cosign(&key(2)).unwrap();
        envelope.cosign(&key(2)).unwrap();
        assert_eq!(envelope.signatures.len(), 2);
        assert_eq!(envelope.signers(public.iter()), [0, 1]);
        let none = EnvelopeSignature { keyid: String::new(), sig: String::new() };
        envelope.signatures.resize(limits::SIGNATURES, none);
        assert!(envelope.cosign(&key(3)).is_err());
    }

    #[test]
    fn a_signature_without_its_hint_or_under_anothers_counts_for_nobody() {
        let public = [key(1), key(2)].map(|key| PublicKey::from(key.verifying_key()));
        let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
        envelope.signatures[0].keyid = String::new();
        assert_eq!(envelope.signers(public.iter()), [0; 0]);
        envelope.signatures[0].keyid = public[1].id();
        assert_eq!(envelope.signers(public.iter()), [0; 0]);
    }

    #[test]
    fn an_envelope_costs_so_many_verifications_and_no_more_however_often_a_key_is_listed() {
        let public = PublicKey::from(key(1).verifying_key());
        let sound = Envelope::sign(COMMAND_TYPE, b"{}", &key(1)).signatures.remove(0);
        let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
        envelope.signatures = vec![EnvelopeSignature { sig: BASE64.encode(&[0; 64]), ..sound.clone() }; 15];
        envelope.signatures.push(sound);
        // 16 for the first and 16 for the second: the last signature is the good one.
        assert_eq!(envelope.signers(std::iter::repeat_n(&public, 1_000)), [0, 1]);
    }

    #[test]
    fn an_envelope_over_its_limit_is_refused_before_it_is_parsed() {
        let bytes = vec![b'x'; 101];
        assert_eq!(Envelope::parse(&bytes, COMMAND_TYPE, 100), Err(EnvelopeError::TooLarge(101, 100)));
    }
}
