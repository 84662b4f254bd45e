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
    /// ECDSA or RSA-PSS.
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

    // Made with CryptoSigner of securesystemslib 1.6.0 over the message "vigil".
    const ECDSA: [&str; 2] = [
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUhHn6ETQSHxCYUqruMyU2etObbFi\nVtWwU6FncO/dSv8A1i+W5FPPbygjDQ4ilT2L/iTNhvWOLferSu50qlZ6JQ==\n-----END PUBLIC KEY-----\n",
        "3046022100db678c21945ba80e92e6c3d54e573bcec39bd921c0afe4493971971fbd9586490221009cdb26a0a84663042f54271df17b45a85c8ca03293e50def766ae59798bca501",
    ];
    const RSA_PSS: [&str; 2] = [
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1ny1ypOFYmPBgxMsxNuz\nLHT8IvWRMGWJj62Un2kqzEwaTyJz3fvRELumW7DDSJq7KZLIfpk3nY/NnqDi2fjt\nP6UcK01N2fsOoCSJNTeXZINleF3n219XJe/D96q6kwdpUKTufQ3QR5sVNkN7KNlz\ncHW6DqhqcmrcPGVW8XgKPkvX/qDoaFdaNtXoQI6Dv/hgmEavM/5PhJWscto3DoFP\n39OhYwy8CNgmUDFfF3gzrOfYmy07FbHXIICLte7eXqcGt6hHi/pt3eDd4pSN+M8L\nykWTdszhxFcBDlDS9kY1Y8+LpndDwwfX9sbE+cMjrx3bBlCKu/2aYMKanlHIbhNm\nTwIDAQAB\n-----END PUBLIC KEY-----\n",
        "8e2195d8c57fe60f2ad7b6e288a8d88e92a24e7645b04675c1f9c26c195d435ef7ad8d158fd0519e99714fdfa1a51632e4a084d559b4c850ecc1e32c20d88f07a4424500422f054954167f3851e497bf5e46f9070779e738cd75b3c39065d6c6698fb94854e2b7e9cdd9c3d311e0bad43bb3ca661b513275ec65d79dffc365af85a69b481ba9af53db01a4e8d781179a97ae4772ec9fb968b4ba85cc2542869acb29a33b2a90e62b3d4abf6fb5b220b0f9a36fa217537ee972b9935f847077024885b777efeee9fed7b7b804775f628e4dbdbec885071d2d2113af49ce0e3156bc6b42e9ed9a73908004cc6e6f8bc9a768c7c05cabc031f0ea2453e240b6d23d",
    ];

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
        for (keytype, scheme, [public, signature]) in [
            ("ecdsa", "ecdsa-sha2-nistp256", ECDSA),
            ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", ECDSA),
            ("rsa", "rsassa-pss-sha256", RSA_PSS),
        ] {
            let key = key(keytype, scheme, public);
            assert!(verifies(&key, b"vigil", signature), "{keytype} {scheme}");
            assert!(!verifies(&key, b"vigi1", signature), "{keytype} {scheme}");
            let flipped = if signature.ends_with('1') { "2" } else { "1" };
            assert!(!verifies(&key, b"vigil", &format!("{}{flipped}", &signature[..signature.len() - 1])));
            assert!(!verifies(&key, b"vigil", ""));
        }
        for scheme in ["rsassa-pss-sha384", "rsassa-pss-sha512", "rsa-pkcs1v15-sha256"] {
            assert!(!verifies(&key("rsa", scheme, RSA_PSS[0]), b"vigil", RSA_PSS[1]), "{scheme}");
        }
    }

    #[test]
    fn a_key_that_is_not_what_its_type_says_never_counts() {
        for (keytype, scheme, public) in [
            ("ecdsa", "ecdsa-sha2-nistp384", ECDSA[0]),
            ("ecdsa", "ecdsa-sha2-nistp256", RSA_PSS[0]),
            ("rsa", "rsassa-pss-sha256", ECDSA[0]),
            ("rsa", "rsassa-pss-md5", RSA_PSS[0]),
            ("ed25519", "ed25519", ECDSA[0]),
            ("ed25519", "rsassa-pss-sha256", RSA_PSS[0]),
            ("dsa", "dsa", RSA_PSS[0]),
            ("rsa", "rsassa-pss-sha256", &RSA_PSS[0].replace("PUBLIC", "PRIVATE")),
            ("rsa", "rsassa-pss-sha256", &" ".repeat(MAX_PEM_BYTES + 1)),
            ("rsa", "rsassa-pss-sha256", ""),
        ] {
            assert!(key(keytype, scheme, public).verifier().is_none(), "{keytype} {scheme}");
        }
    }
}
