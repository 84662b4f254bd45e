//! The overlay: what was configured remotely, a JSON Merge Patch (RFC 7396) over the default.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FILE_BYTES;
use super::file::{Source, assemble, rephrase};
use super::sections::Sections;

#[derive(Deserialize)]
struct Overlay {
    v: u32,
    version: u64,
    settings: Value,
}

/// Reads the overlay, if there is one, and merges it; `Err` has one text for each problem.
pub(super) fn apply(path: &Path, mut tree: Value) -> Result<Option<(u64, Sections)>, Vec<String>> {
    let bytes = match vigil_durable::read_bounded(path, FILE_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) => return Err(vec![error.to_string()]),
    };
    let overlay: Overlay =
        serde_json::from_slice(&bytes).map_err(|error| vec![format!("not an overlay: {error}")])?;
    if overlay.v != 1 {
        return Err(vec![format!("has format {}, this release reads format 1", overlay.v)]);
    }
    if !overlay.settings.is_object() {
        return Err(vec!["its settings are no object".to_owned()]);
    }
    merge(&mut tree, overlay.settings);
    let mut source = Json { tree, problems: Vec::new() };
    source.unknown_sections();
    match assemble(&mut source) {
        Some(sections) if source.problems.is_empty() => Ok(Some((overlay.version, sections))),
        _ => Err(source.problems),
    }
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
            self.problems
                .push(format!("unknown section {name:?}; expected one of {}", Sections::NAMES.join(", ")));
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
