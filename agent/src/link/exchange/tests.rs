//! The broker's side is bytes, as a broker sends them.

use super::*;
use crate::link::redirect::Reference;

const MINUTE: Duration = Duration::from_secs(60);
const ACCEPTED: &[u8] = &[0x20, 3, 0, 0, 0];
const SUBSCRIBED: &[u8] = &[0x90, 5, 0, 1, 0, 1, 1];
const PONG: &[u8] = &[0xd0, 0];
const PING: &[u8] = &[0xc0, 0];

/// One that has said CONNECT, and when.
fn begun() -> (Exchange, Instant) {
    begun_in(Version::V5)
}

fn begun_in(version: Version) -> (Exchange, Instant) {
    let now = Instant::now();
    let filters = ["v/r/command", "v/r/presence"].map(str::to_owned).to_vec();
    let say = Say::Ping;
    let mut exchange = Exchange::begin(version, say, filters, MINUTE, now + MINUTE, now).unwrap();
    exchange.take_out();
    (exchange, now)
}

/// One that is up, and when.
fn up(connack: &[u8]) -> (Exchange, Instant) {
    let (mut exchange, now) = begun();
    assert!(matches!(hear(&mut exchange, connack, now), Ok(Some(LinkEvent::Connected(_)))));
    assert_eq!(exchange.take_out()[0], 0x82, "it subscribes");
    hear(&mut exchange, SUBSCRIBED, now).unwrap();
    (exchange, now)
}

fn hear(exchange: &mut Exchange, bytes: &[u8], now: Instant) -> Result<Option<LinkEvent>, String> {
    let mut bytes = BytesMut::from(bytes);
    let heard = exchange.read(&mut bytes).map_err(|refusal| refusal.reason)?.expect("a whole packet");
    assert!(bytes.is_empty());
    exchange.hear(heard, now).map_err(|refusal| refusal.reason)
}

fn reason(exchange: &mut Exchange, bytes: &[u8], now: Instant) -> String {
    hear(exchange, bytes, now).expect_err("the broker is left")
}

fn publish(exchange: &mut Exchange, now: Instant) -> u16 {
    let outgoing = Outgoing { id: 0, topic: "t".to_owned(), payload: vec![], retain: false, expiry: None };
    exchange.publish(outgoing, now).unwrap();
    let out = exchange.take_out();
    u16::from_be_bytes([out[5], out[6]])
}

#[test]
fn a_refused_subscription_is_named_with_what_the_broker_must_allow() {
    let (mut exchange, now) = begun();
    hear(&mut exchange, ACCEPTED, now).unwrap();
    let reason = reason(&mut exchange, &[0x90, 5, 0, 1, 0, 1, 0x87], now);
    assert!(reason.contains("v/r/presence (NotAuthorized): its access list must allow"), "{reason}");
}

#[test]
fn a_subscription_granted_with_another_qos_is_granted() {
    let (mut exchange, now) = begun();
    hear(&mut exchange, ACCEPTED, now).unwrap();
    hear(&mut exchange, &[0x90, 5, 0, 1, 0, 0, 2], now).unwrap();
}

#[test]
fn a_subscription_that_is_not_answered_is_not_granted() {
    let (mut exchange, now) = begun();
    hear(&mut exchange, ACCEPTED, now).unwrap();
    assert!(reason(&mut exchange, &[0x90, 4, 0, 1, 0, 1], now).contains("1 of 2"));
}

#[test]
fn a_broker_that_has_gone_silent_is_left_one_and_a_half_keep_alives_after_its_last_word() {
    let (mut exchange, heard) = up(ACCEPTED);
    assert_eq!(exchange.wakes_at(), heard + MINUTE);
    exchange.on_time(heard + MINUTE).unwrap();
    assert_eq!(exchange.take_out(), PING);
    assert_eq!(exchange.wakes_at(), heard + MINUTE * 3 / 2);
    let refusal = exchange.on_time(heard + MINUTE * 3 / 2).unwrap_err();
    assert!(refusal.reason.contains("no answer to a ping within 30 s"), "{}", refusal.reason);
    assert_eq!(refusal.ending, Ending::Passing);
}

