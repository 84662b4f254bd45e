//! One probe a layer. Each says what it saw in the one vocabulary of [`Evidence`].

pub mod dns;
pub mod gateway;
pub mod interface;
pub mod tcp;
pub mod tls;

use std::io;
use std::time::Instant;

use vigil_protocol::diagnosis::{Evidence, Layer, Outcome};

use vigil_text::clean;

/// A message has at most so many characters: some of it was written by others.
const MESSAGE_CHARS: usize = 300;

/// A look at one thing, from its beginning to its one finding.
#[derive(Clone, Debug)]
pub struct Look {
    layer: Layer,
    subject: String,
    partner: Option<String>,
    began: Instant,
}

impl Look {
    /// Begins now.
    pub fn at(layer: Layer, subject: impl Into<String>) -> Self {
        Self { layer, subject: subject.into(), partner: None, began: Instant::now() }
    }

    /// Which partner it concerns, if one.
    pub fn of(mut self, partner: Option<&str>) -> Self {
        self.partner = partner.map(str::to_owned);
        self
    }

    /// It works.
    pub fn ok(self, message: impl AsRef<str>) -> Evidence {
        self.end(Outcome::Ok, "ok", message.as_ref(), true)
    }

    /// It works, but not as it should.
    pub fn warning(self, code: &str, message: impl AsRef<str>) -> Evidence {
        self.end(Outcome::Warning, code, message.as_ref(), true)
    }

    /// It was not tried.
    pub fn skipped(self, code: &str, message: impl AsRef<str>) -> Evidence {
        self.end(Outcome::Skipped, code, message.as_ref(), false)
    }

    /// It does not work.
    pub fn failed(self, code: &str, message: impl AsRef<str>) -> Evidence {
        self.end(Outcome::Failed, code, message.as_ref(), true)
    }

    fn end(self, outcome: Outcome, code: &str, message: &str, timed: bool) -> Evidence {
        Evidence {
            layer: self.layer,
            subject: clean(&self.subject, MESSAGE_CHARS),
            partner: self.partner,
            outcome,
            code: code.to_owned(),
            message: clean(message, MESSAGE_CHARS),
            millis: timed.then(|| super::millis(self.began)),
        }
    }
}

/// What the kernel says of a destination, as a stable code.
pub(super) fn code(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => "refused",
        io::ErrorKind::NetworkUnreachable => "no_route",
        io::ErrorKind::PermissionDenied => "not_permitted",
        _ => "unreachable",
    }
}
