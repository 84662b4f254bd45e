//! Who else signs which targets.

use serde_json::Value;

use crate::desk::Desk;
use crate::device::Device;

const AT: [&str; 4] = ["--repo", "repo", "--keys", "keys"];

fn run(desk: &Desk, command: &[&str]) -> Value {
    desk.good(&[command, &AT].concat())
}

fn set_operators(desk: &Desk, tenant: &str) -> Value {
    let key = "key=6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";
    let operator = format!("name=olga,{key},scopes=observe,devices=*");
    run(desk, &["operators", "set", "--tenant", tenant, "--operator", &operator])
}

fn delegated<'a>(shown: &'a Value, role: &str) -> &'a Value {
    &shown["delegated"][role]["targets"]
}

#[test]
fn a_delegated_role_takes_over_its_targets_and_devices_find_them_there() {
    let desk = Desk::new();
    desk.write_image(1);
    desk.good(&Desk::release_arguments("1.0.0", "1"));
    set_operators(&desk, "acme");
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();

    let added = run(&desk, &["role", "add", "bar-firmware", "--kind", "firmware", "--product", "bar"]);
    assert_eq!((&added["published"], &added["moved"]), (&true.into(), &1.into()));
    run(&desk, &["role", "add", "lists", "--kind", "operators", "--days", "40", "--terminating"]);
    desk.good(&Desk::release_arguments("1.1.0", "2"));
    set_operators(&desk, "umbrella");
    let shown = desk.good(&["show", "--repo", "repo"]);
    assert_eq!(delegated(&shown, "bar-firmware").as_array().unwrap().len(), 2);
    assert_eq!(
        *delegated(&shown, "lists"),
        serde_json::json!(["operators/acme.json", "operators/umbrella.json"])
    );
    device.refresh().unwrap();
    assert_eq!(device.set.targets().count(), 0);
    for name in ["releases/bar/1.0.0.json", "releases/bar/1.1.0.json", "operators/acme.json"] {
        assert!(device.find(name).unwrap().is_some(), "{name}");
    }
    assert!(device.find("operators/nobody.json").unwrap().is_none());
    assert_eq!(desk.good(&["verify", "--repo", "repo"])["delegated"], 2);

    let text = desk.text(&["show", "--repo", "repo"]);
    assert!(
        text.contains("├─ bar-firmware (releases/bar/*) version 2, expires in 179 days, 1 of bar-firmware ("),
        "{text}"
    );
    assert!(text.contains("└─ lists (operators/*, terminating) version 2, expires in 39 days"), "{text}");
}

