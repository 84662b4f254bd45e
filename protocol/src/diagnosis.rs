//! What a network test found, and whose fault it is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How one probe ended: one vocabulary for every probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Outcome {
    /// Works.
    Ok,
    /// Works, but not as it should.
    Warning,
    /// Not tried, because an earlier probe failed or nothing is configured.
    Skipped,
    /// Does not work.
    Failed,
}

/// What a probe looks at, from the device outwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Layer {
    /// The device's own interface: is there one that is up, with an address and a route.
    Interface,
    /// The first router.
    Gateway,
    /// Name resolution.
    Dns,
    /// A TCP connection to a partner's endpoint.
    Tcp,
    /// A TLS handshake with a partner's endpoint.
    Tls,
}

/// One probe's finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evidence {
    /// What it looked at.
    pub layer: Layer,
    /// At what exactly: an interface, an address, `host:port`.
    pub subject: String,
    /// Which partner it concerns, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen, as a stable code: `timeout`, `refused`, `unreachable`, `name_not_found`, ….
    pub code: String,
    /// For a person.
    pub message: String,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FaultDomain {
    /// Nobody's: everything that was tested works.
    None,
    /// The endpoint itself: no interface, no address.
    Device,
    /// The room's network up to the first router.
    Lan,
    /// Name resolution.
    Dns,
    /// Between the first router and the partners.
    Internet,
    /// One partner, while others answer.
    Partner,
    /// The evidence does not tell.
    Inconclusive,
}

/// The verdict over the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Whose fault it is.
    pub domain: FaultDomain,
    /// Which partners are concerned, when it is a partner's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partners: Vec<String>,
    /// One sentence that says why, from the evidence.
    pub summary: String,
    /// What to do next, for a technician.
    pub advice: String,
}

/// A whole network test, as published on `diagnosis/{id}` and shown by `vigil diagnose`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diagnosis {
    /// Format version, 1.
    #[cfg_attr(feature = "schema", schemars(extend("const" = 1)))]
    pub v: u32,
    /// The device.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub device: String,
    /// The id of the command that asked for it, or one of the device's own making.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub id: String,
    /// When it began, by the device's clock.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What was seen, from the device outwards.
    pub evidence: Vec<Evidence>,
    /// Whose fault it is.
    pub verdict: Verdict,
}
