//! Private keys: PKCS#8 PEM files that only their owner can read, and that are never overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use vigil_durable::Mode;
use vigil_tuf::Role;

const PEM_BYTES: u64 = 4096;

/// Where the key of that name is.
pub fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pem"))
}

/// Makes a key. Fails if there is one of that name: what devices trust must not be lost to a typing error.
pub fn create(directory: &Path, name: &str) -> Result<SigningKey> {
    if !vigil_protocol::topic::is_name(name) {
        bail!("{name:?} is no name for a key: use letters, digits, '.', '_' and '-'");
    }
    let path = path(directory, name);
    if path.exists() {
        bail!("{} exists and is not overwritten; move it away or choose another name", path.display());
    }
    if !directory.exists() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot close {} to others", directory.display()))?;
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gave no random bytes")?;
    let key = SigningKey::from_bytes(&seed);
    // Without the public half, which is optional and makes OpenSSL 3.0 refuse the file.
    let pem = KeypairBytes { secret_key: key.to_bytes(), public_key: None }.to_pkcs8_pem(LineEnding::LF);
    let pem = pem.map_err(|error| anyhow::anyhow!("cannot encode the key: {error}"))?;
    vigil_durable::write("publish.key", &path, pem.as_bytes(), Mode::Private)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// Reads a key.
pub fn load(directory: &Path, name: &str) -> Result<SigningKey> {
    let path = path(directory, name);
    let pem = vigil_durable::read_bounded(&path, PEM_BYTES)
        .with_context(|| format!("cannot read {}", path.display()))?
        .with_context(|| {
            format!("there is no {}; give the directory that `init` made as --keys", path.display())
        })?;
    let pem = String::from_utf8(pem).ok().with_context(|| format!("{} is not PEM", path.display()))?;
    SigningKey::from_pkcs8_pem(&pem)
        .map_err(|error| anyhow::anyhow!("{} is not an Ed25519 key in PKCS#8 PEM: {error}", path.display()))
}

/// Makes an operator's key, which may not take the name of a role's.
pub fn create_operator(directory: &Path, name: &str) -> Result<SigningKey> {
    if Role::ALL.iter().any(|role| role.name() == name) {
        bail!("{name} is the name of a role's key, which `init` makes; choose another");
    }
    create(directory, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        let made = create(&keys, "alice").unwrap();
        assert_eq!(load(&keys, "alice").unwrap().to_bytes(), made.to_bytes());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&path(&keys, "alice"))), (0o700, 0o600));
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let made = create(directory.path(), "alice").unwrap();
        assert!(create(directory.path(), "alice").is_err());
        assert_eq!(load(directory.path(), "alice").unwrap().to_bytes(), made.to_bytes());
    }

    #[test]
    fn names_that_leave_the_directory_or_are_a_roles_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(create(directory.path(), "../x").is_err());
        assert!(create_operator(directory.path(), "root").is_err());
    }
}
