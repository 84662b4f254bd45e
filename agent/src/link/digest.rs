//! One signature that authenticates, heals and witnesses all retained state.

use ed25519_dalek::SigningKey;
use vigil_protocol::envelope::{DIGEST_TYPE, Envelope};
use vigil_protocol::state::Digest;

/// The envelope that is published on `digest`.
pub fn sign(digest: &Digest, key: &SigningKey) -> Result<Vec<u8>, serde_json::Error> {
    let payload = serde_json::to_vec(digest)?;
    serde_json::to_vec(&Envelope::sign(DIGEST_TYPE, &payload, key))
}
