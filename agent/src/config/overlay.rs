//! The overlay: what was configured remotely, a JSON Merge Patch (RFC 7396) over the default.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FILE_BYTES;
use super::file::{Source, assemble, rephrase};
use super::sections::Sections;
use vigil_text::clean;

/// Who the device is, where its stores lie and which programs it may run belong to the image. `vigil-updaterd` reads
/// the first two from the image's file alone: an overlay that changed them would split the two daemons. And nobody
/// brings programs in by a command.
const OF_THE_IMAGE: [&str; 3] = ["device", "paths", "room"];

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
    let overlay: Overlay =
        serde_json::from_slice(bytes).map_err(|error| vec![format!("not an overlay: {error}")])?;
    if overlay.v != 1 {
        return Err(vec![format!("has format {}, this release reads format 1", overlay.v)]);
    }
    if !overlay.settings.is_object() {
        return Err(vec!["its settings are no object".to_owned()]);
    }
    let touched = keys_of_the_image(&overlay.settings);
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
/// say otherwise.
fn keys_of_the_image(settings: &Value) -> Vec<String> {
    let refused =
        |what: String| format!("{what} belongs to the image's configuration and cannot be changed remotely");
    let named = OF_THE_IMAGE.iter().filter_map(|section| Some((section, settings.get(section)?)));
    named
        .flat_map(|(section, value)| match value.as_object() {
            Some(keys) if !keys.is_empty() => {
                keys.keys().map(|key| refused(format!("[{section}] {}", clean(key, KEY_CHARS)))).collect()
            }
            _ => vec![refused(format!("[{section}]"))],
        })
        .take(WARNINGS)
        .collect()
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