#[test]
fn what_is_published_into_the_void_does_not_put_the_ping_off() {
    let (mut exchange, heard) = up(ACCEPTED);
    publish(&mut exchange, heard + MINUTE / 2);
    assert_eq!(exchange.wakes_at(), heard + MINUTE, "the broker was heard last at the beginning");
}

#[test]
fn what_only_the_broker_says_does_not_put_the_ping_off() {
    let (mut exchange, said) = up(ACCEPTED);
    hear(&mut exchange, &[0x30, 4, 0, 1, b'a', 0], said + MINUTE / 2).unwrap();
    assert_eq!(exchange.wakes_at(), said + MINUTE, "the broker would think that the device is gone");
}

#[test]
fn an_answered_ping_begins_the_next_keep_alive() {
    let (mut exchange, now) = up(ACCEPTED);
    exchange.on_time(now + MINUTE).unwrap();
    hear(&mut exchange, PONG, now + MINUTE).unwrap();
    assert_eq!(exchange.wakes_at(), now + MINUTE * 2);
}

#[test]
fn a_broker_cannot_put_pings_off_or_turn_them_off() {
    for (seconds, wait) in [([0xff, 0xff], MINUTE), ([0, 0], MINUTE), ([0, 20], MINUTE / 3)] {
        let (exchange, now) = up(&[0x20, 6, 0, 0, 3, 19, seconds[0], seconds[1]]);
        assert_eq!(exchange.wakes_at(), now + wait, "granted {seconds:?}");
    }
}

#[test]
fn no_answer_to_connect_ends_the_attempt() {
    let (mut exchange, now) = begun();
    let refusal = exchange.on_time(now + MINUTE).unwrap_err();
    assert!(refusal.reason.contains("does not answer CONNECT"));
    assert_eq!(refusal.ending, Ending::Silence, "it may not know the version");
}

#[test]
fn acknowledgements_belong_to_what_was_published() {
    let (mut exchange, now) = up(ACCEPTED);
    let id = publish(&mut exchange, now);
    let [high, low] = id.to_be_bytes();
    assert!(matches!(hear(&mut exchange, &[0x40, 2, high, low], now), Ok(Some(LinkEvent::Acknowledged))));
    assert!(reason(&mut exchange, &[0x40, 2, high, low], now).contains("which was not sent"));
}

