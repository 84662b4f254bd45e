//! Who signs, rightly or not, and what can be done to an envelope without a key.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use data_encoding::{BASE64, BASE64URL};
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vigil_protocol::command::Scope;
use vigil_protocol::envelope::{COMMAND_TYPE, DIGEST_TYPE, Envelope};
use vigil_protocol::keys::PublicKey;
use vigil_protocol::operators::{Operator, Operators};
use vigil_tests::hostile::repeated::written_out;
use vigil_tests::vendor::TENANT;

use super::scenario::{List, Signed, Spoil};

/// Everybody who signs in the scenarios: all but `stranger` are on the list.
const PEOPLE: [&str; 8] =
    ["olga", "olgas_phone", "ada", "otto", "retired", "next_door", "upstairs", "stranger"];

fn key(name: &str) -> anyhow::Result<SigningKey> {
    let position = PEOPLE.iter().position(|person| *person == name);
    let position = position.with_context(|| format!("nobody is called {name}"))?;
    Ok(SigningKey::from_bytes(&[position as u8 + 1; 32]))
}

/// The operators list: two of it must sign an `update.install`.
pub(super) fn operators(list: List) -> anyhow::Result<Operators> {
    let now = Timestamp::now();
    let later = now + SignedDuration::from_hours(24);
    let earlier = now - SignedDuration::from_hours(1);
    let all = vec![Scope::Observe, Scope::Operate, Scope::Update, Scope::Admin];
    let operator = |name: &str, scopes: &[Scope], devices: &[&str], groups: &[&str], expires| {
        anyhow::Ok(Operator {
            // A person with two keys is one person.
            name: name.trim_end_matches("s_phone").to_owned(),
            key: PublicKey::from(key(name)?.verifying_key()),
            scopes: scopes.to_owned(),
            devices: devices.iter().map(ToString::to_string).collect(),
            groups: groups.iter().map(ToString::to_string).collect(),
            expires,
        })
    };
    Ok(Operators {
        v: 1,
        tenant: TENANT.to_owned(),
        expires: if list == List::Expired { earlier } else { later },
        operators: vec![
            operator("olga", &all, &["*"], &[], later)?,
            operator("olgas_phone", &all, &["*"], &[], later)?,
            operator("ada", &all, &["*"], &[], later)?,
            operator("otto", &[Scope::Observe], &["*"], &[], later)?,
            operator("retired", &all, &["*"], &[], earlier)?,
            operator("next_door", &all, &["room-2"], &[], later)?,
            operator("upstairs", &all, &[], &["attic"], later)?,
        ],
        thresholds: BTreeMap::from([("update.install".to_owned(), 2)]),
    })
}

/// The command as it is sent. `id` is its whole id, `nonce` that of the device's session.
pub(super) fn envelope(signed: &Signed, id: &str, nonce: Option<String>) -> anyhow::Result<Vec<u8>> {
    let now = Timestamp::now();
    let at = |seconds| (now + SignedDuration::from_secs(seconds)).to_string();
    let target = match &signed.group {
        Some(group) => json!({ "group": group }),
        None => json!({ "device": signed.device }),
    };
    let mut payload = json!({
        "v": 1, "id": id, "kind": signed.kind, "args": signed.args, "tenant": signed.tenant, "target": target,
        "issued": at(signed.issued), "expires": at(signed.expires),
    });
    if let Some(nonce) = nonce {
        payload["nonce"] = nonce.into();
    }
    for (name, value) in &signed.merge {
        payload[name] = serde_json::to_value(value)?;
    }
    let is_replaced = !signed.payload.is_empty() || !signed.envelope.is_empty();
    ensure!(signed.spoil.is_none() || !is_replaced, "either spoil, or texts to replace");
    let payload = match signed.spoil {
        Some(spoil) => shape(&payload, spoil),
        None => written_out(&replaced(payload.to_string(), &signed.payload)?)?.into_bytes(),
    };
    let payload_type = if signed.spoil == Some(Spoil::OtherType) { DIGEST_TYPE } else { COMMAND_TYPE };
    let mut envelope: Option<Envelope> = None;
    for name in &signed.by {
        let one = Envelope::sign(payload_type, &payload, &key(name)?);
        match &mut envelope {
            Some(envelope) => envelope.signatures.extend(one.signatures),
            None => envelope = Some(one),
        }
    }
    let envelope = envelope.context("nobody signs")?;
    match signed.spoil {
        Some(how) => spoil(envelope, how),
        None => Ok(written_out(&replaced(envelope.to_json(), &signed.envelope)?)?.into_bytes()),
    }
}

