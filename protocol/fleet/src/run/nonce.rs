//! The nonce of a device's session, from the digest that the device signed.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use vigil_protocol::state::Digest;
use vigil_protocol::topic::{StateTopic, Topics};

use super::{Context, drain};
use crate::check;
use crate::failure::Failure;
use crate::known::{Known, KnownDevices};
use crate::link::Link;

/// Why there is no nonce for a group.
pub(super) const NOT_FOR_GROUPS: &str =
    "--nonce: a nonce is that of one device's session; name the devices one by one";
/// How long the broker may take to deliver a message that it keeps.
const WAIT: Duration = Duration::from_secs(10);

/// Reads the device's retained digest, verifies it with the pinned key, and gives its nonce.
pub(super) async fn session_nonce(
    context: &Context,
    device: &str,
    known: Option<&Path>,
) -> Result<String, Failure> {
    let prefix = context.settings.prefix()?;
    let topics = Topics::new(prefix, device).map_err(|error| Failure::Usage(error.to_string()))?;
    let known = KnownDevices::load(known.unwrap_or(&context.known_devices))?;
    let pinned = known.get(device).ok_or_else(|| {
        Failure::Failed(format!(
            "{device} has not been checked before, and a nonce is worth nothing unless the device signed it; pin its \
             key with 'vigil-fleet check {device} --accept-new' first"
        ))
    })?;
    let mut link = Link::open(&context.settings).await?;
    link.subscribe(&[topics.state(StateTopic::Digest)]).await?;
    let mut payload = link.next(Instant::now() + WAIT).await?.map(|message| message.payload);
    // One that was published in the same moment is newer.
    drain(&mut link, Instant::now() + WAIT, |message| payload = Some(message.payload)).await?;
    believe(device, pinned, payload.as_deref()).map(|digest| digest.nonce).map_err(|why| {
        Failure::Failed(format!("no nonce of {device}: {why}; 'vigil-fleet check {device}' tells more"))
    })
}

/// The digest, if the pinned key signed it and none that was seen before is newer.
fn believe(device: &str, pinned: &Known, payload: Option<&[u8]>) -> Result<Digest, String> {
    let digest = check::read_digest(device, &pinned.key, payload).map_err(|(_, note)| note)?;
    if digest.seq < pinned.digest_seq {
        return Err(format!(
            "the broker's digest is at {}; an earlier check saw {}",
            digest.seq, pinned.digest_seq
        ));
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use vigil_protocol::envelope::{DIGEST_TYPE, Envelope};
    use vigil_protocol::keys::PublicKey;

    fn digest(seq: u64, signer: u8) -> Vec<u8> {
        let digest = Digest {
            v: 1,
            device: "bar-1".into(),
            seq,
            at: "2026-06-01T12:00:00Z".parse().unwrap(),
            session: 7,
            nonce: "fresh".into(),
            clock_doubtful: true,
            topics: [].into(),
            checkpoint: String::new(),
        };
        let key = SigningKey::from_bytes(&[signer; 32]);
        Envelope::sign(DIGEST_TYPE, &serde_json::to_vec(&digest).unwrap(), &key).to_json().into_bytes()
    }

    #[test]
    fn a_nonce_is_believed_from_the_pinned_key_and_from_no_digest_that_goes_back() {
        let key = PublicKey::from(SigningKey::from_bytes(&[3; 32]).verifying_key());
        let pinned = Known { key, digest_seq: 20, audit_size: 0, audit_root: None };
        let nonce = |payload: Option<&[u8]>| believe("bar-1", &pinned, payload).map(|digest| digest.nonce);
        assert_eq!(nonce(Some(&digest(20, 3))), Ok("fresh".to_owned()));
        assert!(nonce(Some(&digest(20, 4))).unwrap_err().contains("not signed"));
        assert!(nonce(Some(&digest(19, 3))).unwrap_err().contains("saw 20"));
        assert!(nonce(None).is_err());
        assert!(believe("bar-2", &pinned, Some(&digest(20, 3))).is_err());
    }
}
