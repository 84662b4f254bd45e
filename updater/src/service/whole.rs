//! The daemon as its peers see it: whole, or degraded until its state can be used again.

use std::time::Duration;

use tracing::{info, warn};
use vigil_wire::{Request, Response};

use super::degraded::Degraded;
use super::request::Asker;
use super::{Pause, Updater, now};
use crate::config::Config;
use crate::engine::Now;
use crate::watchdog::Watchdog;

/// What is served.
pub struct Service {
    state: State,
    watchdog: Option<Watchdog>,
}

enum State {
    Whole(Box<Updater>),
    Degraded(Box<Degraded>),
}

impl Service {
    /// Opens the watchdog and every store. What cannot be used is told through the socket, not by ending.
    pub fn open(config: Config, confined: bool) -> Self {
        let watchdog = config.watchdog.as_ref().and_then(|watchdog| {
            Watchdog::open(watchdog).inspect_err(|error| warn!(%error, "there is no watchdog to feed")).ok()
        });
        let state = match Updater::open(config.clone(), confined) {
            Ok(updater) => State::Whole(Box::new(updater)),
            Err(error) => {
                State::Degraded(Box::new(Degraded::new(config, confined, &format!("{error:#}"), now())))
            }
        };
        Self { state, watchdog }
    }

    /// What is to be done now, and how long nothing is.
    pub(super) fn work(&mut self, now: Now) -> Pause {
        if let State::Degraded(degraded) = &mut self.state
            && let Some(updater) = degraded.try_again(now)
        {
            info!("the updater's state can be used again");
            self.state = State::Whole(Box::new(updater));
        }
        match &mut self.state {
            State::Whole(updater) => updater.work(now),
            State::Degraded(degraded) => degraded.work(),
        }
    }

    /// Feeds the watchdog if it is time, and says when it is the next time.
    pub(super) fn feed(&mut self, now: Duration) -> Option<Duration> {
        let may_feed = match &self.state {
            State::Whole(_) => true,
            State::Degraded(degraded) => degraded.may_feed(now),
        };
        self.watchdog.as_mut().filter(|_| may_feed).map(|watchdog| watchdog.feed(now))
    }

    pub(super) fn answer(&mut self, request: Request, blob: &[u8], asker: Asker) -> (Response, Vec<u8>) {
        match &mut self.state {
            State::Whole(updater) => updater.answer(request, blob, asker),
            State::Degraded(degraded) => (degraded.answer(&request), Vec::new()),
        }
    }

    pub(super) fn note(&mut self, kind: &str, message: &str) {
        match &mut self.state {
            State::Whole(updater) => updater.note(kind, message),
            State::Degraded(_) => warn!(kind, message, "not kept"),
        }
    }

    /// Whoever is gone has no claim any more.
    pub(super) fn keep_claim(&mut self, is_there: impl Fn(u64) -> bool) {
        if let State::Whole(updater) = &mut self.state {
            updater.claim = updater.claim.filter(|claim| is_there(*claim));
        }
    }
}
