//! Private keys: PKCS#8 PEM files that only their owner can read, and that are never overwritten. Beside each lies its
//! public half, so that an encrypted key is opened only when it is to sign.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePublicKey, KeypairBytes};
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{PrivateKeyInfoRef, SecretDocument};
use vigil_durable::Mode;
use vigil_tuf::Role;

use crate::passphrase::Passphrase;
use crate::public::{self, NamedKey};

const PEM_BYTES: u64 = 16 * 1024;
/// scrypt with N = 2^14, r = 8, p = 5: what OWASP gives for 16 MiB ("Password Storage Cheat Sheet", 2025). More memory
/// is more than OpenSSL allows itself when it opens the file.
const SCRYPT: (u8, u32, u32) = (14, 8, 5);
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// Where the key of that name is.
pub fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pem"))
}

/// Where its public half is.
pub fn public_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pub"))
}

/// Makes a key. Fails if there is one of that name: what devices trust must not be lost to a typing error.
pub fn create(directory: &Path, name: &str, passphrase: &Passphrase) -> Result<SigningKey> {
    check_free(directory, name)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gave no random bytes")?;
    let key = SigningKey::from_bytes(&seed);
    store(directory, name, &key, passphrase)?;
    Ok(key)
}

/// Makes an operator's key, which may not take the name of a role's.
pub fn create_operator(directory: &Path, name: &str, passphrase: &Passphrase) -> Result<SigningKey> {
    check_not_a_role(name)?;
    create(directory, name, passphrase)
}

/// Takes a key from elsewhere: a private one in PKCS#8 PEM, encrypted or not, or a public one alone.
pub fn import(directory: &Path, name: &str, file: &Path, passphrase: &Passphrase) -> Result<NamedKey> {
    check_not_a_role(name)?;
    check_free(directory, name)?;
    let bytes = crate::files::read(file, PEM_BYTES)?;
    let key = if is_private(&bytes) {
        let key = open(file, passphrase)?;
        store(directory, name, &key, passphrase)?;
        NamedKey::from_ed25519(name, &key.verifying_key())?
    } else {
        let key = public::parse(name, &bytes).with_context(|| {
            format!("{} is neither a private key in PKCS#8 PEM nor a public key", file.display())
        })?;
        make_directory(directory)?;
        let bytes = public::to_bytes(&key)?;
        write(&public_path(directory, name), &bytes, Mode::Public)?;
        key
    };
    Ok(key)
}

/// Opens the key of that name.
pub fn load(directory: &Path, name: &str, passphrase: &Passphrase) -> Result<SigningKey> {
    let path = path(directory, name);
    if !path.exists() {
        bail!("there is no {}; give the directory that `init` made as --keys", path.display());
    }
    open(&path, passphrase)
}

/// Opens a key in a file.
pub(crate) fn open(path: &Path, passphrase: &Passphrase) -> Result<SigningKey> {
    let text = String::from_utf8(crate::files::read(path, PEM_BYTES)?).ok();
    let text = text.with_context(|| format!("{} is not PEM", path.display()))?;
    let key = if is_encrypted(text.as_bytes()) {
        let passphrase = passphrase.for_key(path)?;
        SigningKey::from_pkcs8_encrypted_pem(&text, passphrase.as_bytes())
            .map_err(|error| anyhow!("{} does not open with this passphrase ({error})", path.display()))?
    } else {
        SigningKey::from_pkcs8_pem(&text)
            .map_err(|error| anyhow!("{} is not an Ed25519 key in PKCS#8 PEM: {error}", path.display()))?
    };
    Ok(key)
}

pub(crate) fn is_encrypted(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains(ENCRYPTED)
}

fn is_private(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("PRIVATE KEY")
}

