//! The sections and their defaults, one structure each; `packaging/vigil.toml` explains every key.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use vigil_protocol::trusted::PartnerProfile;

use super::broker::Broker;
use super::values::{self, DAY, HOUR, MINUTE, bytes, duration, seconds};

const MIB: u64 = 1024 * 1024;

/// All of them.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Sections {
    pub device: Device,
    pub paths: Paths,
    pub broker: Broker,
    pub outbox: Outbox,
    pub health: Health,
    pub network: Network,
    pub repository: Repository,
    pub local: Local,
    pub room: Room,
    pub audit: Audit,
    pub log: Log,
}

impl Sections {
    /// Their names, as a file has them.
    pub const NAMES: [&str; 11] = [
        "device",
        "paths",
        "broker",
        "outbox",
        "health",
        "network",
        "repository",
        "local",
        "room",
        "audit",
        "log",
    ];
}

/// Who the device is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Unique in the fleet.
    #[serde(deserialize_with = "values::name")]
    pub id: String,
    /// The tenant it is bound to.
    #[serde(deserialize_with = "values::name")]
    pub tenant: String,
    /// As releases name it.
    #[serde(deserialize_with = "values::name")]
    pub product: String,
    /// As releases name it.
    #[serde(default = "first_revision", deserialize_with = "values::name")]
    pub hardware_revision: String,
    /// Whose commands it takes besides its own.
    #[serde(default, deserialize_with = "values::names")]
    pub groups: Vec<String>,
}

fn first_revision() -> String {
    "r1".to_owned()
}

/// Where things are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// What must outlive a restart.
    #[serde(deserialize_with = "values::path")]
    pub state: PathBuf,
    /// The sockets.
    #[serde(deserialize_with = "values::path")]
    pub run: PathBuf,
    /// Where `vigil-updaterd` listens.
    #[serde(deserialize_with = "values::path")]
    pub updater_socket: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state: "/var/lib/vigil".into(),
            run: "/run/vigil".into(),
            updater_socket: "/run/vigil-updater/updater.sock".into(),
        }
    }
}

/// What waits for the broker.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    /// Bytes that the flash writes in a day, before what can also wait in memory does.
    #[serde(deserialize_with = "bytes::within::<MIB, { 1024 * MIB }, _>")]
    pub max_flash_bytes_per_day: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { max_flash_bytes_per_day: 16 * MIB }
    }
}

/// When health is looked at, and what is worth a message.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Between two snapshots.
    #[serde(deserialize_with = "duration::within::<1, HOUR, _>", serialize_with = "duration::text")]
    pub interval: Duration,
    /// A snapshot is published at least so often.
    #[serde(deserialize_with = "duration::within::<1, DAY, _>", serialize_with = "duration::text")]
    pub max_silence: Duration,
    /// A smaller change is not worth a message.
    pub deadbands: Deadbands,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: seconds::<MINUTE>(),
            max_silence: seconds::<HOUR>(),
            deadbands: Deadbands::default(),
        }
    }
}

/// How far a value must move from the one last published.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadbands {
    /// CPU time, in permille.
    #[serde(deserialize_with = "values::permille")]
    pub cpu_permille: u32,
    /// Any load average.
    #[serde(deserialize_with = "values::positive")]
    pub load: f64,
    /// Memory and swap in use, in permille of all memory.
    #[serde(deserialize_with = "values::permille")]
    pub memory_permille: u32,
    /// A file system's use, in permille of its size.
    #[serde(deserialize_with = "values::permille")]
    pub disk_permille: u32,
    /// A sensor, in degrees Celsius.
    #[serde(deserialize_with = "values::positive")]
    pub temperature_celsius: f64,
}

impl Default for Deadbands {
    fn default() -> Self {
        Self {
            cpu_permille: 100,
            load: 0.5,
            memory_permille: 50,
            disk_permille: 10,
            temperature_celsius: 3.0,
        }
    }
}

/// What a network test looks at.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// How long one probe may take.
    #[serde(deserialize_with = "duration::within::<1, MINUTE, _>", serialize_with = "duration::text")]
    pub probe_timeout: Duration,
    /// Whether the first router is asked for a sign of life.
    pub probe_gateway: bool,
    /// A name that must resolve; without it, the partners' hosts are resolved.
    #[serde(deserialize_with = "values::optional_host")]
    pub dns_name: Option<String>,
    /// Partners whose endpoints are followed in their profiles, which come from the repository.
    #[serde(deserialize_with = "values::names")]
    pub profiles: Vec<String>,
    /// The services that the room needs besides.
    pub partners: Vec<Partner>,
}

