//! The AsyncAPI 3 document of the wire: which channels there are, what travels on them, and which way, from the device's
//! point of view. The payloads are described by the JSON Schemas beside it.

use serde_json::{Map, Value, json};

use crate::command::{Kind, Scope};
use crate::envelope::{COMMAND_TYPE, DIGEST_TYPE};
use crate::topic::DEFAULT_PREFIX;

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The device says it.
    Up,
    /// The device hears it.
    Down,
    /// Both: the device watches what it has said itself.
    UpAndBack,
}

/// One line of the wire's table.
struct Channel {
    name: &'static str,
    address: &'static str,
    way: Way,
    retained: bool,
    /// The schema of the payload.
    schema: &'static str,
    /// The schema and type of what is inside, where the payload is an envelope.
    inside: Option<(&'static str, &'static str)>,
    title: &'static str,
    summary: &'static str,
}

const fn state(
    name: &'static str,
    address: &'static str,
    title: &'static str,
    summary: &'static str,
) -> Channel {
    Channel { name, address, way: Way::Up, retained: true, schema: name, inside: None, title, summary }
}

const fn answer(
    name: &'static str,
    address: &'static str,
    title: &'static str,
    summary: &'static str,
) -> Channel {
    Channel { retained: false, ..state(name, address, title, summary) }
}

const fn command(name: &'static str, address: &'static str, title: &'static str) -> Channel {
    Channel {
        name,
        address,
        way: Way::Down,
        retained: false,
        schema: "envelope",
        inside: Some(("command-payload", COMMAND_TYPE)),
        title,
        summary: "A DSSE envelope around a command, signed by one operator or several. Published with a message expiry \
                  of what is left of its validity. The answers come on `result`, and for some kinds elsewhere as well.",
    }
}

/// The wire's table. A new topic is one line here.
const CHANNELS: [Channel; 11] = [
    Channel {
        way: Way::UpAndBack,
        ..state(
            "presence",
            "{prefix}/{device}/presence",
            "Presence",
            "Online, offline or lost, with the session's number. The will says lost; the device watches its own presence \
             and says online again when an old will lands late.",
        )
    },
    state(
        "inventory",
        "{prefix}/{device}/inventory",
        "Inventory",
        "Tenant, groups, product, hardware, software, the device's key.",
    ),
    state(
        "health",
        "{prefix}/{device}/health",
        "Health",
        "The newest snapshot that differs enough from the one before.",
    ),
    state(
        "update",
        "{prefix}/{device}/update",
        "Update",
        "Slots, running release, the engine's state, progress, last failure.",
    ),
    state(
        "config",
        "{prefix}/{device}/config",
        "Configuration",
        "The effective configuration, secrets left out, and the version of the overlay.",
    ),
    state(
        "incident",
        "{prefix}/{device}/incident/{id}",
        "Incident",
        "One incident while it is open; an empty message when it is closed.",
    ),
    Channel {
        schema: "envelope",
        inside: Some(("digest-payload", DIGEST_TYPE)),
        ..state(
            "digest",
            "{prefix}/{device}/digest",
            "Digest",
            "A DSSE envelope signed by the device: hash and sequence number of every retained topic, the session's nonce, \
             and the newest checkpoint of the audit log. Published after what it covers.",
        )
    },
    answer(
        "result",
        "{prefix}/{device}/result/{id}",
        "Result",
        "How far a command has come, by the command's id. A final one stays final.",
    ),
    answer(
        "diagnosis",
        "{prefix}/{device}/diagnosis/{id}",
        "Diagnosis",
        "What a network test found, by the id of the command that asked for it.",
    ),
    command("command", "{prefix}/{device}/command", "Command for one device"),
    command("groupCommand", "{prefix}/group/{group}/command", "Command for a group"),
];

/// The document.
pub fn document() -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    for channel in &CHANNELS {
        channels.insert(channel.name.to_owned(), describe(channel));
        messages.insert(channel.name.to_owned(), message(channel));
        if channel.way != Way::Down {
            operations.insert(operation_id("send", channel.name), operation("send", channel));
        }
        if channel.way != Way::Up {
            operations.insert(operation_id("receive", channel.name), operation("receive", channel));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Vigil",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What conference-room endpoints say and hear over MQTT, from the device's point of view: \
                            'send' is what the device publishes. MQTT properties help readers and decide nothing; what \
                            is decided on is inside the signed payloads. See docs/wire.md.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "secure-mqtt",
                "protocolVersion": "5.0",
                "description": "Any stock broker. TLS 1.2 or 1.3, with a client certificate if the broker wants one.",
                "variables": { "host": { "description": "Name and port.", "examples": ["mqtt.example.com:8883"] } },
            },
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "parameters": parameters() },
    })
}

