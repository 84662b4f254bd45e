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
    /// The id of the key of 32 bytes 7 under that name.
    const KEY_ID: [u8; 4] = [0xcc, 0xe8, 0x33, 0x29];
    const NOTE: &str = "vigil/v1/bar-1/audit\n42\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n\n\u{2014} vigil/v1/bar-1/audit \
                        zOgzKbLCKQQJzVeDWFTHaIOO3QxyPMxLOYQgt4VKLVxGvcCS9PxeQJ5USe+CEKu/1N36LY84PtrbLbncJgyU5CAp1ws=\n";

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

    /// A note by `signed`'s key over a text that [`Checkpoint::sign`] would not write.
    fn signed_text(text: &str) -> (String, PublicKey) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey::from(key.verifying_key());
        // SHA-256("vigil/v1/bar-1/audit" || 0x0A || 0x01 || public key), its first four bytes.
        let mut bytes = KEY_ID.to_vec();
        bytes.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
        (format!("{text}\n\u{2014} {ORIGIN} {}\n", BASE64.encode(&bytes)), public)
    }

    fn verify_text(text: &str) -> Result<Checkpoint, NoteError> {
        let (note, key) = signed_text(text);
        Checkpoint::verify(&note, ORIGIN, &key)
    }

    #[test]
    fn key_ids_are_those_that_others_publish() {
        // "PeterNeumann+c74f20a3+…" of golang.org/x/mod/sumdb/note, and the key of sum.golang.org.
        for (name, key, id) in [
            ("PeterNeumann", "GlzZBxQ8OExB6DDFvOEqqIF+xWSaqr8sMTiLNbLXRNY=", [0xc7, 0x4f, 0x20, 0xa3]),
            ("sum.golang.org", "zjNy11rR7l7Nr4cnKT1LER2H6zdTHXyG1NMAPw64Cfw=", [0x03, 0x3d, 0xe0, 0xae]),
        ] {
            let key = PublicKey::try_from(key.to_owned()).unwrap();
            assert_eq!(key_id(name, &key), id, "{name}");
        }
    }

    #[test]
    fn a_note_is_byte_for_byte_what_another_implementation_signs() {
        // Made with Python's cryptography: Ed25519 is deterministic.
        let (note, ..) = signed();
        assert_eq!(note, NOTE);
    }

    #[test]
    fn a_signature_counts_only_with_the_key_id_the_name_and_the_length_of_the_expected_one() {
        let (note, key, checkpoint) = signed();
        let (text, line) = note.split_once("\n\n").unwrap();
        let (before, signature) = line.trim_end().rsplit_once(' ').unwrap();
        let bytes = BASE64.decode(signature.as_bytes()).unwrap();
        let verify = |before: &str, bytes: &[u8]| {
            let note = format!("{text}\n\n{before} {}\n", BASE64.encode(bytes));
            Checkpoint::verify(&note, ORIGIN, &key)
        };
        assert_eq!(verify(before, &bytes), Ok(checkpoint));
        for position in [0, 3] {
            let mut other = bytes.clone();
            other[position] ^= 1;
            assert_eq!(verify(before, &other), Err(NoteError::Unsigned), "byte {position} of the key id");
        }
        let longer = [&bytes[..], &[0]].concat();
        for other in [&longer[..], &bytes[..67], &bytes[..4], &bytes[..3], &[]] {
            assert_eq!(verify(before, other), Err(NoteError::Unsigned), "{} bytes", other.len());
        }
        assert_eq!(verify("\u{2014} vigil/v1/bar-2/audit", &bytes), Err(NoteError::Unsigned));
        assert_eq!(verify("- vigil/v1/bar-1/audit", &bytes), Err(NoteError::Unsigned));
    }

    #[test]
    fn another_logs_checkpoint_is_refused_for_its_origin_whoever_signed_it() {
        let (note, key, _) = signed();
        assert_eq!(
            Checkpoint::verify(&note, "vigil/v1/bar-2/audit", &key),
            Err(NoteError::Malformed("another log's origin"))
        );
    }

    #[test]
    fn a_note_of_4096_bytes_is_read_and_one_byte_more_is_too_large() {
        let (note, key, checkpoint) = signed();
        let padded = |bytes: usize| {
            // The line has 7 bytes of its own: a dash of three, "w", two spaces and its end.
            let padding = "A".repeat(bytes - note.len() - 7);
            let padded = format!("{note}\u{2014} w {padding}\n");
            assert_eq!(padded.len(), bytes);
            Checkpoint::verify(&padded, ORIGIN, &key)
        };
        assert_eq!(padded(4_096), Ok(checkpoint));
        assert_eq!(padded(4_097), Err(NoteError::Malformed("too large")));
        assert_eq!(padded(5_000), Err(NoteError::Malformed("too large")));
    }

    #[test]
    fn sizes_are_decimal_numbers_in_their_shortest_form() {
        let root = BASE64.encode(&[9; 32]);
        let judge = |size: &str| {
            verify_text(&format!("{ORIGIN}\n{size}\n{root}\n")).map(|checkpoint| checkpoint.size)
        };
        for (size, number) in [
            ("0", 0),
            ("7", 7),
            ("42", 42),
            ("100", 100),
            ("18446744073709551615", 18_446_744_073_709_551_615),
        ] {
            assert_eq!(judge(size), Ok(number), "{size}");
        }
        for size in ["00", "042", "+42", "-1", "4 2", "0x2a", "a"] {
            assert_eq!(judge(size), Err(NoteError::Malformed("the size is not a decimal number")), "{size}");
        }
        assert_eq!(judge("18446744073709551616"), Err(NoteError::Malformed("the size is too large")));
    }

    #[test]
    fn a_root_is_32_bytes_of_base64() {
        for root in [BASE64.encode(&[9; 31]), BASE64.encode(&[9; 33]), "?".repeat(44)] {
            assert_eq!(
                verify_text(&format!("{ORIGIN}\n42\n{root}\n")),
                Err(NoteError::Malformed("the root is not 32 bytes of base64")),
                "{root}"
            );
        }
    }

    #[test]
    fn a_note_that_ends_before_its_signatures_or_has_too_few_lines_is_malformed() {
        let (_, key, _) = signed();
        for note in ["\n\n", "\n\n\n", "\u{2014}\n\n", "vigil/v1/bar-1/audit\n42\n\n"] {
            assert_eq!(
                Checkpoint::verify(note, ORIGIN, &key),
                Err(NoteError::Malformed("too few lines")),
                "{note:?}"
            );
        }
        for note in ["", "\n", "vigil/v1/bar-1/audit\n42\n"] {
            assert_eq!(
                Checkpoint::verify(note, ORIGIN, &key),
                Err(NoteError::Malformed("no blank line before the signatures")),
                "{note:?}"
            );
        }
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
