//! The TUF targets that a device believes besides releases and operators, and their names. TUF says that they are
//! authentic and current; here only their shape is read, within limits.

mod entitlement;
mod partner;
mod remedies;

use serde::de::DeserializeOwned;

pub use entitlement::{
    ENTITLEMENT_TYPE, Entitlement, EntitlementError, EntitlementKey, EntitlementKeys, Level, Service, verify,
};
pub use partner::{Endpoint, PartnerProfile};
pub use remedies::{Remedies, Remedy};

use crate::limits;
use crate::operators::Operators;
use crate::topic::is_name;

/// The target that lists the remedies.
pub const REMEDIES: &str = "remedies.json";
/// The target that lists the keys that sign entitlements.
pub const ENTITLEMENT_KEYS: &str = "entitlements.json";

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// More bytes or entries than allowed.
    #[error("{0} of {1} bytes or entries; at most {2} are allowed")]
    TooLarge(&'static str, usize, usize),
    /// Not such a document.
    #[error("not {0}: {1}")]
    Malformed(&'static str, String),
    /// A format this version does not know.
    #[error("{0} of format {1}; this version reads format 1")]
    Version(&'static str, u32),
}

/// What a target is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// `operators/{tenant}.json`
    Operators(String),
    /// `partners/{name}.json`
    Partner(String),
    /// [`REMEDIES`]
    Remedies,
    /// [`ENTITLEMENT_KEYS`]
    EntitlementKeys,
    /// `releases/{product}/{version}.json`
    Release,
    /// Anything else: nothing that a device reads.
    Other,
}

impl TargetKind {
    /// Reads a target's name.
    pub fn of(name: &str) -> Self {
        let within = |prefix: &str| {
            let stem = name.strip_prefix(prefix)?.strip_suffix(".json")?;
            is_name(stem).then(|| stem.to_owned())
        };
        if let Some(tenant) = within("operators/") {
            return Self::Operators(tenant);
        }
        if let Some(partner) = within("partners/") {
            return Self::Partner(partner);
        }
        match name {
            REMEDIES => Self::Remedies,
            ENTITLEMENT_KEYS => Self::EntitlementKeys,
            _ if name.starts_with("releases/") => Self::Release,
            _ => Self::Other,
        }
    }

    /// The largest such document that is fetched, in bytes; none for what is not kept.
    pub fn limit(&self) -> Option<u64> {
        let bytes = match self {
            Self::Operators(_) => limits::OPERATORS_BYTES,
            Self::Partner(_) => limits::PARTNER_BYTES,
            Self::Remedies => limits::REMEDIES_BYTES,
            Self::EntitlementKeys => limits::ENTITLEMENT_KEYS_BYTES,
            Self::Release | Self::Other => return None,
        };
        Some(bytes as u64)
    }

    /// Whether `bytes` are a document of this kind, for the tenant or partner that its name says. What is not kept
    /// here is somebody else's to check.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::Operators(tenant) => {
                let list = Operators::parse(bytes).map_err(|error| error.to_string())?;
                same("tenant", tenant, &list.tenant)
            }
            Self::Partner(name) => {
                let profile = PartnerProfile::parse(bytes).map_err(|error| error.to_string())?;
                same("partner", name, &profile.name)
            }
            Self::Remedies => Remedies::parse(bytes).map(drop).map_err(|error| error.to_string()),
            Self::EntitlementKeys => {
                EntitlementKeys::parse(bytes).map(drop).map_err(|error| error.to_string())
            }
            Self::Release | Self::Other => Ok(()),
        }
    }
}

/// The name of a partner's profile.
pub fn partner_target(name: &str) -> String {
    format!("partners/{name}.json")
}

/// The name of a tenant's operators list.
pub fn operators_target(tenant: &str) -> String {
    format!("operators/{tenant}.json")
}

fn same(what: &str, named: &str, found: &str) -> Result<(), String> {
    if named == found { Ok(()) } else { Err(format!("it is the {what} {found:?}'s, not {named:?}'s")) }
}

fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, DocumentError> {
    if bytes.len() > limit {
        return Err(DocumentError::TooLarge(what, bytes.len(), limit));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| DocumentError::Malformed(what, vigil_text::json_fault(&error)))
}

fn check_version(what: &'static str, v: u32) -> Result<(), DocumentError> {
    if v == 1 { Ok(()) } else { Err(DocumentError::Version(what, v)) }
}

fn check_count(what: &'static str, count: usize, limit: usize) -> Result<(), DocumentError> {
    if count <= limit { Ok(()) } else { Err(DocumentError::TooLarge(what, count, limit)) }
}

fn check_name(what: &'static str, name: &str) -> Result<(), DocumentError> {
    if is_name(name) {
        return Ok(());
    }
    Err(DocumentError::Malformed(what, format!("{name:?} is no name of 1 to 64 of A-Z a-z 0-9 . _ -")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_known_by_its_name() {
        assert_eq!(TargetKind::of("operators/acme.json"), TargetKind::Operators("acme".to_owned()));
        assert_eq!(TargetKind::of(&partner_target("meet")), TargetKind::Partner("meet".to_owned()));
        assert_eq!(TargetKind::of("remedies.json"), TargetKind::Remedies);
        assert_eq!(TargetKind::of("entitlements.json"), TargetKind::EntitlementKeys);
        assert_eq!(TargetKind::of("releases/bar/1.0.0.json"), TargetKind::Release);
        for name in
            ["", "operators/.json", "operators/a/b.json", "partners/../x.json", "remedies", "x/remedies.json"]
        {
            assert_eq!(TargetKind::of(name), TargetKind::Other, "{name}");
        }
    }

    #[test]
    fn a_document_under_anothers_name_is_refused() {
        let list = br#"{"v":1,"tenant":"acme","expires":"2027-01-01T00:00:00Z","operators":[]}"#;
        assert!(TargetKind::of("operators/acme.json").check(list).is_ok());
        assert!(TargetKind::of("operators/other.json").check(list).is_err());
        let profile =
            br#"{"v":1,"name":"meet","title":"Meet","endpoints":[{"name":"web","host":"meet.example"}]}"#;
        assert!(TargetKind::of("partners/meet.json").check(profile).is_ok());
        assert!(TargetKind::of("partners/zoom.json").check(profile).is_err());
    }
}