#[test]
fn a_publication_that_is_declined_says_why() {
    let (mut exchange, now) = up(ACCEPTED);
    let [high, low] = publish(&mut exchange, now).to_be_bytes();
    match hear(&mut exchange, &[0x40, 3, high, low, 0x97], now).unwrap() {
        Some(LinkEvent::Declined { reason }) => assert!(reason.contains("QuotaExceeded"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn packet_ids_go_round_past_zero_and_past_those_under_way() {
    let (mut exchange, now) = up(ACCEPTED);
    let held = publish(&mut exchange, now);
    let mut last = held;
    for _ in 0..65_534 {
        let id = publish(&mut exchange, now);
        assert!(id != 0 && id != held, "{id} after {last}");
        hear(&mut exchange, &[0x40, 2, id.to_be_bytes()[0], id.to_be_bytes()[1]], now).unwrap();
        last = id;
    }
}

#[test]
fn qos_2_which_nobody_asked_for_is_received_in_its_two_steps() {
    let (mut exchange, now) = up(ACCEPTED);
    let event = hear(&mut exchange, &[0x34, 6, 0, 1, b'a', 0, 7, 0], now).unwrap();
    let Some(LinkEvent::Message(message)) = event else { panic!("no message") };
    exchange.acknowledge(message.receipt, now).unwrap();
    assert_eq!(exchange.take_out()[0], 0x50);
    hear(&mut exchange, &[0x62, 2, 0, 7], now).unwrap();
    assert_eq!(exchange.take_out()[0], 0x70);
    assert!(reason(&mut exchange, &[0x62, 2, 0, 7], now).contains("which was not received"));
}

#[test]
fn what_no_broker_may_say_ends_the_connection() {
    let cases: [(&[u8], &str); 7] = [
        (ACCEPTED, "twice"),
        (&[0x50, 2, 0, 9], "PUBREC"),
        (&[0x62, 2, 0, 9], "which was not received"),
        (&[0x30, 7, 0, 1, b'a', 3, 35, 0, 1], "topic alias"),
        (PING, "PINGREQ"),
        (&[0x40, 2, 0, 9], "which was not sent"),
        // A whole packet whose inside promises more.
        (&[0x30, 4, 0, 1, b'a', 0x80], "bytes required"),
    ];
    for (bytes, what) in cases {
        let (mut exchange, now) = up(ACCEPTED);
        let reason = reason(&mut exchange, bytes, now);
        assert!(reason.contains(what), "{bytes:x?}: {reason}");
    }
    for (bytes, what) in [
        (&[0x30, 4, 0, 1, b'a', 0][..], "something else came"),
        (&[0x20, 6, 0, 0, 3, 33, 0, 0][..], "receive maximum of 0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "is this the address of an MQTT broker?"),
    ] {
        let (mut exchange, now) = begun();
        let reason = reason(&mut exchange, bytes, now);
        assert!(reason.contains(what), "{bytes:x?}: {reason}");
    }
}

#[test]
fn a_packet_that_is_too_large_is_refused_by_its_length_alone() {
    let (exchange, _) = up(ACCEPTED);
    let mut head = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
    assert!(exchange.read(&mut head).is_err());
    assert!(head.capacity() < 1024, "nothing was made ready for it");
}

#[test]
fn a_broker_that_takes_no_packets_of_our_size_is_left_before_one_is_sent() {
    let (mut exchange, now) = begun();
    let reason = reason(&mut exchange, &[0x20, 8, 0, 0, 5, 39, 0, 0, 0, 20], now);
    assert!(reason.contains("20 bytes at most"), "{reason}");
}

#[test]
fn half_a_packet_is_waited_for() {
    let (exchange, _) = up(ACCEPTED);
    let mut bytes = BytesMut::from(&PONG[..1]);
    assert!(exchange.read(&mut bytes).unwrap().is_none());
    bytes.extend_from_slice(&PONG[1..]);
    assert!(exchange.read(&mut bytes).unwrap().is_some());
}

/// How an answer to CONNECT, or a DISCONNECT, ends the conversation.
fn ending(version: Version, bytes: &[u8]) -> Ending {
    let (mut exchange, now) = begun_in(version);
    if bytes[0] == 0xe0 {
        let heard = exchange.read(&mut BytesMut::from(ACCEPTED)).unwrap().unwrap();
        exchange.hear(heard, now).unwrap();
    }
    let heard = exchange.read(&mut BytesMut::from(bytes)).unwrap().unwrap();
    exchange.hear(heard, now).unwrap_err().ending
}

#[test]
fn a_refusal_says_how_long_to_wait() {
    for (code, wanted) in [
        (0x86, Ending::Lasting),
        (0x87, Ending::Lasting),
        (0x89, Ending::Lasting),
        (0x8a, Ending::Lasting),
        (0x97, Ending::Lasting),
        (0x9f, Ending::Lasting),
        (0x80, Ending::Passing),
        (0x88, Ending::Passing),
        (0x84, Ending::OtherVersion),
    ] {
        assert_eq!(ending(Version::V5, &[0x20, 3, 0, code, 0]), wanted, "CONNACK {code:x}");
    }
    for (code, wanted) in [
        (0x89, Ending::Lasting),
        (0x8e, Ending::TakenOver),
        (0x97, Ending::Lasting),
        (0x00, Ending::Passing),
        (0x8b, Ending::Passing),
        (0x8d, Ending::Passing),
    ] {
        assert_eq!(ending(Version::V5, &[0xe0, 2, code, 0]), wanted, "DISCONNECT {code:x}");
    }
    assert_eq!(ending(Version::V5, &[0xe0, 0]), Ending::Passing);
    for (code, wanted) in [
        (1, Ending::OtherVersion),
        (2, Ending::Lasting),
        (3, Ending::Passing),
        (4, Ending::Lasting),
        (5, Ending::Lasting),
    ] {
        assert_eq!(ending(Version::V4, &[0x20, 2, 0, code]), wanted, "CONNACK of 3.1.1, {code}");
    }
}

#[test]
fn whoever_answers_mqtt_5_as_3_1_1_does_speaks_no_5() {
    for code in 0..6 {
        assert_eq!(ending(Version::V5, &[0x20, 2, 0, code]), Ending::OtherVersion);
    }
    assert_eq!(ending(Version::V4, ACCEPTED), Ending::OtherVersion);
    assert_eq!(ending(Version::V4, &[0x20, 3, 0, 0x84, 0]), Ending::OtherVersion);
}

#[test]
fn a_reference_to_another_server_comes_with_how_long_it_is_for() {
    let elsewhere = |servers: Option<&str>, is_lasting| {
        Ending::Elsewhere(Reference { servers: servers.map(str::to_owned), is_lasting })
    };
    for (code, is_lasting) in [(0x9c, false), (0x9d, true)] {
        assert_eq!(ending(Version::V5, &[0x20, 3, 0, code, 0]), elsewhere(None, is_lasting));
        assert_eq!(
            ending(Version::V5, &[0x20, 7, 0, code, 4, 28, 0, 1, b'b']),
            elsewhere(Some("b"), is_lasting)
        );
        assert_eq!(
            ending(Version::V5, &[0xe0, 6, code, 4, 28, 0, 1, b'b']),
            elsewhere(Some("b"), is_lasting)
        );
    }
}

#[test]
fn a_conversation_in_3_1_1_goes_its_whole_way() {
    let (mut exchange, now) = begun_in(Version::V4);
    let connected = hear(&mut exchange, &[0x20, 2, 1, 0], now).unwrap();
    let Some(LinkEvent::Connected(granted)) = connected else { panic!("{connected:?}") };
    assert!(granted.session_present && granted.retain && granted.max_packet_bytes.is_none());
    assert_eq!(exchange.take_out()[0], 0x82, "it subscribes");
    hear(&mut exchange, &[0x90, 4, 0, 1, 1, 1], now).unwrap();
    let [high, low] = publish(&mut exchange, now).to_be_bytes();
    assert!(matches!(hear(&mut exchange, &[0x40, 2, high, low], now), Ok(Some(LinkEvent::Acknowledged))));
    let event = hear(&mut exchange, &[0x32, 6, 0, 1, b'a', 0, 7, b'x'], now).unwrap();
    let Some(LinkEvent::Message(message)) = event else { panic!("{event:?}") };
    assert_eq!((message.topic.as_str(), &message.payload[..]), ("a", &b"x"[..]));
    exchange.acknowledge(message.receipt, now).unwrap();
    assert_eq!(exchange.take_out()[..], [0x40, 2, 0, 7]);
    exchange.on_time(now + MINUTE).unwrap();
    assert_eq!(exchange.take_out(), PING);
    hear(&mut exchange, PONG, now + MINUTE).unwrap();
    exchange.say_good_bye(now).unwrap();
    assert_eq!(exchange.take_out()[..], [0xe0, 0]);
}

#[test]
fn a_subscription_that_3_1_1_refuses_is_named() {
    let (mut exchange, now) = begun_in(Version::V4);
    hear(&mut exchange, &[0x20, 2, 0, 0], now).unwrap();
    let reason = reason(&mut exchange, &[0x90, 4, 0, 1, 1, 0x80], now);
    assert!(reason.contains("v/r/presence (failure): its access list must allow"), "{reason}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_of_a_broker_bring_the_device_down(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        kind in 1_u8..16,
        is_whole in proptest::bool::ANY,
    ) {
        for version in Version::ALL {
            let mut stream = BytesMut::new();
            if is_whole {
                // A packet of a known kind, and of its own length.
                stream.extend_from_slice(&[kind << 4 | (bytes.first().unwrap_or(&0) & 15)]);
                if bytes.len() >= 128 {
                    stream.extend_from_slice(&[(bytes.len() % 128) as u8 | 0x80, (bytes.len() / 128) as u8]);
                } else {
                    stream.extend_from_slice(&[bytes.len() as u8]);
                }
            }
            stream.extend_from_slice(&bytes);
            let before = stream.len();
            while let Ok(Some(_)) = version.read(&mut stream) {
                proptest::prop_assert!(stream.len() < before);
                if stream.is_empty() { break; }
            }
        }
    }
}
