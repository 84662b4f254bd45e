//! A whole device against a repository whose honest files are mutated, swapped and withheld in any way, over several
//! rounds, restarts and clocks: no panic, nothing that was not signed is ever kept, no version ever goes back, and
//! the honest repository is accepted afterwards.

#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use vigil_tuf::canonical::Json;
use vigil_tuf::{Fetched, Output, Role, Search, Source};

#[path = "../../tests/trusted_set/repository.rs"]
#[allow(dead_code)]
mod repository;

use repository::{Client, Repository, now};

/// What a hostile server does with one request.
#[derive(Arbitrary, Debug)]
enum Answer {
    Honest,
    Missing,
    /// Another file that is honest in itself, of any time.
    Other(u8),
    /// A byte changed.
    Byte { at: u16, to: u8 },
    /// Cut.
    Cut(u16),
    /// A range of another honest file put in.
    Splice { at: u16, from: u8, begin: u16, length: u8 },
    /// A value in the JSON changed, by its position in a walk through the tree.
    Value { at: u8, to: Replacement },
    /// A member taken away.
    Without { at: u8 },
    /// Signatures of another file.
    Signatures(u8),
    /// Signed by keys of the attacker's choice, over a changed version.
    Signed { seeds: [u8; 2], version: u16 },
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Replacement {
    Null,
    Number(i64),
    Text(String),
    Array,
    Object,
    SameAs(u8),
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A refresh against the repository as it was after so many publications.
    Refresh { generation: u8, answers: Vec<Answer>, days: u8 },
    Search { generation: u8, target: u8, answers: Vec<Answer> },
    Restart,
}

const TARGETS: [&str; 5] = ["operators/acme.json", "partners/meet.json", "bins/x", "none", "../x"];

/// The publications of an honest vendor, one after the other: new targets, a delegation, a root rotation with new
/// timestamp keys, other delegated content.
static GENERATIONS: LazyLock<Vec<Repository>> = LazyLock::new(|| {
    let make = |upto: usize| {
        let mut repository = Repository::new();
        if upto > 0 {
            repository.delegate(None, "partners", 5, json!({"paths": ["partners/*"]}));
            repository.add_delegated_target("partners", "partners/meet.json", b"a profile");
            repository.publish_next();
        }
        if upto > 1 {
            repository.set_keys(Role::Timestamp, &[2, 6], 2);
            repository.set_keys(Role::Root, &[1, 7], 1);
            repository.rotate_root();
            repository.publish_next();
        }
        if upto > 2 {
            repository.delegated.get_mut("partners").expect("made above").0["version"] = json!(2);
            repository.delegate(Some("partners"), "bins", 8, json!({"path_hash_prefixes": ["0", "1", "a", "e"]}));
            repository.delegate(None, "bins", 8, json!({"paths": ["bins/?"], "terminating": true}));
            repository.add_delegated_target("bins", "bins/x", b"x");
            repository.publish_next();
        }
        repository
    };
    (0..4).map(make).collect()
});

/// Everything that was ever signed honestly, in canonical form.
static SIGNED: LazyLock<BTreeSet<Vec<u8>>> = LazyLock::new(|| {
    GENERATIONS.iter().flat_map(|repository| repository.files.values()).map(|file| signed(file)).collect()
});

static FILES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| GENERATIONS.iter().flat_map(|repository| repository.files.values().cloned()).collect());

fn signed(file: &[u8]) -> Vec<u8> {
    match Json::parse(file) {
        Ok(Json::Object(members)) => members.get("signed").map(Json::canonical).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn any_file(number: u8) -> &'static [u8] {
    &FILES[usize::from(number) % FILES.len()]
}

/// The value at a position of a walk through the tree.
fn nth<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(values) => values.iter_mut().find_map(|value| nth(value, at)),
        Value::Object(members) => members.iter_mut().find_map(|(_, value)| nth(value, at)),
        _ => None,
    }
}

fn edit(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice(file) else { return file.to_vec() };
    change(&mut value);
    value.to_string().into_bytes()
}

