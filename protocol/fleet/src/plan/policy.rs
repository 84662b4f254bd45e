//! The rules of the kinds themselves, as far as the retained state tells what a device would do.

use semver::Version;
use serde_json::Value;
use vigil_protocol::command::{Command, Kind, Reason};
use vigil_protocol::state::Update;
use vigil_protocol::topic::is_name;
use vigil_wire::State;

use super::{Identity, Question, Retained, Row, Snapshot, Would};

/// What speaks against it, or leaves it open; nothing, if the device would do it.
pub(super) fn judge(
    fleet: &Snapshot,
    question: &Question<'_>,
    kind: Kind,
    retained: &Retained,
    identity: &Identity,
) -> Option<Row> {
    let command = question.command;
    match kind {
        Kind::UpdateInstall => install(fleet, question, retained, identity),
        Kind::UpdatePause | Kind::UpdateResume | Kind::UpdateCancel | Kind::UpdateRollback => {
            control(kind, retained.update.as_ref())
        }
        Kind::UpdateCheck => available(retained.update.as_ref()).err(),
        Kind::ConfigApply => config(command, retained.overlay_version),
        Kind::Reboot if command.args.get("force") != Some(&Value::Bool(true)) => Some(unknown(
            Reason::CallActive,
            "held while a call is on, and that is not retained; force=true overrides",
        )),
        Kind::Cancel => match text(command, "command") {
            Some(id) if is_name(id) => Some(unknown(Reason::NotNow, "what is under way is not retained")),
            _ => Some(refuse(Reason::BadArgument, "command: the id of a command is needed")),
        },
        Kind::AuditAcknowledge if number(command, "size").is_none() => {
            Some(refuse(Reason::BadArgument, "size: a number is needed"))
        }
        _ => None,
    }
}

/// What is worth knowing of a device that would do it.
pub(super) fn remark(question: &Question<'_>, kind: Kind, retained: &Retained) -> String {
    let running = retained.update.as_ref().and_then(|update| update.running.as_ref());
    match (kind, running, text(question.command, "version")) {
        (Kind::UpdateInstall, Some(running), Some(version)) if running.version == version => {
            format!("runs {version} already; it would be installed once more")
        }
        (Kind::UpdateInstall, Some(running), _) => format!("runs {}", running.version),
        _ => String::new(),
    }
}

fn install(
    fleet: &Snapshot,
    question: &Question<'_>,
    retained: &Retained,
    identity: &Identity,
) -> Option<Row> {
    let command = question.command;
    let update = match available(retained.update.as_ref()) {
        Ok(update) => update,
        Err(row) => return Some(row),
    };
    // An unknown state is one of tomorrow's; whether it is an end nobody here knows.
    match state(update) {
        Some(state) if state.is_under_way() => {
            return Some(refuse(Reason::Busy, &format!("an install is under way ({})", state.name())));
        }
        Some(_) => {}
        None => {
            return Some(unknown(
                Reason::Busy,
                "its update engine is in a state that this version does not know",
            ));
        }
    }
    let Some(version) = text(command, "version").and_then(|version| Version::parse(version).ok()) else {
        return Some(refuse(Reason::BadArgument, "version: a semantic version is needed"));
    };
    let version = version.to_string();
    let target = format!("releases/{}/{version}.json", identity.product);
    let lifted = command.args.get("lift_quarantine") == Some(&Value::Bool(true));
    if !lifted && update.quarantined.contains(&target) {
        return Some(refuse(Reason::Quarantined, "at fault there too often; lift_quarantine=true overrides"));
    }
    let manifest = question.release.filter(|release| release.version == version);
    if let Some(release) = manifest
        && (release.product != identity.product || !release.hardware.contains(&identity.hardware_revision))
    {
        let note = format!(
            "a release for {} {}; it is a {} {}",
            release.product,
            release.hardware.join(", "),
            identity.product,
            identity.hardware_revision
        );
        return Some(Row::new(Would::Refuse, "not_for_device", note));
    }
    let sequence =
        manifest.map(|release| release.sequence).or_else(|| fleet.sequence(&identity.product, &version));
    match sequence {
        Some(sequence) if sequence < update.floor => {
            let note = format!("{version} has sequence {sequence}, its floor is {}", update.floor);
            Some(Row::new(Would::Refuse, "below_floor", note))
        }
        Some(_) => None,
        // Sequences begin at 1: nothing lies below.
        None if update.floor <= 1 => None,
        None => {
            let note = format!(
                "its floor is {}; the sequence of {version} is in its manifest (--release)",
                update.floor
            );
            Some(Row::new(Would::Unknown, "below_floor", note))
        }
    }
}

