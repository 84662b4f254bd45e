use super::*;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use vigil_protocol::command::Scope;
use vigil_protocol::keys::PublicKey;
use vigil_protocol::operators::Operator;

const PREFIX: &str = "vigil/v1";

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn operators() -> Operators {
    let operator = |name: &str, seed: u8, scopes: &[Scope]| Operator {
        name: name.into(),
        key: PublicKey::from(SigningKey::from_bytes(&[seed; 32]).verifying_key()),
        scopes: scopes.to_vec(),
        devices: vec!["*".into()],
        groups: vec![],
        expires: "2026-07-01T00:00:00Z".parse().unwrap(),
    };
    Operators {
        v: 1,
        tenant: "acme".into(),
        expires: "2026-07-01T00:00:00Z".parse().unwrap(),
        operators: vec![
            operator("olga", 1, &[Scope::Observe, Scope::Operate, Scope::Update, Scope::Admin]),
            operator("otto", 2, &[Scope::Admin]),
        ],
        thresholds: [("config.apply".to_owned(), 2)].into(),
    }
}

fn command(kind: &str, args: Value) -> Command {
    Command {
        v: 1,
        id: "c-1".into(),
        kind: kind.into(),
        args: serde_json::from_value(args).unwrap(),
        tenant: "acme".into(),
        target: Target::Group("floor-3".into()),
        issued: "2026-06-01T11:59:00Z".parse().unwrap(),
        expires: "2026-06-01T12:10:00Z".parse().unwrap(),
        nonce: None,
    }
}

/// The fleet that a test speaks of, one message after the other.
#[derive(Default)]
struct Broker(Snapshot);

impl Broker {
    fn say(mut self, device: &str, level: &str, body: Value) -> Self {
        self.0.take(PREFIX, &format!("{PREFIX}/{device}/{level}"), body.to_string().as_bytes());
        self
    }

    /// A healthy device on floor 3 that runs 1.0.0.
    fn device(self, device: &str) -> Self {
        self.say(device, "presence", json!({"status": "online", "session": 1}))
            .say(
                device,
                "inventory",
                json!({"tenant": "acme", "groups": ["floor-3"], "product": "bar", "hardware_revision": "a"}),
            )
            .say(device, "config", json!({"overlay_version": 4, "effective": {}}))
            .say(device, "update", update(json!({})))
    }

    fn digest(self, device: &str, clock_doubtful: bool, at: &str) -> Self {
        let digest = json!({"v": 1, "device": device, "seq": 1, "at": at, "session": 1, "nonce": "fresh",
            "clock_doubtful": clock_doubtful, "topics": {}, "checkpoint": ""});
        let key = SigningKey::from_bytes(&[9; 32]);
        let envelope = Envelope::sign(DIGEST_TYPE, digest.to_string().as_bytes(), &key);
        self.say(device, "digest", json!(envelope))
    }

    fn ask(&self, command: &Command, signers: &[usize]) -> BTreeMap<String, Row> {
        let operators = operators();
        let question = Question { command, signers, operators: &operators, release: None, now: now() };
        self.0.ask(&question, false)
    }

    fn one(&self, command: &Command) -> (Would, String) {
        let row = self.ask(command, &[0]).remove("bar-1").unwrap();
        (row.would, row.reason)
    }
}

/// An `update` message: idle, with 1.0.0 running, but for what `over` says.
fn update(over: Value) -> Value {
    let mut update = json!({"available": true, "state": "idle", "running": {"version": "1.0.0", "sequence": 1},
        "floor": 1});
    for (name, value) in over.as_object().unwrap() {
        update[name] = value.clone();
    }
    update
}

fn refused(reason: &str) -> (Would, String) {
    (Would::Refuse, reason.to_owned())
}
fn obeyed() -> (Would, String) {
    (Would::Obey, "ok".to_owned())
}
fn unknown(reason: &str) -> (Would, String) {
    (Would::Unknown, reason.to_owned())
}