fn answer(answer: &Answer, honest: Option<&Vec<u8>>) -> Option<Vec<u8>> {
    let mut file = honest.cloned()?;
    let length = file.len().max(1);
    match answer {
        Answer::Honest => {}
        Answer::Missing => return None,
        Answer::Other(number) => return Some(any_file(*number).to_vec()),
        Answer::Byte { at, to } => {
            if let Some(byte) = file.get_mut(usize::from(*at) % length) {
                *byte = *to;
            }
        }
        Answer::Cut(at) => file.truncate(usize::from(*at) % length),
        Answer::Splice { at, from, begin, length: count } => {
            let other = any_file(*from);
            let begin = usize::from(*begin) % other.len();
            let end = (begin + usize::from(*count)).min(other.len());
            let at = usize::from(*at) % length;
            file.splice(at..at, other[begin..end].iter().copied());
        }
        Answer::Value { at, to } => {
            return Some(edit(&file, |value| {
                let mut copy = value.clone();
                let new = match to {
                    Replacement::Null => Value::Null,
                    Replacement::Number(number) => json!(number),
                    Replacement::Text(text) => json!(text),
                    Replacement::Array => json!([]),
                    Replacement::Object => json!({}),
                    Replacement::SameAs(other) => {
                        nth(&mut copy, &mut usize::from(*other)).cloned().unwrap_or(Value::Null)
                    }
                };
                if let Some(place) = nth(value, &mut usize::from(*at)) {
                    *place = new;
                }
            }));
        }
        Answer::Without { at } => {
            return Some(edit(&file, |value| {
                let names: Vec<_> = match value.get("signed") {
                    Some(Value::Object(members)) => members.keys().cloned().collect(),
                    _ => Vec::new(),
                };
                if let (Some(name), Some(members)) =
                    (names.get(usize::from(*at) % names.len().max(1)), value["signed"].as_object_mut())
                {
                    members.remove(name);
                }
            }));
        }
        Answer::Signatures(from) => {
            let other: Value = serde_json::from_slice(any_file(*from)).unwrap_or_default();
            return Some(edit(&file, |value| value["signatures"] = other["signatures"].clone()));
        }
        // The vendor's keys are those of the seeds 1 to 8.
        Answer::Signed { seeds, version } => {
            let value: Value = serde_json::from_slice(&file).unwrap_or_default();
            let mut forged = value["signed"].clone();
            forged["version"] = json!(version);
            forged["forged"] = json!(true);
            return Some(repository::sign(&forged, &seeds.map(|seed| seed.saturating_add(9).max(9))));
        }
        Answer::Raw(bytes) => return Some(bytes.clone()),
    }
    Some(file)
}

fn drive(client: &mut Client, generation: u8, answers: &[Answer], now: Timestamp) {
    let repository = &GENERATIONS[usize::from(generation) % GENERATIONS.len()];
    let mut answers = answers.iter();
    let mut requests = 0;
    while let Some(request) = client.set.next_request() {
        requests += 1;
        assert!(requests < 200, "the client asks without an end");
        let honest = match request.source {
            Source::Repository => repository.files.get(&request.path),
            Source::Store => client.delegated.get(&request.path),
        };
        let bytes = answer(answers.next().unwrap_or(&Answer::Honest), honest);
        let before = client.set.version(Role::Root);
        let Ok(outputs) = client.set.feed(bytes.as_deref().map_or(Fetched::Missing, Fetched::Bytes), now) else {
            return;
        };
        assert!(client.set.version(Role::Root) >= before, "the root went back");
        for output in outputs {
            if let Output::Persist { bytes, role } = &output {
                assert!(SIGNED.contains(&signed(bytes)), "{role} was forged: {}", String::from_utf8_lossy(bytes));
            }
            client.store(output);
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut client = Client::new(&GENERATIONS[0]);
    for step in steps.iter().take(8) {
        match step {
            Step::Refresh { generation, answers, days } => {
                client.set.begin_refresh();
                let time = now().saturating_add(SignedDuration::from_hours(24 * i64::from(*days))).expect("in range");
                drive(&mut client, *generation, answers, time);
            }
            Step::Search { generation, target, answers } => {
                let target = TARGETS[usize::from(*target) % TARGETS.len()];
                if client.set.begin_search(target, Search::Online).is_ok() {
                    drive(&mut client, *generation, answers, now());
                }
                if let Some(found) = client.set.target(target) {
                    assert!([1, 9, 13].contains(&found.length), "a target was forged");
                }
            }
            Step::Restart => drop(client.restart()),
        }
    }
    // Whatever happened, the newest honest repository is believed.
    client.set.begin_refresh();
    drive(&mut client, 3, &[], now());
    assert!(client.set.is_refreshed(), "locked out");
});