/// `text` with one after the other replaced, each everywhere.
fn replaced(mut text: String, replacements: &[(String, String)]) -> anyhow::Result<String> {
    for (what, with) in replacements {
        let (what, with) = (named(what)?, named(with)?);
        // What is not there is a slip of the scenario's: it would test nothing.
        ensure!(text.contains(&what), "{what} is not in {text}");
        text = text.replace(&what, &with);
    }
    Ok(text)
}

/// `text` with key ids in place of `‹name›`.
fn named(text: &str) -> anyhow::Result<String> {
    let mut text = text.to_owned();
    for person in PEOPLE {
        text = text.replace(&format!("‹{person}›"), &PublicKey::from(key(person)?.verifying_key()).id());
    }
    Ok(text)
}

/// What is wrong with the payload although it is signed.
fn shape(payload: &Value, spoil: Spoil) -> Vec<u8> {
    match spoil {
        Spoil::Nested => "[".repeat(1000).into_bytes(),
        Spoil::TwoTargets => {
            let text = payload.to_string();
            text.replacen('{', r#"{"target":{"device":"room-2"},"#, 1).into_bytes()
        }
        Spoil::NoUtf8 => [&[0xff, 0xfe][..], payload.to_string().as_bytes()].concat(),
        _ => payload.to_string().into_bytes(),
    }
}

/// What a broker does to an envelope on its way.
fn spoil(mut envelope: Envelope, spoil: Spoil) -> anyhow::Result<Vec<u8>> {
    let payload = envelope.payload_bytes()?;
    let signature = envelope.signatures[0].clone();
    let mut bytes = BASE64.decode(signature.sig.as_bytes())?;
    let first = &mut envelope.signatures[0];
    match spoil {
        Spoil::OtherKind => {
            let text = String::from_utf8(payload)?.replace("\"ping\"", "\"update.cancel\"");
            envelope.payload = BASE64.encode(text.as_bytes());
        }
        Spoil::SignatureBit => {
            bytes[7] ^= 1;
            first.sig = BASE64.encode(&bytes);
        }
        Spoil::Malleable => {
            add_order(&mut bytes[32..]);
            first.sig = BASE64.encode(&bytes);
        }
        Spoil::ZeroSignature => first.sig = BASE64.encode(&[0; 64]),
        Spoil::HalfSignature => first.sig = BASE64.encode(&bytes[..32]),
        Spoil::StrangersHint => first.keyid = PublicKey::from(key("stranger")?.verifying_key()).id(),
        Spoil::ColleaguesHint => first.keyid = PublicKey::from(key("ada")?.verifying_key()).id(),
        Spoil::NoHint => first.keyid.clear(),
        Spoil::NoSignatures => envelope.signatures.clear(),
        Spoil::SeventeenSignatures => envelope.signatures = vec![signature; 17],
        Spoil::TwiceSigned => envelope.signatures.push(signature),
        Spoil::Relabelled => DIGEST_TYPE.clone_into(&mut envelope.payload_type),
        Spoil::OtherAlphabet => envelope.payload = BASE64URL.encode(&payload),
        Spoil::NoBase64 => envelope.payload.insert(1, '!'),
        Spoil::OtherType | Spoil::Nested | Spoil::TwoTargets | Spoil::NoUtf8 => {}
        Spoil::Cut
        | Spoil::Padded
        | Spoil::Trailed
        | Spoil::ByteOrderMark
        | Spoil::Utf16
        | Spoil::OtherSpacing
        | Spoil::NoPayload => return reshape(&envelope, spoil),
    }
    Ok(envelope.to_json().into_bytes())
}

fn reshape(envelope: &Envelope, spoil: Spoil) -> anyhow::Result<Vec<u8>> {
    let text = envelope.to_json();
    Ok(match spoil {
        Spoil::Cut => text.as_bytes()[..text.len() / 2].to_vec(),
        Spoil::Padded => format!("{text:<40000}").into_bytes(),
        Spoil::Trailed => text.repeat(2).into_bytes(),
        Spoil::ByteOrderMark => format!("\u{feff}{text}").into_bytes(),
        Spoil::Utf16 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Spoil::NoPayload => {
            let mut value: Value = serde_json::from_str(&text)?;
            value.as_object_mut().context("no object")?.remove("payload");
            value.to_string().into_bytes()
        }
        _ => serde_json::to_vec_pretty(&serde_json::from_str::<Value>(&text)?)?,
    })
}

/// Adds the order of the group (RFC 8032, section 5.1) to a scalar, little-endian.
fn add_order(scalar: &mut [u8]) {
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, add) in scalar.iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
}
