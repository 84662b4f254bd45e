//! `status`: all that the broker keeps of one device.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use vigil_protocol::topic::{self, StateTopic, Topics};

use super::{Context, drain};
use crate::failure::Failure;
use crate::fleet;
use crate::link::Link;
use crate::text::{self, Tone, clean, line};

/// Lines of one topic at most.
const LINES: usize = 300;

/// Shows one device.
pub async fn status(context: &Context, device: &str, wait: Duration) -> Result<(), Failure> {
    let prefix = context.settings.prefix()?;
    let topics = Topics::new(prefix, device).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut link = Link::open(&context.settings).await?;
    link.subscribe(&StateTopic::ALL.map(|topic| topics.state(topic))).await?;
    let mut found: BTreeMap<String, Option<Value>> = BTreeMap::new();
    drain(&mut link, Instant::now() + wait, |message| {
        if let Some((_, rest)) = topic::parse(prefix, &message.topic).filter(|_| !message.payload.is_empty())
        {
            found.insert(rest.to_owned(), fleet::read(&message.payload));
        }
    })
    .await?;
    if found.is_empty() {
        return Err(Failure::Failed(format!(
            "the broker keeps nothing of {device}; 'vigil-fleet ls' shows the devices it knows"
        )));
    }
    if context.json {
        return text::json(&json!({"device": device, "topics": found}));
    }
    let now = Timestamp::now();
    for state in StateTopic::ALL {
        let Some(message) = found.get(state.level()) else { continue };
        match message {
            None => line(&format!("{}  (unreadable)", state.level()), Tone::Bad)?,
            // Its signature is what matters in it, and `check` looks at that.
            Some(_) if state == StateTopic::Digest => {
                line(&format!("digest  signed; verify it with 'vigil-fleet check {device}'"), Tone::Bold)?;
            }
            Some(message) => {
                let age = fleet::at(message).map_or_else(|| "undated".to_owned(), |at| text::ago(at, now));
                line(&format!("{}  {age}, message {}", state.level(), message["seq"]), Tone::Bold)?;
                for text in describe(message) {
                    line(&text, Tone::Plain)?;
                }
            }
        }
    }
    line("\nNone of this is verified; 'vigil-fleet check' does that.", Tone::Plain)
}

fn describe(message: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let envelope = ["v", "device", "seq", "at"];
    for (name, value) in
        message.as_object().into_iter().flatten().filter(|(name, _)| !envelope.contains(&name.as_str()))
    {
        add(&mut lines, 1, name, value);
    }
    lines
}

fn add(lines: &mut Vec<String>, depth: usize, name: &str, value: &Value) {
    if lines.len() >= LINES {
        return;
    }
    let indent = "  ".repeat(depth);
    let label = clean(name, 40).replace('_', " ");
    match value {
        Value::Object(fields) if depth < 6 && !fields.is_empty() => {
            lines.push(format!("{indent}{label}"));
            for (name, value) in fields {
                add(lines, depth + 1, name, value);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) && depth < 6 => {
            lines.push(format!("{indent}{label}"));
            for item in items.iter().take(64) {
                lines.push(format!("{indent}  {}", one_line(item)));
            }
        }
        value => {
            let (label, text) = readable(name, &label, value);
            lines.push(format!("{indent}{label:<24} {text}"));
        }
    }
}

fn readable(name: &str, label: &str, value: &Value) -> (String, String) {
    match value.as_u64() {
        Some(number) if name.ends_with("_bytes") => {
            (label.trim_end_matches(" bytes").to_owned(), text::bytes(number))
        }
        Some(number) if name.ends_with("_permille") => {
            (label.trim_end_matches(" permille").to_owned(), format!("{}.{}%", number / 10, number % 10))
        }
        _ => (label.to_owned(), plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text, 200),
        Value::Array(items) => items.iter().take(32).map(plain).collect::<Vec<_>>().join(", "),
        other => clean(&other.to_string(), 200),
    }
}

fn one_line(item: &Value) -> String {
    let Some(fields) = item.as_object() else { return plain(item) };
    let parts = fields.iter().take(16).map(|(name, value)| {
        let (label, text) = readable(name, &clean(name, 40).replace('_', " "), value);
        format!("{label} {text}")
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_reads_as_indented_lines_with_units() {
        let message = json!({"v": 1, "device": "bar-1", "seq": 2, "memory_used_bytes": 1_048_576, "cpu_permille": 125,
            "load": [1.0, 0.5], "disks": [{"mount": "/", "read_only": false}], "progress": {"done_bytes": 1}});
        let text = describe(&message).join("\n");
        for part in ["memory used", "1.0 MiB", "12.5%", "1.0, 0.5", "mount /, read only false", "    done"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("bar-1"));
    }

    #[test]
    fn deep_and_wide_nonsense_stays_bounded() {
        let wide: Value =
            (0..10_000).map(|n| (format!("k{n}"), json!({"a": 1}))).collect::<serde_json::Map<_, _>>().into();
        assert!(describe(&wide).len() <= LINES + 1);
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({ "a": deep });
        }
        assert!(describe(&deep).iter().all(|line| line.len() < 400));
    }
}
