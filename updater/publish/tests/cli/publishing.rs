//! Targets and releases.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use vigil_protocol::operators::Operators;
use vigil_publish::verify::trusted_set;
use vigil_tuf::Role;
use vigil_updater::release::{FRAME_BYTES, Index, InstallPolicy, Manifest, blob_path};

use crate::desk::{Desk, mode};

#[test]
fn a_new_repository_is_trusted_and_its_keys_are_private() {
    let desk = Desk::new();
    let now = Timestamp::now();
    let set = trusted_set(&desk.path("repo"), now).unwrap();
    assert_eq!(Role::ALL.map(|role| set.version(role)), [Some(1); 4]);
    assert!(set.time_floor() <= now && set.time_floor() > now - SignedDuration::from_hours(1));
    assert_eq!(mode(&desk.path("keys")), 0o700);
    for role in Role::ALL {
        assert_eq!(mode(&desk.path(&format!("keys/{role}.pem"))), 0o600);
    }
    for path in ["repo/metadata", "repo/targets"] {
        assert_eq!(mode(&desk.path(path)), 0o755);
    }
    assert_eq!(mode(&desk.path("repo/metadata/timestamp.json")), 0o644);
}

#[test]
fn init_overwrites_neither_a_repository_nor_keys() {
    let desk = Desk::new();
    let key = std::fs::read(desk.path("keys/root.pem")).unwrap();
    assert!(desk.refused(&["init", "--repo", "repo", "--keys", "other"]).contains("repository already"));
    assert!(desk.refused(&["init", "--repo", "other", "--keys", "keys"]).contains("not overwritten"));
    assert_eq!(std::fs::read(desk.path("keys/root.pem")).unwrap(), key);
    assert!(!desk.path("other").exists());
}

#[test]
fn an_operators_list_reaches_a_device() {
    let desk = Desk::new();
    let key = desk.good(&["key", "new", "alice", "--keys", "keys"]);
    let operator = format!("name=alice,key={},scopes=observe+update,devices=*", key["key"].as_str().unwrap());
    let set =
        ["operators", "set", "--repo", "repo", "--keys", "keys", "--tenant", "acme", "--operator", &operator];
    desk.good(&set);
    let list = Operators::parse(&desk.target("operators/acme.json")).unwrap();
    assert_eq!(list.operators[0].name, "alice");
    assert_eq!(list.operators[0].key.id(), key["id"]);

    std::fs::write(desk.path("list.json"), serde_json::to_vec(&list).unwrap()).unwrap();
    let by_file =
        ["operators", "set", "--repo", "repo", "--keys", "keys", "--tenant", "acme", "--file", "list.json"];
    desk.good(&by_file);
    assert_eq!(Operators::parse(&desk.target("operators/acme.json")).unwrap(), list);
    let mut other_tenant = by_file;
    other_tenant[7] = "umbrella";
    assert!(desk.refused(&other_tenant).contains("umbrella"));
}

#[test]
fn a_release_of_format_1_is_what_the_first_updaters_read() {
    let desk = Desk::new();
    let image = desk.write_image(1);
    let mut arguments = Desk::release_arguments("2.0.0", "20");
    arguments.extend(["--install-policy", "automatic"]);
    desk.good(&[&arguments[..], &["--format", "1"]].concat());
    // As it is already, whatever the default.
    assert_eq!(desk.good(&arguments)["unchanged"], true);

    let manifest = Manifest::parse(&desk.target("releases/bar/2.0.0.json")).unwrap();
    assert_eq!((manifest.sequence, manifest.install), (20, InstallPolicy::Automatic));
    assert_eq!(manifest.hardware, ["r1", "r2"]);
    let read = |sha256: &str| std::fs::read(desk.path("repo").join(blob_path(sha256))).unwrap();
    let index = Index::parse(&read(&manifest.images[0].index.sha256)).unwrap();
    let frames = read(&manifest.images[0].frames.sha256);
    let mut decoded = Vec::new();
    for unit in index.units() {
        let end = unit.frames_offset + u64::from(unit.frames_length);
        let bytes = &frames[unit.frames_offset as usize..end as usize];
        decoded.extend(zstd::bulk::decompress(bytes, FRAME_BYTES as usize).unwrap());
    }
    assert_eq!(index.units().len(), 3);
    assert_eq!(decoded, image);
    assert!(frames.len() < image.len());
    assert_eq!(desk.blobs().iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o644; 2]);
    assert_eq!(desk.good(&["verify", "--repo", "repo"])["blobs"], 2);
}

