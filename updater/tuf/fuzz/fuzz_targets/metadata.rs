//! Any bytes as any metadata file, as the image's root and as what was stored: no panic, no endless work, and what is
//! read as JSON has one canonical form.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vigil_tuf::canonical::Json;
use vigil_tuf::{Fetched, Search, Stored, TrustedSet};

#[path = "../../tests/trusted_set/repository.rs"]
#[allow(dead_code)]
mod repository;

use repository::{Client, Repository, now};

static REPOSITORY: LazyLock<Repository> = LazyLock::new(Repository::new);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = Json::parse(bytes) {
        // Control characters stand as they are in the canonical form, which is then no JSON any more.
        let canonical = json.canonical();
        if let Ok(again) = Json::parse(&canonical) {
            assert_eq!(again.canonical(), canonical);
        }
    }
    let stored = |which: usize| {
        let some = |number| (number == which).then(|| bytes.to_vec());
        Stored { root: some(0), timestamp: some(1), snapshot: some(2), targets: some(3), time_floor: None }
    };
    let repository = &*REPOSITORY;
    let image_root = &repository.files["1.root.json"];
    for which in 0..4 {
        let (set, _) = TrustedSet::load(image_root, stored(which)).expect("the image's root is sound");
        assert_eq!(set.version(vigil_tuf::Role::Root), Some(1), "a root was forged");
    }
    let _ = TrustedSet::load(bytes, stored(1));

    // The same bytes in place of each file of a refresh.
    for skip in 0..4 {
        let mut client = Client::new(repository);
        client.set.begin_refresh();
        for _ in 0..skip {
            let Some(request) = client.set.next_request() else { return };
            let file = repository.files.get(&request.path).map_or(Fetched::Missing, |file| Fetched::Bytes(file));
            if client.set.feed(file, now()).is_err() {
                return;
            }
        }
        if client.set.feed(Fetched::Bytes(bytes), now()).is_ok() {
            let honest = |file: &Vec<u8>| file == bytes;
            let same = Json::parse(bytes).ok().is_some_and(|json| is_honest(repository, &json));
            assert!(repository.files.values().any(honest) || same, "something forged was taken");
        }
        let _ = client.set.begin_search("operators/acme.json", Search::Online);
    }
});

/// Whether what is signed in `file` is what the repository signed, whatever stands around it.
fn is_honest(repository: &Repository, file: &Json) -> bool {
    let signed = |json: &Json| match json {
        Json::Object(members) => members.get("signed").map(Json::canonical),
        _ => None,
    };
    let found = signed(file);
    found.is_some() && repository.files.values().any(|file| signed(&Json::parse(file).expect("honest")) == found)
}
