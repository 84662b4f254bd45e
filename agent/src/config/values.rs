//! Single values: each is parsed once into its type, or refused with what would be right.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;
use vigil_protocol::topic;

pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// A default, for serde.
pub(super) fn seconds<const SECONDS: u64>() -> std::time::Duration {
    std::time::Duration::from_secs(SECONDS)
}

/// More mirrors than any repository has; a file that is nowhere is asked for at each.
const MIRRORS: usize = 4;
/// More groups than any room is in; commands to each are a subscription.
const GROUPS: usize = 32;

pub(super) mod duration {
    //! Durations are written with their unit: `"90s"`, `"6h"`.

    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

    pub(crate) fn parse(text: &str) -> Option<Duration> {
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
        let digits = text.strip_suffix(unit)?;
        // `u64::from_str` takes a sign, a duration does not.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(*seconds).map(Duration::from_secs)
    }

    pub(crate) fn show(duration: Duration) -> String {
        let all = duration.as_secs();
        let largest = UNITS.iter().find(|(_, seconds)| all >= *seconds && all.is_multiple_of(*seconds));
        largest.map_or_else(|| format!("{all}s"), |(unit, seconds)| format!("{}{unit}", all / seconds))
    }

    pub(crate) fn within<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        let duration = parse(&text).ok_or_else(|| {
            D::Error::custom("must be a whole number and a unit (s, m, h or d), e.g. \"90s\" or \"6h\"")
        })?;
        let (min, max) = (Duration::from_secs(MIN), Duration::from_secs(MAX));
        if (min..=max).contains(&duration) {
            Ok(duration)
        } else {
            Err(D::Error::custom(format!("must be between {} and {}", show(min), show(max))))
        }
    }

    pub(crate) fn text<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&show(*duration))
    }
}

pub(super) mod bytes {
    //! Sizes are numbers of bytes or written with their unit: `"64MiB"`.

    use serde::de::Error;
    use serde::{Deserialize, Deserializer};

    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a number of bytes or a text such as \"64MiB\"")]
    enum Size {
        Number(u64),
        Text(String),
    }

    pub(crate) fn parse(text: &str) -> Option<u64> {
        let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
        let digits = text.strip_suffix(unit)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(*factor)
    }

    pub(crate) fn within<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u64, D::Error> {
        let size = match Size::deserialize(from)? {
            Size::Number(number) => Some(number),
            Size::Text(text) => parse(&text),
        };
        size.filter(|size| (MIN..=MAX).contains(size)).ok_or_else(|| {
            D::Error::custom(format!(
                "must be between {} MiB and {} MiB: a number of bytes or a text such as \"64MiB\"",
                MIN >> 20,
                MAX >> 20
            ))
        })
    }
}

/// Where a broker is, e.g. `mqtts://broker.example.com:8883`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct BrokerUrl {
    /// `mqtts://` and `wss://`, not `mqtt://` and `ws://`.
    pub tls: bool,
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    /// 8883, 1883, 443 or 80 unless named.
    pub port: u16,
    /// The path of its WebSockets, with `wss://` and `ws://`: `/mqtt` unless named.
    pub websocket: Option<String>,
}

impl TryFrom<String> for BrokerUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const RIGHT: &str = "must be \"mqtts://host:port\" or \"wss://host:port/path\" and no more (user and password \
             have their own keys)";
        let url = Url::parse(&text).map_err(|_| RIGHT)?;
        let (tls, port, is_websocket) = match url.scheme() {
            "mqtts" => (true, 8883, false),
            "mqtt" => (false, 1883, false),
            "wss" => (true, 443, true),
            "ws" => (false, 80, true),
            _ => return Err(RIGHT),
        };
        let no_path = matches!(url.path(), "" | "/");
        let websocket = is_websocket.then(|| if no_path { WEBSOCKET_PATH } else { url.path() }.to_owned());
        let bare = url.username().is_empty()
            && url.password().is_none()
            && (no_path || is_websocket)
            && websocket.as_ref().is_none_or(|path| path.len() <= PATH_BYTES)
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(port);
        if bare && is_host(&host) && port != 0 { Ok(Self { tls, host, port, websocket }) } else { Err(RIGHT) }
    }
}

/// Where brokers have their WebSockets.
const WEBSOCKET_PATH: &str = "/mqtt";
const PATH_BYTES: usize = 256;

impl From<BrokerUrl> for String {
    fn from(url: BrokerUrl) -> Self {
        let scheme = match (url.websocket.is_some(), url.tls) {
            (false, true) => "mqtts",
            (false, false) => "mqtt",
            (true, true) => "wss",
            (true, false) => "ws",
        };
        let path = url.websocket.unwrap_or_default();
        if url.host.contains(':') {
            format!("{scheme}://[{}]:{}{path}", url.host, url.port)
        } else {
            format!("{scheme}://{}:{}{path}", url.host, url.port)
        }
    }
}

/// What stands between the device and its broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProxyUrl {
    /// Nothing, whatever the environment says.
    None,
    /// An HTTP proxy.
    Http {
        /// A name or an address (IPv6 without brackets).
        host: String,
        /// Its port.
        port: u16,
    },
}

impl TryFrom<String> for ProxyUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const RIGHT: &str =
            "must be \"http://host:port\" and no more (user and password have their own keys), or \"none\"";
        if text == "none" {
            return Ok(Self::None);
        }
        let url = Url::parse(&text).map_err(|_| RIGHT)?;
        let bare = url.scheme() == "http"
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(0);
        if bare && is_host(&host) && port != 0 { Ok(Self::Http { host, port }) } else { Err(RIGHT) }
    }
}

