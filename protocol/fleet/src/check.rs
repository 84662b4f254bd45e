//! Whether what the broker keeps of a device is what the device said: a pure function over the retained messages and
//! the device's key.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use vigil_protocol::envelope::{DIGEST_TYPE, Envelope};
use vigil_protocol::keys::{PublicKey, sha256_hex};
use vigil_protocol::limits;
use vigil_protocol::note::Checkpoint;
use vigil_protocol::state::{Digest, PresenceStatus, TopicDigest};
use vigil_protocol::topic::StateTopic;

use crate::text::clean;

/// Topics that a digest may name; more is nonsense.
const TOPICS: usize = 1024;

/// What became of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The device signed it.
    Ok,
    /// The last word on a device that is gone, the broker's will or its own good-bye: nothing is signed after it.
    Will,
    /// Published after the digest; the next digest will vouch for it.
    Newer,
    /// The device signed a message that the broker does not have.
    Missing,
    /// The broker has an older message than the one the device signed.
    Stale,
    /// The device did not say this.
    Forged,
}

impl Outcome {
    /// Whether an operator need not worry.
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Ok | Self::Will | Self::Newer)
    }
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The topic's last level; `digest` and `audit` stand for the signature and the log's checkpoint.
    pub topic: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The sequence number that the broker's message claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The one that the device signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_seq: Option<u64>,
    /// For a person.
    pub note: String,
}

impl Row {
    fn new(topic: &str, outcome: Outcome, note: impl Into<String>) -> Self {
        Self { topic: topic.to_owned(), outcome, seq: None, signed_seq: None, note: note.into() }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The device.
    pub device: String,
    /// First `digest`, then the topics, last `audit`.
    pub rows: Vec<Row>,
    /// The digest, if its signature is the device's.
    #[serde(skip)]
    pub digest: Option<Digest>,
    /// The size of the audit log, if its checkpoint's signature is the device's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_size: Option<u64>,
    /// Its root, lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_root: Option<String>,
}

impl Report {
    /// Whether all is well.
    pub fn is_fine(&self) -> bool {
        self.rows.iter().all(|row| row.outcome.is_fine())
    }

    /// The topics that wait for a newer digest.
    pub fn unproven(&self) -> BTreeSet<String> {
        let newer = self.rows.iter().filter(|row| row.outcome == Outcome::Newer);
        newer.map(|row| row.topic.clone()).collect()
    }

    /// Time is up for those topics in `overdue` that still wait for a digest.
    pub fn give_up_on(&mut self, overdue: &BTreeSet<String>) {
        for row in &mut self.rows {
            if row.outcome == Outcome::Newer && overdue.contains(&row.topic) {
                row.outcome = Outcome::Forged;
                "claims to be newer than the digest, but the device signed none for it"
                    .clone_into(&mut row.note);
            }
        }
    }

    /// Holds the report against what an earlier check saw: neither digest nor audit log ever goes back, and the same number of
    /// entries has the same root.
    pub fn hold_against(&mut self, seen_seq: u64, seen_audit_size: u64, seen_audit_root: Option<&str>) {
        if let Some(root) = seen_audit_root
            && self.audit_size == Some(seen_audit_size)
            && self.audit_root.as_deref() != Some(root)
        {
            self.disbelieve_audit(
                "its entries are not those that an earlier check saw: the log was rewritten",
            );
        }
        let found = [
            ("digest", self.digest.as_ref().map(|digest| digest.seq), seen_seq),
            ("audit", self.audit_size, seen_audit_size),
        ];
        for (topic, now, seen) in found {
            let row = self.rows.iter_mut().find(|row| row.topic == topic && row.outcome.is_fine());
            if let (Some(row), Some(now)) = (row, now)
                && now < seen
            {
                row.outcome = Outcome::Stale;
                row.note = if topic == "audit" {
                    format!(
                        "has {now} entries; an earlier check saw {seen}: the log was deleted, or put back to an old copy"
                    )
                } else {
                    format!("is at {now}; an earlier check saw {seen}")
                };
            }
        }
    }

    /// Whether the audit log has grown since a check saw it with `size` entries: then only a proof shows that it is still that
    /// log.
    pub fn has_grown_since(&self, size: u64) -> bool {
        size > 0 && self.audit_size.is_some_and(|now| now > size)
    }

    /// The audit log is not the one that was seen before.
    pub fn disbelieve_audit(&mut self, note: &str) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.topic == "audit") {
            row.outcome = Outcome::Forged;
            note.clone_into(&mut row.note);
        }
    }

    /// What is known of the audit log besides.
    pub fn note_audit(&mut self, note: &str) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.topic == "audit") {
            row.note = format!("{}; {note}", row.note);
        }
    }
}

#[derive(Deserialize)]
struct Head {
    device: String,
    seq: u64,
}

#[derive(Deserialize)]
struct PresenceHead {
    status: PresenceStatus,
    session: u64,
}

