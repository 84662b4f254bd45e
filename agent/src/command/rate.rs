//! How many commands of one operator a device takes: a key that got into the wrong hands, or a script that runs wild,
//! must not keep a room busy. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// Operators that are remembered; who has not sent for a minute is forgotten first.
const OPERATORS: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

/// A bucket for each operator.
#[derive(Debug)]
pub struct CommandRate {
    per_minute: u32,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl CommandRate {
    /// So many commands at once, and as many a minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: BTreeMap::new() }
    }

    /// Whether a command of `operator` is taken at the time `now` of a clock that only goes forward.
    pub fn take(&mut self, operator: &str, now: Duration) -> bool {
        let full = f64::from(self.per_minute);
        if self.buckets.len() >= OPERATORS && !self.buckets.contains_key(operator) {
            self.buckets.retain(|_, bucket| now.saturating_sub(bucket.at) < MINUTE);
            if self.buckets.len() >= OPERATORS {
                return false;
            }
        }
        let bucket = self.buckets.entry(operator.to_owned()).or_insert(Bucket { tokens: full, at: now });
        let passed = now.saturating_sub(bucket.at).as_secs_f64() / MINUTE.as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * full).min(full);
        bucket.at = now;
        let taken = bucket.tokens >= 1.0;
        if taken {
            bucket.tokens -= 1.0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operator_is_held_to_the_rate_and_another_is_not_the_worse_for_it() {
        let mut rate = CommandRate::new(6);
        let taken = (0..100).filter(|_| rate.take("olga", Duration::from_secs(1))).count();
        assert_eq!(taken, 6);
        assert!(rate.take("otto", Duration::from_secs(1)));
        assert!(!rate.take("olga", Duration::from_secs(5)));
        assert!(rate.take("olga", Duration::from_secs(11)));
        assert!(!rate.take("olga", Duration::from_secs(11)));
    }

    #[test]
    fn a_crowd_of_names_fills_no_memory() {
        let mut rate = CommandRate::new(1);
        let taken = (0..10_000).filter(|name| rate.take(&name.to_string(), Duration::ZERO)).count();
        assert_eq!(taken, OPERATORS);
        assert!(rate.take("later", Duration::from_secs(61)));
    }
}
