//! The ways to a broker, each with its real peer: through a proxy, in a WebSocket, in MQTT 3.1.1, at another broker than
//! the configured one, and what becomes of a connection whose packets stop.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::tokio_rustls::TlsAcceptor;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{ServerConfig, crypto};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vigil_tests::device::Daemon;
use vigil_tests::free_port;
use vigil_tests::hostile::connack;
use vigil_tests::hostile::packet::text;
use vigil_tests::pki::Pki;
use vigil_tests::proxy::Tinyproxy;
use vigil_tests::room::{DEVICE, Room};

/// A device at a Mosquitto, with these lines in `[broker]`, which may say `{port}` for the broker's port.
fn room(lines: &str) -> Room {
    room_with(lines, &[])
}

fn room_with(lines: &str, environment: &[(&str, String)]) -> Room {
    Room::with(|options| {
        options.broker.push_str(lines);
        let environment = environment.iter();
        options.environment =
            environment.map(|(name, value)| (Daemon::Vigild, (*name).to_owned(), value.clone())).collect();
    })
    .unwrap()
}

/// The reason why there is no connection.
fn failure(room: &Room, contains: &str) {
    room.wait(&format!("an error about {contains:?}"), |status| {
        status["broker"]["last_error"].as_str()?.contains(contains).then_some(())
    })
    .unwrap();
}

/// Everything between device and operator works.
fn serves(room: &Room) {
    room.wait_ready().unwrap();
    assert_eq!(room.send("ping", &[]).unwrap(), "ok");
}

