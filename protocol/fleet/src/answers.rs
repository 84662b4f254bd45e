//! What comes back for one command, device by device: a plain value that is fed messages.

use std::collections::BTreeMap;

use serde_json::Value;
use vigil_protocol::command::{CommandResult, Status};
use vigil_protocol::diagnosis::Diagnosis;
use vigil_protocol::topic;

use crate::fleet;
use crate::text::clean;

/// Answering devices at most; a group is never so large.
const DEVICES: usize = 100_000;

/// One message that has to do with the command.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Whose it is.
    pub device: String,
    /// The message as it came.
    pub body: Value,
    /// What it is.
    pub what: What,
}

/// What a message is.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// How far the command has come.
    Result(CommandResult),
    /// What a network test found.
    Diagnosis(Diagnosis),
    /// The device's retained `update`.
    Update,
    /// One that this version cannot read.
    Unreadable,
}

/// The newest answer of each device.
#[derive(Clone, Debug)]
pub struct Answers {
    id: String,
    results: BTreeMap<String, CommandResult>,
}

impl Answers {
    /// Nothing has come yet for the command `id`.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), results: BTreeMap::new() }
    }

    /// Takes in a message; says what is new in it, if anything is.
    pub fn take(&mut self, prefix: &str, topic: &str, payload: &[u8]) -> Option<News> {
        let (device, rest) = topic::parse(prefix, topic)?;
        let news = |body, what| Some(News { device: device.to_owned(), body, what });
        let Some(body) = fleet::read(payload) else {
            let size = format!("{} bytes", payload.len());
            return news(Value::String(size), What::Unreadable);
        };
        match rest.split('/').next() {
            Some("result") => match serde_json::from_value::<CommandResult>(body.clone()) {
                Ok(result) => self
                    .on_result(device, &result)
                    .then_some(())
                    .and_then(|()| news(body, What::Result(result))),
                Err(_) => news(body, What::Unreadable),
            },
            Some("diagnosis") => match serde_json::from_value::<Diagnosis>(body.clone()) {
                Ok(diagnosis) => news(body, What::Diagnosis(diagnosis)),
                Err(_) => news(body, What::Unreadable),
            },
            Some("update") => news(body, What::Update),
            _ => None,
        }
    }

    /// A final answer is final: at least once means that an earlier one may come again after it.
    fn on_result(&mut self, device: &str, result: &CommandResult) -> bool {
        let known = self.results.get(device);
        let settled = known.is_some_and(|before| before.status.is_final());
        let foreign = result.device != device || result.id != self.id;
        if settled || foreign || (known.is_none() && self.results.len() >= DEVICES) {
            return false;
        }
        self.results.insert(device.to_owned(), result.clone());
        true
    }

    /// The newest answer of a device.
    pub fn of(&self, device: &str) -> Option<&CommandResult> {
        self.results.get(device)
    }

    /// Devices that have answered.
    pub fn heard(&self) -> usize {
        self.results.len()
    }

    /// Devices whose answer is final.
    pub fn finished(&self) -> usize {
        self.results.values().filter(|result| result.status.is_final()).count()
    }

    /// Devices that did not do it.
    pub fn failed(&self) -> usize {
        let bad = |status: Status| status.is_final() && status != Status::Succeeded;
        self.results.values().filter(|result| bad(result.status)).count()
    }
}

/// One answer in a line, for a person.
pub fn sentence(result: &CommandResult) -> String {
    let mut words =
        format!("{}  {}", clean(&result.device, 64), format!("{:?}", result.status).to_lowercase());
    if result.reason != vigil_protocol::command::Reason::Ok {
        words = format!("{words} ({})", result.reason.code());
    }
    if !result.message.is_empty() {
        words = format!("{words}: {}", clean(&result.message, 300));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(device: &str, id: &str, status: &str) -> (String, Vec<u8>) {
        let body = json!({"v": 1, "device": device, "id": id, "kind": "ping", "status": status, "reason": "ok",
            "at": "2026-06-01T12:00:00Z"});
        (format!("vigil/v1/{device}/result/{id}"), body.to_string().into_bytes())
    }

    fn take(answers: &mut Answers, (topic, payload): (String, Vec<u8>)) -> Option<What> {
        answers.take("vigil/v1", &topic, &payload).map(|news| news.what)
    }

    #[test]
    fn a_final_answer_stays_final_and_others_commands_are_nothing_to_us() {
        let mut answers = Answers::new("c-1");
        assert!(take(&mut answers, result("bar-1", "c-1", "accepted")).is_some());
        assert!(take(&mut answers, result("bar-1", "c-2", "failed")).is_none());
        assert!(take(&mut answers, result("bar-1", "c-1", "succeeded")).is_some());
        assert!(take(&mut answers, result("bar-1", "c-1", "accepted")).is_none());
        assert!(take(&mut answers, result("bar-2", "c-1", "rejected")).is_some());
        assert_eq!((answers.heard(), answers.finished(), answers.failed()), (2, 2, 1));
    }

    #[test]
    fn an_answer_in_the_name_of_another_device_is_passed_over() {
        let mut answers = Answers::new("c-1");
        let (_, payload) = result("bar-2", "c-1", "succeeded");
        assert!(answers.take("vigil/v1", "vigil/v1/bar-1/result/c-1", &payload).is_none());
        assert_eq!(answers.heard(), 0);
    }

    #[test]
    fn garbage_is_named_and_changes_nothing() {
        let mut answers = Answers::new("c-1");
        for payload in [&b"\xff"[..], b"{}"] {
            let news = answers.take("vigil/v1", "vigil/v1/bar-1/result/c-1", payload);
            assert_eq!(news.map(|news| news.what), Some(What::Unreadable));
        }
        assert_eq!(answers.heard(), 0);
    }
}