fn store(directory: &Path, name: &str, key: &SigningKey, passphrase: &Passphrase) -> Result<()> {
    let passphrase = passphrase.for_new_key()?;
    let pem =
        encode(key, passphrase.as_deref()).map_err(|error| anyhow!("cannot encode the key: {error}"))?;
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF);
    let public = public.map_err(|error| anyhow!("cannot encode the key: {error}"))?;
    make_directory(directory)?;
    write(&path(directory, name), pem.as_bytes(), Mode::Private)?;
    write(&public_path(directory, name), public.as_bytes(), Mode::Public)
}

fn encode(
    key: &SigningKey,
    passphrase: Option<&str>,
) -> pkcs8::Result<impl std::ops::Deref<Target = String>> {
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    // Without the public half, which is optional and makes OpenSSL 3.0 refuse the file.
    let plain = KeypairBytes { secret_key: key.to_bytes(), public_key: None }.to_pkcs8_der()?;
    let Some(passphrase) = passphrase else {
        return Ok(plain.to_pem("PRIVATE KEY", LineEnding::LF)?);
    };
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    getrandom::fill(&mut salt)
        .and_then(|()| getrandom::fill(&mut iv))
        .map_err(|_| pkcs8::Error::KeyMalformed(pkcs8::KeyError::Invalid))?;
    let (log_n, r, p) = SCRYPT;
    let cost = scrypt::Params::new(log_n, r, p).map_err(|_| pkcs8::Error::ParametersMalformed)?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv)?;
    let info = PrivateKeyInfoRef::try_from(plain.as_bytes())?;
    let encrypted: SecretDocument = info.encrypt_with_params(parameters, passphrase.as_bytes())?;
    Ok(encrypted.to_pem(ENCRYPTED, LineEnding::LF)?)
}

fn write(path: &Path, bytes: &[u8], mode: Mode) -> Result<()> {
    vigil_durable::write("publish.key", path, bytes, mode)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn check_free(directory: &Path, name: &str) -> Result<()> {
    if !vigil_protocol::topic::is_name(name) {
        bail!("{name:?} is no name for a key: use letters, digits, '.', '_' and '-'");
    }
    let paths = [path(directory, name), public_path(directory, name)];
    match paths.iter().find(|path| path.exists()) {
        Some(path) => {
            bail!("{} exists and is not overwritten; move it away or choose another name", path.display())
        }
        None => Ok(()),
    }
}

fn check_not_a_role(name: &str) -> Result<()> {
    if Role::ALL.iter().any(|role| role.name() == name) {
        bail!("{name} is the name of a role's key, which `init` makes; choose another");
    }
    Ok(())
}

fn make_directory(directory: &Path) -> Result<()> {
    if directory.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        let made = create(&keys, "alice", &Passphrase::default()).unwrap();
        assert_eq!(load(&keys, "alice", &Passphrase::default()).unwrap().to_bytes(), made.to_bytes());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&path(&keys, "alice"))), (0o700, 0o600));
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let made = create(directory.path(), "alice", &Passphrase::default()).unwrap();
        assert!(create(directory.path(), "alice", &Passphrase::default()).is_err());
        let read = load(directory.path(), "alice", &Passphrase::default()).unwrap();
        assert_eq!(read.to_bytes(), made.to_bytes());
    }

    #[test]
    fn names_that_leave_the_directory_or_are_a_roles_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(create(directory.path(), "../x", &Passphrase::default()).is_err());
        assert!(create_operator(directory.path(), "root", &Passphrase::default()).is_err());
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
            Passphrase::new(Some(directory.path().join(name)), false)
        };
        let right = file("right", "correct horse\n");
        let made = create(directory.path(), "alice", &right).unwrap();
        let pem = std::fs::read_to_string(path(directory.path(), "alice")).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{pem}");
        assert_eq!(load(directory.path(), "alice", &right).unwrap().to_bytes(), made.to_bytes());
        let error = load(directory.path(), "alice", &file("wrong", "battery staple")).unwrap_err();
        assert!(error.to_string().contains("does not open with this passphrase"), "{error}");
        assert!(create(directory.path(), "bob", &file("empty", "\n")).is_err());
    }
}
