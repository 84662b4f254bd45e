//! Checkpoints of the audit log: C2SP signed notes (c2sp.org/signed-note) that hold a tree's origin, size and root
//! (c2sp.org/tlog-checkpoint), signed by Ed25519.

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

use crate::keys::PublicKey;
use crate::merkle::Hash;

/// The signature algorithm byte of Ed25519 in a note's key id.
const ALGORITHM_ED25519: u8 = 0x01;
/// A checkpoint's bytes at most.
pub const CHECKPOINT_BYTES: usize = 4096;

/// Why a checkpoint was not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not of the form of a signed checkpoint.
    #[error("not a signed checkpoint: {0}")]
    Malformed(&'static str),
    /// No signature by the expected name and key verifies.
    #[error("no valid signature by the expected key")]
    Unsigned,
}

/// A tree's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: for a device, `{prefix}/{device}/audit`.
    pub origin: String,
    /// Its number of entries.
    pub size: u64,
    /// Its root hash.
    pub root: Hash,
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root))
    }

    /// The signed note. The key's name is the origin.
    pub fn sign(&self, key: &SigningKey) -> String {
        let text = self.text();
        let mut bytes = key_id(&self.origin, &PublicKey::from(key.verifying_key())).to_vec();
        bytes.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64.encode(&bytes))
    }

    /// Reads a note and verifies that `key`, under the name `origin`, signed it. Signatures by others (witnesses)
    /// are passed over.
    pub fn verify(note: &str, origin: &str, key: &PublicKey) -> Result<Self, NoteError> {
        if note.len() > CHECKPOINT_BYTES {
            return Err(NoteError::Malformed("too large"));
        }
        let split = note.rfind("\n\n").ok_or(NoteError::Malformed("no blank line before the signatures"))?;
        let (text, signatures) = (&note[..=split], &note[split + 2..]);
        let checkpoint = Self::parse(text)?;
        if checkpoint.origin != origin {
            return Err(NoteError::Malformed("another log's origin"));
        }
        let id = key_id(origin, key);
        let signed = signatures.lines().any(|line| {
            line.strip_prefix("\u{2014} ")
                .and_then(|rest| rest.split_once(' '))
                .filter(|(name, _)| *name == origin)
                .and_then(|(_, signature)| BASE64.decode(signature.as_bytes()).ok())
                .is_some_and(|bytes| {
                    bytes.len() == 68 && bytes[..4] == id && key.verifies(text.as_bytes(), &bytes[4..])
                })
        });
        if signed { Ok(checkpoint) } else { Err(NoteError::Unsigned) }
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let mut line =
            || lines.next().filter(|line| !line.is_empty()).ok_or(NoteError::Malformed("too few lines"));
        let origin = line()?.to_owned();
        let size = line()?;
        let root = line()?;
        if size.len() > 1 && size.starts_with('0') || !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoteError::Malformed("the size is not a decimal number"));
        }
        let size = size.parse().map_err(|_| NoteError::Malformed("the size is too large"))?;
        let root = BASE64
            .decode(root.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(NoteError::Malformed("the root is not 32 bytes of base64"))?;
        Ok(Self { origin, size, root })
    }
}

/// SHA-256(name || 0x0A || algorithm || public key), its first four bytes.
fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', ALGORITHM_ED25519]);
    hasher.update(key.as_bytes());
    let hash: [u8; 32] = hasher.finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "vigil/v1/bar-1/audit";

    fn signed() -> (String, PublicKey, Checkpoint) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size: 42, root: [9; 32] };
        (checkpoint.sign(&key), PublicKey::from(key.verifying_key()), checkpoint)
    }

    #[test]
    fn a_signed_checkpoint_verifies_and_says_what_was_signed() {
        let (note, key, checkpoint) = signed();
        assert_eq!(Checkpoint::verify(&note, ORIGIN, &key), Ok(checkpoint));
    }

    #[test]
    fn a_changed_size_another_key_or_another_origin_is_not_believed() {
        let (note, key, _) = signed();
        let other = PublicKey::from(SigningKey::from_bytes(&[8; 32]).verifying_key());
        assert_eq!(
            Checkpoint::verify(&note.replace("\n42\n", "\n43\n"), ORIGIN, &key),
            Err(NoteError::Unsigned)
        );
        assert_eq!(Checkpoint::verify(&note, ORIGIN, &other), Err(NoteError::Unsigned));
        assert!(Checkpoint::verify(&note, "vigil/v1/bar-2/audit", &key).is_err());
    }

    #[test]
    fn a_witness_signature_beside_ours_does_no_harm() {
        let (note, key, checkpoint) = signed();
        let witnessed = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert_eq!(Checkpoint::verify(&witnessed, ORIGIN, &key), Ok(checkpoint));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(note in "(?s).{0,300}") {
            let (_, key, _) = signed();
            assert!(Checkpoint::verify(&note, ORIGIN, &key).is_err());
        }
    }
}
