//! The command line against a broker in this process and a device that decides as real ones do.
// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use jiff::Timestamp;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::{Value, json};
use vigil_protocol::authorize::{Authorized, Device as Held, authorize};
use vigil_protocol::command::Kind;
use vigil_protocol::envelope::{DIGEST_TYPE, Envelope};
use vigil_protocol::keys::{PublicKey, sha256_hex};
use vigil_protocol::note::Checkpoint;
use vigil_protocol::operators::Operators;

const LIMIT: Duration = Duration::from_secs(30);
const NONCE: &str = "of-this-session";

/// A broker without a name or a password, for as long as the test runs.
fn broker() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // A port is free again before the broker has it: no other test of this process may be given the same.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = std::iter::repeat_with(free).find(|port| TAKEN.lock().unwrap().insert(*port)).unwrap();
    let config: rumqttd::Config = serde_json::from_value(json!({
        "id": 0,
        "router": { "id": 0, "max_connections": 100, "max_outgoing_packet_count": 200,
                    "max_segment_size": 10_485_760, "max_segment_count": 10 },
        "v5": { "plain": {
            "name": "plain", "listen": format!("127.0.0.1:{port}"), "next_connection_delay_ms": 1,
            "connections": { "connection_timeout_ms": 10_000, "max_payload_size": 262_144,
                             "max_inflight_count": 100, "dynamic_filters": true }
        } }
    }))
    .unwrap();
    let mut broker = rumqttd::Broker::new(config);
    std::thread::spawn(move || drop(broker.start()));
    let deadline = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the broker does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    port
}

/// A broker, the home of an operator whose key is `olga.pem`, and the list that names him.
struct Office {
    home: tempfile::TempDir,
    port: u16,
    operators: Operators,
}

impl Office {
    /// Olga and Otto may everything; a change of configuration takes both.
    fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut office = Self {
            home,
            port: broker(),
            operators: serde_json::from_value(json!({
                "v": 1, "tenant": "acme", "expires": "2099-01-01T00:00:00Z", "operators": [],
                "thresholds": {"config.apply": 2},
            }))
            .unwrap(),
        };
        let mut list = json!(office.operators);
        for name in ["olga", "otto"] {
            assert_eq!(office.run(&["key", "new", &format!("{name}.pem")]).0, 0);
            let pem = std::fs::read_to_string(office.path(&format!("{name}.pem"))).unwrap();
            let key = PublicKey::from(SigningKey::from_pkcs8_pem(&pem).unwrap().verifying_key());
            list["operators"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": name, "key": key, "devices": ["*"],
                "scopes": ["observe", "operate", "update", "admin"], "expires": "2099-01-01T00:00:00Z"}));
        }
        std::fs::write(office.path("operators.json"), list.to_string()).unwrap();
        office.operators = serde_json::from_value(list).unwrap();
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.home.path(), self.port, arguments)
    }

    /// The exit code, and all that was said.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code().unwrap(), text(&output))
    }

    /// The exit code, and the lines of JSON.
    fn json(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let output = self.command(&[&["--json"], arguments].concat()).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let values = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), values)
    }

    fn device(&self, id: &str, clock_doubtful: bool) -> Device {
        Device::power_on(self.port, id, self.operators.clone(), clock_doubtful)
    }
}

