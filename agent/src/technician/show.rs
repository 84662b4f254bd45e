//! Answers, for a person: aligned, coloured where the terminal wants it.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

fn painted(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

fn is(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{DIM}{name:<14}{DIM:#}{value}");
}

/// What the daemon sends is shown to a terminal: nothing in it may steer the terminal.
fn clean(value: &str) -> String {
    vigil_text::clean(value, 300)
}

fn bytes(count: u64) -> String {
    let mut amount = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return format!("{amount:.0} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `vigil status`. The second value says whether all is well.
pub fn status(value: &Value) -> (String, bool) {
    let mut out = String::new();
    let connected = is(value, "/broker/connected");
    let updater = is(value, "/update/available");
    line(
        &mut out,
        "device",
        format!("{} ({})", clean(text(value, "/device")), clean(text(value, "/product"))),
    );
    line(
        &mut out,
        "agent",
        format!(
            "{}, up {}",
            clean(text(value, "/agent")),
            duration(number(value, "/uptime_seconds").unwrap_or(0))
        ),
    );
    line(&mut out, "device key", clean(text(value, "/device_key")));
    let broker = if connected {
        let since = clean(text(value, "/broker/since"));
        let sent_to = match text(value, "/broker/sent_to") {
            "" => String::new(),
            place => format!(", which sent us to {}", clean(place)),
        };
        let mqtt = clean(text(value, "/broker/mqtt"));
        format!("{} in MQTT {mqtt} since {since}{sent_to}", painted(GOOD, "connected"))
    } else {
        format!("{} {}", painted(BAD, "not connected"), clean(text(value, "/broker/last_error")))
    };
    line(&mut out, "broker", format!("{} {broker}", clean(text(value, "/broker/url"))));
    if let Some(outbox) = outbox_line(value) {
        line(&mut out, "outbox", outbox);
    }
    let operators = match number(value, "/operators/count") {
        Some(count) => format!("{count}, list valid until {}", clean(text(value, "/operators/expires"))),
        None => painted(BAD, "none known: commands are refused until the repository was reached"),
    };
    line(&mut out, "operators", operators);
    if updater {
        line(&mut out, "trust", trust_line(value.pointer("/trust").unwrap_or(&Value::Null)));
    }
    let update = if updater {
        update_line(value.pointer("/update").unwrap_or(&Value::Null))
    } else {
        painted(BAD, "vigil-updaterd does not answer")
    };
    line(&mut out, "update", update);
    if updater && !is(value, "/updater_confined") {
        line(&mut out, "", painted(BAD, "vigil-updaterd runs without its socket filter"));
    }
    line(&mut out, "audit", format!("{} entries", number(value, "/audit/entries").unwrap_or(0)));
    let verdict = text(value, "/last_diagnosis/verdict/summary");
    if !verdict.is_empty() {
        line(&mut out, "network", clean(verdict));
    }
    let mut well = connected && updater;
    for problem in value.pointer("/problems").and_then(Value::as_array).into_iter().flatten() {
        well = false;
        line(&mut out, "problem", painted(BAD, clean(problem.as_str().unwrap_or_default())));
    }
    for warning in value.pointer("/warnings").and_then(Value::as_array).into_iter().flatten() {
        line(&mut out, "warning", painted(BAD, clean(warning.as_str().unwrap_or_default())));
    }
    (out, well)
}

/// What is lost by a restart or was lost by one, if anything.
fn outbox_line(value: &Value) -> Option<String> {
    let in_memory = match text(value, "/broker/flash/keeps") {
        "state" => Some("metrics wait in memory alone"),
        "incidents_and_results" => Some("state and metrics wait in memory alone"),
        _ => None,
    };
    let both = |name: &str| {
        let of = |class: &str| number(value, &format!("/broker/outbox/{class}/{name}")).unwrap_or(0);
        of("messages").saturating_add(of("states"))
    };
    let mut parts = Vec::new();
    if let Some(what) = in_memory {
        parts.push(format!("the day's flash writes are spent: {what} ({} now)", both("unsaved")));
    }
    let dropped = both("dropped_unsaved");
    if dropped > 0 {
        parts.push(format!("{dropped} lost by a restart since the machine started"));
    }
    (!parts.is_empty()).then(|| painted(BAD, parts.join("; ")))
}

/// How new what the device trusts is.
fn trust_line(trust: &Value) -> String {
    let Some(timestamp) = number(trust, "/metadata/timestamp") else {
        return painted(BAD, "nothing yet: the repository was never reached");
    };
    let documents = trust.pointer("/documents").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let root = number(trust, "/metadata/root").unwrap_or(0);
    let mut text = format!("root {root}, timestamp {timestamp}, {documents} documents");
    for (pointer, what) in [
        ("/frozen", "nothing newer has come in time: the repository is withheld or not tended"),
        ("/operators_expired", "the operators list has expired: only 'observe' is allowed"),
        ("/clock_behind", "the clock is behind what signatures prove"),
    ] {
        if is(trust, pointer) {
            let _ = write!(text, "; {}", painted(BAD, what));
        }
    }
    text
}

fn release(value: &Value, pointer: &str) -> String {
    match text(value, &format!("{pointer}/version")) {
        "" => "unknown".to_owned(),
        version => format!(
            "{} (sequence {})",
            clean(version),
            number(value, &format!("{pointer}/sequence")).unwrap_or(0)
        ),
    }
}

fn update_line(value: &Value) -> String {
    let slot = Some(text(value, "/running_slot")).filter(|slot| !slot.is_empty()).unwrap_or("?");
    let mut out =
        format!("{}, slot {} runs {}", clean(text(value, "/state")), clean(slot), release(value, "/running"));
    if let (Some(done), Some(total)) =
        (number(value, "/progress/done_bytes"), number(value, "/progress/total_bytes"))
    {
        let _ = write!(out, ", {} of {} ({} %)", bytes(done), bytes(total), done * 100 / total.max(1));
    }
    if is(value, "/paused") {
        out.push_str(", paused");
    }
    out
}

/// What the install, or the last one, was to cost, and what it cost.
const COSTS: [(&str, &str); 11] = [
    ("fetch", "fetch_bytes"),
    ("requests", "requests"),
    ("indexes", "index_bytes"),
    ("metadata", "metadata_bytes"),
    ("write", "write_bytes"),
    ("running slot", "running_bytes"),
    ("in place", "present_bytes"),
    ("moved", "target_bytes"),
    ("zeros, same", "free_bytes"),
    ("frames", "frame_bytes"),
    ("patches", "patch_bytes"),
];

fn costs(out: &mut String, value: &Value) {
    let planned = |name: &str| number(value, &format!("/plan/{name}"));
    let spent = |name: &str| number(value, &format!("/outcome/{name}"));
    if COSTS.iter().all(|(_, name)| planned(name).is_none() && spent(name).is_none()) {
        return;
    }
    line(out, "", format!("{DIM}{:>10} {:>10}{DIM:#}", "planned", "spent"));
    for (label, name) in COSTS {
        let cell = |count: Option<u64>| match count {
            None => "-".to_owned(),
            Some(count) if name == "requests" => count.to_string(),
            Some(count) => fine(count),
        };
        line(out, label, format!("{:>10} {:>10}", cell(planned(name)), cell(spent(name))));
    }
    // Before the first byte and while they come; afterwards it is known how long it took.
    let took = number(value, "/outcome/fetch_millis").filter(|millis| *millis > 0);
    let is_coming = matches!(text(value, "/state"), "checking" | "invalidating" | "writing");
    match (number(value, "/plan/fetch_seconds"), took) {
        (Some(seconds), _) if is_coming => {
            line(out, "time", format!("about {} at the last rate", duration(seconds)));
        }
        (_, Some(millis)) if !is_coming => {
            line(out, "time", format!("{} to fetch", duration(millis.div_ceil(1000))));
        }
        _ => {}
    }
}

/// Bytes with a decimal place: two such numbers are compared.
fn fine(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// `vigil update`. All is well unless the last update failed.
pub fn update(value: &Value) -> (String, bool) {
    let mut out = String::new();
    if !is(value, "/available") {
        line(&mut out, "update", painted(BAD, "vigil-updaterd does not answer"));
        return (out, false);
    }
    line(&mut out, "state", update_line(value));
    for (slot, state) in value.pointer("/slots").and_then(Value::as_object).into_iter().flatten() {
        let bootable = if is(state, "/bootable") {
            painted(GOOD, "bootable")
        } else {
            "not in the boot order".to_owned()
        };
        line(
            &mut out,
            &format!("slot {}", clean(slot)),
            format!("{bootable}, {}", release(state, "/release")),
        );
    }
    if value.pointer("/target").is_some_and(Value::is_object) {
        line(&mut out, "target", release(value, "/target"));
    }
    line(&mut out, "floor", number(value, "/floor").unwrap_or(0));
    let problem = text(value, "/problem");
    if !problem.is_empty() {
        line(&mut out, "problem", painted(BAD, clean(problem)));
    }
    costs(&mut out, value);
    let failed = value.pointer("/last_failure").is_some_and(Value::is_object);
    if failed {
        let back = if is(value, "/last_failure/rolled_back") { "rolled back" } else { "not installed" };
        let cause = painted(BAD, clean(text(value, "/last_failure/cause")));
        let message = clean(text(value, "/last_failure/message"));
        line(
            &mut out,
            "last failure",
            format!("{cause}: {message} ({}, {back})", release(value, "/last_failure/release")),
        );
        let after = Some(text(value, "/last_failure/after")).filter(|after| !after.is_empty());
        let after = after.map_or_else(String::new, |after| format!("; the release before: {}", clean(after)));
        match text(value, "/last_failure/fault") {
            "release" => line(&mut out, "at fault", format!("the release{after}")),
            "room" => line(&mut out, "at fault", format!("the room{after}")),
            _ => {}
        }
    }
    for target in value.pointer("/quarantined").and_then(Value::as_array).into_iter().flatten() {
        line(&mut out, "quarantined", painted(BAD, clean(target.as_str().unwrap_or_default())));
    }
    (out, problem.is_empty() && !matches!(text(value, "/state"), "failed" | "rolled_back"))
}

/// `vigil health`.
pub fn health(value: &Value) -> (String, bool) {
    let mut out = String::new();
    if let Some(permille) = number(value, "/cpu_permille") {
        line(&mut out, "cpu", format!("{}.{} %", permille / 10, permille % 10));
    }
    if let Some(load) = value.pointer("/load").and_then(Value::as_array) {
        let load: Vec<_> = load.iter().filter_map(Value::as_f64).map(|load| format!("{load:.2}")).collect();
        line(&mut out, "load", load.join("  "));
    }
    if let (Some(used), Some(available)) =
        (number(value, "/memory_used_bytes"), number(value, "/memory_available_bytes"))
    {
        line(&mut out, "memory", format!("{} used, {} available", bytes(used), bytes(available)));
    }
    if let Some(uptime) = number(value, "/uptime_seconds") {
        line(&mut out, "up", duration(uptime));
    }
    let mut row = |what: &str, name: &str, says: String| {
        let _ = writeln!(out, "{DIM}{what:<14}{DIM:#}{:<24}  {says}", clean(name));
    };
    let list = |pointer: &str| value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    for disk in list("/disks") {
        let permille = number(&disk, "/used_permille").unwrap_or(0);
        let read_only = if is(&disk, "/read_only") { ", read-only" } else { "" };
        row(
            "disk",
            text(&disk, "/mount"),
            format!(
                "{} % used, {} free{read_only}",
                permille / 10,
                bytes(number(&disk, "/available_bytes").unwrap_or(0))
            ),
        );
    }
    for interface in list("/interfaces") {
        row(
            "interface",
            text(&interface, "/name"),
            format!(
                "{}, {} in, {} out, {} errors",
                clean(text(&interface, "/state")),
                bytes(number(&interface, "/received_bytes").unwrap_or(0)),
                bytes(number(&interface, "/sent_bytes").unwrap_or(0)),
                number(&interface, "/errors").unwrap_or(0)
            ),
        );
    }
    for sensor in list("/temperatures") {
        row(
            "temperature",
            text(&sensor, "/sensor"),
            format!("{:.1} °C", sensor.pointer("/celsius").and_then(Value::as_f64).unwrap_or(f64::NAN)),
        );
    }
    (out, true)
}

/// `vigil diagnose`. All is well when nobody is at fault.
pub fn diagnosis(value: &Value) -> (String, bool) {
    let mut out = String::new();
    for evidence in value.pointer("/evidence").and_then(Value::as_array).into_iter().flatten() {
        let outcome = text(evidence, "/outcome");
        let mark = match outcome {
            "ok" => painted(GOOD, "ok"),
            "failed" => painted(BAD, "failed"),
            other => clean(other),
        };
        let millis = number(evidence, "/millis").map_or_else(String::new, |millis| format!("{millis} ms"));
        let _ = writeln!(
            out,
            "{:<10} {mark}{}{:<28} {millis:>8}  {}",
            clean(text(evidence, "/layer")),
            " ".repeat(9_usize.saturating_sub(outcome.len())),
            clean(text(evidence, "/subject")),
            clean(text(evidence, "/message")),
        );
    }
    let domain = text(value, "/verdict/domain");
    let style = if domain == "none" { GOOD } else { BAD };
    let _ = writeln!(out);
    line(&mut out, "fault", painted(style, clean(domain)));
    line(&mut out, "because", clean(text(value, "/verdict/summary")));
    line(&mut out, "next", clean(text(value, "/verdict/advice")));
    (out, domain == "none")
}

/// `vigil audit show`.
pub fn audit(value: &Value) -> (String, bool) {
    let mut out = String::new();
    for entry in value.pointer("/entries").and_then(Value::as_array).into_iter().flatten() {
        let outcome = text(entry, "/outcome");
        let mark = if outcome == "success" { clean(outcome) } else { painted(BAD, clean(outcome)) };
        let detail = entry.pointer("/detail").map_or_else(String::new, ToString::to_string);
        let _ = writeln!(
            out,
            "{:>6}  {:<20.20}  {:<22} {:<18} {mark}  {DIM}{}{DIM:#}",
            number(entry, "/index").unwrap_or(0),
            clean(text(entry, "/at")),
            clean(text(entry, "/event")),
            clean(text(entry, "/actor")),
            clean(&detail),
        );
    }
    let _ = writeln!(out, "{} entries in all", number(value, "/size").unwrap_or(0));
    (out, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_of_any_shape_are_shown_without_a_panic_and_cannot_steer_the_terminal() {
        let hostile = json!({ "device": "\u{1b}[2Jevil", "verdict": { "domain": "\u{1b}]0;x\u{7}" },
            "evidence": [1, null, {"message": "\u{1b}[31m"}], "entries": [{}, []], "slots": {"\u{1b}c": {}},
            "disks": "no list", "load": [null], "progress": {"done_bytes": 1, "total_bytes": 0}, "available": true });
        for show in [status, health, update, diagnosis, audit] {
            for value in [&hostile, &Value::Null, &json!([])] {
                let (shown, _) = show(value);
                let own = anstream::adapter::strip_str(&shown).to_string();
                assert!(!own.contains('\u{1b}') && !shown.contains("\u{1b}[2J"), "{shown:?}");
            }
        }
    }

    #[test]
    fn what_was_planned_stands_beside_what_was_spent_and_the_time_only_where_it_is_known() {
        let mut value = json!({ "available": true, "state": "invalidating",
            "plan": { "fetch_bytes": 3_355_443, "requests": 12, "fetch_seconds": 230 } });
        let shown = |value: &Value| anstream::adapter::strip_str(&update(value).0).to_string();
        let text = shown(&value);
        assert!(text.contains("fetch            3.2 MiB          -\n"), "{text}");
        assert!(text.contains("requests              12          -\n"), "{text}");
        assert!(text.contains("about 3 min at the last rate"), "{text}");
        value["state"] = "confirmed".into();
        value["outcome"] = json!({ "fetch_bytes": 1000, "requests": 13, "fetch_millis": 1500 });
        let text = shown(&value);
        assert!(
            text.contains("requests              12         13\n") && text.contains("2 s to fetch"),
            "{text}"
        );
        assert!(!text.contains("at the last rate"), "{text}");
        value["state"] = "writing".into();
        value["plan"]["fetch_seconds"] = Value::Null;
        assert!(!shown(&value).contains("time"), "{}", shown(&value));
        assert!(!shown(&json!({ "available": true, "state": "idle" })).contains("planned"));
    }

    #[test]
    fn a_spent_budget_and_what_it_cost_are_shown_and_a_quiet_day_is_not() {
        let value = |keeps, dropped| {
            json!({ "broker": { "flash": { "keeps": keeps },
                "outbox": { "messages": {}, "states": { "unsaved": 3, "dropped_unsaved": dropped } } } })
        };
        assert_eq!(outbox_line(&value("all", 0)), None);
        let line = outbox_line(&value("incidents_and_results", 2)).unwrap();
        assert!(
            line.contains("state and metrics wait in memory alone (3 now); 2 lost by a restart"),
            "{line}"
        );
    }

    #[test]
    fn a_fault_and_a_failed_update_are_not_well() {
        assert!(!diagnosis(&json!({ "verdict": { "domain": "lan" } })).1);
        assert!(diagnosis(&json!({ "verdict": { "domain": "none" } })).1);
        assert!(!update(&json!({ "available": true, "state": "rolled_back" })).1);
    }
}
