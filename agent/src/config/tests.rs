use super::*;
use crate::link::VersionChoice;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

const MINIMAL: &str = "[device]\nid = \"bar-1\"\ntenant = \"acme\"\nproduct = \"bar\"\n[broker]\nurl = \"mqtts://broker:8883\"\n";
const EXAMPLE: &str = include_str!("../../../packaging/vigil.toml");

fn load(text: &str) -> Result<Config, String> {
    load_with(text, None)
}

fn load_with(text: &str, overlay: Option<&str>) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vigil.toml");
    std::fs::write(&path, text).unwrap();
    let overlay_path = directory.path().join("overlay.json");
    if let Some(overlay) = overlay {
        std::fs::write(&overlay_path, overlay).unwrap();
    }
    Config::load(&path, Some(&overlay_path))
        .map_err(|error| error.to_string().replace(&directory.path().display().to_string(), ""))
}

/// The example with every commented key switched on.
fn example_in_full() -> String {
    EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        })
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let config = load(MINIMAL).unwrap();
    assert_eq!(config.broker.keep_alive, Duration::from_mins(1));
    assert_eq!(config.repository.refresh_interval, Duration::from_hours(6));
    assert_eq!(config.audit.max_bytes, 64 << 20);
    assert_eq!(config.outbox.max_flash_bytes_per_day, 16 << 20);
    assert_eq!(config.device.hardware_revision, "r1");
    assert_eq!(config.client_cert_file(), Path::new("/var/lib/vigil/identity/tls.crt"));
    assert!(config.warnings.is_empty());
}

#[test]
fn the_example_file_is_valid_as_it_is_and_in_full_and_names_every_key() {
    load(EXAMPLE).unwrap();
    let full = load(&example_in_full()).unwrap();
    let tree: Value = toml::from_str(&example_in_full()).unwrap();
    let mut keys = Vec::new();
    collect_keys("", &full.redacted(), &mut keys);
    for key in keys {
        assert!(tree.pointer(&key).is_some(), "packaging/vigil.toml does not name {key}");
    }
}

#[test]
fn the_defaults_that_the_example_shows_are_the_defaults() {
    let (minimal, full) = (load(EXAMPLE).unwrap().redacted(), load(&example_in_full()).unwrap().redacted());
    let mut keys = Vec::new();
    collect_keys("", &minimal, &mut keys);
    for key in keys {
        let default = minimal.pointer(&key).unwrap();
        if !default.is_null() && !default.is_array() {
            assert_eq!(full.pointer(&key), Some(default), "{key}");
        }
    }
}

fn collect_keys(at: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                collect_keys(&format!("{at}/{key}"), value, keys);
            }
        }
        Value::Array(list) if !list.is_empty() => collect_keys(&format!("{at}/0"), &list[0], keys),
        _ => keys.push(at.to_owned()),
    }
}

#[test]
fn a_problem_names_file_line_and_what_would_be_right() {
    let cases = [
        (
            "[health]\nintervall = \"5s\"",
            "/vigil.toml:8: unknown key \"intervall\" in [health]; expected one of interval, max_silence, deadbands",
        ),
        ("[health]\n\ninterval = \"2h\"", "/vigil.toml:9: interval = \"2h\": must be between 1s and 1h"),
        (
            "[health]\ninterval = 5",
            "/vigil.toml:8: interval = 5: invalid type: integer `5`, expected a string",
        ),
        (
            "[health.deadbands]\ncpu_permille = 1001",
            "/vigil.toml:8: cpu_permille = 1001: must be between 0 and 1000",
        ),
        (
            "[audit]\nmax_bytes = \"2GiB\"",
            "/vigil.toml:8: max_bytes = \"2GiB\": must be between 1 MiB and 1024 MiB",
        ),
        (
            "[outbox]\nmax_flash_bytes_per_day = 4096",
            "/vigil.toml:8: max_flash_bytes_per_day = 4096: must be between 1 MiB and 1024 MiB",
        ),
        ("[audit]\nmax_bytes = true", "must be a number of bytes or a text such as \"64MiB\""),
        (
            "[log]\nlevel = \"loud\"",
            "/vigil.toml:8: level = \"loud\": unknown variant `loud`, expected one of `error`",
        ),
        ("[lokal]", "/vigil.toml:7: unknown section [lokal]; expected one of device, paths"),
        (
            "[repository]\nurl = \"ftp://x/\"",
            "/vigil.toml:8: url = \"ftp://x/\": must be \"https://host/path/\"",
        ),
        (
            "[repository]\nmirrors = [\"https://a/\", \"https://user@b/\"]",
            "must be \"https://host/path/\" without user",
        ),
        (
            "[repository]\nmirrors = [\"http://a\", \"http://b\", \"http://c\", \"http://d\", \"http://e\"]",
            "must be 4 addresses at most",
        ),
        (
            "[[network.partners]]\nname = \"a\"\nhost = \"x:443\"",
            "/vigil.toml:9: host = \"x:443\": must be a host name",
        ),
        (
            "[[network.partners]]\nname = \"a\"\nhost = \"x\"\nport = 0",
            "/vigil.toml:10: port = 0: must be a TCP port",
        ),
        (
            "[paths]\nstate = \"relative\"",
            "/vigil.toml:8: state = \"relative\": must be a path that begins with '/'",
        ),
        (
            "[health]\ninterval = \"10m\"\nmax_silence = \"5m\"",
            "/vigil.toml:9: [health] max_silence: must not be below",
        ),
        ("[health\n", "/vigil.toml:7:"),
    ];
    for (text, expected) in cases {
        let problem = load(&format!("{MINIMAL}{text}\n")).unwrap_err();
        assert!(problem.contains(expected), "{text}:\n{problem}\nis not\n{expected}");
    }
}