/// Runs `vigil-fleet` in a home of its own, so that the tester's settings have no say.
fn command(home: &Path, port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vigil-fleet"));
    let settings = ["--broker", &format!("mqtt://127.0.0.1:{port}"), "--allow-plaintext", "--tenant", "acme"];
    command.args(arguments).args(settings).current_dir(home).env_clear().env("HOME", home);
    if !arguments.contains(&"--operator-key") {
        command.args(["--operator-key", "olga.pem"]);
    }
    command.stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What a device says after its answer `accepted`: a topic's level and a message.
type Said = (String, Value);

/// A device that says how it is, decides about commands by the real rule, and plays what follows.
struct Device {
    id: String,
    key: SigningKey,
    client: Client,
    acknowledged: mpsc::Receiver<()>,
    said: BTreeMap<String, Value>,
    seq: u64,
    clock_doubtful: bool,
}

impl Device {
    fn power_on(port: u16, id: &str, operators: Operators, clock_doubtful: bool) -> Self {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 100);
        let (sender, acknowledged) = mpsc::channel();
        let (name, speaker) = (id.to_owned(), client.clone());
        let (subscriber, subscribed) = mpsc::channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    // As a real one does: after each new connection.
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        for topic in
                            [format!("vigil/v1/{name}/command"), "vigil/v1/group/floor-3/command".to_owned()]
                        {
                            speaker.try_subscribe(topic, QoS::AtLeastOnce).unwrap();
                        }
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(subscriber.send(())),
                    Ok(Event::Incoming(Packet::PubAck(_))) if sender.send(()).is_err() => return,
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        on_command(&speaker, &name, &operators, clock_doubtful, &publish.payload);
                    }
                    Ok(_) => {}
                    Err(error) => eprintln!("{name}: {error}; connecting again"),
                }
            }
        });
        for _ in 0..2 {
            subscribed.recv_timeout(LIMIT).unwrap();
        }
        let key = SigningKey::from_bytes(&[id.len() as u8; 32]);
        let said = BTreeMap::new();
        let mut device = Self { id: id.to_owned(), key, client, acknowledged, said, seq: 0, clock_doubtful };
        let key = PublicKey::from(device.key.verifying_key());
        device.say("presence", json!({"status": "online", "session": 7}));
        device.say(
            "inventory",
            json!({"tenant": "acme", "groups": ["floor-3"], "product": "bar", "hardware_revision": "a", "device_key": key}),
        );
        device.say("update", update("idle", "1.0.0"));
        device.say("config", json!({"overlay_version": 4, "effective": {"health": {"interval": "60s"}}}));
        device.sign(None);
        device
    }

    fn publish(&self, level: &str, payload: String) {
        // Those of answers to commands.
        while self.acknowledged.try_recv().is_ok() {}
        self.client
            .publish(format!("vigil/v1/{}/{level}", self.id), QoS::AtLeastOnce, true, payload)
            .unwrap();
        self.acknowledged.recv_timeout(LIMIT).unwrap();
    }

    fn say(&mut self, level: &str, body: Value) {
        self.seq += 1;
        let mut body = body;
        let head = json!({"v": 1, "device": self.id, "seq": self.seq, "at": "2026-06-01T12:00:00Z"});
        body.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
        self.publish(level, body.to_string());
        self.said.insert(level.to_owned(), body);
    }

    /// Publishes a digest over all that was said, signed by the device or by somebody else.
    fn sign(&mut self, forger: Option<&SigningKey>) {
        self.seq += 1;
        let topics: BTreeMap<_, _> = self
            .said
            .iter()
            .map(|(level, body)| {
                (level, json!({"seq": body["seq"], "sha256": sha256_hex(body.to_string().as_bytes())}))
            })
            .collect();
        let audit = Checkpoint { origin: format!("vigil/v1/{}/audit", self.id), size: 3, root: [1; 32] };
        let digest = json!({"v": 1, "device": self.id, "seq": self.seq, "at": "2026-06-01T12:00:00Z", "session": 7,
            "nonce": NONCE, "clock_doubtful": self.clock_doubtful, "topics": topics,
            "checkpoint": audit.sign(&self.key)});
        let key = forger.unwrap_or(&self.key);
        self.publish("digest", Envelope::sign(DIGEST_TYPE, digest.to_string().as_bytes(), key).to_json());
    }
}

fn update(state: &str, running: &str) -> Value {
    json!({"available": true, "state": state, "running_slot": "A",
        "running": {"version": running, "sequence": 1}, "floor": 1})
}

