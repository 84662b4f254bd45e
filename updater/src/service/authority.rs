//! Who may change what boots: an operator's envelope, or the release's own signed policy. Nobody's word alone.

use jiff::Timestamp;
use vigil_protocol::authorize::{Authorized, Device, authorize, authorize_accepted};
use vigil_protocol::command::{Kind, Reason};
use vigil_protocol::operators::Operators;

use super::{Updater, now};
use crate::engine::{Event, Order};
use crate::release::{InstallPolicy, Manifest, target_name};

/// Why a request was refused: a stable code and a sentence.
pub(super) type Refusal = (String, String);

/// How a command is judged: as it comes, or again when it was accepted before.
type Rule = fn(
    &[u8],
    Option<&Operators>,
    &Device<'_>,
    Timestamp,
) -> Result<Authorized, vigil_protocol::authorize::Refusal>;

fn refusal(reason: Reason, message: impl Into<String>) -> Refusal {
    (reason.code(), message.into())
}

impl Updater {
    /// Takes up an install, durably, or says why not.
    pub(super) fn order(&mut self, envelope: Option<String>, release: Option<String>) -> Result<(), Refusal> {
        let result = self.try_order(envelope, release);
        if let Err((code, message)) = &result {
            self.note("install.refused", &format!("{code}: {message}"));
        }
        result
    }

    fn try_order(&mut self, envelope: Option<String>, release: Option<String>) -> Result<(), Refusal> {
        if self.engine.is_busy() {
            return Err(refusal(Reason::Busy, "an update is under way"));
        }
        let now = now();
        let slot = self.config.other_slot(self.engine.running()).name.clone();
        let before = self.engine.journal().clone();
        let order =
            if let Some(envelope) = envelope {
                let authorized = self.authorize(&envelope)?;
                let wall = self.trust.wall(now);
                self.engine.journal_mut().replay.admit(&authorized.command, wall).map_err(|reason| {
                    refusal(reason, "this command was used before, or is too old to tell")
                })?;
                let release_target = self.release_of(&authorized)?;
                Order { command: Some(authorized.command.id), envelope: Some(envelope), release_target, slot }
            } else if let Some(release_target) = release {
                let prefix = target_name(&self.config.device.product, "");
                if !release_target.starts_with(prefix.trim_end_matches(".json")) {
                    return Err(refusal(Reason::BadArgument, "not a release of this product"));
                }
                Order { command: None, envelope: None, release_target, slot }
            } else {
                return Err(refusal(Reason::BadArgument, "an envelope or a release is needed"));
            };
        if let Err(error) = self.tell(now, Event::Order(order)) {
            // Not on the disk, so not accepted: as if it had never come.
            self.pending.clear();
            *self.engine.journal_mut() = before;
            return Err(refusal(Reason::Storage, format!("the install could not be made durable: {error}")));
        }
        Ok(())
    }

    fn authorize(&self, envelope: &str) -> Result<Authorized, Refusal> {
        self.authorize_by(authorize, envelope)
    }

    fn authorize_by(&self, rule: Rule, envelope: &str) -> Result<Authorized, Refusal> {
        let device = &self.config.device;
        let device = Device { id: &device.id, tenant: &device.tenant, groups: &device.groups };
        let authorized = rule(envelope.as_bytes(), self.trust.operators(), &device, self.trust.wall(now()))
            .map_err(|refused| refusal(refused.reason, refused.message))?;
        if authorized.kind != Kind::UpdateInstall {
            return Err(refusal(Reason::Unsupported, "this kind of command changes nothing that boots"));
        }
        Ok(authorized)
    }

    fn release_of(&self, authorized: &Authorized) -> Result<String, Refusal> {
        let version = authorized.command.args.get("version").and_then(serde_json::Value::as_str);
        let version = version.and_then(|text| semver::Version::parse(text).ok()).ok_or_else(|| {
            refusal(Reason::BadArgument, "version: a semantic version is needed, e.g. version=2.0.0")
        })?;
        Ok(target_name(&self.config.device.product, &version.to_string()))
    }

    /// Whether the verified manifest may be installed here: the right device, and the right to install it, held
    /// against the operators list as it is after the refresh.
    pub(super) fn judge(&self, manifest: &Manifest) -> Result<(), (&'static str, String)> {
        use crate::engine::cause;
        let device = &self.config.device;
        if manifest.product != device.product || !manifest.hardware.contains(&device.hardware_revision) {
            let message = format!(
                "release for {} {:?}; this device is {} {}",
                manifest.product, manifest.hardware, device.product, device.hardware_revision
            );
            return Err((cause::NOT_FOR_DEVICE, message));
        }
        let Some(install) = &self.engine.journal().install else { return Ok(()) };
        match &install.envelope {
            Some(envelope) => {
                if let Err((code, message)) = self.authorize_by(authorize_accepted, envelope) {
                    return Err((cause::NOT_AUTHORIZED, format!("{code}: {message}")));
                }
            }
            None if manifest.install == InstallPolicy::Automatic => {}
            None => {
                let message =
                    "the release waits for an operator's command (its install policy is 'operator')";
                return Err((cause::NOT_AUTHORIZED, message.to_owned()));
            }
        }
        let slot = self.config.slot(&install.target);
        for image in &manifest.images {
            if !slot.is_some_and(|slot| slot.parts.contains_key(&image.name)) {
                return Err((cause::NOT_FOR_DEVICE, format!("the slot has no part {:?}", image.name)));
            }
        }
        Ok(())
    }
}