#[test]
fn only_devices_that_hear_the_command_are_planned_for() {
    let broker = Broker::default().device("bar-1").device("bar-2").say(
        "bar-2",
        "inventory",
        json!({"tenant": "acme", "groups": ["floor-4"], "product": "bar", "hardware_revision": "a"}),
    );
    let ping = command("ping", json!({}));
    assert_eq!(broker.ask(&ping, &[0]).keys().collect::<Vec<_>>(), ["bar-1"]);
    let operators = operators();
    let question =
        Question { command: &ping, signers: &[0], operators: &operators, release: None, now: now() };
    let all = broker.0.ask(&question, true);
    assert_eq!((all["bar-1"].would, all["bar-2"].reason.as_str()), (Would::Obey, "wrong_target"));
}

#[test]
fn the_devices_own_decision_is_taken_over_who_would_sign() {
    let broker = Broker::default().device("bar-1");
    let judge = |command: &Command, signers: &[usize]| broker.ask(command, signers)["bar-1"].reason.clone();
    let apply = command("config.apply", json!({"patch": {}, "expected_version": 4}));
    assert_eq!(judge(&command("ping", json!({})), &[]), "unknown_key");
    assert_eq!(judge(&command("ping", json!({})), &[1]), "not_permitted");
    assert_eq!(judge(&apply, &[0]), "too_few_signatures");
    assert_eq!(judge(&apply, &[0, 1]), "ok");
    let mut late = command("ping", json!({}));
    late.expires = now();
    assert_eq!(judge(&late, &[0]), "expired");
    let mut rival = command("ping", json!({}));
    rival.tenant = "rival".into();
    assert_eq!(judge(&rival, &[0]), "wrong_tenant");
}

#[test]
fn a_device_that_doubts_its_clock_wants_its_nonce_and_one_ahead_finds_the_command_expired() {
    let mut ping = command("ping", json!({}));
    let doubtful = Broker::default().device("bar-1").digest("bar-1", true, "1970-01-01T00:00:00Z");
    assert_eq!(doubtful.one(&ping), refused("nonce_required"));
    assert_eq!(doubtful.0.nonce("bar-1"), Some("fresh"));
    ping.nonce = Some("fresh".into());
    assert_eq!(doubtful.one(&ping), obeyed());
    ping.nonce = Some("stale".into());
    assert_eq!(doubtful.one(&ping), refused("wrong_nonce"));
    let ahead = Broker::default().device("bar-1").digest("bar-1", false, "2026-06-02T00:00:00Z");
    assert_eq!(ahead.one(&command("ping", json!({}))), refused("expired"));
}

#[test]
fn an_install_is_held_against_floor_quarantine_and_what_is_under_way() {
    let install = |over: Value, args: Value| {
        let broker = Broker::default().device("bar-1").say("bar-1", "update", update(over));
        broker.one(&command("update.install", args))
    };
    let two = json!({"version": "2.0.0"});
    assert_eq!(install(json!({}), two.clone()), obeyed());
    assert_eq!(install(json!({}), json!({"version": "two"})), refused("bad_argument"));
    assert_eq!(install(json!({}), json!({})), refused("bad_argument"));
    assert_eq!(install(json!({"available": false}), two.clone()), refused("updater_unavailable"));
    assert_eq!(install(json!({"state": "writing"}), two.clone()), refused("busy"));
    assert_eq!(install(json!({"state": "dancing"}), two.clone()), unknown("busy"));
    let quarantined = json!({"quarantined": ["releases/bar/2.0.0.json"]});
    assert_eq!(install(quarantined.clone(), two.clone()), refused("quarantined"));
    assert_eq!(install(quarantined, json!({"version": "2.0.0", "lift_quarantine": true})), obeyed());
    assert_eq!(install(json!({"floor": 3}), two), unknown("below_floor"));
}

#[test]
fn a_release_that_one_device_has_tells_its_sequence_for_the_others() {
    let floor = update(json!({"floor": 3, "running": {"version": "3.0.0", "sequence": 3}}));
    let other = json!({"slots": {"A": {"bootable": true, "release": {"version": "2.0.0", "sequence": 2}}}});
    let broker = Broker::default().device("bar-1").say("bar-1", "update", floor).device("bar-2").say(
        "bar-2",
        "update",
        update(other),
    );
    assert_eq!(broker.one(&command("update.install", json!({"version": "2.0.0"}))), refused("below_floor"));
    assert_eq!(broker.one(&command("update.install", json!({"version": "3.0.0"}))), obeyed());
}

