//! Which version of MQTT is spoken next, where the configuration leaves it open: 5, and 3.1.1 with a broker that says that
//! it has no 5, or that closes without a word when it hears of it. Pure.

use super::mqtt::Version;

/// Silences in a row after which a version that was spoken is doubted: another broker may stand there.
const TRUST: u32 = 3;

/// What the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub enum VersionChoice {
    /// 5 if the broker has it, or else 3.1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 5 and nothing else.
    #[serde(rename = "5")]
    V5,
    /// 3.1.1 and nothing else.
    #[serde(rename = "3.1.1")]
    V4,
}

/// How an attempt ended, as far as it says something of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker has accepted the connection.
    Spoken,
    /// It says that it does not speak this version.
    Unknown,
    /// It has said nothing to CONNECT, or has closed the connection.
    Silence,
}

/// The version for the next attempt.
#[derive(Clone, Debug)]
pub struct Fallback {
    choice: VersionChoice,
    next: Version,
    /// So often silence is no word on versions: a connection came up in this one.
    trust: u32,
    /// It was silence that led to 3.1.1: what was silent was perhaps only busy.
    is_guess: bool,
}

impl Fallback {
    /// Begins with 5, if that is allowed.
    pub fn new(choice: VersionChoice) -> Self {
        let next = if choice == VersionChoice::V4 { Version::V4 } else { Version::V5 };
        Self { choice, next, trust: 0, is_guess: false }
    }

    /// What to speak.
    pub fn version(&self) -> Version {
        self.next
    }

    /// Learns from an attempt. Whether to try the other version at once: so only when the broker has said that it does
    /// not know this one, and the other one was not tried before.
    pub fn learn(&mut self, verdict: Verdict) -> bool {
        if self.choice != VersionChoice::Auto {
            return false;
        }
        match verdict {
            Verdict::Spoken => {
                self.trust = TRUST;
                false
            }
            Verdict::Silence if self.trust > 0 => {
                self.trust -= 1;
                false
            }
            Verdict::Unknown | Verdict::Silence => {
                // Back to 5 after each 3.1.1 that failed.
                let was_5 = self.next == Version::V5;
                self.next = if was_5 { Version::V4 } else { Version::V5 };
                self.trust = 0;
                self.is_guess = was_5 && verdict == Verdict::Silence;
                was_5 && verdict == Verdict::Unknown
            }
        }
    }

    /// A connection that was up has ended. A broker of which nobody knows that it has no 5 is asked for it again.
    pub fn ended(&mut self) {
        if self.is_guess {
            *self = Self::new(self.choice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto() -> Fallback {
        Fallback::new(VersionChoice::Auto)
    }

    #[test]
    fn a_broker_that_says_it_has_no_5_is_asked_for_3_1_1_at_once() {
        let mut fallback = auto();
        assert_eq!(fallback.version(), Version::V5);
        assert!(fallback.learn(Verdict::Unknown));
        assert_eq!(fallback.version(), Version::V4);
    }

    #[test]
    fn a_broker_that_closes_without_a_word_is_asked_for_the_other_version_next_time() {
        let mut fallback = auto();
        assert!(!fallback.learn(Verdict::Silence), "it may only be busy");
        assert_eq!(fallback.version(), Version::V4);
        assert!(!fallback.learn(Verdict::Silence));
        assert_eq!(fallback.version(), Version::V5, "it was");
    }

    #[test]
    fn a_version_that_was_spoken_is_kept_through_some_silence() {
        for first in [Version::V5, Version::V4] {
            let mut fallback = auto();
            if first == Version::V4 {
                fallback.learn(Verdict::Unknown);
            }
            fallback.learn(Verdict::Spoken);
            for _ in 0..TRUST {
                fallback.learn(Verdict::Silence);
                assert_eq!(fallback.version(), first);
            }
            fallback.learn(Verdict::Silence);
            assert_ne!(fallback.version(), first, "another broker may stand there");
        }
    }

    #[test]
    fn a_broker_that_was_only_silent_is_asked_for_5_again_and_one_that_said_so_is_not() {
        for (verdict, version) in [(Verdict::Silence, Version::V5), (Verdict::Unknown, Version::V4)] {
            let mut fallback = auto();
            fallback.learn(verdict);
            fallback.learn(Verdict::Spoken);
            assert_eq!(fallback.version(), Version::V4);
            fallback.ended();
            assert_eq!(fallback.version(), version, "{verdict:?}");
        }
    }

    #[test]
    fn a_broker_that_knows_no_version_is_not_asked_without_a_pause() {
        let mut fallback = auto();
        assert!(fallback.learn(Verdict::Unknown));
        assert!(!fallback.learn(Verdict::Unknown));
    }

    #[test]
    fn a_configured_version_is_never_left() {
        for (choice, version) in [(VersionChoice::V5, Version::V5), (VersionChoice::V4, Version::V4)] {
            let mut fallback = Fallback::new(choice);
            assert!(!fallback.learn(Verdict::Unknown) && !fallback.learn(Verdict::Silence));
            assert_eq!(fallback.version(), version);
        }
    }
}
