//! Commands: what an operator may ask of a device, and what the device answers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an operator's key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Scope {
    /// Look, change nothing.
    Observe,
    /// Diagnose and operate the room.
    Operate,
    /// Change what the device boots.
    Update,
    /// Change configuration, identity, or erase.
    Admin,
}

/// The kinds of command this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Kind {
    /// Answer.
    #[serde(rename = "ping")]
    Ping,
    /// Say everything anew: all retained state and a digest over it.
    #[serde(rename = "refresh")]
    Refresh,
    /// Test the network and say whose fault it is.
    #[serde(rename = "diagnose")]
    Diagnose,
    /// Gather a report and bring it to where the signed argument says.
    #[serde(rename = "report.upload")]
    ReportUpload,
    /// Make the device show or sound where it is.
    #[serde(rename = "locate")]
    Locate,
    /// Restart the room's application.
    #[serde(rename = "restart_app")]
    RestartApp,
    /// Restart the device; held while a call is on, unless forced.
    #[serde(rename = "reboot")]
    Reboot,
    /// Somebody looks after an incident.
    #[serde(rename = "incident.acknowledge")]
    IncidentAcknowledge,
    /// An incident is known and not to be told for a while.
    #[serde(rename = "incident.suppress")]
    IncidentSuppress,
    /// An incident is settled, says a person.
    #[serde(rename = "incident.resolve")]
    IncidentResolve,
    /// What people did about a case.
    #[serde(rename = "case.update")]
    CaseUpdate,
    /// Look for a newer release now, instead of at the next refresh.
    #[serde(rename = "update.check")]
    UpdateCheck,
    /// Install a release; verified again by `vigil-updaterd`.
    #[serde(rename = "update.install")]
    UpdateInstall,
    /// Stop an install until it is resumed; verified again by `vigil-updaterd`, as those below.
    #[serde(rename = "update.pause")]
    UpdatePause,
    /// Go on with it.
    #[serde(rename = "update.resume")]
    UpdateResume,
    /// Give it up, before the new release runs.
    #[serde(rename = "update.cancel")]
    UpdateCancel,
    /// Go back from a release that is not confirmed yet.
    #[serde(rename = "update.rollback")]
    UpdateRollback,
    /// Stop another command that is under way, by its id.
    #[serde(rename = "cancel")]
    Cancel,
    /// Change the configuration by a merge patch.
    #[serde(rename = "config.apply")]
    ConfigApply,
    /// Make a new TLS key and certificate request.
    #[serde(rename = "identity.renew")]
    IdentityRenew,
    /// A collector holds the audit log up to here.
    #[serde(rename = "audit.acknowledge")]
    AuditAcknowledge,
    /// Erase what this owner put on the device.
    #[serde(rename = "factory_reset")]
    FactoryReset,
}

impl Kind {
    /// All kinds, in the order in which help texts list them.
    pub const ALL: [Self; 22] = [
        Self::Ping,
        Self::Refresh,
        Self::Diagnose,
        Self::ReportUpload,
        Self::Locate,
        Self::RestartApp,
        Self::Reboot,
        Self::IncidentAcknowledge,
        Self::IncidentSuppress,
        Self::IncidentResolve,
        Self::CaseUpdate,
        Self::UpdateCheck,
        Self::UpdateInstall,
        Self::UpdatePause,
        Self::UpdateResume,
        Self::UpdateCancel,
        Self::UpdateRollback,
        Self::Cancel,
        Self::ConfigApply,
        Self::IdentityRenew,
        Self::AuditAcknowledge,
        Self::FactoryReset,
    ];

    /// The kind's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Refresh => "refresh",
            Self::Diagnose => "diagnose",
            Self::ReportUpload => "report.upload",
            Self::Locate => "locate",
            Self::RestartApp => "restart_app",
            Self::Reboot => "reboot",
            Self::IncidentAcknowledge => "incident.acknowledge",
            Self::IncidentSuppress => "incident.suppress",
            Self::IncidentResolve => "incident.resolve",
            Self::CaseUpdate => "case.update",
            Self::UpdateCheck => "update.check",
            Self::UpdateInstall => "update.install",
            Self::UpdatePause => "update.pause",
            Self::UpdateResume => "update.resume",
            Self::UpdateCancel => "update.cancel",
            Self::UpdateRollback => "update.rollback",
            Self::Cancel => "cancel",
            Self::ConfigApply => "config.apply",
            Self::IdentityRenew => "identity.renew",
            Self::AuditAcknowledge => "audit.acknowledge",
            Self::FactoryReset => "factory_reset",
        }
    }

    /// The kind of a name, if this version knows it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What the operator's key must be granted.
    pub fn scope(self) -> Scope {
        match self {
            Self::Ping | Self::Refresh => Scope::Observe,
            Self::Diagnose
            | Self::ReportUpload
            | Self::Locate
            | Self::RestartApp
            | Self::Reboot
            | Self::IncidentAcknowledge
            | Self::IncidentSuppress
            | Self::IncidentResolve
            | Self::CaseUpdate
            | Self::Cancel => Scope::Operate,
            Self::UpdateCheck
            | Self::UpdateInstall
            | Self::UpdatePause
            | Self::UpdateResume
            | Self::UpdateCancel
            | Self::UpdateRollback => Scope::Update,
            Self::ConfigApply | Self::IdentityRenew | Self::AuditAcknowledge | Self::FactoryReset => {
                Scope::Admin
            }
        }
    }
}

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Target {
    /// One device, by its id.
    Device(String),
    /// Every device whose configuration names this group.
    Group(String),
}

