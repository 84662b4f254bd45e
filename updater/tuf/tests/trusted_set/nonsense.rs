//! Metadata that is signed and makes no sense: the parser has only itself to rely on.

use proptest::prelude::*;
use serde_json::{Value, json};
use vigil_tuf::Role;
use vigil_tuf::canonical::Json;

use crate::repository::{Client, Repository, now};

/// Any JSON without floats, a few levels deep, whose words are those of metadata more often than by chance.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "root",
        "meta",
        "keys",
        "sha256",
        "version",
        "snapshot.json",
        "\u{e9}\"\\",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The places of all values in `value`, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                places(member, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(values) => {
            for (position, value) in values.iter().enumerate() {
                places(value, &format!("{at}/{position}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_signed_document_with_nonsense_in_any_place_is_read_or_refused(
        role in prop::sample::select(Role::ALL.to_vec()), place in any::<prop::sample::Index>(), nonsense in any_json()
    ) {
        let mut repository = Repository::new();
        let mut client = Client::refreshed(&repository);
        repository.rotate_root();
        repository.publish_next();
        let mut all = Vec::new();
        places(repository.signed(role), "", &mut all);
        *repository.signed(role).pointer_mut(&all[place.index(all.len())]).unwrap() = nonsense;
        let signed = repository.signed(role).clone();
        let name = if role == Role::Timestamp { "timestamp.json".to_owned() } else { format!("2.{role}.json") };
        // Lists are told of the new content, so that it gets as far as the parser.
        let bytes = repository.sign(role, &signed);
        match role {
            Role::Snapshot => repository.timestamp["meta"]["snapshot.json"] = json!({"version": 2}),
            Role::Targets => {
                repository.snapshot["meta"]["targets.json"] = json!({"version": 2});
                repository.serve(Role::Snapshot);
                repository.timestamp["meta"]["snapshot.json"] = json!({"version": 2});
            }
            Role::Root | Role::Timestamp => {}
        }
        if role != Role::Timestamp {
            repository.serve(Role::Timestamp);
        }
        repository.files.insert(name, bytes);
        let before = client.versions();
        if client.refresh(&repository, now()).is_err() {
            for (before, after) in before.iter().zip(client.versions()) {
                prop_assert!(after.is_none() || after >= *before);
            }
        }
        client.restart();
    }

    #[test]
    fn canonical_json_says_the_same_whatever_the_spelling(value in any_json()) {
        let compact = Json::parse(value.to_string().as_bytes()).unwrap();
        let spaced = Json::parse(&serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        prop_assert_eq!(compact.canonical(), spaced.canonical());
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Json::parse(&bytes).map(|json| json.canonical());
    }
}

#[test]
fn the_limits_are_those_that_docs_trust_md_names() {
    const KIB: u64 = 1024;
    let limits = [
        vigil_tuf::MAX_ROOT_BYTES,
        vigil_tuf::MAX_TIMESTAMP_BYTES,
        vigil_tuf::MAX_SNAPSHOT_BYTES,
        vigil_tuf::MAX_TARGETS_BYTES,
        vigil_tuf::MAX_STATED_BYTES,
    ];
    assert_eq!(limits, [512, 16, 2_048, 5_120, 32_768].map(|limit| limit * KIB));
}