#[test]
fn a_patch_is_made_from_the_release_before_which_is_put_together_from_the_repository() {
    let desk = Desk::new();
    let old = desk.write_image(1);
    let add = |version, sequence, patches| {
        desk.good(&[&Desk::release_arguments(version, sequence)[..], &["--patches", patches]].concat())
    };
    let first = add("2.0.0", "20", "1");
    assert_eq!(first["manifest"]["images"][0]["patches"], serde_json::Value::Null);
    // Another program of the same sources: as long, with a word changed here and there.
    let mut new = old.clone();
    new.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    std::fs::write(desk.path("image"), &new).unwrap();
    let second = add("3.0.0", "30", "1");
    let image = &second["manifest"]["images"][0];
    assert_eq!(image["patches"][0]["from"], first["manifest"]["images"][0]["sha256"]);
    let size = |part: &serde_json::Value| part["size"].as_u64().unwrap();
    assert!(size(&image["patches"][0]["frames"]) * 2 < size(&image["frames"]), "{image}");
    // Index, leaves and frames of both, index and frames of the patch.
    assert_eq!(desk.good(&["verify", "--repo", "repo"])["blobs"], 8);
    let none = add("4.0.0", "40", "0");
    assert_eq!(none["manifest"]["images"][0]["patches"], serde_json::Value::Null);
}

/// Three releases of the same sources, each with a patch from the one before.
fn three_releases(desk: &Desk) {
    let mut image = desk.write_image(1);
    for (version, sequence) in [("2.0.0", "20"), ("3.0.0", "30"), ("4.0.0", "40")] {
        std::fs::write(desk.path("image"), &image).unwrap();
        desk.good(&Desk::release_arguments(version, sequence));
        image.iter_mut().step_by(997).for_each(|byte| *byte ^= 1 + version.as_bytes()[0]);
    }
}

fn prune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["release", "prune", "--repo", "repo", "--keys", "keys", "--product", "bar"][..], more].concat()
}

#[test]
fn pruning_takes_patches_from_old_releases_away_and_nothing_that_a_manifest_names() {
    let desk = Desk::new();
    three_releases(&desk);
    let blobs = desk.blobs();
    // One that nothing names, and a file that is no blob.
    std::fs::write(desk.path("repo/blobs").join("0".repeat(64)), "stray").unwrap();
    std::fs::write(desk.path("repo/blobs/README"), "somebody's").unwrap();

    let seen = desk.good(&prune(&["--keep", "2", "--dry-run"]));
    assert_eq!((seen["patches"].as_array().unwrap().len(), seen["blobs"].as_array().unwrap().len()), (1, 3));
    assert_eq!(desk.blobs().len(), blobs.len() + 2, "a dry run removes nothing");

    let done = desk.good(&prune(&["--keep", "2"]));
    assert_eq!(done["patches"], seen["patches"]);
    assert_eq!(done["freed_bytes"], seen["freed_bytes"]);
    // The index and the frames of the patch from 2.0.0 are gone; the somebody's file is not.
    assert_eq!(desk.blobs().len(), blobs.len() - 2 + 1);
    let patches = |version: &str| {
        let manifest = Manifest::parse(&desk.target(&format!("releases/bar/{version}.json"))).unwrap();
        manifest.images[0].patches.len()
    };
    assert_eq!((patches("3.0.0"), patches("4.0.0")), (0, 1));
    desk.good(&["verify", "--repo", "repo"]);
    assert_eq!(desk.good(&prune(&["--keep", "2"]))["patches"], serde_json::json!([]));
}

