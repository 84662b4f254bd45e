//! Who may change what boots: an operator's envelope, or the release's own signed policy. Nobody's word alone.

use jiff::Timestamp;
use vigil_protocol::authorize::{Authorized, Device, authorize, authorize_accepted};
use vigil_protocol::command::{Kind, Reason};
use vigil_protocol::operators::Operators;
use vigil_wire::Control;

use super::request::Asker;
use super::{Updater, now};
use crate::engine::{Event, Order};
use crate::release::{InstallPolicy, Manifest, is_target_of, target_name};

/// Why a request was refused: a stable code and a sentence.
pub(super) type Refusal = (String, String);

fn kind_of(control: Control) -> Kind {
    match control {
        Control::Pause => Kind::UpdatePause,
        Control::Resume => Kind::UpdateResume,
        Control::Cancel => Kind::UpdateCancel,
        Control::Rollback => Kind::UpdateRollback,
    }
}

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
    pub(super) fn order(
        &mut self,
        envelope: Option<String>,
        release: Option<String>,
        reinstall: bool,
        asker: Asker,
    ) -> Result<(), Refusal> {
        let result = self.try_order(envelope, release, reinstall, asker);
        if let Err((code, message)) = &result
            && code != "nothing_to_do"
        {
            self.note("install.refused", &format!("{code}: {message}"));
        }
        result
    }

    fn try_order(
        &mut self,
        envelope: Option<String>,
        release: Option<String>,
        mut reinstall: bool,
        asker: Asker,
    ) -> Result<(), Refusal> {
        if self.engine.is_busy() {
            return Err(refusal(Reason::Busy, "an update is under way"));
        }
        let now = now();
        let slot = self.config.other_slot(self.engine.running()).name.clone();
        let before = self.engine.journal().clone();
        let order = if let Some(envelope) = envelope {
            let authorized = self.admit(&envelope, Kind::UpdateInstall)?;
            let release_target = self.release_of(&authorized)?;
            if authorized.command.args.get("lift_quarantine") == Some(&true.into()) {
                self.engine.lift_quarantine(&release_target);
            }
            reinstall = authorized.command.args.get("reinstall") == Some(&true.into());
            Order {
                command: Some(authorized.command.id),
                envelope: Some(envelope),
                release_target,
                slot,
                by_root: false,
            }
        } else if let Some(release_target) = release {
            if !is_target_of(&self.config.device.product, &release_target) {
                return Err(refusal(Reason::BadArgument, "not a release of this product"));
            }
            Order { command: None, envelope: None, release_target, slot, by_root: asker.is_root }
        } else {
            return Err(refusal(Reason::BadArgument, "an envelope or a release is needed"));
        };
        if !reinstall && self.runs(&order.release_target) {
            let message = format!(
                "{} runs here already: nothing to do. With reinstall=true it is written over the other slot, and the \
                 release there is no fall-back any more",
                order.release_target
            );
            // The command is used up all the same.
            return match self.flush_journal() {
                Ok(()) => Err(("nothing_to_do".to_owned(), message)),
                Err(error) => {
                    *self.engine.journal_mut() = before;
                    Err(refusal(Reason::Storage, format!("it could not be made durable: {error}")))
                }
            };
        }
        if let Some(faulty) = self.engine.quarantine(&order.release_target) {
            let message = format!(
                "{} was at fault {} times here, the last time: {}; an operator can lift this with \
                 lift_quarantine=true",
                order.release_target, faulty.failures, faulty.cause
            );
            *self.engine.journal_mut() = before;
            return Err(refusal(Reason::Quarantined, message));
        }
        if let Err(error) = self.tell(now, Event::Order(order)) {
            // Not on the disk, so not accepted: as if it had never come.
            self.pending.clear();
            *self.engine.journal_mut() = before;
            return Err(refusal(Reason::Storage, format!("the install could not be made durable: {error}")));
        }
        Ok(())
    }

    /// Whether the slot that runs is known to hold this release.
    fn runs(&self, release_target: &str) -> bool {
        let release = self.engine.journal().contents.get(self.engine.running());
        release.is_some_and(|release| {
            target_name(&self.config.device.product, &release.version) == release_target
        })
    }

    fn flush_journal(&mut self) -> std::io::Result<()> {
        self.journal.save(self.engine.journal())
    }

    /// Pauses, resumes, gives up or rolls back, durably, or says why not.
    pub(super) fn control(
        &mut self,
        control: Control,
        envelope: Option<String>,
        asker: Asker,
    ) -> Result<(), Refusal> {
        let result = self.try_control(control, envelope, asker);
        if let Err((code, message)) = &result {
            self.note("control.refused", &format!("{}: {code}: {message}", control.name()));
        }
        result
    }

    fn try_control(
        &mut self,
        control: Control,
        envelope: Option<String>,
        asker: Asker,
    ) -> Result<(), Refusal> {
        let before = self.engine.journal().clone();
        match envelope {
            Some(envelope) => drop(self.admit(&envelope, kind_of(control))?),
            None if asker.is_root => {}
            None => return Err(refusal(Reason::NotPermitted, "an operator's signed command is needed")),
        }
        if let Err(why) = self.engine.permits(control) {
            *self.engine.journal_mut() = before;
            return Err(refusal(Reason::NotNow, why.to_string()));
        }
        self.tell(now(), Event::Control(control)).map_err(|error| {
            // The engine has taken it up, and nothing else is done before it is on the disk.
            refusal(Reason::Storage, format!("it is not durable yet: {error}"))
        })
    }

    /// Verifies an envelope, and uses it up.
    fn admit(&mut self, envelope: &str, kind: Kind) -> Result<Authorized, Refusal> {
        let authorized = self.authorize_by(authorize, envelope, kind)?;
        let wall = self.trust.wall(now());
        self.engine
            .journal_mut()
            .replay
            .admit(&authorized.command, wall)
            .map_err(|reason| refusal(reason, "this command was used before, or is too old to tell"))?;
        Ok(authorized)
    }

    fn authorize_by(&self, rule: Rule, envelope: &str, kind: Kind) -> Result<Authorized, Refusal> {
        let device = &self.config.device;
        let device = Device::new(&device.id, &device.tenant, &device.groups);
        let authorized = rule(envelope.as_bytes(), self.trust.operators(), &device, self.trust.wall(now()))
            .map_err(|refused| refusal(refused.reason, refused.message))?;
        if authorized.kind != kind {
            return Err(refusal(Reason::Unsupported, "the envelope holds another kind of command"));
        }
        Ok(authorized)
    }

    fn release_of(&self, authorized: &Authorized) -> Result<String, Refusal> {
        let version = authorized.command.args.get("version").and_then(serde_json::Value::as_str);
        let target = version.map(|version| target_name(&self.config.device.product, version));
        target.filter(|target| is_target_of(&self.config.device.product, target)).ok_or_else(|| {
            refusal(Reason::BadArgument, "version: a semantic version is needed, e.g. version=2.0.0")
        })
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
                if let Err((code, message)) =
                    self.authorize_by(authorize_accepted, envelope, Kind::UpdateInstall)
                {
                    return Err((cause::NOT_AUTHORIZED, format!("{code}: {message}")));
                }
            }
            None if manifest.install == InstallPolicy::Automatic || install.by_root => {}
            None => {
                let message =
                    "the release waits for an operator's command (its install policy is 'operator')";
                return Err((cause::NOT_AUTHORIZED, message.to_owned()));
            }
        }
        for image in &manifest.images {
            if self.config.place(&install.target, &image.name).is_none() {
                return Err((cause::NOT_FOR_DEVICE, format!("the slot has no part {:?}", image.name)));
            }
        }
        Ok(())
    }
}
