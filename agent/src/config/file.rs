//! The default file: TOML to sections, each problem with its line.

use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::sections::Sections;
use super::values::ProxyUrl;

/// More partners than a room needs; each costs seconds in a network test.
const PARTNERS: usize = 16;

/// A file that was parsed: typed, and as a tree that an overlay can be merged over.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) sections: Sections,
    pub(super) tree: Value,
}

/// Something that holds sections: a TOML document or a JSON tree. It keeps the problems it meets.
pub(super) trait Source {
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T>;
    fn problem(&mut self, section: &str, key: &str, message: &str);
}

/// Takes every section, so that one problem in each is reported in one go.
pub(super) fn assemble(source: &mut impl Source) -> Option<Sections> {
    let device = source.section("device");
    let paths = source.section("paths");
    let broker = source.section("broker");
    let outbox = source.section("outbox");
    let health = source.section("health");
    let network = source.section("network");
    let repository = source.section("repository");
    let local = source.section("local");
    let room = source.section("room");
    let audit = source.section("audit");
    let log = source.section("log");
    let sections = Sections {
        device: device?,
        paths: paths?,
        broker: broker?,
        outbox: outbox?,
        health: health?,
        network: network?,
        repository: repository?,
        local: local?,
        room: room?,
        audit: audit?,
        log: log?,
    };
    let impossible = impossible(&sections);
    for (section, key, message) in &impossible {
        source.problem(section, key, message);
    }
    impossible.is_empty().then_some(sections)
}

/// What no single value shows: values that contradict each other.
fn impossible(sections: &Sections) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut found = Vec::new();
    let broker = &sections.broker;
    if !broker.url.tls && !broker.allow_plaintext {
        found.push(match &broker.url.websocket {
            None => ("broker", "url", "mqtt:// is refused: use mqtts://, or set allow_plaintext = true"),
            Some(_) => ("broker", "url", "ws:// is refused: use wss://, or set allow_plaintext = true"),
        });
    }
    if !broker.url.tls && broker.password_file.is_some() {
        found.push((
            "broker",
            "password_file",
            "a password is never sent over mqtt:// or ws://: use mqtts:// or wss://",
        ));
    }
    if broker.backoff_min > broker.backoff_max {
        found.push(("broker", "backoff_min", "must not be above backoff_max"));
    }
    if broker.password_file.is_some() && broker.username.is_none() {
        found.push(("broker", "password_file", "needs a username as well"));
    }
    if !broker.redirect_hosts.is_empty() && !broker.url.tls {
        found.push(("broker", "redirect_hosts", "needs TLS: use mqtts:// or wss://"));
    }
    let is_proxied = matches!(broker.proxy, Some(ProxyUrl::Http { .. }));
    if broker.proxy_username.is_some() && !is_proxied {
        found.push(("broker", "proxy_username", "needs proxy = \"http://host:port\" as well"));
    }
    if broker.proxy_password_file.is_some() && broker.proxy_username.is_none() {
        found.push(("broker", "proxy_password_file", "needs a proxy_username as well"));
    }
    // RFC 7617, section 2: it would end at the colon.
    if broker.proxy_username.as_ref().is_some_and(|name| name.contains(':')) {
        found.push(("broker", "proxy_username", "must not have a ':'"));
    }
    if !broker.alpn.is_empty() && !broker.url.tls {
        found.push(("broker", "alpn", "is part of TLS: needs mqtts:// or wss://"));
    }
    if sections.health.max_silence < sections.health.interval {
        found.push(("health", "max_silence", "must not be below interval"));
    }
    let partners = &sections.network.partners;
    if partners.len() > PARTNERS {
        found.push(("network", "partners", "must be at most 16"));
    }
    if sections.network.profiles.len() > PARTNERS {
        found.push(("network", "profiles", "must be at most 16"));
    }
    let mut names: Vec<&str> = partners.iter().map(|partner| partner.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        found.push(("network", "partners", "two have the same name: give each its own"));
    }
    found
}