impl From<ProxyUrl> for String {
    fn from(url: ProxyUrl) -> Self {
        match url {
            ProxyUrl::None => "none".to_owned(),
            ProxyUrl::Http { host, port } if host.contains(':') => format!("http://[{host}]:{port}"),
            ProxyUrl::Http { host, port } => format!("http://{host}:{port}"),
        }
    }
}

/// Hosts in a list at most.
const HOSTS: usize = 16;

/// Hosts, `*.example.com` for all below a domain.
pub(super) fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(from)?;
    if hosts.len() <= HOSTS && hosts.iter().all(|host| is_host(host.strip_prefix("*.").unwrap_or(host))) {
        Ok(hosts)
    } else {
        Err(D::Error::custom("must be at most 16 hosts, e.g. [\"mqtt.example.com\", \"*.eu.example.com\"]"))
    }
}

/// Protocols that a client names at most.
const PROTOCOLS: usize = 8;

/// The protocols of ALPN (RFC 7301, section 3.1).
pub(super) fn protocols<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    if names.len() <= PROTOCOLS && names.iter().all(|name| (1..=255).contains(&name.len())) {
        Ok(names)
    } else {
        Err(D::Error::custom("must be at most 8 names of protocols, e.g. [\"mqtt\"], of 1 to 255 bytes each"))
    }
}

/// A host name (RFC 1123, section 2.1) or an IP address.
pub(crate) fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.parse::<IpAddr>().is_ok() || (host.len() <= 253 && host.split('.').all(label))
}

fn checked<'de, D: Deserializer<'de>>(
    from: D,
    fits: fn(&str) -> bool,
    right: &str,
) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if fits(&text) { Ok(text) } else { Err(D::Error::custom(right)) }
}

const NAME: &str = "must be 1 to 64 of A-Z a-z 0-9 . _ - (not beginning with '.', and not \"group\")";
const HOST: &str = "must be a host name or an IP address, without scheme, port or brackets";

pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    checked(from, topic::is_name, NAME)
}

pub(super) fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    if names.len() <= GROUPS && names.iter().all(|name| topic::is_name(name)) {
        Ok(names)
    } else {
        Err(D::Error::custom(format!("must be at most {GROUPS} names; each {NAME}")))
    }
}

pub(super) fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    checked(
        from,
        |text| topic::check_prefix(text).is_ok(),
        "must be at most 3 names separated by '/', e.g. \"vigil/v1\"",
    )
}

pub(super) fn host<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    checked(from, is_host, HOST)
}

pub(super) fn optional_host<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    host(from).map(Some)
}

pub(super) fn group<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let fits = |text: &str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    checked(from, fits, "must be the name or the number of a group, e.g. \"vigil\" or \"990\"")
}

pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    checked(from, |text| text.starts_with('/') && !text.contains('\0'), "must be a path that begins with '/'")
        .map(PathBuf::from)
}

/// Arguments of a program at most.
const ARGUMENTS: usize = 32;

/// A program by its absolute path, and its arguments; an empty list is none.
pub(super) fn program<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    let sound = words.first().is_none_or(|program| program.starts_with('/')) && words.len() <= ARGUMENTS;
    if sound {
        Ok(words)
    } else {
        Err(D::Error::custom("must be a program by its absolute path and at most 31 arguments"))
    }
}

pub(super) fn commands_per_minute<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    let range = 1..=1_000_000;
    if range.contains(&number) { Ok(number) } else { Err(D::Error::custom("must be between 1 and 1000000")) }
}

pub(super) fn number_within<'de, const MIN: u32, const MAX: u32, D: Deserializer<'de>>(
    from: D,
) -> Result<u32, D::Error> {
    match u32::try_from(i64::deserialize(from)?) {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(D::Error::custom(format!("must be between {MIN} and {MAX}"))),
    }
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path(from).map(Some)
}

pub(super) fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u16::try_from(i64::deserialize(from)?) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(D::Error::custom("must be a TCP port, 1 to 65535")),
    }
}

pub(super) fn permille<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::try_from(i64::deserialize(from)?) {
        Ok(permille) if permille <= 1000 => Ok(permille),
        _ => Err(D::Error::custom("must be between 0 and 1000 (permille)")),
    }
}

pub(super) fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(from)?;
    if (0.0..=1000.0).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::custom("must be between 0 and 1000"))
    }
}

/// Bytes per second. Slower than this and a frame takes longer than the updater waits.
pub(super) fn optional_rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let rate = u64::deserialize(from)?;
    if rate >= 1000 {
        Ok(Some(rate))
    } else {
        Err(D::Error::custom("expected 1000 bytes per second or more"))
    }
}

pub(super) fn repository_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
    repository(&String::deserialize(from)?).map(Some)
}

/// Mirrors of a repository.
pub(super) fn mirrors<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Url>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    if texts.len() > MIRRORS {
        return Err(D::Error::custom(format!("must be {MIRRORS} addresses at most")));
    }
    texts.iter().map(|text| repository(text)).collect()
}

fn repository<E: Error>(text: &str) -> Result<Url, E> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let Some(mut url) = url else {
        return Err(E::custom("must be \"https://host/path/\" without user, password, '?' or '#'"));
    };
    // Without the slash, `Url::join` would replace the last level instead of descending from it.
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

// Serde hands over a reference to the field, whatever it is.
#[allow(clippy::ref_option)]
pub(super) fn url_text<S: Serializer>(url: &Option<Url>, to: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(Url::as_str).serialize(to)
}

pub(super) fn urls_text<S: Serializer>(urls: &[Url], to: S) -> Result<S::Ok, S::Error> {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().serialize(to)
}
