//! Against real sockets of loopback.

use std::net::TcpListener;
use std::sync::mpsc;

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use rcgen::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::link::mqtt::PACKET_BYTES;

use socket2::{Domain, Socket, Type};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address at which nobody answers, neither yes nor no: its queue is full, and the kernel drops what comes. The
/// sockets keep it so.
fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address.into());
        sockets.push(client);
    }
    (address, sockets)
}

#[tokio::test]
async fn an_address_at_which_nobody_answers_does_not_hold_up_the_next() {
    let (hole, _sockets) = black_hole();
    let alone = first_of(Race::new([hole]));
    assert!(tokio::time::timeout(Duration::from_millis(300), alone).await.is_err(), "it is no black hole");
    let (_listener, address) = listener();
    let stream = first_of(Race::new([hole, address])).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
}

#[tokio::test]
async fn a_refused_address_is_followed_by_the_next_at_once() {
    let (closed, refusing) = listener();
    drop(closed);
    let (_listener, address) = listener();
    let begun = std::time::Instant::now();
    let stream = first_of(Race::new([refusing, address])).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert!(begun.elapsed() < Duration::from_millis(250), "it waited for its turn");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_from_an_address_that_does_not_answer() {
    let step = Cell::new(Step::Tcp);
    let error = connect("no-such-host.invalid", 8883, &step).await.unwrap_err().to_string();
    assert!(error.starts_with("the name no-such-host.invalid does not resolve"), "{error}");
    assert_eq!(step.get(), Step::Name);
    let (closed, refusing) = listener();
    drop(closed);
    let error = connect("127.0.0.1", refusing.port(), &step).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("no connection to {refusing}: 127.0.0.1: Connection refused")),
        "{error}"
    );
    assert_eq!(step.get(), Step::Tcp);
}

/// A way to a server on loopback that says `answer` to the first that it hears, and then listens on.
fn says(answer: Vec<u8>) -> (Dial, mpsc::Receiver<Vec<u8>>) {
    let (listener, address) = listener();
    let (sender, heard) = mpsc::channel();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer)
            && count > 0
        {
            let _ = sender.send(buffer[..count].to_vec());
            let _ = stream.write_all(&answer);
        }
    });
    let host = "mqtt.example.com".to_owned();
    let proxy = Some(Proxy::configured("127.0.0.1", address.port(), None));
    (Dial { host, port: 8883, tls: None, websocket: None, proxy }, heard)
}