#[test]
fn a_manifest_says_for_which_product_and_hardware_a_release_is() {
    let broker = Broker::default().device("bar-1");
    let install = command("update.install", json!({"version": "2.0.0"}));
    let operators = operators();
    let judge = |product: &str, hardware: &str, sequence: u64| {
        let release = Release {
            product: product.into(),
            hardware: vec![hardware.into()],
            version: "2.0.0".into(),
            sequence,
        };
        let question = Question {
            command: &install,
            signers: &[0],
            operators: &operators,
            release: Some(&release),
            now: now(),
        };
        broker.0.ask(&question, false)["bar-1"].reason.clone()
    };
    assert_eq!(judge("bar", "a", 2), "ok");
    assert_eq!(judge("phone", "a", 2), "not_for_device");
    assert_eq!(judge("bar", "b", 2), "not_for_device");
    assert_eq!(judge("bar", "a", 0), "below_floor");
}

#[test]
fn an_install_is_stopped_only_where_one_is_under_way() {
    let judge = |state: &str, paused: bool, kind: &str| {
        let broker = Broker::default().device("bar-1").say(
            "bar-1",
            "update",
            update(json!({"state": state, "paused": paused})),
        );
        broker.one(&command(kind, json!({}))).0
    };
    assert_eq!(judge("idle", false, "update.cancel"), Would::Refuse);
    assert_eq!(judge("writing", false, "update.cancel"), Would::Obey);
    assert_eq!(judge("trial", false, "update.cancel"), Would::Refuse);
    assert_eq!(judge("trial", false, "update.rollback"), Would::Obey);
    assert_eq!(judge("writing", false, "update.rollback"), Would::Refuse);
    assert_eq!(judge("writing", false, "update.pause"), Would::Obey);
    assert_eq!(judge("writing", true, "update.pause"), Would::Refuse);
    assert_eq!(judge("writing", true, "update.resume"), Would::Obey);
    assert_eq!(judge("rebooting", false, "update.pause"), Would::Refuse);
}

#[test]
fn a_change_of_configuration_is_held_against_the_overlays_version() {
    let broker = Broker::default().device("bar-1");
    let judge = |args: Value| broker.ask(&command("config.apply", args), &[0, 1])["bar-1"].reason.clone();
    assert_eq!(judge(json!({"patch": {}, "expected_version": 4})), "ok");
    assert_eq!(judge(json!({"patch": {}, "expected_version": 3})), "version_conflict");
    assert_eq!(judge(json!({"patch": {}})), "bad_argument");
    assert_eq!(judge(json!({"patch": 1, "expected_version": 4})), "bad_argument");
    assert_eq!(judge(json!({"patch": {}, "expected_version": 4, "confirm_within": 5})), "bad_argument");
}

#[test]
fn what_the_retained_state_does_not_tell_is_unknown_and_not_guessed() {
    let silent = Broker::default().say("bar-1", "presence", json!({"status": "online"}));
    assert_eq!(silent.one(&command("ping", json!({}))), unknown("no_inventory"));
    let broker = Broker::default().device("bar-1");
    assert_eq!(broker.one(&command("reboot", json!({}))), unknown("call_active"));
    assert_eq!(broker.one(&command("reboot", json!({"force": true}))), obeyed());
    assert_eq!(broker.one(&command("cancel", json!({"command": "c-0"}))), unknown("not_now"));
    let mut other = command("ping", json!({}));
    other.target = Target::Device("bar-9".into());
    assert_eq!(broker.ask(&other, &[0])["bar-9"].reason, "no_state");
    let away = broker.say("bar-1", "presence", json!({"status": "lost"}));
    let row = away.ask(&command("ping", json!({})), &[0]).remove("bar-1").unwrap();
    assert_eq!((row.would, row.note.starts_with("lost")), (Would::Obey, true));
}

#[test]
fn garbage_on_the_broker_is_as_if_it_were_missing() {
    let mut broker = Broker::default().device("bar-1");
    for level in Snapshot::LEVELS {
        broker.0.take(PREFIX, &format!("{PREFIX}/bar-1/{level}"), b"\xff");
    }
    assert_eq!(broker.one(&command("ping", json!({}))), unknown("no_inventory"));
}
