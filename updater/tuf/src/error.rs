//! What can be wrong with a file, and what to do about it.

use std::fmt;

use jiff::Timestamp;
use vigil_text::Label;

use crate::document::{Role, RoleName};

/// What an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The metadata of a role.
    Role(RoleName),
    /// The target of that name.
    Target(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "the {role} metadata"),
            Self::Target(name) => write!(f, "the target \"{}\"", Label::new(name)),
        }
    }
}

impl From<Role> for Subject {
    fn from(role: Role) -> Self {
        Self::Role(role.into())
    }
}

impl From<RoleName> for Subject {
    fn from(role: RoleName) -> Self {
        Self::Role(role)
    }
}

/// Why a file was refused. Nothing that was trusted before is touched by an error.
#[allow(missing_docs)] // The messages document the variants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0} cannot be read: {1}; publish it again")]
    Malformed(Subject, String),
    #[error(
        "{subject} has {counted} of the {needed} valid signatures that are asked for; sign it with the keys that root, \
         or the role that delegates to it, names"
    )]
    Threshold { subject: Subject, needed: u32, counted: u32 },
    #[error("{subject} has version {found} where {expected} is due; publish the versions in order")]
    Version { subject: Subject, expected: u64, found: u64 },
    #[error(
        "{subject} goes back: {file} was at version {known} and is offered at {offered}; this may be an attack, or \
         the repository was restored from an old backup"
    )]
    Rollback { subject: Subject, file: Label, known: u64, offered: u64 },
    #[error(
        "{subject} expired at {expires} (it is {now}); publish it anew, or put this device's clock right"
    )]
    Expired { subject: Subject, expires: Timestamp, now: Timestamp },
    #[error(
        "{subject} has {found} bytes where {allowed} are allowed; fetch it again, the copy served is not the one signed"
    )]
    Length { subject: Subject, allowed: u64, found: u64 },
    #[error("{0} has not the hash that was signed; fetch it again, the copy served is not the one signed")]
    Hash(Subject),
    #[error("{0} is not there ({1}); publish it, or check the repository's address")]
    Missing(Subject, String),
    #[error(
        "the search for {0} looked into {max} delegated roles without an end; delegate in fewer steps",
        max = crate::MAX_DELEGATIONS
    )]
    Delegations(Subject),
    #[error("no file was asked for; begin a refresh first")]
    Idle,
}

impl Error {
    /// A stable word for logs, status and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(..) => "malformed",
            Self::Threshold { .. } => "threshold",
            Self::Version { .. } => "version",
            Self::Rollback { .. } => "rollback",
            Self::Expired { .. } => "expired",
            Self::Length { .. } => "length",
            Self::Hash(..) => "hash",
            Self::Missing(..) => "missing",
            Self::Delegations(..) => "delegations",
            Self::Idle => "idle",
        }
    }

    /// What was refused.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Malformed(subject, _)
            | Self::Threshold { subject, .. }
            | Self::Version { subject, .. }
            | Self::Rollback { subject, .. }
            | Self::Expired { subject, .. }
            | Self::Length { subject, .. }
            | Self::Hash(subject)
            | Self::Missing(subject, _)
            | Self::Delegations(subject) => Some(subject),
            Self::Idle => None,
        }
    }

    /// The top-level role whose metadata was refused, if it was that.
    pub fn role(&self) -> Option<Role> {
        match self.subject()? {
            Subject::Role(RoleName::Top(role)) => Some(*role),
            Subject::Role(RoleName::Delegated(_)) | Subject::Target(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_what_it_is_about() {
        let delegated = RoleName::Delegated("bar".to_owned());
        let names = [Subject::from(Role::Root), Subject::from(delegated), Subject::Target("a".to_owned())];
        assert_eq!(
            names.map(|subject| Error::Hash(subject).to_string().split(" has").next().map(str::to_owned)),
            ["the root metadata", "the delegated role \"bar\" metadata", "the target \"a\""]
                .map(|name| Some(name.to_owned()))
        );
    }
}
