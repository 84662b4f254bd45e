//! A ceremony that is cut off at any write.

use std::process::Command;

use jiff::Timestamp;
use vigil_publish::verify::trusted_set;

use crate::desk::Desk;

const AT: [&str; 4] = ["--repo", "repo", "--keys", "keys"];

/// Runs a command and cuts it off at every passage of a point, before and after; `check` sees what is left.
fn cut_off(prepare: &dyn Fn() -> Desk, command: &[&str], point: &str, check: &dyn Fn(&Desk, &str)) -> usize {
    let mut count = 0;
    for side in ["before", "after"] {
        for passage in 1.. {
            let desk = prepare();
            let mut process = Command::new(env!("CARGO_BIN_EXE_vigil-publish"));
            process.current_dir(desk.directory.path()).args(command).args(AT);
            let at = format!("{point}.{side}#{passage}");
            if process.env("VIGIL_CRASH_AT", &at).output().unwrap().status.success() {
                break;
            }
            count += 1;
            check(&desk, &at);
        }
    }
    count
}

fn is_readable(desk: &Desk, at: &str) {
    if let Err(error) = trusted_set(&desk.path("repo"), Timestamp::now()) {
        panic!("{at}: {error:#}");
    }
    desk.good(&["verify", "--repo", "repo"]);
}

#[test]
fn a_change_of_all_keys_is_readable_at_every_moment_while_the_old_ones_are_at_hand() {
    let prepare = || {
        let desk = Desk::new();
        for role in ["root", "timestamp", "snapshot", "targets"] {
            desk.good(&["key", "new", &format!("{role}-2"), "--keys", "keys"]);
        }
        desk
    };
    let pairs = ["root", "timestamp", "snapshot", "targets"]
        .map(|role| [format!("{role}={role}-2"), format!("{role}={role}")]);
    let mut command = vec!["root", "rotate"];
    for [add, remove] in &pairs {
        command.extend(["--add", add, "--remove", remove]);
    }
    let count = cut_off(&prepare, &command, "publish.file", &|desk, at| {
        is_readable(desk, at);
        let root = desk.good(&["show", "--repo", "repo"])["roles"]["root"]["version"].clone();
        if root == 1 {
            desk.good(&[&command[..], &AT].concat());
        }
        is_readable(desk, at);
        assert_eq!(trusted_set(&desk.path("repo"), Timestamp::now()).unwrap().root().version, 2, "{at}");
    });
    // Targets, snapshot, timestamp, root; before and after each.
    assert_eq!(count, 8);
}

#[test]
fn a_replaced_lost_key_needs_at_most_one_more_signing_after_a_power_cut() {
    let prepare = || {
        let desk = Desk::new();
        desk.good(&["key", "new", "spare", "--keys", "keys"]);
        std::fs::remove_file(desk.path("keys/timestamp.pem")).unwrap();
        desk
    };
    let command = ["key", "revoke", "timestamp", "--replace-by", "spare"];
    let count = cut_off(&prepare, &command, "publish.file", &|desk, at| {
        if desk.good(&["show", "--repo", "repo"])["roles"]["root"]["version"] == 1 {
            desk.good(&[&command[..], &AT].concat());
        }
        desk.good(&[&["sign"][..], &AT].concat());
        is_readable(desk, at);
    });
    // Root and timestamp.
    assert_eq!(count, 4);
}

#[test]
fn staging_that_is_cut_off_changes_nothing_for_readers_and_can_be_repeated() {
    let prepare = || {
        let desk = Desk::new();
        desk.good(&["key", "new", "olga", "--keys", "olga"]);
        desk
    };
    let command = ["role", "add", "lists", "--kind", "operators", "--key", "@olga/olga.pub"];
    let count = cut_off(&prepare, &command, "publish.stage", &|desk, at| {
        is_readable(desk, at);
        desk.run(&[&command[..], &AT].concat());
        desk.good(&["sign", "--repo", "repo", "--keys", "olga"]);
        assert_eq!(desk.good(&[&["sign"][..], &AT].concat())["published"], true, "{at}");
        assert_eq!(desk.good(&["verify", "--repo", "repo"])["delegated"], 1, "{at}");
    });
    // The role, and the targets that delegate to it.
    assert_eq!(count, 4);
}

#[test]
fn the_last_signature_may_be_cut_off_at_any_write() {
    for point in ["publish.file", "publish.unstage"] {
        let prepare = || {
            let desk = Desk::new();
            desk.good(&["key", "new", "olga", "--keys", "olga"]);
            let role = ["role", "add", "lists", "--kind", "operators", "--key", "@olga/olga.pub"];
            desk.good(&[&role[..], &AT].concat());
            desk.good(&["sign", "--repo", "repo", "--keys", "olga"]);
            desk
        };
        let count = cut_off(&prepare, &["sign"], point, &|desk, at| {
            is_readable(desk, at);
            assert_eq!(desk.good(&[&["sign"][..], &AT].concat())["published"], true, "{at}");
            assert_eq!(desk.good(&["verify", "--repo", "repo"])["delegated"], 1, "{at}");
            assert_eq!(desk.good(&["show", "--repo", "repo"])["staged"], serde_json::json!([]), "{at}");
        });
        assert!(count >= 4, "{point}: {count}");
    }
}
