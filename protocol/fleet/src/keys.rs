//! The operator's key: a PKCS#8 PEM file that only its owner can read, and that is never overwritten.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};

use crate::failure::Failure;

const PEM_BYTES: u64 = 4096;

/// Makes a key in a file that does not exist yet.
pub fn create(path: &Path) -> Result<SigningKey, Failure> {
    let failed = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| failed(format!("no random bytes: {error}")))?;
    let key = SigningKey::from_bytes(&seed);
    // Without the public half, which is optional and makes OpenSSL 3.0 refuse the file.
    let pem = KeypairBytes { secret_key: key.to_bytes(), public_key: None }
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| failed(format!("the key cannot be encoded: {error}")))?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
        |error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failed("exists, and a key is never overwritten; choose another name".to_owned())
            }
            _ => failed(error.to_string()),
        },
    )?;
    file.write_all(pem.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| vigil_durable::sync_directory_of(path))
        .map_err(|error| failed(error.to_string()))?;
    Ok(key)
}

/// Reads a key.
pub fn load(path: &Path) -> Result<SigningKey, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let pem = vigil_durable::read_bounded(path, PEM_BYTES)
        .map_err(|error| wrong(error.to_string()))?
        .ok_or_else(|| wrong("no such file; make a key with 'vigil-fleet key new FILE'".to_owned()))?;
    let pem = String::from_utf8(pem).map_err(|_| wrong("not PEM".to_owned()))?;
    SigningKey::from_pkcs8_pem(&pem)
        .map_err(|error| wrong(format!("not an Ed25519 private key in PKCS#8 PEM: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_read_as_it_was_made_is_private_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("olga.pem");
        let made = create(&path).unwrap();
        assert_eq!(load(&path).unwrap().to_bytes(), made.to_bytes());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(create(&path).is_err());
        assert_eq!(load(&path).unwrap().to_bytes(), made.to_bytes());
    }

    #[test]
    fn a_missing_key_says_how_to_make_one() {
        let error = load(Path::new("/nonexistent/key.pem")).unwrap_err();
        assert!(error.to_string().contains("key new"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