#[test]
fn what_waits_for_a_signature_is_pruned_when_it_is_signed() {
    let desk = Desk::new();
    three_releases(&desk);
    let blobs = desk.blobs();
    std::fs::rename(desk.path("keys/targets.pem"), desk.path("targets.pem")).unwrap();
    let waiting = desk.good(&prune(&["--keep", "1", "--stage"]));
    assert_eq!((&waiting["published"], &waiting["blobs"]), (&Value::Bool(false), &serde_json::json!([])));
    assert_eq!(desk.blobs(), blobs);
    std::fs::rename(desk.path("targets.pem"), desk.path("keys/targets.pem")).unwrap();
    desk.good(&["sign", "--repo", "repo", "--keys", "keys"]);
    assert_eq!(desk.good(&prune(&["--keep", "1"]))["blobs"].as_array().unwrap().len(), 4);
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn a_version_is_never_published_twice_with_other_content() {
    let desk = Desk::new();
    desk.write_image(1);
    let arguments = Desk::release_arguments("2.0.0", "20");
    desk.good(&arguments);
    let again = desk.good(&arguments);
    assert_eq!((&again["unchanged"], &again["versions"]["targets"]), (&Value::Bool(true), &Value::from(2)));
    desk.write_image(2);
    assert!(desk.refused(&arguments).contains("other content"));
    assert!(desk.refused(&Desk::release_arguments("2.0.0", "21")).contains("other content"));
    desk.good(&Desk::release_arguments("2.0.1", "21"));
}

#[test]
fn what_devices_would_refuse_is_refused_before_anything_is_compressed() {
    let desk = Desk::new();
    desk.write_image(1);
    let mut arguments = Desk::release_arguments("2.0.0", "20");
    arguments[7] = "../bar";
    assert!(desk.refused(&arguments).contains("impossible product"));
    let mut arguments = Desk::release_arguments("2.0.0", "20");
    arguments.extend(["--image", "rootfs=image"]);
    assert!(desk.refused(&arguments).contains("repeated image name"));
    assert!(!desk.path("repo/blobs").exists());
}

#[test]
fn a_sequence_that_does_not_rise_is_refused_unless_it_is_meant() {
    let desk = Desk::new();
    desk.write_image(1);
    desk.good(&Desk::release_arguments("2.0.0", "20"));
    for sequence in ["20", "19"] {
        assert!(desk.refused(&Desk::release_arguments("2.1.0", sequence)).contains("--sequence 21"));
    }
    let mut meant = Desk::release_arguments("2.1.0", "19");
    meant.push("--allow-lower");
    desk.good(&meant);
    // Another product counts for itself.
    let mut other = Desk::release_arguments("1.0.0", "1");
    other[7] = "phone";
    desk.good(&other);
}

#[test]
fn an_image_that_was_published_before_is_not_compressed_again() {
    let desk = Desk::new();
    desk.write_image(1);
    desk.good(&Desk::release_arguments("2.0.0", "20"));
    let before = desk.blobs();
    let mut arguments = Desk::release_arguments("2.0.1", "21");
    // At another level the frames would be others, if they were made.
    *arguments.last_mut().unwrap() = "1";
    desk.good(&arguments);
    assert_eq!(desk.blobs(), before);
}

#[test]
fn an_interrupted_publication_is_not_seen_and_its_version_is_skipped() {
    let desk = Desk::new();
    let metadata = desk.path("repo/metadata");
    std::fs::copy(metadata.join("1.targets.json"), metadata.join("2.targets.json")).unwrap();
    std::fs::copy(metadata.join("1.snapshot.json"), metadata.join("2.snapshot.json")).unwrap();
    desk.good(&["verify", "--repo", "repo"]);
    desk.write_image(1);
    let published = desk.good(&Desk::release_arguments("2.0.0", "20"));
    let versions = &published["versions"];
    assert_eq!([&versions["targets"], &versions["snapshot"], &versions["timestamp"]], [3, 3, 2]);
    desk.target("releases/bar/2.0.0.json");
}

#[test]
fn a_publication_that_is_cut_off_at_any_write_leaves_the_old_state_and_can_be_repeated() {
    let mut cut_off = 0;
    for side in ["before", "after"] {
        for passage in 1.. {
            let desk = Desk::new();
            desk.write_image(1);
            let arguments = Desk::release_arguments("2.0.0", "20");
            let mut command = Command::new(env!("CARGO_BIN_EXE_vigil-publish"));
            command.current_dir(desk.directory.path()).args(&arguments);
            let point = format!("publish.file.{side}#{passage}");
            if command.env("VIGIL_CRASH_AT", &point).output().unwrap().status.success() {
                break;
            }
            cut_off += 1;
            let set = trusted_set(&desk.path("repo"), Timestamp::now()).unwrap();
            // The last write is the timestamp: only after it is anything new to be seen.
            let published = set.target("releases/bar/2.0.0.json").is_some();
            assert_eq!(published, set.version(Role::Timestamp) == Some(2), "{point}");
            desk.good(&["verify", "--repo", "repo"]);
            desk.good(&arguments);
            desk.target("releases/bar/2.0.0.json");
            desk.good(&["verify", "--repo", "repo"]);
        }
    }
    // Index, manifest, targets, snapshot, timestamp; before and after each.
    assert_eq!(cut_off, 10);
}

#[test]
fn a_timestamp_needs_only_its_own_key() {
    let desk = Desk::new();
    for role in ["root", "targets", "snapshot"] {
        std::fs::remove_file(desk.path(&format!("keys/{role}.pem"))).unwrap();
    }
    let timestamp = ["timestamp", "--repo", "repo", "--keys", "keys", "--timestamp-days", "3"];
    assert_eq!(desk.good(&timestamp)["version"], 2);
    let later = Timestamp::now() + SignedDuration::from_hours(24 * 4);
    assert!(trusted_set(&desk.path("repo"), later).is_err());
    let set = trusted_set(&desk.path("repo"), Timestamp::now()).unwrap();
    assert_eq!(set.version(Role::Timestamp), Some(2));
    desk.write_image(1);
    // Told before anything is compressed.
    assert!(desk.refused(&Desk::release_arguments("1.0.0", "1")).contains("targets.pem"));
    assert!(!desk.path("repo/blobs").exists());
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn keys_of_another_repository_are_refused_before_anything_is_published() {
    let desk = Desk::new();
    desk.good(&["init", "--repo", "repo2", "--keys", "keys2"]);
    let refused = desk.refused(&["timestamp", "--repo", "repo", "--keys", "keys2"]);
    assert!(refused.contains("not a key that this repository's root names for timestamp"), "{refused}");
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn verify_finds_damage_in_metadata_targets_and_blobs() {
    let desk = Desk::new();
    desk.write_image(1);
    desk.good(&Desk::release_arguments("2.0.0", "20"));
    let set = trusted_set(&desk.path("repo"), Timestamp::now()).unwrap();
    let manifest = desk.path("repo/targets").join(set.target_path("releases/bar/2.0.0.json").unwrap());
    let mut files = desk.blobs();
    files.extend([
        manifest,
        desk.path("repo/metadata/2.snapshot.json"),
        desk.path("repo/metadata/2.targets.json"),
    ]);
    for path in files {
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x20;
        std::fs::write(&path, &bad).unwrap();
        desk.refused(&["verify", "--repo", "repo"]);
        std::fs::write(&path, good).unwrap();
        desk.good(&["verify", "--repo", "repo"]);
    }
}

#[test]
fn show_names_roles_and_targets_for_people_and_programs() {
    let desk = Desk::new();
    desk.write_image(1);
    desk.good(&Desk::release_arguments("2.0.0", "20"));
    let shown = desk.good(&["show", "--repo", "repo"]);
    assert_eq!(shown["roles"]["targets"]["version"], 2);
    assert_eq!(shown["roles"]["root"]["keys"]["threshold"], 1);
    assert!(shown["targets"]["releases/bar/2.0.0.json"]["hashes"]["sha256"].is_string());
    let text = desk.text(&["show", "--repo", "repo"]);
    assert!(text.contains("timestamp  version 2, expires in 13 days"), "{text}");
    assert!(text.contains("└─ releases/bar/2.0.0.json"), "{text}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["publish"]).status.code(), Some(2));
    let no_file = ["release", "add", "--repo", "repo", "--keys", "keys", "--image", "rootfs"];
    assert_eq!(desk.run(&no_file).status.code(), Some(2));
}