fn on_command(client: &Client, device: &str, operators: &Operators, clock_doubtful: bool, bytes: &[u8]) {
    let groups = ["floor-3".to_owned()];
    let held = Held { nonce: Some(NONCE), clock_doubtful, ..Held::new(device, "acme", &groups) };
    let result = |id: &str, kind: &str, status: &str, reason: &str, output: Value| {
        let body = json!({"v": 1, "device": device, "id": id, "kind": kind, "status": status, "reason": reason,
            "output": output, "at": Timestamp::now()});
        (format!("result/{id}"), body)
    };
    let story = match authorize(bytes, Some(operators), &held, Timestamp::now()) {
        Err(refusal) => {
            let (id, kind) = (refusal.claimed_id.unwrap(), refusal.claimed_kind.unwrap());
            vec![result(&id, &kind, "rejected", &refusal.reason.code(), Value::Null)]
        }
        Ok(authorized) => {
            let (id, kind) = (&authorized.command.id, &authorized.command.kind);
            let mut story = vec![result(id, kind, "accepted", "ok", Value::Null)];
            story.extend(play(device, &authorized, &|status, reason, output| {
                result(id, kind, status, reason, output)
            }));
            story
        }
    };
    for (level, body) in story {
        client
            .try_publish(format!("vigil/v1/{device}/{level}"), QoS::AtLeastOnce, false, body.to_string())
            .unwrap();
    }
}

fn play(device: &str, authorized: &Authorized, result: &dyn Fn(&str, &str, Value) -> Said) -> Vec<Said> {
    let command = &authorized.command;
    match authorized.kind {
        Kind::Diagnose => {
            let diagnosis = json!({"v": 1, "device": device, "id": command.id, "at": Timestamp::now(), "millis": 5,
                "evidence": [{"layer": "gateway", "subject": "192.0.2.1", "outcome": "failed", "code": "timeout",
                              "message": "does not answer"}],
                "verdict": {"domain": "lan", "summary": "The router is gone.", "advice": "Look at the cable."}});
            let output = json!({"verdict": diagnosis["verdict"]});
            vec![(format!("diagnosis/{}", command.id), diagnosis), result("succeeded", "ok", output)]
        }
        // What follows is told by the test, as it goes.
        Kind::UpdateInstall if command.args["version"] == "2.0.0" => vec![],
        Kind::UpdateInstall => {
            vec![result("failed", "update_failed", json!({"cause": "gate", "rolled_back": true}))]
        }
        Kind::UpdatePause => vec![result("failed", "not_now", Value::Null)],
        Kind::ConfigApply if command.args["expected_version"] == 4 => {
            vec![
                result("running", "ok", Value::Null),
                result("succeeded", "ok", json!({"overlay_version": 5})),
            ]
        }
        Kind::ConfigApply => vec![result("failed", "version_conflict", Value::Null)],
        _ => vec![result("succeeded", "ok", Value::Null)],
    }
}

