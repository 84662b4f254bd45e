//! Who the device is: two keys, made on the first start and never replaced in silence.
//!
//! Ed25519 signs digests, checkpoints and reports. P-256 is for TLS client certificates: the big brokers take no
//! Ed25519 there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use vigil_durable::Mode;
use vigil_protocol::keys::PublicKey;

/// The version of the store that this release writes and reads.
const VERSION: u32 = 1;
/// PEM keys and requests of these kinds have a few hundred bytes.
const FILE_BYTES: u64 = 16 * 1024;

/// Why the device has no identity.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum IdentityError {
    #[error("cannot {what} {}: {source}; check that the directory belongs to vigild's user and the disk is not full", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Never mended by itself: a new key is a new device to everyone who pinned the old one.
    #[error(
        "{} is damaged: {reason}; restore it from a backup, or move the whole directory {} away and enrol the device anew",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("{} says version {found}, this release reads up to {VERSION}; run the newer release again", path.display())]
    TooNew { path: PathBuf, found: u32 },
    #[error("cannot make a key: {0}; check that the kernel's random source works")]
    Generate(String),
}

/// The device's keys.
pub struct Identity {
    signing_key: SigningKey,
    directory: PathBuf,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Opens `{state_dir}/identity`, or makes it on the first start; `device_id` is the common name of the
    /// certificate signing request. Every step can be cut off and is taken up by the next start.
    pub fn open(state_dir: &Path, device_id: &str) -> Result<Self, IdentityError> {
        let directory = state_dir.join("identity");
        vigil_durable::create_directory(&directory).map_err(failed("make", &directory))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))
            .map_err(failed("restrict", &directory))?;
        check_version(&directory.join("version"))?;
        let signing_key = open_signing_key(&directory.join("device.key"))?;
        let identity = Self { signing_key, directory };
        identity.write_public_key()?;
        identity.complete_tls_key(device_id)?;
        Ok(identity)
    }

    /// The Ed25519 key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    /// The public half of the Ed25519 key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from(self.signing_key.verifying_key())
    }

    /// The P-256 key for TLS: PKCS#8, PEM.
    pub fn tls_key_path(&self) -> PathBuf {
        self.directory.join("tls.key")
    }

    /// The certificate signing request for the P-256 key: PEM.
    pub fn tls_request_path(&self) -> PathBuf {
        self.directory.join("tls.csr")
    }

    fn write_public_key(&self) -> Result<(), IdentityError> {
        let path = self.directory.join("device.pub");
        let text = format!("{}\n", BASE64.encode(self.public_key().as_bytes()));
        // Derived from the private key: whatever else stands there is wrong and is put right.
        if read(&path).ok().flatten().as_deref() == Some(text.as_bytes()) {
            return Ok(());
        }
        write("identity.device_pub", &path, text.as_bytes(), Mode::Public)
    }

    fn complete_tls_key(&self, device_id: &str) -> Result<(), IdentityError> {
        let path = self.tls_key_path();
        let request = self.tls_request_path();
        let key = if let Some(text) = read_text(&path)? {
            KeyPair::from_pkcs8_pem_and_sign_algo(&text, &rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|error| damaged(&path, error))?
        } else {
            refuse_if_lost(&path, &request)?;
            let key = KeyPair::generate().map_err(|error| IdentityError::Generate(error.to_string()))?;
            write("identity.tls_key", &path, key.serialize_pem().as_bytes(), Mode::Private)?;
            key
        };
        if request.exists() {
            return Ok(());
        }
        let pem =
            signing_request(&key, device_id).map_err(|error| IdentityError::Generate(error.to_string()))?;
        write("identity.tls_csr", &request, pem.as_bytes(), Mode::Public)
    }
}

fn signing_request(key: &KeyPair, device_id: &str) -> Result<String, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, device_id);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.serialize_request(key)?.pem()
}

fn check_version(path: &Path) -> Result<(), IdentityError> {
    let Some(text) = read_text(path)? else {
        return write("identity.version", path, format!("{VERSION}\n").as_bytes(), Mode::Public);
    };
    match text.trim().parse::<u32>() {
        Ok(found) if found > VERSION => Err(IdentityError::TooNew { path: path.to_owned(), found }),
        Ok(1..) => Ok(()),
        _ => Err(damaged(path, "not a version number")),
    }
}