impl Network {
    /// Tests what the profiles name as well; an entry of the configuration's own stands before one of the same name.
    pub fn add_profiles<'p>(&mut self, profiles: impl Iterator<Item = &'p PartnerProfile>) {
        for (profile, endpoint) in
            profiles.flat_map(|p| p.endpoints.iter().map(move |endpoint| (p, endpoint)))
        {
            let name = format!("{}.{}", profile.name, endpoint.name);
            if self.partners.iter().all(|partner| partner.name != name) {
                let (host, port, tls) = (endpoint.host.clone(), endpoint.port, endpoint.tls);
                self.partners.push(Partner { name, host, port, tls, ca_file: None });
            }
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            probe_timeout: seconds::<5>(),
            probe_gateway: true,
            dns_name: None,
            profiles: Vec::new(),
            partners: Vec::new(),
        }
    }
}

/// One cloud service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Partner {
    /// What people call it.
    #[serde(deserialize_with = "values::name")]
    pub name: String,
    /// A host name or an address.
    #[serde(deserialize_with = "values::host")]
    pub host: String,
    /// The TCP port.
    #[serde(default = "https", deserialize_with = "values::port")]
    pub port: u16,
    /// Whether a TLS handshake must succeed as well.
    #[serde(default = "yes")]
    pub tls: bool,
    /// PEM certificates to trust instead of the system's roots.
    #[serde(default, deserialize_with = "values::optional_path")]
    pub ca_file: Option<PathBuf>,
}

fn https() -> u16 {
    443
}

fn yes() -> bool {
    true
}

/// Where releases come from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repository {
    /// Without it there are no updates.
    #[serde(deserialize_with = "values::repository_url", serialize_with = "values::url_text")]
    pub url: Option<Url>,
    /// The same files elsewhere: asked in this order when one does not answer, breaks off or lacks a file.
    #[serde(deserialize_with = "values::mirrors", serialize_with = "values::urls_text")]
    pub mirrors: Vec<Url>,
    /// PEM certificates to trust instead of the system's roots.
    #[serde(deserialize_with = "values::optional_path")]
    pub ca_file: Option<PathBuf>,
    /// Between two looks at the metadata.
    #[serde(deserialize_with = "duration::within::<10, { 7 * DAY }, _>", serialize_with = "duration::text")]
    pub refresh_interval: Duration,
    /// A transfer that stalls for so long is given up.
    #[serde(deserialize_with = "duration::within::<1, HOUR, _>", serialize_with = "duration::text")]
    pub timeout: Duration,
    /// Bytes per second that updates may take of the room's network, 1000 at least; no limit without it.
    #[serde(deserialize_with = "values::optional_rate")]
    pub max_rate: Option<u64>,
}

impl Default for Repository {
    fn default() -> Self {
        Self {
            url: None,
            mirrors: Vec::new(),
            ca_file: None,
            refresh_interval: seconds::<{ 6 * HOUR }>(),
            timeout: seconds::<30>(),
            max_rate: None,
        }
    }
}

/// Who may use the local sockets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    /// A group's name or number: may read.
    #[serde(deserialize_with = "values::group")]
    pub read_group: String,
    /// A group's name or number: may act.
    #[serde(deserialize_with = "values::group")]
    pub admin_group: String,
}

impl Default for Local {
    fn default() -> Self {
        Self { read_group: "vigil".to_owned(), admin_group: "vigil-admin".to_owned() }
    }
}

/// What can be done to the room, each by a program of the image; what has none is answered `unsupported`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Room {
    /// Restarts the device.
    #[serde(deserialize_with = "values::program")]
    pub reboot: Vec<String>,
    /// Restarts the room's application.
    #[serde(deserialize_with = "values::program")]
    pub restart_app: Vec<String>,
    /// Makes the device show or sound where it is.
    #[serde(deserialize_with = "values::program")]
    pub locate: Vec<String>,
    /// While this file exists a call is on.
    #[serde(deserialize_with = "values::optional_path")]
    pub call_file: Option<PathBuf>,
}

/// The audit log.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// It takes at most so much of the disk.
    #[serde(deserialize_with = "bytes::within::<MIB, { 1024 * MIB }, _>")]
    pub max_bytes: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { max_bytes: 64 * MIB }
    }
}

/// The daemon's own log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least severe that is written.
    pub level: LogLevel,
}

/// The usual five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As `tracing` filters name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
