//! Public keys as TUF lists them, and what is verified with them: Ed25519, ECDSA over P-256 and P-384, and RSA with
//! PSS or PKCS #1 v1.5 padding, in the forms that securesystemslib gives them.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::spki::der::Decode;
use ed25519_dalek::pkcs8::spki::der::pem;
use ed25519_dalek::pkcs8::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest PEM text of a key that is looked at, in bytes: an RSA key of 8,192 bits has 1.5 KiB.
const MAX_PEM_BYTES: usize = 4096;
/// id-ecPublicKey, RFC 5480.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256r1, RFC 5480.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// secp384r1, RFC 5480.
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// rsaEncryption, RFC 8017.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A key of any type. One of a type or scheme that is not known here is kept, and never counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// `ed25519`, `ecdsa` (or `ecdsa-sha2-nistp256`, as older tools write) or `rsa`.
    pub keytype: String,
    /// `ed25519`, `ecdsa-sha2-nistp256` or `-nistp384`, `rsassa-pss-sha256` or `rsa-pkcs1v15-sha256` (or 384, 512).
    pub scheme: String,
    /// `public`: for Ed25519 32 bytes in hex, for the others a SubjectPublicKeyInfo in PEM.
    pub keyval: Value,
    /// Whose it is, for people; Vigil's own field. Not part of the key: ids are made without it.
    #[serde(rename = "x-vigil-name", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Key {
    /// An Ed25519 key.
    pub fn from_ed25519(key: &VerifyingKey) -> Self {
        let public = HEXLOWER.encode(key.as_bytes());
        let keyval = Value::Object([("public".to_owned(), Value::String(public))].into_iter().collect());
        Self { keytype: "ed25519".to_owned(), scheme: "ed25519".to_owned(), keyval, name: None }
    }

    /// What verifies with it, unless its type is unknown or it is no sound key.
    pub fn verifier(&self) -> Option<Verifier> {
        let public = self.keyval.get("public")?.as_str()?;
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => {
                let bytes = HEXLOWER_PERMISSIVE.decode(public.as_bytes()).ok()?;
                let key = VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()?;
                (!key.is_weak()).then_some(Verifier::Ed25519(key))
            }
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                let key = subject_public_key(public, EC_PUBLIC_KEY, Some(P256))?;
                Some(Verifier::Other { algorithm: &ECDSA_P256_SHA256_ASN1, key })
            }
            ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => {
                let key = subject_public_key(public, EC_PUBLIC_KEY, Some(P384))?;
                Some(Verifier::Other { algorithm: &ECDSA_P384_SHA384_ASN1, key })
            }
            ("rsa", scheme) => {
                let algorithm: &'static RsaParameters = match scheme {
                    "rsassa-pss-sha256" => &RSA_PSS_2048_8192_SHA256,
                    "rsassa-pss-sha384" => &RSA_PSS_2048_8192_SHA384,
                    "rsassa-pss-sha512" => &RSA_PSS_2048_8192_SHA512,
                    "rsa-pkcs1v15-sha256" => &RSA_PKCS1_2048_8192_SHA256,
                    "rsa-pkcs1v15-sha384" => &RSA_PKCS1_2048_8192_SHA384,
                    "rsa-pkcs1v15-sha512" => &RSA_PKCS1_2048_8192_SHA512,
                    _ => return None,
                };
                Some(Verifier::Other { algorithm, key: subject_public_key(public, RSA, None)? })
            }
            _ => None,
        }
    }
}

/// The key's bits out of a SubjectPublicKeyInfo: an uncompressed point, or an RSAPublicKey in DER.
fn subject_public_key(
    text: &str,
    algorithm: ObjectIdentifier,
    curve: Option<ObjectIdentifier>,
) -> Option<Vec<u8>> {
    if text.len() > MAX_PEM_BYTES {
        return None;
    }
    let (label, der) = pem::decode_vec(text.trim().as_bytes()).ok()?;
    let info = SubjectPublicKeyInfoRef::from_der(&der).ok()?;
    let parameters = info.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let fits =
        label == "PUBLIC KEY" && info.algorithm.oid == algorithm && (curve.is_none() || curve == parameters);
    fits.then(|| info.subject_public_key.as_bytes().map(<[u8]>::to_vec))?
}

/// A key that signatures can be held against.
#[derive(Debug)]
pub enum Verifier {
    /// RFC 8032, verified strictly.
    Ed25519(VerifyingKey),
    /// ECDSA or RSA.
    Other {
        /// Curve or padding, and hash.
        algorithm: &'static dyn VerificationAlgorithm,
        /// The key's bits.
        key: Vec<u8>,
    },
}

