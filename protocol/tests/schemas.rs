//! The committed JSON Schemas and the AsyncAPI document are those of the types. Run with `--features schema`; after a deliberate change of the
//! wire, `VIGIL_UPDATE_SCHEMAS=1` rewrites the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use vigil_protocol::{asyncapi, schema};
use yaml_rust2::{Yaml, YamlEmitter};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let update = std::env::var_os("VIGIL_UPDATE_SCHEMAS").is_some();
    if update {
        std::fs::create_dir_all(directory()).unwrap();
    }
    let mut drifted = Vec::new();
    for entry in schema::all() {
        let path = directory().join(format!("{}.schema.json", entry.name));
        let text = serde_json::to_string_pretty(&entry.schema).unwrap() + "\n";
        if update {
            std::fs::write(&path, text).unwrap();
        } else if std::fs::read_to_string(&path).ok() != Some(text) {
            drifted.push(entry.name);
        }
    }
    assert!(
        drifted.is_empty(),
        "the schemas of {drifted:?} differ from protocol/schemas/; if the wire was meant to change, run\n  \
         VIGIL_UPDATE_SCHEMAS=1 cargo test -p vigil-protocol --features schema --test schemas"
    );
}

fn yaml(value: &Value) -> Yaml {
    match value {
        Value::Null => Yaml::Null,
        Value::Bool(value) => Yaml::Boolean(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Yaml::Real(number.to_string()), Yaml::Integer)
        }
        Value::String(text) => Yaml::String(text.clone()),
        Value::Array(items) => Yaml::Array(items.iter().map(yaml).collect()),
        Value::Object(fields) => {
            // In one order, whatever features other crates turn on.
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            Yaml::Hash(
                sorted.into_iter().map(|(name, value)| (Yaml::String(name.clone()), yaml(value))).collect(),
            )
        }
    }
}

#[test]
fn the_committed_asyncapi_document_is_that_of_the_table_of_topics() {
    let mut text = String::new();
    YamlEmitter::new(&mut text).dump(&yaml(&asyncapi::document())).unwrap();
    let text = text + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("asyncapi.yaml");
    if std::env::var_os("VIGIL_UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, text).unwrap();
    } else {
        assert!(
            std::fs::read_to_string(&path).ok() == Some(text),
            "protocol/asyncapi.yaml differs from protocol/src/asyncapi.rs; if the wire was meant to change, run\n  \
             VIGIL_UPDATE_SCHEMAS=1 cargo test -p vigil-protocol --features schema --test schemas"
        );
    }
}

#[test]
fn no_schema_is_committed_that_nothing_describes() {
    let described: BTreeSet<_> =
        schema::all().iter().map(|entry| format!("{}.schema.json", entry.name)).collect();
    for file in std::fs::read_dir(directory()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(described.contains(&name), "{name} is left over; remove it");
    }
}

#[test]
fn times_hashes_and_versions_are_more_than_any_text_or_number() {
    let text = |name: &str| {
        let entry = schema::all().into_iter().find(|entry| entry.name == name).unwrap();
        serde_json::to_string(&entry.schema).unwrap()
    };
    for name in ["presence", "result", "digest-payload", "command-payload", "diagnosis"] {
        assert!(text(name).contains("\"date-time\""), "{name}");
        assert!(text(name).contains("\"const\":1"), "{name}");
    }
    assert!(text("digest-payload").contains("^[0-9a-f]{64}$"));
    assert!(text("command-payload").contains("\"additionalProperties\":false"));
}