#[test]
fn a_device_that_doubts_its_clock_obeys_with_the_nonce_that_its_pinned_key_signed() {
    let office = Office::open();
    let mut device = office.device("bar-1", true);
    let (code, said) = office.run(&["send", "bar-1", "ping"]);
    assert!(code == 1 && said.contains("nonce_required"), "{said}");
    let (code, said) = office.run(&["send", "bar-1", "ping", "--nonce"]);
    assert!(code == 1 && said.contains("--accept-new"), "{said}");
    let (code, said) = office.run(&["check", "bar-1", "--accept-new"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = office.run(&["send", "bar-1", "ping", "--nonce"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = office.run(&["diagnose", "bar-1", "--nonce"]);
    assert!(code == 1 && said.contains("verdict lan"), "{said}");
    let (code, said) = office.run(&["update", "bar-1", "--pause", "--nonce"]);
    assert!(code == 1 && said.contains("not_now"), "{said}");
    device.sign(Some(&SigningKey::from_bytes(&[99; 32])));
    let (code, said) = office.run(&["send", "bar-1", "ping", "--nonce"]);
    assert!(code == 1 && said.contains("not signed by the device's key"), "{said}");
    let (code, said) = office.run(&["send", "floor-3", "ping", "--group", "--nonce"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn ls_lists_the_devices_that_are_as_asked_for_also_in_json() {
    let office = Office::open();
    let _well = office.device("bar-1", false);
    let mut ill = office.device("phone-22", false);
    ill.say("incident/repository-frozen", json!({"severity": "major", "title": "Frozen"}));
    ill.say("presence", json!({"status": "lost", "session": 7}));
    let names = |arguments: &[&str]| -> Vec<String> {
        let (code, values) = office.json(&[&["ls"], arguments].concat());
        assert_eq!(code, 0, "{values:?}");
        values[0]["devices"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(names(&[]), ["bar-1", "phone-22"]);
    assert_eq!(names(&["--incident"]), ["phone-22"]);
    assert_eq!(names(&["--status", "online", "--group", "floor-3", "--update", "idle"]), ["bar-1"]);
    assert_eq!(names(&["--device", "phone-*", "--release", "1.0.0", "--product", "bar"]), ["phone-22"]);
    assert!(names(&["--status", "online", "--incident"]).is_empty());
    let (code, table) = office.run(&["ls"]);
    assert!(code == 0 && table.contains("INCIDENTS"), "{table}");
}

#[test]
fn a_change_of_configuration_is_shown_planned_signed_by_two_and_sent() {
    let office = Office::open();
    let _device = office.device("bar-1", false);
    let (code, said) = office.run(&["config", "show", "bar-1", "health"]);
    assert!(code == 0 && said.contains("health.interval = \"60s\""), "{said}");
    let (code, said) = office.run(&["config", "set", "bar-1", "health.interval=30s", "--dry-run"]);
    assert!(code == 0 && said.contains("\"60s\"") && said.contains("\"30s\""), "{said}");
    // One signature is too few.
    let (code, said) =
        office.run(&["config", "set", "bar-1", "health.interval=30s", "--confirm-within", "2m"]);
    assert!(code == 1 && said.contains("too_few_signatures"), "{said}");

    let apply =
        ["config.apply", "--arg", "expected_version=4", "--arg", "patch={\"health\":{\"interval\":\"30s\"}}"];
    let (code, said) = office.run(&[&["sign", "bar-1"], &apply[..], &["--out", "change.json"]].concat());
    assert!(code == 0 && said.contains("kind      config.apply") && said.contains("1 signature "), "{said}");
    let plan = ["plan", "--envelope", "change.json", "--operators", "operators.json"];
    let (code, said) = office.run(&plan);
    assert!(code == 1 && said.contains("too_few_signatures"), "{said}");
    let (code, said) = office.run(&[&plan[..], &["--signers", "otto"]].concat());
    assert_eq!(code, 0, "{said}");
    // What somebody else wrote is signed only by who says that he has seen it.
    let add = ["sign", "--add", "change.json", "--out", "change.json", "--operator-key", "otto.pem"];
    assert_eq!(office.run(&add).0, 2);
    let (code, said) = office.run(&[&add[..], &["--yes"]].concat());
    assert!(code == 0 && said.contains("expires") && said.contains("2 signatures"), "{said}");
    assert_eq!(office.run(&plan).0, 0);
    let (code, said) = office.run(&["send", "--envelope", "change.json"]);
    assert!(code == 0 && said.contains("overlay_version"), "{said}");
    assert_eq!(office.run(&["send", "bar-9", "--envelope", "change.json"]).0, 2);
}

#[test]
fn an_update_is_followed_to_its_end_line_by_line_where_no_terminal_is() {
    let office = Office::open();
    let mut device = office.device("bar-1", false);
    let mut writing = update("writing", "1.0.0");
    writing["progress"] = json!({"done_bytes": 50, "total_bytes": 200});
    let mut follow = |arguments: &[&str]| -> (i32, String) {
        device.say("update", update("idle", "1.0.0"));
        let mut child = office.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = String::new();
        let mut hear = |word: &str| {
            last = lines.by_ref().map(Result::unwrap).find(|line| line.contains(word)).unwrap_or_default();
            assert!(!last.is_empty(), "{word} was not said");
            last.clone()
        };
        hear("accepted");
        device.say("update", writing.clone());
        assert!(hear("writing").contains("25"));
        device.say("update", update("trial", "2.0.0"));
        hear("trial");
        // The last answer never comes: the retained state makes up for it.
        device.say("update", update("confirmed", "2.0.0"));
        hear("confirmed");
        let rest = lines.map(Result::unwrap).last().unwrap_or_default();
        (child.wait().unwrap().code().unwrap(), rest)
    };
    assert_eq!(follow(&["update", "bar-1", "2.0.0"]).0, 0);
    let (code, last) = follow(&["--json", "update", "floor-3", "--group", "2.0.0"]);
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((code, &last["devices"]["bar-1"]["end"]), (0, &json!("confirmed")));
    let (code, said) = office.run(&["update", "floor-3", "--group", "9.9.9"]);
    assert!(
        code == 1 && said.contains("inventories: 1, of them away: 0") && said.contains("1 rolled back"),
        "{said}"
    );
    let (code, said) = office.run(&["update", "bar-1", "--pause"]);
    assert!(code == 1 && said.contains("not_now"), "{said}");
    let (code, said) = office.run(&["update", "bar-7", "2.0.0", "--timeout", "1s"]);
    assert_eq!(code, 4, "{said}");
}

#[test]
fn a_diagnosis_is_shown_with_its_evidence_and_a_fault_is_exit_code_1() {
    let office = Office::open();
    let _device = office.device("bar-1", false);
    let (code, said) = office.run(&["diagnose", "bar-1"]);
    assert_eq!(code, 1, "{said}");
    for part in ["LAYER", "192.0.2.1", "verdict lan", "Look at the cable."] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_plan_names_each_device_of_a_group_and_what_speaks_against_it() {
    let office = Office::open();
    let _well = office.device("bar-1", false);
    let _doubtful = office.device("phone-22", true);
    let plan = [
        "plan",
        "--operators",
        "operators.json",
        "--group",
        "floor-3",
        "update.install",
        "--arg",
        "version=2.0.0",
    ];
    let (code, values) = office.json(&plan);
    let reason = |device: &str| values[0]["devices"][device]["reason"].clone();
    assert_eq!((code, reason("bar-1"), reason("phone-22")), (1, json!("ok"), json!("nonce_required")));
    let stranger = office.json(&[&plan[..], &["--signers", "nobody"]].concat());
    assert_eq!(stranger.0, 2, "{stranger:?}");
    let nowhere =
        ["plan", "--operators", "operators.json", "--group", "floor-9", "ping", "--signers", "olga"];
    assert_eq!(office.run(&nowhere).0, 1);
}

#[test]
fn those_who_watch_under_one_name_divide_the_messages() {
    let office = Office::open();
    let mut device = office.device("bar-1", false);
    let watch = || -> Child {
        office
            .command(&["--json", "watch", "--share", "store", "--count", "5", "--for", "30s"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut watchers = [watch(), watch()];
    let deadline = Instant::now() + LIMIT;
    while watchers.iter_mut().any(|watcher| watcher.try_wait().unwrap().is_none()) {
        assert!(Instant::now() < deadline, "they do not hear enough");
        device.say("health", json!({"load": [0.1, 0.1, 0.1]}));
        std::thread::sleep(Duration::from_millis(5));
    }
    let heard = watchers.map(|watcher| {
        let output = watcher.wait_with_output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let seqs =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["message"]["seq"].as_u64());
        seqs.map(Option::unwrap).collect::<Vec<_>>()
    });
    assert!(heard.iter().all(|seqs| seqs.len() == 5), "{heard:?}");
    assert!(heard[0].iter().all(|seq| !heard[1].contains(seq)), "both heard the same: {heard:?}");
    assert_eq!(office.run(&["watch", "--share", "a/b"]).0, 2);
}