/// `Engine::permits` of `vigil-updaterd`, by what is published.
fn control(kind: Kind, update: Option<&Update>) -> Option<Row> {
    let update = match available(update) {
        Ok(update) => update,
        Err(row) => return Some(row),
    };
    let Some(state) = state(update) else {
        return Some(unknown(
            Reason::NotNow,
            "its update engine is in a state that this version does not know",
        ));
    };
    let runs = matches!(state, State::Trial | State::Good);
    let too_late = runs || matches!(state, State::Activating | State::Rebooting);
    let why = match kind {
        _ if !state.is_under_way() => "no install is under way",
        Kind::UpdatePause if too_late => "too late: the restart into the new release was begun",
        Kind::UpdatePause if update.paused => "it is paused already",
        Kind::UpdateResume if !update.paused => "it is not paused",
        Kind::UpdateCancel if runs => "the new release runs already; roll it back instead",
        Kind::UpdateRollback if !runs => "the new release does not run yet; cancel the install instead",
        _ => return None,
    };
    Some(refuse(Reason::NotNow, why))
}

fn config(command: &Command, overlay_version: Option<u64>) -> Option<Row> {
    if !command.args.get("patch").is_some_and(Value::is_object) {
        return Some(refuse(Reason::BadArgument, "patch: an object is needed"));
    }
    let Some(expected) = number(command, "expected_version") else {
        return Some(refuse(Reason::BadArgument, "expected_version: a number is needed"));
    };
    let within = command.args.get("confirm_within").map(Value::as_u64);
    if within.is_some_and(|seconds| !seconds.is_some_and(|seconds| (30..=3600).contains(&seconds))) {
        return Some(refuse(Reason::BadArgument, "confirm_within: 30 to 3600 seconds"));
    }
    match overlay_version {
        None => Some(unknown(Reason::VersionConflict, "it has not said its configuration")),
        Some(version) if version != expected => Some(refuse(
            Reason::VersionConflict,
            &format!("its overlay is at {version}, the command expects {expected}"),
        )),
        Some(_) => None,
    }
}

fn available(update: Option<&Update>) -> Result<&Update, Row> {
    match update {
        Some(update) if update.available => Ok(update),
        Some(_) => Err(Row::new(
            Would::Refuse,
            &Reason::UpdaterUnavailable.code(),
            "its vigil-updaterd does not answer vigild",
        )),
        None => Err(Row::new(Would::Unknown, "no_state", "it has not said how its updater stands")),
    }
}

fn state(update: &Update) -> Option<State> {
    serde_json::from_value(Value::String(update.state.clone())).ok()
}

fn text<'c>(command: &'c Command, name: &str) -> Option<&'c str> {
    command.args.get(name)?.as_str()
}

fn number(command: &Command, name: &str) -> Option<u64> {
    command.args.get(name)?.as_u64()
}

fn refuse(reason: Reason, note: &str) -> Row {
    Row::new(Would::Refuse, &reason.code(), note)
}

fn unknown(reason: Reason, note: &str) -> Row {
    Row::new(Would::Unknown, &reason.code(), note)
}
