//! The section of the broker.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::link::VersionChoice;

use super::values::{self, BrokerUrl, DAY, HOUR, MINUTE, ProxyUrl, duration, seconds};

/// The MQTT broker.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Where it is.
    pub url: BrokerUrl,
    /// `mqtt://` is refused without this.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// PEM certificates to trust instead of the system's roots.
    #[serde(default, deserialize_with = "values::optional_path")]
    pub ca_file: Option<PathBuf>,
    /// The device's own certificate; see `Config::client_cert_file`.
    #[serde(default, deserialize_with = "values::optional_path")]
    pub client_cert_file: Option<PathBuf>,
    /// If the broker wants one.
    #[serde(default)]
    pub username: Option<String>,
    /// A file that holds the password and nothing else.
    #[serde(default, deserialize_with = "values::optional_path")]
    pub password_file: Option<PathBuf>,
    /// What is offered in the TLS handshake (ALPN), where one port serves several protocols.
    #[serde(default, deserialize_with = "values::protocols")]
    pub alpn: Vec<String>,
    /// An HTTP proxy to the broker; unless set, the environment names it.
    #[serde(default)]
    pub proxy: Option<ProxyUrl>,
    /// If the proxy wants one.
    #[serde(default)]
    pub proxy_username: Option<String>,
    /// A file that holds the proxy's password and nothing else.
    #[serde(default, deserialize_with = "values::optional_path")]
    pub proxy_password_file: Option<PathBuf>,
    /// The version of MQTT.
    #[serde(default)]
    pub mqtt_version: VersionChoice,
    /// Hosts to which the broker may send its devices, `*.example.com` for all below a domain.
    #[serde(default, deserialize_with = "values::hosts")]
    pub redirect_hosts: Vec<String>,
    /// What every topic begins with.
    #[serde(default = "prefix", deserialize_with = "values::prefix")]
    pub prefix: String,
    /// Between pings.
    #[serde(
        default = "seconds::<MINUTE>",
        deserialize_with = "duration::within::<10, HOUR, _>",
        serialize_with = "duration::text"
    )]
    pub keep_alive: Duration,
    /// How long the broker keeps the session of a device that is away.
    #[serde(
        default = "seconds::<DAY>",
        deserialize_with = "duration::within::<0, { 30 * DAY }, _>",
        serialize_with = "duration::text"
    )]
    pub session_expiry: Duration,
    /// The first wait after an attempt that failed.
    #[serde(
        default = "seconds::<1>",
        deserialize_with = "duration::within::<1, HOUR, _>",
        serialize_with = "duration::text"
    )]
    pub backoff_min: Duration,
    /// The longest.
    #[serde(
        default = "seconds::<{ 5 * MINUTE }>",
        deserialize_with = "duration::within::<1, DAY, _>",
        serialize_with = "duration::text"
    )]
    pub backoff_max: Duration,
    /// Devices at this broker, as the operator says: all of them come back after its restart.
    #[serde(default = "fleet_size", deserialize_with = "values::number_within::<1, 10_000_000, _>")]
    pub fleet_size: u32,
    /// Connections that the broker takes in a second, as the operator says: what the whole fleet stays within.
    #[serde(default = "connects", deserialize_with = "values::number_within::<1, 1_000_000, _>")]
    pub max_connects_per_second: u32,
    /// Commands that are taken of one operator in a minute.
    #[serde(default = "commands_per_minute", deserialize_with = "values::commands_per_minute")]
    pub max_commands_per_minute: u32,
}

fn commands_per_minute() -> u32 {
    120
}

fn fleet_size() -> u32 {
    1000
}

fn connects() -> u32 {
    100
}

fn prefix() -> String {
    vigil_protocol::topic::DEFAULT_PREFIX.to_owned()
}
