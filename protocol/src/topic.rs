//! Topic names under `{prefix}/{device}/` and `{prefix}/group/{group}/`, and the rules for the names in them.

use crate::limits;

/// The prefix unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "vigil/v1";

/// A name was not fit for a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// A device, group or tenant name.
    #[error("{0:?} is no name: use 1 to 64 of A-Z a-z 0-9 . _ - (and not 'group')")]
    Name(String),
    /// The prefix.
    #[error("{0:?} is no topic prefix: use names separated by '/', at most 3 of them, e.g. 'vigil/v1'")]
    Prefix(String),
}

/// Whether `name` may stand for a device, group, tenant, partner or command id: safe in topics, paths and logs.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !name.starts_with('.')
        && name != "group"
}

/// What a device publishes as retained state, one topic each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateTopic {
    /// Online, offline or lost.
    Presence,
    /// Identity, hardware, software, slots.
    Inventory,
    /// The newest snapshot.
    Health,
    /// Slots, running release, progress, last failure.
    Update,
    /// The effective configuration, secrets left out.
    Config,
    /// One incident and its whole life; an empty tombstone when it is closed.
    Incident(IncidentId),
    /// The signed digest over all of the above.
    Digest,
}

/// The incidents that a device can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IncidentId {
    /// The operators list has expired or was withdrawn: only `observe` is allowed, or nothing.
    OperatorsExpired,
    /// The repository's timestamp has expired: somebody withholds what is newer, or nobody tends it.
    RepositoryFrozen,
}

impl IncidentId {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::OperatorsExpired, Self::RepositoryFrozen];

    /// Its id.
    pub fn name(self) -> &'static str {
        match self {
            Self::OperatorsExpired => "operators-expired",
            Self::RepositoryFrozen => "repository-frozen",
        }
    }
}

impl StateTopic {
    /// All of them, in the order in which they are published after connecting.
    pub const ALL: [Self; 8] = [
        Self::Presence,
        Self::Inventory,
        Self::Health,
        Self::Update,
        Self::Config,
        Self::Incident(IncidentId::OperatorsExpired),
        Self::Incident(IncidentId::RepositoryFrozen),
        Self::Digest,
    ];

    /// What follows the device in the topic.
    pub fn level(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Inventory => "inventory",
            Self::Health => "health",
            Self::Update => "update",
            Self::Config => "config",
            Self::Incident(IncidentId::OperatorsExpired) => "incident/operators-expired",
            Self::Incident(IncidentId::RepositoryFrozen) => "incident/repository-frozen",
            Self::Digest => "digest",
        }
    }
}

/// The topics of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
    device: String,
}

impl Topics {
    /// Checks the names once, so that every topic made from them is within the limits.
    pub fn new(prefix: &str, device: &str) -> Result<Self, TopicError> {
        check_prefix(prefix)?;
        if !is_name(device) {
            return Err(TopicError::Name(device.to_owned()));
        }
        Ok(Self { prefix: prefix.to_owned(), device: device.to_owned() })
    }

    /// A retained state topic.
    pub fn state(&self, topic: StateTopic) -> String {
        format!("{}/{}/{}", self.prefix, self.device, topic.level())
    }

    /// Where the device takes commands for itself.
    pub fn command(&self) -> String {
        format!("{}/{}/command", self.prefix, self.device)
    }

    /// Where the device takes commands for one of its groups.
    pub fn group_command(&self, group: &str) -> String {
        group_command(&self.prefix, group)
    }

    /// Where the answer to one command goes. `id` must be a name.
    pub fn result(&self, id: &str) -> String {
        format!("{}/{}/result/{id}", self.prefix, self.device)
    }

    /// Where the result of a network test goes.
    pub fn diagnosis(&self, id: &str) -> String {
        format!("{}/{}/diagnosis/{id}", self.prefix, self.device)
    }
}

/// Where commands for a group go.
pub fn group_command(prefix: &str, group: &str) -> String {
    format!("{prefix}/group/{group}/command")
}

/// Checks a prefix: names separated by slashes, so few that the longest topic keeps within the limits.
pub fn check_prefix(prefix: &str) -> Result<(), TopicError> {
    let fits = prefix.len() <= 64
        && prefix.split('/').count() <= 3
        && prefix.split('/').all(|level| is_name(level) && !level.starts_with('$'));
    if fits { Ok(()) } else { Err(TopicError::Prefix(prefix.to_owned())) }
}

/// Takes a topic apart: the device and what comes after it.
pub fn parse<'t>(prefix: &str, topic: &'t str) -> Option<(&'t str, &'t str)> {
    if topic.len() > limits::TOPIC_BYTES {
        return None;
    }
    let rest = topic.strip_prefix(prefix)?.strip_prefix('/')?;
    let (device, rest) = rest.split_once('/')?;
    is_name(device).then_some((device, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_topic_is_within_every_brokers_limits() {
        let name = "n".repeat(64);
        let prefix = format!("{}/{}/{}", "p".repeat(20), "q".repeat(20), "r".repeat(22));
        let topics = Topics::new(&prefix, &name).unwrap();
        for topic in [topics.result(&name), topics.diagnosis(&name), topics.group_command(&name)] {
            assert!(topic.len() <= limits::TOPIC_BYTES, "{}", topic.len());
            assert!(topic.matches('/').count() <= limits::TOPIC_SLASHES);
        }
    }

    #[test]
    fn names_that_could_reach_another_topic_or_path_are_refused() {
        for name in ["", "a/b", "+", "#", "..", ".hidden", "group", "a b", "ü", "$SYS", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
            assert!(Topics::new(DEFAULT_PREFIX, name).is_err());
        }
        assert!(Topics::new("a//b", "device").is_err());
        assert!(Topics::new("a/+", "device").is_err());
    }

    #[test]
    fn a_topic_is_taken_apart_into_device_and_rest() {
        assert_eq!(parse("vigil/v1", "vigil/v1/bar-1/result/7"), Some(("bar-1", "result/7")));
        assert_eq!(parse("vigil/v1", "vigil/v1/group/x/command"), None);
        assert_eq!(parse("vigil/v1", "vigil/v2/bar-1/health"), None);
    }
}
