//! Answers one request.

use vigil_wire::{Request, Response, WIRE_VERSION};

use super::courier::refused;
use super::{Updater, now};
use crate::engine::Event;

const EVENTS_PAGE: usize = 100;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// The connection's number.
    pub(super) peer: u64,
    /// Root, at a device whose courier is somebody else: a person at the device, who may give an install up, and start
    /// one of a release that is signed.
    pub(super) is_root: bool,
}

impl Updater {
    /// The answer, and the blob that goes with it.
    pub(super) fn answer(&mut self, request: Request, blob: &[u8], asker: Asker) -> (Response, Vec<u8>) {
        vigil_turns::name(turn(&request));
        self.turn.renew();
        // The same person, at another prompt, may pause or give up what is in hand.
        let is_by_hand = asker.is_root && matches!(request, Request::Control { .. });
        if self.claim.is_some_and(|claim| claim != asker.peer) && request.is_change() && !is_by_hand {
            let message = "root at the device has the updater in hand just now; try again when that is done";
            return (refused("claimed", message), Vec::new());
        }
        let result = match request {
            Request::Hello { version: WIRE_VERSION } => {
                Ok(Response::Hello { version: WIRE_VERSION, updater: env!("CARGO_PKG_VERSION").to_owned() })
            }
            Request::Hello { version } => {
                let message =
                    format!("this updater speaks version {WIRE_VERSION} of the wire, not {version}");
                Ok(refused("version", &message))
            }
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Refresh => {
                if !self.trust.is_busy() {
                    self.trust.begin_refresh(now());
                }
                Ok(Response::Done)
            }
            Request::Follow { partners } => Ok(match self.trust.follow(partners) {
                Ok(()) => Response::Done,
                Err(error) => refused("bad_argument", &error.to_string()),
            }),
            Request::Target { name } => match self.trust.document(&name) {
                Ok(Some(bytes)) => return (Response::Target, bytes),
                Ok(None) => {
                    Ok(refused("no_target", "not held; refresh first, or the metadata does not list it"))
                }
                Err(error) => Err(error),
            },
            Request::Install { envelope, release, reinstall } => {
                Ok(match self.order(envelope, release, reinstall, asker) {
                    Ok(()) => Response::Done,
                    Err((code, message)) => refused(&code, &message),
                })
            }
            Request::Control { control, envelope } => Ok(match self.control(control, envelope, asker) {
                Ok(()) => Response::Done,
                Err((code, message)) => refused(&code, &message),
            }),
            Request::Claim if asker.is_root => {
                self.claim = Some(asker.peer);
                Ok(Response::Done)
            }
            Request::Claim => Ok(refused(
                "not_permitted",
                "only root at the device may have the updater in hand, and only where vigild is another user (courier in updater.toml)",
            )),
            Request::Next => self.next_need(asker.peer),
            Request::Feed { need, offset, fetch, trouble, passed_over } => {
                self.count_passed_over(passed_over);
                self.feed(asker.peer, need, offset, fetch, trouble.as_ref(), blob)
            }
            Request::Contact(contact) => self.tell(now(), Event::Contact(contact)).map(|()| Response::Done),
            Request::Witness { note } => self.witness.take(note, now().boot).map(|taken| match taken {
                Ok(()) => Response::Done,
                Err(why) => refused("witness", &why.to_string()),
            }),
            Request::Witnessed => Ok(Response::Witnessed { note: self.witness.note().map(str::to_owned) }),
            Request::ForgetWitness if asker.is_root => self.witness.forget().map(|()| {
                self.note("witness.forgotten", "root has said that the audit log begins anew");
                Response::Done
            }),
            Request::ForgetTime if asker.is_root => self.trust.forget_time(now()).map(|()| {
                self.note("time.forgotten", "root has said that the proven time was wrong");
                Response::Done
            }),
            Request::ForgetWitness | Request::ForgetTime => {
                Ok(refused("not_permitted", "only root at the device may do this"))
            }
            Request::Events { after } => {
                self.events.after(after, EVENTS_PAGE).map(|events| Response::Events { events })
            }
        };
        let response = result.unwrap_or_else(|error| refused("storage", &error.to_string()));
        (response, Vec::new())
    }
}

/// What a turn that answers it is called among the turns of the loop.
fn turn(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "request: hello",
        Request::Status => "request: status",
        Request::Refresh => "request: refresh",
        Request::Follow { .. } => "request: follow",
        Request::Target { .. } => "request: target",
        Request::Install { .. } => "request: install",
        Request::Control { .. } => "request: control",
        Request::Claim => "request: claim",
        Request::Next => "request: next",
        Request::Feed { .. } => "request: feed",
        Request::Contact(_) => "request: contact",
        Request::Witness { .. } => "request: witness",
        Request::Witnessed => "request: witnessed",
        Request::ForgetWitness | Request::ForgetTime => "request: forget",
        Request::Events { .. } => "request: events",
    }
}