#[test]
fn one_problem_of_every_section_is_reported_in_one_go() {
    let problems =
        load("[device]\nid = \"a/b\"\n[health]\ninterval = \"0s\"\n[log]\nlevel = 1\n").unwrap_err();
    assert_eq!(problems.lines().count(), 4, "{problems}");
    assert!(problems.contains("[broker] has no \"url\"; it must be set"), "{problems}");
}

#[test]
fn plaintext_needs_a_switch_and_never_carries_a_password() {
    let plain = MINIMAL.replace("mqtts", "mqtt");
    assert!(load(&plain).unwrap_err().contains(":6: [broker] url: mqtt:// is refused"));
    let allowed = load(&format!("{plain}allow_plaintext = true\n")).unwrap();
    let url = BrokerUrl { tls: false, host: "broker".to_owned(), port: 8883, websocket: None };
    assert_eq!(allowed.broker.url, url);
    let password = format!("{plain}allow_plaintext = true\nusername = \"a\"\npassword_file = \"/p\"\n");
    assert!(load(&password).unwrap_err().contains("never sent over mqtt://"));
}

#[test]
fn a_broker_behind_websockets_has_a_path_and_the_ports_of_the_web() {
    let of = |url: &str| BrokerUrl::try_from(url.to_owned()).map(String::from);
    assert_eq!(of("wss://broker").unwrap(), "wss://broker:443/mqtt");
    assert_eq!(of("wss://broker/").unwrap(), "wss://broker:443/mqtt");
    assert_eq!(of("wss://[2001:db8::1]:8443/a/b").unwrap(), "wss://[2001:db8::1]:8443/a/b");
    assert_eq!(of("ws://broker").unwrap(), "ws://broker:80/mqtt");
    for wrong in ["wss://u:p@broker", "wss://broker/?a=b", "mqtts://broker/mqtt", "https://broker"] {
        assert!(of(wrong).unwrap_err().contains("wss://host:port/path"), "{wrong}");
    }
    let plain = MINIMAL.replace("mqtts", "ws");
    assert!(load(&plain).unwrap_err().contains(":6: [broker] url: ws:// is refused"));
}

#[test]
fn a_proxy_is_named_without_its_credentials() {
    let with = |more: &str| load(&format!("{MINIMAL}{more}\n"));
    let proxy = with("proxy = \"http://[2001:db8::1]:3128\"").unwrap().broker.proxy.clone().unwrap();
    assert_eq!(proxy, ProxyUrl::Http { host: "2001:db8::1".to_owned(), port: 3128 });
    assert_eq!(with("proxy = \"none\"").unwrap().broker.proxy, Some(ProxyUrl::None));
    for wrong in ["http://olga:hunter2@proxy", "https://proxy", "socks5://proxy", "http://proxy/path"] {
        let problem = with(&format!("proxy = {wrong:?}")).unwrap_err();
        assert!(problem.contains("http://host:port") && !problem.contains("hunter2"), "{problem}");
    }
    for (more, problem) in [
        ("proxy_username = \"a\"", "needs proxy ="),
        ("proxy = \"http://p\"\nproxy_password_file = \"/p\"", "needs a proxy_username"),
        ("proxy = \"http://p\"\nproxy_username = \"a:b\"", "must not have a ':'"),
    ] {
        assert!(with(more).unwrap_err().contains(problem), "{more}");
    }
}