fn open_signing_key(path: &Path) -> Result<SigningKey, IdentityError> {
    if let Some(text) = read_text(path)? {
        return SigningKey::from_pkcs8_pem(&text).map_err(|error| damaged(path, error));
    }
    refuse_if_lost(path, &path.with_extension("pub"))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| IdentityError::Generate(error.to_string()))?;
    let key = SigningKey::from_bytes(&seed);
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| IdentityError::Generate(error.to_string()))?;
    write("identity.device_key", path, pem.as_bytes(), Mode::Private)?;
    Ok(key)
}

/// A key is written before what is derived from it: the latter alone means that the key was there and is lost.
fn refuse_if_lost(key: &Path, derived: &Path) -> Result<(), IdentityError> {
    if derived.exists() { Err(damaged(key, "it is missing though it was there once")) } else { Ok(()) }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match vigil_durable::read_bounded(path, FILE_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged(path, error)),
        other => other.map_err(failed("read", path)),
    }
}

fn read_text(path: &Path) -> Result<Option<String>, IdentityError> {
    read(path)?.map(|bytes| String::from_utf8(bytes).map_err(|_| damaged(path, "not text"))).transpose()
}

fn write(point: &str, path: &Path, bytes: &[u8], mode: Mode) -> Result<(), IdentityError> {
    vigil_durable::write(point, path, bytes, mode).map_err(failed("write", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { what, path, source }
}

fn damaged(path: &Path, reason: impl ToString) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_the_keys_and_later_ones_find_them() {
        let state = tempfile::tempdir().unwrap();
        let first = Identity::open(state.path(), "bar-1").unwrap();
        let directory = state.path().join("identity");
        let tls_key = fs::read(first.tls_key_path()).unwrap();
        let second = Identity::open(state.path(), "bar-1").unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(tls_key, fs::read(second.tls_key_path()).unwrap());
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("device.key")), 0o600);
        assert_eq!(mode(&directory.join("tls.key")), 0o600);
        assert_eq!(fs::read_to_string(directory.join("version")).unwrap(), "1\n");
        let public = fs::read_to_string(directory.join("device.pub")).unwrap();
        assert_eq!(public.trim(), first.public_key().to_string());
        let request = fs::read_to_string(first.tls_request_path()).unwrap();
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    }

    #[test]
    fn a_start_that_was_cut_off_is_completed_with_the_keys_that_exist() {
        let state = tempfile::tempdir().unwrap();
        let whole = Identity::open(state.path(), "bar-1").unwrap();
        let tls_key = fs::read(whole.tls_key_path()).unwrap();
        fs::remove_file(whole.tls_request_path()).unwrap();
        fs::write(state.path().join("identity/device.pub"), "torn").unwrap();
        let again = Identity::open(state.path(), "bar-1").unwrap();
        assert!(again.tls_request_path().exists());
        assert_eq!(fs::read(again.tls_key_path()).unwrap(), tls_key);
        let public = fs::read_to_string(state.path().join("identity/device.pub")).unwrap();
        assert_eq!(public.trim(), whole.public_key().to_string());
    }

    #[test]
    fn a_damaged_key_is_an_error_that_says_what_to_do_and_is_left_as_it_is() {
        for file in ["device.key", "tls.key", "version"] {
            for damage in
                [&b""[..], b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"\xff\xfe", &b"x".repeat(20_000)]
            {
                let state = tempfile::tempdir().unwrap();
                Identity::open(state.path(), "bar-1").unwrap();
                let path = state.path().join("identity").join(file);
                fs::write(&path, damage).unwrap();
                let error = Identity::open(state.path(), "bar-1").unwrap_err();
                assert!(error.to_string().contains("restore it from a backup"), "{file}: {error}");
                assert_eq!(fs::read(&path).unwrap(), damage);
            }
        }
    }

    #[test]
    fn a_key_that_is_lost_is_not_replaced_in_silence() {
        for file in ["device.key", "tls.key"] {
            let state = tempfile::tempdir().unwrap();
            Identity::open(state.path(), "bar-1").unwrap();
            fs::remove_file(state.path().join("identity").join(file)).unwrap();
            let error = Identity::open(state.path(), "bar-1").unwrap_err();
            assert!(error.to_string().contains("missing though it was there once"), "{error}");
        }
    }

    #[test]
    fn a_store_of_a_newer_release_is_refused() {
        let state = tempfile::tempdir().unwrap();
        Identity::open(state.path(), "bar-1").unwrap();
        fs::write(state.path().join("identity/version"), "2\n").unwrap();
        let error = Identity::open(state.path(), "bar-1").unwrap_err();
        assert!(matches!(error, IdentityError::TooNew { found: 2, .. }));
    }
}