/// The payload of a command's envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Command {
    /// Format version, 1.
    #[cfg_attr(feature = "schema", schemars(extend("const" = 1)))]
    pub v: u32,
    /// Unique; a name of at most 64 characters.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub id: String,
    /// The kind's name. A string, so that a kind this version does not know is answered `unsupported`.
    pub kind: String,
    /// Arguments by name.
    #[serde(default)]
    pub args: BTreeMap<String, Value>,
    /// The tenant whose operators list names the signing key.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub tenant: String,
    /// Device or group.
    pub target: Target,
    /// When it was signed.
    pub issued: Timestamp,
    /// After this it is refused.
    pub expires: Timestamp,
    /// The nonce of the device's session, as its `digest` has it: with it the command is for this one connection.
    /// A device that does not trust its clock demands it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    pub nonce: Option<String>,
}

/// Why a command was refused or failed, as a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Reason {
    /// Nothing went wrong.
    Ok,
    /// Larger than a command may be.
    Oversize,
    /// Not an envelope, or not a command in it.
    Malformed,
    /// No signature by a key that the operators list names.
    UnknownKey,
    /// A named key's signature does not verify.
    BadSignature,
    /// The operator's entry has expired.
    OperatorExpired,
    /// The operators list itself has expired; everything but `observe` is refused.
    OperatorsExpired,
    /// This device has no verified operators list yet.
    NoOperators,
    /// The key lacks the scope, or is not granted for this device.
    NotPermitted,
    /// The kind asks for the signatures of more operators.
    TooFewSignatures,
    /// Another tenant's command.
    WrongTenant,
    /// For another device or group.
    WrongTarget,
    /// Past its expiry, or valid for longer than allowed.
    Expired,
    /// Issued in the future by this device's clock.
    NotYetValid,
    /// The device does not trust its clock: the command must carry the nonce of its newest digest.
    NonceRequired,
    /// The command carries the nonce of another session.
    WrongNonce,
    /// More commands of this operator than a device takes in so short a time.
    RateLimited,
    /// This id was seen before.
    Replayed,
    /// Issued before the point up to which ids have been forgotten.
    BelowWatermark,
    /// The replay store is full; try again when commands have expired.
    StoreFull,
    /// This version does not know the kind.
    Unsupported,
    /// An argument is missing or wrong.
    BadArgument,
    /// The same thing is already under way.
    Busy,
    /// It makes no sense in the state that the device is in; the message says what does.
    NotNow,
    /// The release was at fault on this device too often; an operator can lift that.
    Quarantined,
    /// A call is on; the message says how to force it.
    CallActive,
    /// It took longer than it may.
    TimedOut,
    /// An operator stopped it.
    Cancelled,
    /// The configuration is at another version than the command expects.
    VersionConflict,
    /// The broker was not reached with the new settings: the former ones are back.
    Reverted,
    /// The device lost power, or was restarted, while it ran.
    Interrupted,
    /// `vigil-updaterd` does not answer.
    UpdaterUnavailable,
    /// `vigil-updaterd` refused; the message says why.
    UpdaterRefused,
    /// The update failed; the message has its cause.
    UpdateFailed,
    /// The disk is full or unwritable.
    Storage,
    /// Something else inside the device; the message says what.
    Internal,
}

impl Reason {
    /// The code as it is on the wire.
    pub fn code(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Status {
    /// Verified and durable; it will run.
    Accepted,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Ran and failed.
    Failed,
    /// Cut short by power or restart; it is not run again unasked.
    Interrupted,
    /// Refused; it did not run.
    Rejected,
}

impl Status {
    /// Whether nothing more will come.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Accepted | Self::Running)
    }
}

/// What is published on `result/{command-id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommandResult {
    /// Format version, 1.
    #[cfg_attr(feature = "schema", schemars(extend("const" = 1)))]
    pub v: u32,
    /// The device that answers.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub device: String,
    /// The command's id.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")))]
    pub id: String,
    /// The command's kind, as it was sent; empty when it could not be read.
    pub kind: String,
    /// How far it has come.
    pub status: Status,
    /// Why, as a stable code.
    pub reason: Reason,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the command gave back; its shape depends on the kind.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// When, by the device's clock.
    pub at: Timestamp,
}