#[test]
fn alpn_is_a_short_list_and_needs_tls() {
    let with =
        |broker: &str, list: &str| load(&format!("{}alpn = {list}\n", MINIMAL.replace("mqtts", broker)));
    assert_eq!(with("mqtts", "[\"mqtt\"]").unwrap().broker.alpn, ["mqtt"]);
    for wrong in ["[\"\"]", "[1]", "\"mqtt\"", "[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]"] {
        assert!(with("mqtts", wrong).is_err(), "{wrong}");
    }
    assert!(with("mqtt", "[\"mqtt\"]\nallow_plaintext = true").unwrap_err().contains("is part of TLS"));
}

#[test]
fn the_version_of_mqtt_is_one_of_three_words() {
    let with = |text: &str| load(&format!("{MINIMAL}mqtt_version = {text}\n"));
    assert_eq!(load(MINIMAL).unwrap().broker.mqtt_version, VersionChoice::Auto);
    assert_eq!(with("\"3.1.1\"").unwrap().broker.mqtt_version, VersionChoice::V4);
    for wrong in ["5", "\"4\"", "\"v5\"", "3.1"] {
        let problem = with(wrong).unwrap_err();
        assert!(problem.contains(":7:"), "{problem}");
    }
}

#[test]
fn hosts_to_be_sent_to_are_hosts_and_need_tls() {
    let with = |broker: &str, list: &str| {
        load(&format!("{}redirect_hosts = {list}\n", MINIMAL.replace("mqtts", broker)))
    };
    assert_eq!(with("mqtts", "[\"*.a.example\", \"::1\"]").unwrap().broker.redirect_hosts.len(), 2);
    for wrong in ["[\"*\"]", "[\"a.*\"]", "[\"mqtt://a\"]", "[\"a:1\"]", "\"a\""] {
        assert!(with("mqtts", wrong).is_err(), "{wrong}");
    }
    assert!(with("mqtt", "[\"a\"]\nallow_plaintext = true").unwrap_err().contains("needs TLS"));
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let problem = load(&MINIMAL.replace("//broker", "//user:hunter2@broker")).unwrap_err();
    assert!(problem.contains(":6:") && !problem.contains("hunter2"), "{problem}");
}

#[test]
fn a_file_that_is_huge_binary_or_missing_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vigil.toml");
    assert!(Config::load(&path, None).unwrap_err().to_string().contains("put one there"));
    std::fs::write(&path, vec![b'#'; 65_537]).unwrap();
    assert!(matches!(Config::load(&path, None), Err(ConfigError::Read { .. })));
    std::fs::write(&path, b"\n\xff\xfe").unwrap();
    assert!(Config::load(&path, None).unwrap_err().to_string().contains(":2: not UTF-8"));
}

#[test]
fn an_overlay_changes_what_it_names_and_resets_what_it_makes_null() {
    let text = format!("{MINIMAL}[health]\ninterval = \"10s\"\nmax_silence = \"2h\"\n");
    let overlay =
        json!({"v": 1, "version": 7, "settings": {"health": {"interval": null, "deadbands": {"load": 2}}}});
    let config = load_with(&text, Some(&overlay.to_string())).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.overlay_version, 7);
    assert_eq!(config.health.interval, Duration::from_mins(1));
    assert_eq!(config.health.max_silence, Duration::from_hours(2));
    assert!((config.health.deadbands.load - 2.0).abs() < f64::EPSILON);
}

#[test]
fn an_overlay_that_is_damaged_too_new_or_invalid_is_ignored_and_reported() {
    let cases = [
        "",
        "{\"v\":1",
        "\u{0}\u{1}",
        "[]",
        r#"{"v":2,"version":1,"settings":{}}"#,
        r#"{"v":1,"version":1,"settings":3}"#,
        r#"{"v":1,"version":1,"settings":{"health":{"interval":"2h"}}}"#,
        r#"{"v":1,"version":1,"settings":{"health":{"intervall":"1m"}}}"#,
        r#"{"v":1,"version":1,"settings":{"helth":{}}}"#,
        r#"{"v":1,"version":1,"settings":{"broker":{"url":"mqtt://broker"}}}"#,
        &format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000)),
        &" ".repeat(70_000),
    ];
    for overlay in cases {
        let config = load_with(MINIMAL, Some(overlay)).unwrap();
        assert_eq!(config.overlay_version, 0);
        assert_eq!(config.warnings.len(), 1, "{overlay:.60}: {:?}", config.warnings);
        assert_eq!(config.broker.url.host, "broker");
    }
}

