//! `partners/{name}.json`: where a cloud meeting service must be reached.

use serde::{Deserialize, Serialize};

use super::{DocumentError, check_count, check_name, check_version, read};
use crate::limits;

const WHAT: &str = "a partner profile";

/// A partner's profile, version 1. Fields that are not known here are for newer devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerProfile {
    /// Format version, 1.
    pub v: u32,
    /// As in the target's name.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// What must be reachable.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of a partner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What it is for: `signalling`, `media`, ….
    pub name: String,
    /// A host name or an address.
    pub host: String,
    /// The TCP port.
    #[serde(default = "https")]
    pub port: u16,
    /// Whether a TLS handshake must succeed as well.
    #[serde(default = "yes")]
    pub tls: bool,
}

fn https() -> u16 {
    443
}

fn yes() -> bool {
    true
}

impl PartnerProfile {
    /// Reads a profile within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let profile: Self = read(WHAT, bytes, limits::PARTNER_BYTES)?;
        check_version(WHAT, profile.v)?;
        check_name(WHAT, &profile.name)?;
        check_count("endpoints", profile.endpoints.len(), limits::ENDPOINTS)?;
        if profile.endpoints.is_empty() {
            return Err(DocumentError::Malformed(WHAT, "it has no endpoint".to_owned()));
        }
        for endpoint in &profile.endpoints {
            check_name(WHAT, &endpoint.name)?;
            let host = &endpoint.host;
            let fits = (1..=253).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
                && !host.starts_with('-');
            if !fits || endpoint.port == 0 {
                let message = format!("{host:?} port {} is no host and port", endpoint.port);
                return Err(DocumentError::Malformed(WHAT, message));
            }
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: &str) -> Result<PartnerProfile, DocumentError> {
        PartnerProfile::parse(
            format!(r#"{{"v":1,"name":"meet","title":"Meet","endpoints":[{endpoint}]}}"#).as_bytes(),
        )
    }

    #[test]
    fn a_profile_is_read_with_its_defaults_and_unknown_fields_are_passed_over() {
        let profile = with(r#"{"name":"web","host":"meet.example","new":1}"#).unwrap();
        assert_eq!((profile.endpoints[0].port, profile.endpoints[0].tls), (443, true));
    }

    #[test]
    fn hosts_and_ports_that_are_none_are_refused() {
        for endpoint in [
            r#"{"name":"web","host":""}"#,
            r#"{"name":"web","host":"a b"}"#,
            r#"{"name":"web","host":"-oProxy"}"#,
            r#"{"name":"web","host":"a/b"}"#,
            r#"{"name":"web","host":"a","port":0}"#,
            r#"{"name":"web","host":"a","port":65536}"#,
            r#"{"name":"../x","host":"a"}"#,
            "",
        ] {
            assert!(with(endpoint).is_err(), "{endpoint}");
        }
        assert!(with(&vec![r#"{"name":"web","host":"a"}"#; 33].join(",")).is_err());
        assert!(with(&vec![r#"{"name":"web","host":"a"}"#; 32].join(",")).is_ok());
        assert!(PartnerProfile::parse(&vec![b' '; limits::PARTNER_BYTES + 1]).is_err());
    }
}
