//! Entitlements: what support contract a device has. The keys that sign them are a TUF target; an entitlement itself
//! is a DSSE envelope that goes to its device alone, because a public repository must not list serials and contracts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DocumentError, check_count, check_version, read};
use crate::envelope::Envelope;
use crate::keys::PublicKey;
use crate::limits;
use crate::topic::is_name;

const KEYS: &str = "a list of entitlement keys";

/// The payload type of an entitlement.
pub const ENTITLEMENT_TYPE: &str = "application/vnd.vigil.entitlement+json";

/// `entitlements.json`, version 1: who may sign entitlements. Revoking is publishing a list without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitlementKeys {
    /// Format version, 1.
    pub v: u32,
    /// The keys.
    pub keys: Vec<EntitlementKey>,
}

/// One key that signs entitlements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitlementKey {
    /// Whose it is, for people.
    pub name: String,
    /// Ed25519, base64.
    pub key: PublicKey,
    /// The tenants it may sign for; `"*"` is every tenant.
    pub tenants: Vec<String>,
    /// After this the key means nothing.
    pub expires: Timestamp,
}

impl EntitlementKeys {
    /// Reads a list within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let list: Self = read(KEYS, bytes, limits::ENTITLEMENT_KEYS_BYTES)?;
        check_version(KEYS, list.v)?;
        check_count("keys", list.keys.len(), limits::ENTITLEMENT_KEYS)?;
        Ok(list)
    }
}

/// How much support a contract buys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The warranty.
    Basic,
    /// Business hours.
    Standard,
    /// Round the clock.
    Premium,
}

/// What a contract has beyond its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// New hardware is sent before the broken part is back.
    AdvanceReplacement,
    /// A technician comes.
    OnSite,
    /// Faults of the cloud meeting partner are followed up with the partner.
    PartnerSupport,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// The payload of an entitlement's envelope, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlement {
    /// Format version, 1.
    pub v: u32,
    /// The contract.
    pub contract: String,
    /// The device it is for, by id.
    pub device: String,
    /// Its tenant.
    pub tenant: String,
    /// What it buys.
    pub level: Level,
    /// And besides.
    #[serde(default)]
    pub services: Vec<Service>,
    /// From when on.
    pub starts: Timestamp,
    /// Until when.
    pub ends: Timestamp,
}

/// Why an entitlement was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntitlementError {
    /// Not an envelope with an entitlement in it.
    #[error("not an entitlement: {0}")]
    Malformed(String),
    /// No key that is listed, may sign for the tenant and has not expired signed it.
    #[error("not signed by a key that may sign entitlements for this tenant")]
    NotSigned,
    /// Another device's, or another tenant's.
    #[error("made out to {0:?} of the tenant {1:?}, not to this device")]
    NotForUs(String, String),
}

/// Reads an entitlement that is signed for this device. Whether its contract runs now is seen from its times: one
/// that has ended is still the truth about the past.
pub fn verify(
    bytes: &[u8],
    keys: &EntitlementKeys,
    device: &str,
    tenant: &str,
    now: Timestamp,
) -> Result<Entitlement, EntitlementError> {
    let malformed = |what: &dyn std::fmt::Display| EntitlementError::Malformed(what.to_string());
    let envelope = Envelope::parse(bytes, ENTITLEMENT_TYPE, limits::ENTITLEMENT_BYTES)
        .map_err(|error| malformed(&error))?;
    let may_sign: Vec<_> = keys
        .keys
        .iter()
        .filter(|key| key.expires > now && key.tenants.iter().any(|named| named == "*" || named == tenant))
        .map(|key| &key.key)
        .collect();
    if envelope.signers(may_sign.into_iter()).is_empty() {
        return Err(EntitlementError::NotSigned);
    }
    let payload = envelope.payload_bytes().map_err(|error| malformed(&error))?;
    let entitlement: Entitlement = serde_json::from_slice(&payload).map_err(|error| malformed(&error))?;
    if entitlement.v != 1 {
        return Err(malformed(&format_args!("format {}; this version reads format 1", entitlement.v)));
    }
    if !is_name(&entitlement.contract) || entitlement.starts >= entitlement.ends {
        return Err(malformed(&"its contract has no name, or ends before it starts"));
    }
    if entitlement.device != device || entitlement.tenant != tenant {
        return Err(EntitlementError::NotForUs(entitlement.device, entitlement.tenant));
    }
    Ok(entitlement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn keys() -> EntitlementKeys {
        let key = |seed, tenant: &str, expires| EntitlementKey {
            name: "sales".to_owned(),
            key: PublicKey::from(key(seed).verifying_key()),
            tenants: vec![tenant.to_owned()],
            expires: at(expires),
        };
        EntitlementKeys {
            v: 1,
            keys: vec![
                key(1, "*", "2027-01-01T00:00:00Z"),
                key(2, "other", "2027-01-01T00:00:00Z"),
                key(3, "*", "2026-01-01T00:00:00Z"),
            ],
        }
    }

    fn entitlement() -> Entitlement {
        Entitlement {
            v: 1,
            contract: "C-1".to_owned(),
            device: "bar-1".to_owned(),
            tenant: "acme".to_owned(),
            level: Level::Premium,
            services: vec![Service::AdvanceReplacement],
            starts: at("2026-01-01T00:00:00Z"),
            ends: at("2029-01-01T00:00:00Z"),
        }
    }

    fn judge(entitlement: &Entitlement, seed: u8) -> Result<Entitlement, EntitlementError> {
        let payload = serde_json::to_vec(entitlement).unwrap();
        let envelope = Envelope::sign(ENTITLEMENT_TYPE, &payload, &key(seed)).to_json();
        verify(envelope.as_bytes(), &keys(), "bar-1", "acme", at("2026-06-01T00:00:00Z"))
    }

    #[test]
    fn an_entitlement_counts_for_its_device_when_a_listed_key_signed_it() {
        assert_eq!(judge(&entitlement(), 1), Ok(entitlement()));
        for seed in [2, 3, 4] {
            assert_eq!(judge(&entitlement(), seed), Err(EntitlementError::NotSigned), "{seed}");
        }
        let other = Entitlement { device: "bar-2".to_owned(), ..entitlement() };
        assert!(matches!(judge(&other, 1), Err(EntitlementError::NotForUs(..))));
        let other = Entitlement { tenant: "other".to_owned(), ..entitlement() };
        assert!(matches!(judge(&other, 1), Err(EntitlementError::NotForUs(..))));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_an_unknown_service_is_passed_over() {
        let bad = Entitlement { ends: entitlement().starts, ..entitlement() };
        assert!(matches!(judge(&bad, 1), Err(EntitlementError::Malformed(_))));
        let bad = Entitlement { v: 2, ..entitlement() };
        assert!(matches!(judge(&bad, 1), Err(EntitlementError::Malformed(_))));
        let command = Envelope::sign(crate::envelope::COMMAND_TYPE, b"{}", &key(1)).to_json();
        let now = at("2026-06-01T00:00:00Z");
        assert!(matches!(
            verify(command.as_bytes(), &keys(), "bar-1", "acme", now),
            Err(EntitlementError::Malformed(_))
        ));
        assert_eq!(serde_json::from_str::<Service>("\"butler\"").unwrap(), Service::Other);
    }
}