fn describe(channel: &Channel) -> Value {
    let names = parameters();
    let named = names.as_object().into_iter().flat_map(Map::keys);
    let parameters: Map<String, Value> = named
        .filter(|name| channel.address.contains(&format!("{{{name}}}")))
        .map(|name| (name.clone(), reference(&format!("#/components/parameters/{name}"))))
        .collect();
    json!({
        "address": channel.address,
        "title": channel.title,
        "summary": channel.summary,
        "parameters": parameters,
        "messages": { channel.name: reference(&format!("#/components/messages/{}", channel.name)) },
    })
}

fn message(channel: &Channel) -> Value {
    let mut message = json!({
        "name": channel.name,
        "title": channel.title,
        "contentType": "application/json",
        "payload": schema(channel.schema),
    });
    if let Some((inside, payload_type)) = channel.inside {
        message["x-envelope-payload-type"] = payload_type.into();
        message["x-envelope-payload"] = schema(inside);
    }
    if channel.way == Way::Down {
        let kinds = Kind::ALL.map(|kind| (kind.name().to_owned(), json!(scope(kind.scope()))));
        message["x-kinds"] = Value::Object(kinds.into_iter().collect());
    }
    message
}

fn operation(action: &str, channel: &Channel) -> Value {
    let mut operation = json!({
        "action": action,
        "channel": reference(&format!("#/channels/{}", channel.name)),
        "summary": channel.title,
        "messages": [reference(&format!("#/channels/{0}/messages/{0}", channel.name))],
        "bindings": { "mqtt": { "qos": 1, "retain": channel.retained, "bindingVersion": "0.2.0" } },
    });
    if channel.way == Way::Down {
        operation["reply"] = json!({
            "channel": reference("#/channels/result"),
            "messages": [reference("#/channels/result/messages/result")],
        });
    }
    operation
}

fn parameters() -> Value {
    json!({
        "prefix": {
            "description": "At most three names, separated by slashes.",
            "default": DEFAULT_PREFIX,
        },
        "device": { "description": "The device's id: 1 to 64 of A-Z a-z 0-9 . _ -" },
        "group": { "description": "A group that the device's configuration names: 1 to 64 of A-Z a-z 0-9 . _ -" },
        "id": { "description": "The id of the incident or command: 1 to 64 of A-Z a-z 0-9 . _ -" },
    })
}

fn schema(name: &str) -> Value {
    json!({
        "schemaFormat": "application/schema+json;version=draft-2020-12",
        "schema": reference(&format!("./schemas/{name}.schema.json")),
    })
}

fn scope(scope: Scope) -> String {
    format!("{scope:?}").to_lowercase()
}

fn reference(to: &str) -> Value {
    json!({ "$ref": to })
}

fn operation_id(action: &str, name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("{action}{}{rest}", first.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{all, schema_of_topic};
    use crate::topic::StateTopic;

    fn addresses() -> Vec<(String, bool)> {
        CHANNELS.iter().map(|channel| (channel.address.to_owned(), channel.retained)).collect()
    }

    #[test]
    fn every_retained_topic_has_its_channel() {
        for topic in StateTopic::ALL {
            let level = match topic.level().split_once('/') {
                Some((family, _)) => format!("{family}/{{id}}"),
                None => topic.level().to_owned(),
            };
            let wanted = (format!("{{prefix}}/{{device}}/{level}"), true);
            assert!(addresses().contains(&wanted), "{level}");
        }
    }

    #[test]
    fn every_channel_carries_what_the_topic_is_documented_to_carry() {
        let names: Vec<&str> = all().iter().map(|entry| entry.name).collect();
        for channel in &CHANNELS {
            if let Some(rest) = channel.address.strip_prefix("{prefix}/{device}/") {
                assert_eq!(schema_of_topic(rest), Some(channel.schema), "{}", channel.name);
            }
            assert!(names.contains(&channel.schema), "{}", channel.name);
            assert!(channel.inside.is_none_or(|(inside, _)| names.contains(&inside)), "{}", channel.name);
        }
    }

    #[test]
    fn every_reference_within_the_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in found.iter().filter_map(|reference| reference.strip_prefix('#')) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
