//! The JSON Schemas of everything a device publishes, by the topic's form.

use schemars::{JsonSchema, Schema, schema_for};

use crate::command::CommandResult;
use crate::diagnosis::Diagnosis;
use crate::envelope::Envelope;
use crate::state::{Config, Digest, Health, Incident, Inventory, Message, Presence, Update};

/// A schema and the messages it describes.
pub struct Entry {
    /// The file's name under `protocol/schemas/`, without `.schema.json`.
    pub name: &'static str,
    /// The schema.
    pub schema: Schema,
}

/// All schemas. A new message family is one line here and one line in `schema_of_topic`.
pub fn all() -> Vec<Entry> {
    vec![
        entry::<Message<Presence>>("presence"),
        entry::<Message<Inventory>>("inventory"),
        entry::<Message<Health>>("health"),
        entry::<Message<Update>>("update"),
        entry::<Message<Config>>("config"),
        entry::<Message<Incident>>("incident"),
        entry::<Envelope>("envelope"),
        entry::<Digest>("digest-payload"),
        entry::<crate::command::Command>("command-payload"),
        entry::<CommandResult>("result"),
        entry::<Diagnosis>("diagnosis"),
    ]
}

/// Which schema the messages of a topic follow, by what comes after `{prefix}/{device}/`.
pub fn schema_of_topic(rest: &str) -> Option<&'static str> {
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        ["presence"] => Some("presence"),
        ["inventory"] => Some("inventory"),
        ["health"] => Some("health"),
        ["update"] => Some("update"),
        ["config"] => Some("config"),
        ["digest" | "command"] => Some("envelope"),
        ["incident", _] => Some("incident"),
        ["result", _] => Some("result"),
        ["diagnosis", _] => Some("diagnosis"),
        _ => None,
    }
}

fn entry<T: JsonSchema>(name: &'static str) -> Entry {
    Entry { name, schema: schema_for!(T) }
}