#[test]
fn an_overlay_never_changes_who_the_device_is_or_where_its_stores_lie() {
    let text = format!("{MINIMAL}[paths]\nstate = \"/data/vigil\"\n");
    let cases = [
        (json!({"device": {"tenant": "evil"}}), vec!["[device] tenant"]),
        (json!({"device": {"groups": null}, "paths": {"run": "/r"}}), vec!["[device] groups", "[paths] run"]),
        (json!({"device": null}), vec!["[device]"]),
        (json!({"paths": {}}), vec!["[paths]"]),
        (json!({"paths": {"state": "/data/vigil"}, "log": {"level": "debug"}}), vec!["[paths] state"]),
    ];
    for (settings, keys) in cases {
        let overlay = json!({"v": 1, "version": 3, "settings": settings}).to_string();
        let config = load_with(&text, Some(&overlay)).unwrap();
        assert_eq!((config.overlay_version, config.log.level), (0, LogLevel::Info), "{overlay}");
        assert_eq!(config.warnings.len(), keys.len(), "{overlay}: {:?}", config.warnings);
        for (warning, key) in config.warnings.iter().zip(keys) {
            assert!(warning.contains(&format!("{key} belongs to the image's configuration")), "{warning}");
            assert!(warning.ends_with("the overlay is ignored, the default applies"), "{warning}");
        }
    }
}

#[test]
fn no_command_sends_a_file_of_the_device_away_or_opens_its_door() {
    let text = format!("{MINIMAL}password_file = \"/etc/vigil/password\"\nusername = \"bar\"\n");
    let refused = |text: &str, settings: Value| {
        let overlay = json!({"v": 1, "version": 3, "settings": settings}).to_string();
        let config = load_with(text, Some(&overlay)).unwrap();
        assert_eq!(config.overlay_version, 0, "{overlay}");
        config.warnings.join("\n")
    };
    // The device's private key as the password of a proxy.
    let theft = json!({"broker": {
        "proxy": "http://attacker:3128", "proxy_username": "x",
        "proxy_password_file": "/var/lib/vigil/identity/device.key",
    }});
    let warnings = refused(MINIMAL, theft);
    for key in ["proxy", "proxy_username", "proxy_password_file"] {
        assert!(warnings.contains(&format!("[broker] {key} belongs to the image")), "{warnings}");
    }
    for settings in [
        json!({"broker": {"ca_file": "/tmp/ca"}}),
        json!({"broker": {"client_cert_file": "/etc/shadow"}}),
        json!({"broker": {"password_file": "/etc/shadow"}}),
        json!({"broker": {"allow_plaintext": true}}),
        json!({"repository": {"ca_file": null}}),
        json!({"network": {"partners": [{"name": "a", "host": "b", "ca_file": "/etc/shadow"}]}}),
        json!({"local": {"read_group": "users"}}),
        json!({"local": {}}),
        json!({"audit": {"max_bytes": "1MiB"}}),
        json!({"room": {"reboot": ["/bin/sh"]}}),
    ] {
        assert!(refused(MINIMAL, settings.clone()).contains("cannot be changed remotely"), "{settings}");
    }
    let elsewhere = json!({"broker": {"url": "mqtts://attacker"}});
    assert!(refused(&text, elsewhere.clone()).contains("password_file"));
    let overlay = json!({"v": 1, "version": 3, "settings": elsewhere}).to_string();
    assert_eq!(load_with(MINIMAL, Some(&overlay)).unwrap().broker.url.host, "attacker", "without a password");
}

#[test]
fn the_check_reports_files_that_are_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vigil.toml");
    std::fs::write(&path, format!("{MINIMAL}ca_file = \"/nowhere/ca.crt\"\n")).unwrap();
    let warnings = Config::check(&path, None).unwrap();
    assert!(warnings[0].starts_with("broker.ca_file = /nowhere/ca.crt:"), "{warnings:?}");
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_a_clear_error(text in "[\\[\\]a-z=\"\n 0-9.]{0,200}") {
        let _ = file::parse("f", text.as_bytes());
    }

    #[test]
    fn a_duration_that_is_shown_reads_back(seconds in 0u64..10_000_000) {
        let duration = Duration::from_secs(seconds);
        prop_assert_eq!(values::duration::parse(&values::duration::show(duration)), Some(duration));
    }

    #[test]
    fn broker_urls_are_parsed_or_refused_without_panic(text in "\\PC{0,40}") {
        if let Ok(url) = BrokerUrl::try_from(text) {
            prop_assert_eq!(BrokerUrl::try_from(String::from(url.clone())), Ok(url));
        }
    }
}