/// Parses a whole file; `Err` has one line for each problem.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Parsed, Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(bytes, error.valid_up_to());
        vec![format!("{file}:{line}: not UTF-8; save the file as UTF-8 text")]
    })?;
    let syntax = |error: toml::de::Error| {
        let line = line_at(bytes, error.span().map_or(0, |span| span.start));
        vec![format!("{file}:{line}: {}; see https://toml.io for the syntax", error.message())]
    };
    let table = DeTable::parse(text).map_err(syntax)?.into_inner();
    let tree: Value = toml::from_str(text).map_err(syntax)?;
    let mut source = Toml { file, text, table, problems: Vec::new() };
    source.unknown_sections();
    match assemble(&mut source) {
        Some(sections) if source.problems.is_empty() => Ok(Parsed { sections, tree }),
        _ => Err(source.problems),
    }
}

struct Toml<'t> {
    file: &'t str,
    text: &'t str,
    table: DeTable<'t>,
    problems: Vec<String>,
}

impl Toml<'_> {
    fn report(&mut self, at: usize, message: &str) {
        self.problems.push(format!("{}:{}: {message}", self.file, line_at(self.text.as_bytes(), at)));
    }

    fn unknown_sections(&mut self) {
        let unknown: Vec<(usize, String)> = self
            .table
            .keys()
            .filter(|key| !Sections::NAMES.contains(&key.get_ref().as_ref()))
            .map(|key| (key.span().start, key.get_ref().to_string()))
            .collect();
        for (at, name) in unknown {
            let known = Sections::NAMES.join(", ");
            self.report(at, &format!("unknown section [{}]; expected one of {known}", short(&name)));
        }
    }

    /// `key = value` as it stands in the file, so that a reader sees what is meant. Never a line that may hold
    /// a password: the message ends in logs.
    fn quoted(&self, at: usize) -> String {
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[start..].lines().next().unwrap_or_default().trim();
        if line.contains('@') || !line.contains('=') { String::new() } else { format!("{}: ", short(line)) }
    }
}

impl Source for Toml<'_> {
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let Some((key, value)) = self.table.get_key_value(name) else {
            return T::deserialize(toml::Table::new().into_deserializer())
                .map_err(|error: toml::de::Error| {
                    let message = rephrase(name, error.message());
                    self.problems.push(format!("{}: {message}", self.file));
                })
                .ok();
        };
        let header = key.span().start;
        let error = match T::deserialize(value.clone().into_deserializer()) {
            Ok(section) => return Some(section),
            Err(error) => error,
        };
        let at = error.span().map_or(header, |span| span.start).min(self.text.len());
        let message = rephrase(name, error.message());
        let about_a_value = message == error.message();
        let quoted = if about_a_value { self.quoted(at) } else { String::new() };
        self.report(at, &format!("{quoted}{message}"));
        None
    }

    fn problem(&mut self, section: &str, key: &str, message: &str) {
        let table = self.table.get_key_value(section);
        let header = table.map_or(0, |(name, _)| name.span().start);
        let keys = table.and_then(|(_, value)| match value.get_ref() {
            DeValue::Table(table) => table.get_key_value(key),
            _ => None,
        });
        let at = keys.map_or(header, |(key, _)| key.span().start);
        self.report(at, &format!("[{section}] {key}: {message}"));
    }
}

/// Serde's words for a wrong key, in ours. Other messages are about a value and stay.
pub(super) fn rephrase(section: &str, message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some((key, expected)) = rest.split_once('`')
    {
        let expected = expected.trim_start_matches(", ").replace('`', "");
        return format!("unknown key {:?} in [{section}]; {expected}", short(key));
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        let key = rest.trim_end_matches('`');
        return format!("[{section}] has no {key:?}; it must be set");
    }
    message.to_owned()
}

fn line_at(text: &[u8], at: usize) -> usize {
    text[..at.min(text.len())].split(|byte| *byte == b'\n').count()
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