impl Verifier {
    /// Whether `signature` over `message` was made with this key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::Other { algorithm, key } => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature).is_ok()
            }
        }
    }

    /// The key's bits: two entries with the same bits are one key, whatever ids and schemes they go by.
    pub fn identity(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.as_bytes(),
            Self::Other { key, .. } => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with CryptoSigner of securesystemslib 1.6.0 over the message "vigil": a key of each curve, and one RSA key of
    /// 2,048 bits with each of its schemes.
    const VECTORS: &str = include_str!("../tests/data/signatures.json");

    #[derive(Deserialize)]
    struct Vector {
        keytype: String,
        scheme: String,
        public: String,
        signature: String,
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_str(VECTORS).unwrap()
    }

    /// The public key that goes with a scheme.
    fn public(scheme: &str) -> String {
        vectors().into_iter().find(|vector| vector.scheme == scheme).unwrap().public
    }

    fn key(keytype: &str, scheme: &str, public: &str) -> Key {
        let keyval = serde_json::json!({"public": public});
        Key { keytype: keytype.to_owned(), scheme: scheme.to_owned(), keyval, name: None }
    }

    fn verifies(key: &Key, message: &[u8], signature: &str) -> bool {
        let signature = HEXLOWER.decode(signature.as_bytes()).unwrap();
        key.verifier().is_some_and(|verifier| verifier.verify(message, &signature))
    }

    #[test]
    fn what_securesystemslib_signed_is_verified_and_nothing_else() {
        for Vector { keytype, scheme, public, signature } in vectors() {
            let key = key(&keytype, &scheme, &public);
            assert!(verifies(&key, b"vigil", &signature), "{scheme}");
            assert!(!verifies(&key, b"vigi1", &signature), "{scheme}");
            let flipped = if signature.ends_with('1') { "2" } else { "1" };
            assert!(!verifies(&key, b"vigil", &format!("{}{flipped}", &signature[..signature.len() - 1])));
            assert!(!verifies(&key, b"vigil", ""));
        }
    }

    #[test]
    fn a_signature_of_one_scheme_is_none_of_another() {
        for signed in vectors() {
            for other in vectors().iter().filter(|other| other.scheme != signed.scheme) {
                let key = key(&signed.keytype, &other.scheme, &signed.public);
                assert!(!verifies(&key, b"vigil", &signed.signature), "{} {}", signed.scheme, other.scheme);
            }
        }
    }

    #[test]
    fn older_tools_name_the_curve_in_the_type() {
        for ecdsa in vectors().iter().filter(|vector| vector.keytype == "ecdsa") {
            let key = key(&ecdsa.scheme, &ecdsa.scheme, &ecdsa.public);
            assert!(verifies(&key, b"vigil", &ecdsa.signature), "{}", ecdsa.scheme);
        }
    }

    #[test]
    fn a_key_that_is_not_what_its_type_says_never_counts() {
        let (ecdsa, rsa) = (public("ecdsa-sha2-nistp256"), public("rsassa-pss-sha256"));
        for (keytype, scheme, public) in [
            ("ecdsa", "ecdsa-sha2-nistp384", ecdsa.as_str()),
            ("ecdsa", "ecdsa-sha2-nistp256", &public("ecdsa-sha2-nistp384")),
            ("ecdsa", "ecdsa-sha2-nistp256", &rsa),
            ("rsa", "rsassa-pss-sha256", &ecdsa),
            ("rsa", "rsassa-pss-md5", &rsa),
            ("ed25519", "ed25519", &ecdsa),
            ("ed25519", "rsassa-pss-sha256", &rsa),
            ("dsa", "dsa", &rsa),
            ("rsa", "rsassa-pss-sha256", &rsa.replace("PUBLIC", "PRIVATE")),
            ("rsa", "rsassa-pss-sha256", ""),
        ] {
            assert!(key(keytype, scheme, public).verifier().is_none(), "{keytype} {scheme}");
        }
    }

    #[test]
    fn a_pem_text_is_looked_at_up_to_its_limit() {
        let public = public("rsassa-pss-sha256");
        for (length, looked_at) in [(MAX_PEM_BYTES, true), (MAX_PEM_BYTES + 1, false)] {
            let padded = format!("{public:length$}");
            assert_eq!(padded.len(), length);
            assert_eq!(key("rsa", "rsassa-pss-sha256", &padded).verifier().is_some(), looked_at, "{length}");
        }
    }
}