fn write(room: &Room, name: &str, content: &str) -> String {
    let path = room.directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Replaces a text in the device's configuration, and starts vigild anew.
fn reconfigure(room: &mut Room, from: &str, to: &str) {
    let path = room.device.disk.join("etc/vigil.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    room.device.daemon(Daemon::Vigild).unwrap().kill();
    room.device.start_vigild().unwrap();
}

#[test]
fn a_device_reaches_its_broker_through_a_proxy_and_says_which_key_a_refusal_is_about() {
    let port = free_port().unwrap();
    let mut room = room(&format!("proxy = \"http://localhost:{port}\"\n"));
    let target = room.broker_port().unwrap();
    let directory = room.directory.path().join("proxy");
    let proxy = Tinyproxy::start(&directory, port, target, Some(("room", "s3cret"))).unwrap();
    room.device.power_on().unwrap();
    failure(&room, "wants credentials (407): set broker.proxy, broker.proxy_username");

    let password = write(&room, "proxy-password", "wrong\n");
    let line = format!("proxy = \"http://localhost:{port}\"\n");
    let with = format!("{line}proxy_username = \"room\"\nproxy_password_file = {password:?}\n");
    reconfigure(&mut room, &line, &with);
    failure(&room, "correct broker.proxy_username and broker.proxy_password_file");

    write(&room, "proxy-password", "s3cret\n");
    reconfigure(&mut room, "room", "room");
    serves(&room);
    assert!(proxy.asked_for(&format!("CONNECT localhost:{target}")), "the name is the proxy's to resolve");

    drop(proxy);
    let closed = free_port().unwrap();
    let _other = Tinyproxy::start(&directory, port, closed, None).unwrap();
    failure(&room, "does not allow a connection to localhost:");
}

#[test]
fn the_environment_names_a_proxy_and_the_hosts_that_it_is_not_for() {
    let port = free_port().unwrap();
    let of_proxy = ("https_proxy", format!("http://room:s3cret@127.0.0.1:{port}"));
    let mut through = room_with("", std::slice::from_ref(&of_proxy));
    let target = through.broker_port().unwrap();
    let directory = through.directory.path().join("proxy");
    let proxy = Tinyproxy::start(&directory, port, target, Some(("room", "s3cret"))).unwrap();
    through.device.power_on().unwrap();
    serves(&through);
    assert!(proxy.asked_for(&format!("CONNECT localhost:{target}")));

    let mut past = room_with("", &[of_proxy.clone(), ("no_proxy", "example.com,localhost".to_owned())]);
    past.device.power_on().unwrap();
    past.wait_ready().unwrap();
    let target = past.broker_port().unwrap();
    assert!(!proxy.asked_for(&format!("localhost:{target}")), "NO_PROXY excepts it");
    let mut none = room_with("proxy = \"none\"\n", &[of_proxy]);
    none.device.power_on().unwrap();
    none.wait_ready().unwrap();
    let target = none.broker_port().unwrap();
    assert!(!proxy.asked_for(&format!("localhost:{target}")), "the configuration excepts all");
}

#[test]
fn a_device_reaches_its_broker_in_a_websocket_with_tls_and_through_a_proxy() {
    let (port, web) = (free_port().unwrap(), free_port().unwrap());
    let mut room = room("");
    let usual = room.broker_port().unwrap();
    let (certificate, key) = room.pki().server().unwrap();
    let ca = room.pki().ca();
    let listener = format!(
        "listener {web}\nprotocol websockets\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
         use_identity_as_username true\n",
        ca.display(),
        certificate.display(),
        key.display()
    );
    room.broker().unwrap().configure(&listener).unwrap();
    let plain = format!("mqtts://localhost:{usual}");
    room.device.power_on().unwrap();
    serves(&room);
    // The largest that is published, and the smallest, go through frames.
    reconfigure(&mut room, &plain, &format!("wss://localhost:{web}/mqtt"));
    serves(&room);
    assert_eq!(room.status().unwrap()["broker"]["url"], format!("wss://localhost:{web}/mqtt"));

    let proxy = Tinyproxy::start(&room.directory.path().join("proxy"), port, web, None).unwrap();
    let url = format!("url = \"wss://localhost:{web}/mqtt\"");
    reconfigure(&mut room, &url, &format!("{url}\nproxy = \"http://127.0.0.1:{port}\""));
    serves(&room);
    assert!(proxy.asked_for(&format!("CONNECT localhost:{web}")));

    // The port without WebSockets: whatever it answers, it is no HTTP.
    reconfigure(&mut room, &url, &format!("url = \"wss://localhost:{usual}\""));
    failure(&room, "does not allow a connection to");
    reconfigure(&mut room, &format!("proxy = \"http://127.0.0.1:{port}\""), "proxy = \"none\"");
    failure(&room, "WebSocket with localhost:");
}

#[test]
fn a_broker_that_wants_a_certificate_says_so_after_the_handshake_and_is_understood() {
    let mut room = room("client_cert_file = \"/nonexistent\"\n");
    room.device.power_on().unwrap();
    failure(&room, "see broker.client_cert_file");
}

#[test]
fn a_device_speaks_3_1_1_where_it_is_told_to() {
    let mut room = room("mqtt_version = \"3.1.1\"\n");
    room.device.power_on().unwrap();
    serves(&room);
    let status = room.status().unwrap();
    assert_eq!(status["broker"]["mqtt"], "3.1.1");
    // All state stands under the digest, as with 5.
    let known = write(&room, "known.json", "{\"v\":1,\"devices\":{}}");
    std::fs::remove_file(&known).unwrap();
    let output = room.operator().unwrap().run(&["check", DEVICE, "--accept-new", "--known", &known]).unwrap();
    assert!(output.status.success(), "{output:?}");
    // A connection that is cut: the will is there at once, and the birth after it.
    room.broker().unwrap().kill();
    failure(&room, "connection");
    room.broker().unwrap().resume().unwrap();
    serves(&room);
}

#[test]
fn a_broker_without_5_is_found_out_and_spoken_to_in_3_1_1() {
    let port = free_port().unwrap();
    std::thread::spawn(move || vigil_tests::broker::serve_rumqttd(port, true));
    let mut room = Room::elsewhere(|options| {
        options.broker = format!(
            "url = \"mqtt://127.0.0.1:{port}\"\nallow_plaintext = true\nkeep_alive = \"10s\"\nbackoff_max = \"1s\"\nfleet_size = 1\n"
        );
    })
    .unwrap();
    room.device.power_on().unwrap();
    room.wait("the connection in 3.1.1", |status| {
        let broker = &status["broker"];
        (broker["connected"] == true && broker["mqtt"] == "3.1.1" && broker["waiting"] == false).then_some(())
    })
    .unwrap();
}

/// A server for TLS that answers CONNECT and no more, and how often it did.
struct Redirector {
    port: u16,
    asked: Arc<AtomicU32>,
    /// What it answers; the port of the other one is known late.
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Redirector {
    fn start(pki: &Pki) -> Self {
        let (certificate, key) = pki.server().unwrap();
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, answer) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let redirector = Self { port, asked: Arc::clone(&asked), answer: Arc::clone(&answer) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                while let Ok((stream, _)) = listener.accept().await {
                    let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                    let mut connect = [0; 2048];
                    if stream.read(&mut connect).await.unwrap_or(0) > 0 {
                        asked.fetch_add(1, Ordering::SeqCst);
                        let answer = answer.lock().unwrap().clone();
                        let _ = stream.write_all(&answer).await;
                        let _ = stream.shutdown().await;
                    }
                }
            });
        });
        redirector
    }

    /// From now on it sends everybody to these servers.
    fn send_to(&self, servers: &str, reason: u8) {
        let reference = [&[28][..], &text(servers)].concat();
        let properties = [&[reference.len() as u8][..], &reference].concat();
        *self.answer.lock().unwrap() = connack(false, reason, &properties);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A device that is configured for a redirector, and its Mosquitto.
fn redirected(allowed: &str) -> (Room, Redirector) {
    let mut room = room(&format!("redirect_hosts = {allowed}\n"));
    let redirector = Redirector::start(room.pki());
    let port = room.broker_port().unwrap();
    // It restarts, with the certificate that was made anew.
    room.broker().unwrap().configure("").unwrap();
    let path = room.device.disk.join("etc/vigil.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let config = config.replace(&format!("localhost:{port}"), &format!("localhost:{}", redirector.port));
    std::fs::write(&path, config).unwrap();
    (room, redirector)
}

#[test]
fn a_device_goes_where_its_broker_sends_it_if_the_configuration_allows_the_host() {
    let (mut room, redirector) = redirected("[\"localhost\"]");
    let port = room.broker_port().unwrap();
    redirector.send_to(&format!("localhost:{port}"), 0x9c);
    room.device.power_on().unwrap();
    serves(&room);
    assert_eq!(room.status().unwrap()["broker"]["sent_to"], format!("localhost:{port}"));
    let asked = redirector.asked();
    // For one connection: the next begins at the configured one, which now sends it there for good.
    redirector.send_to(&format!("localhost:{port}"), 0x9d);
    room.broker().unwrap().kill();
    room.broker().unwrap().resume().unwrap();
    vigil_tests::wait_for("the configured broker to be asked", Duration::from_secs(30), || {
        (redirector.asked() > asked).then_some(())
    })
    .unwrap();
    serves(&room);
}

#[test]
fn a_device_stays_where_the_configuration_does_not_allow_the_host_or_the_certificate_is_for_another() {
    let (mut room, redirector) = redirected("[\"*.example.com\", \"127.0.0.2\"]");
    let port = room.broker_port().unwrap();
    redirector.send_to(&format!("localhost:{port}"), 0x9c);
    room.device.power_on().unwrap();
    failure(&room, "which broker.redirect_hosts does not allow");
    redirector.send_to(&format!("mqtt://localhost:{port}"), 0x9d);
    failure(&room, "mqtt://localhost");
    // Allowed, reached, and not who it says it is: the certificate is for localhost and 127.0.0.1.
    let other = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let other_port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in other.incoming().map_while(Result::ok) {
            let mut broker = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut up, mut down) = (stream.try_clone().unwrap(), broker.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up, &mut broker));
            std::thread::spawn(move || std::io::copy(&mut down, &mut stream));
        }
    });
    redirector.send_to(&format!("127.0.0.2:{other_port}"), 0x9c);
    failure(&room, "broker.url must name it as its certificate does");
    assert_eq!(room.status().unwrap()["broker"]["connected"], false);
}