#[test]
fn a_tenants_own_role_goes_before_that_of_all_tenants() {
    let desk = Desk::new();
    set_operators(&desk, "acme");
    run(&desk, &["role", "add", "lists", "--kind", "operators"]);
    let acme = ["role", "add", "acme", "--kind", "operators", "--tenant", "acme"];
    let refused = desk.refused(&[&acme[..], &AT].concat());
    assert!(refused.contains("add --before lists"), "{refused}");
    run(&desk, &[&acme[..], &["--before", "lists"]].concat());
    set_operators(&desk, "umbrella");
    let shown = desk.good(&["show", "--repo", "repo"]);
    assert_eq!(*delegated(&shown, "acme"), serde_json::json!(["operators/acme.json"]));
    assert_eq!(*delegated(&shown, "lists"), serde_json::json!(["operators/umbrella.json"]));
    desk.good(&["verify", "--repo", "repo"]);

    // The tenant leaves: its role goes, and with it its list.
    let remove = ["role", "remove", "acme"];
    assert!(desk.refused(&[&remove[..], &AT].concat()).contains("--with-targets"));
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    assert!(device.find("operators/acme.json").unwrap().is_some());
    run(&desk, &["role", "remove", "acme", "--with-targets"]);
    device.refresh().unwrap();
    assert!(device.find("operators/acme.json").unwrap().is_none());
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn a_delegated_key_is_revoked_and_what_it_signed_is_signed_anew() {
    let desk = Desk::new();
    for name in ["olga", "peter"] {
        desk.good(&["key", "new", name, "--keys", "keys"]);
    }
    let role = ["role", "add", "lists", "--kind", "operators", "--key", "olga", "--key", "peter"];
    run(&desk, &role);
    // Only Olga's key is at hand when the list is signed.
    std::fs::rename(desk.path("keys/peter.pem"), desk.path("peter.pem")).unwrap();
    set_operators(&desk, "acme");
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    device.find("operators/acme.json").unwrap().unwrap();
    let published = std::fs::read_to_string(desk.path("repo/metadata/2.lists.json")).unwrap();
    assert!(!published.contains("\"sig\": \"\""), "no request for a signature is published");

    let staged = run(&desk, &["key", "revoke", "olga"]);
    assert_eq!((&staged["published"], &staged["roles"]), (&false.into(), &serde_json::json!(["lists"])));
    assert_eq!(staged["staged"][0]["needs"][0]["missing"][0]["name"], "peter");
    std::fs::rename(desk.path("peter.pem"), desk.path("keys/peter.pem")).unwrap();
    assert_eq!(run(&desk, &["sign"])["published"], true);
    device.refresh().unwrap();
    device.find("operators/acme.json").unwrap().unwrap();
    let verified = desk.good(&["verify", "--repo", "repo"]);
    assert_eq!(verified["root"], 1, "a delegated key needs no new root");
    let refused = desk.refused(&[&["key", "revoke", "peter"][..], &AT].concat());
    assert!(refused.contains("role set lists --add-key KEY"), "{refused}");
    desk.good(&["key", "new", "quentin", "--keys", "keys"]);
    run(&desk, &["role", "set", "lists", "--add-key", "quentin", "--threshold", "2"]);
    device.refresh().unwrap();
    device.find("operators/acme.json").unwrap().unwrap();
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn targets_are_spread_over_bins_and_found_there() {
    let desk = Desk::new();
    write_files(&desk, 60);
    run(&desk, &["role", "add", "bin", "--bins", "8"]);
    run(&desk, &["add", "notes", "files"]);
    let verified = desk.good(&["verify", "--repo", "repo"]);
    assert_eq!((&verified["delegated"], &verified["targets"]), (&8.into(), &60.into()));
    let shown = desk.good(&["show", "--repo", "repo"]);
    let counts = (0..8).map(|bin| delegated(&shown, &format!("bin-{bin}")).as_array().unwrap().len());
    assert!(counts.filter(|count| *count > 0).count() > 4);
    let odd = [&["role", "add", "odd", "--bins", "6"][..], &AT].concat();
    assert!(desk.refused(&odd).contains("a power of two"));
}

#[test]
#[ignore = "a minute of writing files"]
fn ten_thousand_targets_in_256_bins_are_verified_in_seconds() {
    let desk = Desk::new();
    write_files(&desk, 10_000);
    run(&desk, &["role", "add", "bin", "--bins", "256"]);
    run(&desk, &["add", "notes", "files"]);
    let start = std::time::Instant::now();
    assert_eq!(desk.good(&["verify", "--repo", "repo"])["targets"], 10_000);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    println!("verified in {:?}", start.elapsed());
}

fn write_files(desk: &Desk, count: usize) {
    std::fs::create_dir(desk.path("files")).unwrap();
    for number in 0..count {
        std::fs::write(desk.path(&format!("files/{number}.txt")), number.to_string()).unwrap();
    }
}

#[test]
fn verify_finds_a_target_that_devices_do_not() {
    let desk = Desk::new();
    run(&desk, &["role", "add", "lists", "--kind", "operators"]);
    set_operators(&desk, "acme");
    // The role's patterns are changed by hand, and everything is signed again.
    let targets = desk.path("repo/metadata/2.targets.json");
    let text = std::fs::read_to_string(&targets).unwrap();
    assert!(text.contains("operators/*"));
    std::fs::write(&targets, text.replace("operators/*", "operator/*")).unwrap();
    assert!(desk.good(&["show", "--repo", "repo"])["delegated"]["lists"]["paths"][0] == "operator/*");
    // Damaged metadata is found first; signed anew, only the search finds what is wrong.
    desk.refused(&["verify", "--repo", "repo"]);
    run(&desk, &["renew", "targets"]);
    let refused = desk.refused(&["verify", "--repo", "repo"]);
    assert!(refused.contains("devices do not find the target operators/acme.json"), "{refused}");
}

#[test]
fn a_target_that_top_level_targets_list_as_well_is_taken_out_there() {
    let desk = Desk::new();
    set_operators(&desk, "acme");
    run(&desk, &["role", "add", "lists", "--path", "operator/*"]);
    // Another tool widens the pattern and moves nothing.
    let targets = desk.path("repo/metadata/3.targets.json");
    let text = std::fs::read_to_string(&targets).unwrap();
    std::fs::write(&targets, text.replace("operator/*", "operators/*")).unwrap();
    set_operators(&desk, "acme");
    let shown = desk.good(&["show", "--repo", "repo"]);
    assert_eq!(*delegated(&shown, "lists"), serde_json::json!(["operators/acme.json"]));
    assert_eq!(desk.good(&["verify", "--repo", "repo"])["targets"], 1);
}

#[test]
fn metadata_with_fields_of_another_tool_is_read_and_not_changed() {
    let desk = Desk::new();
    let path = desk.path("repo/metadata/1.targets.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"_type\"", "\"x-theirs\": 1,\n    \"_type\"", 1)).unwrap();
    desk.good(&["show", "--repo", "repo"]);
    std::fs::write(desk.path("note"), "one").unwrap();
    let refused = desk.refused(&[&["add", "note.txt", "note"][..], &AT].concat());
    assert!(refused.contains("was written by another tool"), "{refused}");
    assert!(std::fs::read_to_string(&path).unwrap().contains("x-theirs"));
}
