//! What an envelope may hold, and whose signature counts.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests, too.

use data_encoding::{BASE64, BASE64URL};
use ed25519_dalek::SigningKey;
use vigil_protocol::envelope::{COMMAND_TYPE, DIGEST_TYPE, Envelope, EnvelopeError, EnvelopeSignature};
use vigil_protocol::keys::PublicKey;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    PublicKey::from(key(seed).verifying_key())
}

fn parse(envelope: &Envelope) -> Result<Envelope, EnvelopeError> {
    Envelope::parse(envelope.to_json().as_bytes(), COMMAND_TYPE, 100_000)
}

/// An envelope with so many signatures, of which none is worth anything.
fn with_signatures(count: usize) -> Envelope {
    let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
    envelope.signatures = (0..count)
        .map(|number| EnvelopeSignature { keyid: format!("key-{number}"), sig: String::new() })
        .collect();
    envelope
}

#[test]
fn an_envelope_may_fill_its_limit_and_no_byte_more() {
    let envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
    let bytes = envelope.to_json().into_bytes();
    let length = bytes.len();
    assert_eq!(Envelope::parse(&bytes, COMMAND_TYPE, length), Ok(envelope.clone()));
    assert_eq!(Envelope::parse(&bytes, COMMAND_TYPE, length + 1), Ok(envelope));
    for limit in [length - 1, length - 2, 0] {
        assert_eq!(
            Envelope::parse(&bytes, COMMAND_TYPE, limit),
            Err(EnvelopeError::TooLarge(length, limit)),
            "limit {limit}"
        );
    }
}

#[test]
fn an_envelope_has_at_most_16_signatures() {
    for count in [0, 1, 16] {
        assert_eq!(parse(&with_signatures(count)).unwrap().signatures.len(), count);
    }
    for count in [17, 18] {
        assert_eq!(
            parse(&with_signatures(count)),
            Err(EnvelopeError::Malformed("more than 16 signatures".into())),
            "{count}"
        );
    }
}

#[test]
fn the_sixteenth_signature_can_be_added_and_a_seventeenth_cannot() {
    let mut envelope = with_signatures(15);
    envelope.cosign(&key(1)).unwrap();
    assert_eq!(envelope.signatures.len(), 16);
    assert_eq!(envelope.signers([public(1)].iter()), [0]);
    let full = envelope.clone();
    assert_eq!(
        envelope.cosign(&key(2)),
        Err(EnvelopeError::Malformed("it has 16 signatures already".into()))
    );
    assert_eq!(envelope, full);
    // A key that is there already takes no place more.
    envelope.cosign(&key(1)).unwrap();
    assert_eq!(envelope.signatures.len(), 16);
}

#[test]
fn an_envelope_of_another_type_is_refused_by_the_type_that_was_expected() {
    for other in [DIGEST_TYPE, "", "application/vnd.vigil.command+json "] {
        let envelope = Envelope::sign(other, b"{}", &key(1));
        assert_eq!(parse(&envelope), Err(EnvelopeError::PayloadType(COMMAND_TYPE)), "{other:?}");
    }
}

#[test]
fn the_payload_is_what_was_signed_and_a_payload_that_is_no_base64_is_nobodys() {
    let mut envelope = Envelope::sign(COMMAND_TYPE, b"{\"v\":1}", &key(1));
    assert_eq!(envelope.payload_bytes(), Ok(b"{\"v\":1}".to_vec()));
    envelope.payload = "?".into();
    assert_eq!(envelope.payload_bytes(), Err(EnvelopeError::Malformed("the payload is not base64".into())));
    assert!(envelope.signers([public(1)].iter()).is_empty());
    assert!(envelope.cosign(&key(2)).is_err());
}

#[test]
fn standard_and_url_safe_base64_are_read_and_standard_is_written() {
    // Their base64 has characters in which the two alphabets differ.
    let payload = [0xfb, 0xef, 0xff, 0x3e, 0x3f];
    let mut envelope = Envelope::sign(COMMAND_TYPE, &payload, &key(1));
    assert_eq!(envelope.payload, "++//Pj8=");
    let signature = BASE64.decode(envelope.signatures[0].sig.as_bytes()).unwrap();
    envelope.payload = "--__Pj8=".into();
    envelope.signatures[0].sig = BASE64URL.encode(&signature);
    assert_eq!(envelope.payload_bytes(), Ok(payload.to_vec()));
    assert_eq!(envelope.signers([public(1)].iter()), [0]);
}

#[test]
fn a_signature_is_held_against_the_key_that_its_hint_names_wherever_that_is_listed() {
    let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
    assert_eq!(envelope.signers([public(2), public(1), public(3)].iter()), [1]);
    assert_eq!(envelope.signers([public(3), public(2), public(1)].iter()), [2]);
    assert!(envelope.signers([public(2), public(3)].iter()).is_empty());
    envelope.signatures[0].keyid = public(2).id();
    assert!(envelope.signers([public(2), public(1), public(3)].iter()).is_empty());
}

#[test]
fn a_signature_that_is_no_base64_spoils_none_beside_it() {
    let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
    envelope.signatures.insert(0, EnvelopeSignature { keyid: public(1).id(), sig: "?".into() });
    assert_eq!(envelope.signers([public(1)].iter()), [0]);
}

#[test]
fn an_envelope_is_one_line_of_json_by_the_names_of_the_specification() {
    let mut envelope = Envelope::sign(COMMAND_TYPE, b"{}", &key(1));
    envelope.signatures = vec![EnvelopeSignature { keyid: "k".into(), sig: "c2ln".into() }];
    let json: serde_json::Value = serde_json::from_str(&envelope.to_json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "payload": "e30=",
            "payloadType": "application/vnd.vigil.command+json",
            "signatures": [{"keyid": "k", "sig": "c2ln"}],
        })
    );
    assert!(!envelope.to_json().contains('\n'));
}
