//! The overlay: what was configured remotely, a JSON Merge Patch (RFC 7396) over the default.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FILE_BYTES;
use super::file::{Source, assemble, rephrase};
use super::sections::Sections;
use vigil_text::{clean, json_fault};

/// What may be changed remotely; all else belongs to the image. Not here, and why:
/// - `device`, `paths`: `vigil-updaterd` reads them from the image's file alone;
/// - `room`: nobody brings programs in by a command;
/// - every path of a file, and `proxy` with its user: a file's content would go wherever the command says;
/// - `local`, `audit`: who may look at the device, and what is kept of what was done to it;
/// - `username`, `client_cert_file`, `allow_plaintext`, `prefix`: who the device is to its broker.
const REMOTE: [&str; 26] = [
    "broker.alpn",
    "broker.backoff_max",
    "broker.backoff_min",
    "broker.fleet_size",
    "broker.keep_alive",
    "broker.max_commands_per_minute",
    "broker.max_connects_per_second",
    "broker.mqtt_version",
    "broker.redirect_hosts",
    "broker.session_expiry",
    "broker.url",
    "health.deadbands",
    "health.interval",
    "health.max_silence",
    "log.level",
    "network.dns_name",
    "network.partners",
    "network.probe_gateway",
    "network.probe_timeout",
    "network.profiles",
    "outbox.max_flash_bytes_per_day",
    "repository.max_rate",
    "repository.mirrors",
    "repository.refresh_interval",
    "repository.timeout",
    "repository.url",
];
/// The keys of sections that may be changed in part, and are not in [`REMOTE`]: an image that does not set them has them all
/// the same.
const OWN_KEYS: [&str; 9] = [
    "allow_plaintext",
    "ca_file",
    "client_cert_file",
    "password_file",
    "prefix",
    "proxy",
    "proxy_password_file",
    "proxy_username",
    "username",
];

/// So much of a key is shown, and so many keys: someone else wrote them.
const KEY_CHARS: usize = 64;
const WARNINGS: usize = 8;

#[derive(Deserialize)]
struct Overlay {
    v: u32,
    version: u64,
    settings: Value,
}

/// Reads the overlay, if there is one, and merges it; `Err` has one text for each problem.
pub(super) fn apply(path: &Path, tree: Value) -> Result<Option<(u64, Sections)>, Vec<String>> {
    match vigil_durable::read_bounded(path, FILE_BYTES) {
        Ok(Some(bytes)) => apply_bytes(&bytes, tree).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(vec![error.to_string()]),
    }
}

/// Merges an overlay over the default's tree.
pub(super) fn apply_bytes(bytes: &[u8], mut tree: Value) -> Result<(u64, Sections), Vec<String>> {
    let overlay: Overlay = serde_json::from_slice(bytes)
        .map_err(|error| vec![format!("not an overlay: {}", json_fault(&error))])?;
    if overlay.v != 1 {
        return Err(vec![format!("has format {}, this release reads format 1", overlay.v)]);
    }
    if !overlay.settings.is_object() {
        return Err(vec!["its settings are no object".to_owned()]);
    }
    let touched = keys_of_the_image(&overlay.settings, &tree);
    if !touched.is_empty() {
        return Err(touched);
    }
    merge(&mut tree, overlay.settings);
    let mut source = Json { tree, problems: Vec::new() };
    source.unknown_sections();
    match assemble(&mut source) {
        Some(sections) if source.problems.is_empty() => Ok((overlay.version, sections)),
        _ => Err(source.problems),
    }
}

/// One text for each key that an overlay must leave alone, even if its value is the image's own: the next image may
/// say otherwise. `default` is the image's.
fn keys_of_the_image(settings: &Value, default: &Value) -> Vec<String> {
    let refused =
        |what: String| format!("{what} belongs to the image's configuration and cannot be changed remotely");
    let is_section = |name: &str| Sections::NAMES.contains(&name);
    let sections = settings.as_object().into_iter().flatten().filter(|(section, _)| is_section(section));
    let mut found: Vec<String> = Vec::new();
    for (section, value) in sections {
        let may_be_named = REMOTE.iter().any(|remote| remote.split('.').next() == Some(section));
        match value.as_object() {
            Some(keys) if may_be_named || !keys.is_empty() => {
                let known = default.get(section).and_then(Value::as_object);
                // A key that no section has is told as such by whoever reads it.
                let known = |key: &String| {
                    OWN_KEYS.contains(&key.as_str()) || known.is_some_and(|keys| keys.contains_key(key))
                };
                let kept = keys.keys().filter(|key| !REMOTE.contains(&format!("{section}.{key}").as_str()));
                let kept = kept.filter(|key| !may_be_named || known(key));
                found.extend(kept.map(|key| refused(format!("[{section}] {}", clean(key, KEY_CHARS)))));
            }
            Some(_) => found.push(refused(format!("[{section}]"))),
            None if !may_be_named => found.push(refused(format!("[{section}]"))),
            None => {}
        }
    }
    let partners = settings.pointer("/network/partners").and_then(Value::as_array);
    if partners.is_some_and(|partners| partners.iter().any(|partner| partner.get("ca_file").is_some())) {
        found.push(refused("[network] partners: ca_file".to_owned()));
    }
    // Whoever may say where to may not have the password that the image keeps in a file.
    let host = |tree: &Value| tree.pointer("/broker/url").and_then(Value::as_str).map(str::to_owned);
    let has_password = default.pointer("/broker/password_file").is_some_and(|file| !file.is_null());
    if has_password && host(settings).is_some_and(|url| Some(url) != host(default)) {
        found.push(refused("[broker] url, where the image has a password_file,".to_owned()));
    }
    found.truncate(WARNINGS);
    found
}

/// RFC 7396, section 2. Depth is bounded by `serde_json`'s own recursion limit.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

struct Json {
    tree: Value,
    problems: Vec<String>,
}

impl Json {
    fn unknown_sections(&mut self) {
        let Value::Object(tree) = &self.tree else { return };
        for name in tree.keys().filter(|name| !Sections::NAMES.contains(&name.as_str())) {
            self.problems.push(format!(
                "unknown section \"{}\"; expected one of {}",
                clean(name, KEY_CHARS),
                Sections::NAMES.join(", ")
            ));
        }
    }
}

impl Source for Json {
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.tree.get(name).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let error = match T::deserialize(value) {
            Ok(section) => return Some(section),
            Err(error) => error.to_string(),
        };
        let message = rephrase(name, &error);
        // serde_json does not say which key a refused value had.
        self.problems.push(if message == error { format!("in [{name}]: {message}") } else { message });
        None
    }

    fn problem(&mut self, section: &str, key: &str, message: &str) {
        self.problems.push(format!("[{section}] {key}: {message}"));
    }
}
