//! The local sockets as curl sees them: who may look, who may act, and what is left of those who may not.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use vigil_tests::device::{Device, Options};
use vigil_tests::image::{self, SOUND};
use vigil_tests::pki::Pki;
use vigil_tests::vendor::Vendor;
use vigil_tests::{free_port, wait_for};

const READERS: u32 = 54_321;
const ADMINS: u32 = 54_322;
const STRANGER: u32 = 12_345;

/// A device that no broker can be reached from.
struct Room {
    _directory: tempfile::TempDir,
    device: Device,
}

impl Room {
    fn new() -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "users can only be changed by root; run this test as root"
        );
        let directory = tempfile::tempdir()?;
        // Other users must be able to reach the sockets, as they are in /run.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let vendor = Vendor::new(&directory.path().join("vendor"))?;
        let pki = Pki::new(&directory.path().join("pki"))?;
        let factory = directory.path().join("1.0.0.img");
        image::build(&factory, "1.0.0", SOUND, 1 << 20)?;
        let mut options = Options::new("room-1", free_port()?, &pki);
        options.slot_bytes = 16 << 20;
        options.more = format!("[local]\nread_group = \"{READERS}\"\nadmin_group = \"{ADMINS}\"\n");
        let mut device = Device::new(&directory.path().join("device"), options, &vendor, &pki, &factory)?;
        device.power_on()?;
        wait_for("vigild to answer", Duration::from_secs(20), || device.vigil(&["status"]).ok())?;
        Ok(Self { _directory: directory, device })
    }

    /// The HTTP status and the body that curl gets.
    fn curl(&self, who: &[&str], socket: &str, method: &str, path: &str) -> anyhow::Result<(u16, Value)> {
        let socket = self.device.run_directory().join(socket);
        let curl = ["curl", "--silent", "--show-error", "--max-time", "60", "--write-out", "%{http_code}"];
        let mut words: Vec<&str> = who.iter().chain(&curl).copied().collect();
        words.extend(["--request", method, "--unix-socket"]);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(socket)
            .arg(format!("http://vigil{path}"))
            .stdin(Stdio::null())
            .current_dir("/");
        let output =
            command.output().context("curl and setpriv are needed; run tests/run, which installs them")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}", said());
        let (body, status) = text.split_at(text.len().saturating_sub(3));
        Ok((status.parse().with_context(said)?, serde_json::from_str(body).with_context(said)?))
    }
}

/// `setpriv` for a user of this number, primary group and supplementary groups.
fn user(uid: u32, gid: u32, groups: &[u32]) -> Vec<String> {
    let mut words = vec!["setpriv".to_owned(), format!("--reuid={uid}"), format!("--regid={gid}")];
    words.push(match groups {
        [] => "--clear-groups".to_owned(),
        _ => format!("--groups={}", groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    });
    words
}

fn words(who: &[String]) -> Vec<&str> {
    who.iter().map(String::as_str).collect()
}

#[test]
fn root_and_the_groups_look_members_of_the_admin_group_act_and_strangers_are_recorded() -> anyhow::Result<()>
{
    let room = Room::new()?;
    let status = "/v1/status";
    let (code, body) = room.curl(&[], "status.sock", "GET", status)?;
    assert_eq!((code, body["device"].as_str()), (200, Some("room-1")));
    assert_eq!(body["broker"]["connected"], false, "the daemon lives without a broker");

    let stranger = user(STRANGER, STRANGER, &[]);
    let (code, body) = room.curl(&words(&stranger), "status.sock", "GET", status)?;
    assert_eq!((code, body["error"]["code"].as_str()), (403, Some("not_permitted")));
    let find_refusal = || {
        let log = room.device.vigil(&["audit", "show", "--limit", "100"]).ok()?;
        log["entries"].as_array()?.iter().find(|entry| entry["event"] == "local.refused").cloned()
    };
    let entry = wait_for("the refusal in the audit log", Duration::from_secs(5), find_refusal)?;
    assert_eq!(entry["actor"], "uid:12345");
    assert_eq!(entry["outcome"], "refused");
    assert_eq!(entry["detail"]["request"], "GET /v1/status");

    for reader in [user(STRANGER, READERS, &[]), user(STRANGER, STRANGER, &[7, READERS])] {
        let who = words(&reader);
        for path in [status, "/v1/health", "/v1/update", "/v1/audit"] {
            assert_eq!(room.curl(&who, "status.sock", "GET", path)?.0, 200, "{reader:?} {path}");
        }
        assert_eq!(room.curl(&who, "admin.sock", "POST", "/v1/diagnose")?.0, 403, "{reader:?}");
        assert_eq!(room.curl(&who, "status.sock", "POST", "/v1/diagnose")?.0, 404, "{reader:?}");
    }

    let admin = user(STRANGER, STRANGER, &[ADMINS]);
    let (code, diagnosis) = room.curl(&words(&admin), "admin.sock", "POST", "/v1/diagnose")?;
    assert_eq!(code, 200, "{diagnosis}");
    assert!(diagnosis["evidence"].as_array().is_some_and(|evidence| !evidence.is_empty()), "{diagnosis}");
    assert!(diagnosis["verdict"]["domain"].is_string(), "{diagnosis}");
    Ok(())
}

#[test]
fn what_the_sockets_do_not_know_is_answered_and_not_hung_up_on() -> anyhow::Result<()> {
    let room = Room::new()?;
    assert_eq!(room.curl(&[], "status.sock", "GET", "/etc/passwd")?.0, 404);
    assert_eq!(room.curl(&[], "status.sock", "DELETE", "/v1/status")?.0, 405);
    assert_eq!(room.curl(&[], "status.sock", "GET", "/v1/audit?first=-1")?.0, 400);
    assert_eq!(room.curl(&[], "status.sock", "GET", "/v1/status")?.0, 200);
    Ok(())
}