/// Checks the `retained` payloads of a device, by the last levels of their topics, against the digest among them.
pub fn check(prefix: &str, device: &str, key: &PublicKey, retained: &BTreeMap<String, Vec<u8>>) -> Report {
    let mut report = Report {
        device: device.to_owned(),
        rows: Vec::new(),
        digest: None,
        audit_size: None,
        audit_root: None,
    };
    let digest = match read_digest(device, key, retained.get(StateTopic::Digest.level()).map(Vec::as_slice)) {
        Ok(digest) => digest,
        Err((outcome, note)) => {
            report.rows.push(Row::new("digest", outcome, note));
            for topic in retained.keys().filter(|topic| is_state(topic)) {
                report.rows.push(Row::new(topic, Outcome::Forged, "no digest vouches for it"));
            }
            return report;
        }
    };
    let note = format!("signed by {} at {:.0}", &key.id()[..16], digest.at);
    report.rows.push(Row { signed_seq: Some(digest.seq), ..Row::new("digest", Outcome::Ok, note) });

    let names: BTreeSet<&str> = digest
        .topics
        .keys()
        .map(String::as_str)
        .chain(retained.keys().map(String::as_str).filter(|topic| is_state(topic)))
        .filter(|topic| *topic != StateTopic::Digest.level())
        .collect();
    for topic in names {
        let payload = retained.get(topic).map(Vec::as_slice);
        let mut row = check_topic(device, topic, payload, digest.topics.get(topic), digest.session);
        row.topic = clean(topic, 64);
        report.rows.push(row);
    }

    let origin = format!("{prefix}/{device}/audit");
    let audit = match Checkpoint::verify(&digest.checkpoint, &origin, key) {
        Ok(checkpoint) => {
            report.audit_size = Some(checkpoint.size);
            report.audit_root = Some(HEXLOWER.encode(&checkpoint.root));
            Row::new("audit", Outcome::Ok, format!("checkpoint over {} entries", checkpoint.size))
        }
        Err(error) => Row::new("audit", Outcome::Forged, error.to_string()),
    };
    report.rows.push(audit);
    report.digest = Some(digest);
    report
}

fn is_state(topic: &str) -> bool {
    topic != StateTopic::Digest.level() && StateTopic::ALL.iter().any(|state| state.level() == topic)
}

/// The digest in a retained payload, if it is the device's; otherwise what is wrong with it.
pub fn read_digest(
    device: &str,
    key: &PublicKey,
    payload: Option<&[u8]>,
) -> Result<Digest, (Outcome, String)> {
    let payload =
        payload.ok_or((Outcome::Missing, "the broker keeps no digest of this device".to_owned()))?;
    let forged = |note: String| (Outcome::Forged, note);
    let envelope = Envelope::parse(payload, DIGEST_TYPE, limits::PAYLOAD_BYTES)
        .map_err(|error| forged(clean(&error.to_string(), 200)))?;
    if envelope.signers(std::iter::once(key)).is_empty() {
        return Err(forged(format!("not signed by the device's key {}", &key.id()[..16])));
    }
    let bytes = envelope.payload_bytes().map_err(|error| forged(error.to_string()))?;
    let digest: Digest = serde_json::from_slice(&bytes)
        .map_err(|error| forged(format!("no digest: {}", clean(&error.to_string(), 200))))?;
    if digest.device != device {
        return Err(forged(format!("the digest of another device, {:?}", clean(&digest.device, 64))));
    }
    if digest.v != 1 || digest.topics.len() > TOPICS {
        return Err(forged(format!("a digest of format {} over {} topics", digest.v, digest.topics.len())));
    }
    Ok(digest)
}

fn check_topic(
    device: &str,
    topic: &str,
    payload: Option<&[u8]>,
    signed: Option<&TopicDigest>,
    session: u64,
) -> Row {
    let signed_seq = signed.map(|signed| signed.seq);
    let row = |outcome, seq, note: &str| Row { seq, signed_seq, ..Row::new(topic, outcome, note) };
    // A tombstone: the broker keeps nothing, and that is what the device signed.
    let closed = signed.is_some_and(|signed| signed.sha256 == sha256_hex(b""));
    let Some(payload) = payload.filter(|payload| !payload.is_empty()) else {
        if closed {
            return row(Outcome::Ok, None, "closed");
        }
        return row(Outcome::Missing, None, "signed by the device, but the broker does not have it");
    };
    if payload.len() > limits::PAYLOAD_BYTES {
        return row(Outcome::Forged, None, "larger than a device may send");
    }
    let head = serde_json::from_slice::<Head>(payload).ok();
    let seq = head.as_ref().map(|head| head.seq);
    if head.as_ref().is_some_and(|head| head.device != device) {
        return row(Outcome::Forged, seq, "names another device");
    }
    if signed.is_some_and(|signed| signed.sha256 == sha256_hex(payload)) {
        return row(Outcome::Ok, seq, "");
    }
    let Some(head) = head else {
        return row(Outcome::Forged, None, "not a message of a device");
    };
    if topic == StateTopic::Presence.level()
        && let Ok(presence) = serde_json::from_slice::<PresenceHead>(payload)
    {
        match presence.status {
            PresenceStatus::Lost if presence.session >= session => {
                return row(Outcome::Will, seq, "the device is gone, says the broker");
            }
            PresenceStatus::Lost => return row(Outcome::Stale, seq, "the will of an earlier session"),
            PresenceStatus::Offline
                if presence.session >= session && signed_seq.is_none_or(|at| head.seq > at) =>
            {
                return row(Outcome::Will, seq, "the device said good-bye");
            }
            PresenceStatus::Online | PresenceStatus::Offline => {}
        }
    }
    match signed_seq {
        Some(at) if head.seq < at => row(Outcome::Stale, seq, "older than what the device signed"),
        Some(at) if head.seq == at => {
            row(Outcome::Forged, seq, "not what the device signed under this number")
        }
        _ => row(Outcome::Newer, seq, "published after the digest"),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