#[test]
fn two_brokers_that_send_a_device_to_each_other_are_left_after_three_turns() {
    let (mut room, one) = redirected("[\"localhost\"]");
    let other = Redirector::start(room.pki());
    one.send_to(&format!("localhost:{}", other.port), 0x9c);
    other.send_to(&format!("localhost:{}", one.port), 0x9c);
    reconfigure_before_start(&room, "backoff_max = \"2s\"", "backoff_min = \"1h\"\nbackoff_max = \"1h\"");
    room.device.power_on().unwrap();
    failure(&room, "in circles");
    assert_eq!((one.asked(), other.asked()), (2, 2), "the first, and three that it was sent to");
}

fn reconfigure_before_start(room: &Room, from: &str, to: &str) {
    let path = room.device.disk.join("etc/vigil.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

/// In a network of its own, so that its packets can be dropped without anybody else's.
#[test]
fn a_connection_whose_packets_stop_is_left_within_one_and_a_half_keep_alives() {
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args([
            "--net",
            own.to_str().unwrap(),
            "--exact",
            "in_a_network_of_its_own",
            "--ignored",
            "--nocapture",
        ])
        .env("VIGIL_BINARIES", vigil_tests::binaries().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{said}");
}

fn system(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{command}");
}

#[test]
#[ignore = "runs inside another one"]
fn in_a_network_of_its_own() {
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    assert_eq!(interfaces.lines().count(), 3, "not in a network of its own: {interfaces}");
    system("ip link set lo up");
    let mut room = room("");
    room.device.power_on().unwrap();
    serves(&room);
    room.wait("nothing to wait", |status| (status["broker"]["waiting"] == false).then_some(())).unwrap();
    let port = room.broker_port().unwrap();
    system("nft add table inet cut");
    system("nft add chain inet cut in { type filter hook input priority 0 ; }");
    system(&format!("nft add rule inet cut in tcp dport {port} drop"));
    system(&format!("nft add rule inet cut in tcp sport {port} drop"));
    let cut = Instant::now();
    let reason = room
        .wait("the end of the connection", |status: &Value| {
            (status["broker"]["connected"] == false)
                .then(|| status["broker"]["last_error"].as_str().unwrap_or_default().to_owned())
        })
        .unwrap();
    let took = cut.elapsed();
    println!("left {:.1} s after the last packet, with a keep-alive of 10 s: {reason}", took.as_secs_f64());
    assert!(reason.contains("has gone silent"), "{reason}");
    // The keep-alive is 10 s; a second is for the look at it.
    assert!(took < Duration::from_secs(16), "{took:?}");
    system("nft delete table inet cut");
    serves(&room);
}