async fn dialled(to: &Dial) -> Result<Wire, String> {
    let step = Cell::new(Step::Name);
    let dialled = tokio::time::timeout(Duration::from_secs(10), dial(to, &step)).await;
    dialled.expect("an end").map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_name_and_gets_no_further_than_its_answer() {
    let (to, heard) = says(b"HTTP/1.0 200 Connection established\r\n\r\n".to_vec());
    assert!(matches!(dialled(&to).await, Ok(Wire::Bytes(_))));
    let asked = String::from_utf8(heard.recv().unwrap()).unwrap().to_ascii_lowercase();
    assert!(asked.starts_with("connect mqtt.example.com:8883 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("host: mqtt.example.com:8883\r\n"), "{asked}");
}

#[tokio::test]
async fn whatever_a_proxy_answers_is_bounded_and_told() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for (answer, what) in [
        (endless, "is it an HTTP proxy?"),
        (many, "is it an HTTP proxy?"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "is it an HTTP proxy?"),
        ("HTTP/1.1 200 OK\r\n\r\nwelcome".to_owned(), "says more than it was asked"),
        ("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n".to_owned(), "(407): set broker.proxy"),
        ("HTTP/1.1 503 No\r\nContent-Length: 99999999\r\n\r\n".to_owned(), "does it reach the broker?"),
    ] {
        let shown: String = answer.chars().take(30).collect();
        let (to, _heard) = says(answer.into_bytes());
        let error = dialled(&to).await.err().expect("no way through");
        assert!(error.starts_with("the proxy 127.0.0.1:") && error.contains(what), "{shown}: {error}");
    }
}

/// A TLS server for `mqtt.example.com` that speaks `protocols`, a client that trusts it and offers `offered`, and what the
/// server heard: the name and the protocol.
async fn tls(
    host: &str,
    protocols: &[&str],
    offered: &[&str],
) -> (Result<(), String>, Option<(String, String)>) {
    let list = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let names = vec!["mqtt.example.com".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let provider = Arc::new(ring::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = list(protocols);
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = list(offered);
    // A proxy in the server's place on the wire: the name goes through it untouched.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::configured("127.0.0.1", listener.local_addr().unwrap().port(), None);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await.ok()?;
        let session = stream.get_ref().1;
        let protocol = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
        Some((session.server_name().unwrap_or_default().to_owned(), protocol))
    };
    let to = Dial {
        host: host.to_owned(),
        port: 443,
        tls: Some(Arc::new(client)),
        websocket: None,
        proxy: Some(proxy),
    };
    let (dialled, heard) = tokio::join!(dialled(&to), serve);
    (dialled.map(drop), heard)
}

#[tokio::test]
async fn the_broker_hears_its_own_name_and_the_protocol_through_a_proxy() {
    let (dialled, heard) = tls("mqtt.example.com", &["http/1.1", "mqtt"], &["x-amzn-mqtt-ca", "mqtt"]).await;
    dialled.unwrap();
    assert_eq!(heard, Some(("mqtt.example.com".to_owned(), "mqtt".to_owned())));
}

#[tokio::test]
async fn without_alpn_nothing_is_offered() {
    let (dialled, heard) = tls("mqtt.example.com", &["mqtt"], &[]).await;
    dialled.unwrap();
    assert_eq!(heard.unwrap().1, "");
}

#[tokio::test]
async fn a_broker_that_speaks_none_of_the_protocols_says_which_key_is_wrong() {
    let (dialled, _) = tls("mqtt.example.com", &["h2"], &["mqtt"]).await;
    let error = dialled.unwrap_err();
    assert!(error.contains("no protocol that broker.alpn names"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_through_a_proxy() {
    let (dialled, _) = tls("other.example.com", &[], &[]).await;
    let error = dialled.unwrap_err();
    assert!(error.contains("broker.url must name it as its certificate does"), "{error}");
}

/// A WebSocket to a server that agrees to everything, sends `frames`, and gives back what it hears.
async fn websocket(frames: &[u8]) -> (Wire, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = Dial {
        host: "127.0.0.1".to_owned(),
        port,
        tls: None,
        websocket: Some("/mqtt".to_owned()),
        proxy: None,
    };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("GET /mqtt HTTP/1.1\r\n"), "{head}");
        let key = head.lines().find_map(|line| {
            line.to_ascii_lowercase().starts_with("sec-websocket-key: ").then(|| &line[19..])
        });
        let text = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.expect("a key"));
        let accept = ::ring::digest::digest(&::ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
            BASE64.encode(accept.as_ref())
        );
        // In one piece with the head: what comes early is not lost.
        stream.write_all(&[answer.as_bytes(), frames].concat()).await.unwrap();
        stream
    };
    let (wire, stream) = tokio::join!(dialled(&to), serve);
    (wire.unwrap(), stream)
}

#[tokio::test]
async fn packets_go_through_a_websocket_however_they_are_cut_into_frames() {
    // A frame with half a packet, a ping, a message of two frames with the other half and more.
    let frames = b"\x82\x02ab\x89\x01!\x02\x01c\x80\x02de";
    let (mut wire, mut server) = websocket(frames).await;
    let mut came = BytesMut::new();
    while came.len() < 5 {
        assert!(wire.read(&mut came).await.unwrap() > 0);
    }
    assert_eq!(&came[..], b"abcde");
    wire.write(BytesMut::from("f")).await.unwrap();
    let mut frame = [0; 64];
    let mut heard = Vec::new();
    while !heard.windows(2).any(|bytes| bytes == [0x82, 0x81]) {
        let count = server.read(&mut frame).await.unwrap();
        assert!(count > 0);
        heard.extend_from_slice(&frame[..count]);
    }
    assert!(heard.starts_with(&[0x8a, 0x81]), "the ping is answered, masked: {heard:x?}");
}

#[tokio::test]
async fn a_frame_larger_than_any_packet_ends_the_connection_by_its_length_alone() {
    let length = (PACKET_BYTES as u64 + 100).to_be_bytes();
    let (mut wire, _server) = websocket(&[&[0x82, 127][..], &length].concat()).await;
    let mut came = BytesMut::new();
    let read = tokio::time::timeout(Duration::from_secs(10), wire.read(&mut came)).await;
    assert!(read.expect("its payload is not waited for").is_err());
    assert!(came.capacity() <= 8192, "{}", came.capacity());
    let pieces = Bytes::from(vec![b'x'; 60_000]);
    let mut frames = Vec::new();
    for piece in 0..3 {
        frames.extend_from_slice(&[if piece == 0 { 0x02 } else { 0 }, 126]);
        frames.extend_from_slice(&60_000_u16.to_be_bytes());
        frames.extend_from_slice(&pieces);
    }
    let (mut wire, _server) = websocket(&frames).await;
    assert!(wire.read(&mut came).await.is_err(), "a message of many frames is bounded as well");
}

#[tokio::test]
async fn text_in_a_websocket_is_no_mqtt_and_a_close_is_the_end() {
    let (mut wire, _server) = websocket(b"\x81\x01a").await;
    assert!(wire.read(&mut BytesMut::new()).await.is_err());
    let (mut wire, _server) = websocket(b"\x88\x00").await;
    assert_eq!(wire.read(&mut BytesMut::new()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_web_server_without_websockets_is_told_apart() {
    let (mut to, _heard) = says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let port = to.proxy.take().unwrap().port;
    to = Dial { host: "127.0.0.1".to_owned(), port, websocket: Some("/nowhere".to_owned()), ..to };
    let error = dialled(&to).await.err().unwrap();
    assert!(error.contains("the answer to /nowhere is 404: broker.url must name the path"), "{error}");
}
