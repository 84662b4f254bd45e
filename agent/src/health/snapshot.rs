//! Health by exception: a snapshot is worth a message when it differs enough from the one last published.

use std::time::Duration;

use vigil_protocol::state::Health;

use crate::config::{Deadbands, Health as Settings};

/// Decides which snapshots are published. No clock: the caller says how late it is.
#[derive(Debug)]
pub struct Reporter {
    settings: Settings,
    published: Option<(Duration, Health)>,
}

impl Reporter {
    /// The first snapshot is always published.
    pub fn new(settings: Settings) -> Self {
        Self { settings, published: None }
    }

    /// Gives the snapshot back if it must be published; `now` is monotonic.
    pub fn on_snapshot(&mut self, now: Duration, health: Health) -> Option<Health> {
        let due = self.published.as_ref().is_none_or(|(at, last)| {
            now.saturating_sub(*at) >= self.settings.max_silence
                || differs(&self.settings.deadbands, last, &health)
        });
        due.then(|| {
            self.published = Some((now, health.clone()));
            health
        })
    }
}

fn differs(bands: &Deadbands, last: &Health, new: &Health) -> bool {
    cpu(bands, last, new)
        || load(bands, last, new)
        || memory(bands, last, new)
        || disks(bands, last, new)
        || interfaces(last, new)
        || temperatures(bands, last, new)
        || last.missing != new.missing
}

fn cpu(bands: &Deadbands, last: &Health, new: &Health) -> bool {
    moved(last.cpu_permille, new.cpu_permille, |a, b| a.abs_diff(b) > bands.cpu_permille)
}

fn load(bands: &Deadbands, last: &Health, new: &Health) -> bool {
    moved(last.load, new.load, |a, b| a.iter().zip(b).any(|(a, b)| (a - b).abs() > bands.load))
}

fn memory(bands: &Deadbands, last: &Health, new: &Health) -> bool {
    let all =
        u128::from(new.memory_used_bytes.unwrap_or(0)) + u128::from(new.memory_available_bytes.unwrap_or(0));
    let beyond = |a: u64, b: u64| u128::from(a.abs_diff(b)) * 1000 > all * u128::from(bands.memory_permille);
    moved(last.memory_used_bytes, new.memory_used_bytes, beyond)
        || moved(last.swap_used_bytes, new.swap_used_bytes, beyond)
}

fn disks(bands: &Deadbands, last: &Health, new: &Health) -> bool {
    listed(&last.disks, &new.disks, |a, b| {
        a.mount != b.mount
            || a.read_only != b.read_only
            || a.used_permille.abs_diff(b.used_permille) > bands.disk_permille
    })
}

/// Counters move all the time; they travel along with the next message.
fn interfaces(last: &Health, new: &Health) -> bool {
    listed(&last.interfaces, &new.interfaces, |a, b| a.name != b.name || a.state != b.state)
}

fn temperatures(bands: &Deadbands, last: &Health, new: &Health) -> bool {
    let critical = |celsius: f64, limit: Option<f64>| limit.is_some_and(|limit| celsius >= limit);
    listed(&last.temperatures, &new.temperatures, |a, b| {
        a.sensor != b.sensor
            || (a.celsius - b.celsius).abs() > bands.temperature_celsius
            || critical(a.celsius, a.critical_celsius) != critical(b.celsius, b.critical_celsius)
    })
}

/// Appeared, disappeared or moved.
fn moved<T>(last: Option<T>, new: Option<T>, beyond: impl Fn(T, T) -> bool) -> bool {
    match (last, new) {
        (Some(last), Some(new)) => beyond(last, new),
        (None, None) => false,
        _ => true,
    }
}

/// Collectors sort their lists, so that equal places are equal things.
fn listed<T>(last: &[T], new: &[T], beyond: impl Fn(&T, &T) -> bool) -> bool {
    last.len() != new.len() || last.iter().zip(new).any(|(last, new)| beyond(last, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vigil_protocol::state::{DiskHealth, InterfaceHealth, Temperature};

    fn healthy() -> Health {
        Health {
            cpu_permille: Some(100),
            load: Some([0.1, 0.2, 0.3]),
            memory_used_bytes: Some(400),
            memory_available_bytes: Some(600),
            swap_used_bytes: Some(0),
            uptime_seconds: Some(10),
            disks: vec![DiskHealth {
                mount: "/".to_owned(),
                available_bytes: 5,
                used_permille: 500,
                read_only: false,
            }],
            interfaces: vec![InterfaceHealth {
                name: "eth0".to_owned(),
                state: "up".to_owned(),
                received_bytes: 1,
                sent_bytes: 1,
                errors: 0,
            }],
            temperatures: vec![Temperature {
                sensor: "soc".to_owned(),
                celsius: 60.0,
                critical_celsius: Some(62.0),
            }],
            missing: Vec::new(),
        }
    }

    fn reports(change: impl Fn(&mut Health)) -> bool {
        let mut reporter = Reporter::new(Settings::default());
        assert!(reporter.on_snapshot(Duration::ZERO, healthy()).is_some());
        let mut health = healthy();
        change(&mut health);
        reporter.on_snapshot(Duration::from_mins(1), health).is_some()
    }

    #[test]
    fn what_stays_within_its_deadband_is_not_reported() {
        assert!(!reports(|_| {}));
        assert!(!reports(|health| health.cpu_permille = Some(200)));
        assert!(!reports(|health| health.load = Some([0.6, 0.2, 0.3])));
        assert!(!reports(|health| health.memory_used_bytes = Some(450)));
        assert!(!reports(|health| health.disks[0].used_permille = 510));
        assert!(!reports(|health| health.temperatures[0].celsius = 57.0));
        assert!(!reports(|health| health.uptime_seconds = Some(70)));
        assert!(!reports(|health| health.interfaces[0].received_bytes = 1_000_000));
    }

    #[test]
    fn what_leaves_its_deadband_is_reported() {
        assert!(reports(|health| health.cpu_permille = Some(201)));
        assert!(reports(|health| health.load = Some([0.1, 0.2, 0.9])));
        assert!(reports(|health| health.memory_used_bytes = Some(460)));
        assert!(reports(|health| health.swap_used_bytes = Some(60)));
        assert!(reports(|health| health.disks[0].used_permille = 511));
        assert!(reports(|health| health.temperatures[0].celsius = 56.9));
    }

    #[test]
    fn what_appears_disappears_or_changes_state_is_reported() {
        assert!(reports(|health| health.cpu_permille = None));
        assert!(reports(|health| health.disks.clear()));
        assert!(reports(|health| health.disks[0].read_only = true));
        assert!(reports(|health| health.interfaces[0].state = "down".to_owned()));
        assert!(reports(|health| health.interfaces[0].name = "eth1".to_owned()));
        assert!(reports(|health| health.temperatures.clear()));
        assert!(reports(|health| health.missing.push("disks".to_owned())));
    }

    #[test]
    fn a_sensor_that_reaches_its_critical_limit_is_reported_however_small_the_step() {
        assert!(reports(|health| health.temperatures[0].celsius = 62.0));
    }

    #[test]
    fn a_slow_drift_is_measured_from_the_last_message_not_the_last_snapshot() {
        let mut reporter = Reporter::new(Settings::default());
        let mut published = 0;
        for minute in 0..30 {
            let mut health = healthy();
            health.cpu_permille = Some(minute * 20);
            published +=
                u32::from(reporter.on_snapshot(Duration::from_mins(minute.into()), health).is_some());
        }
        assert_eq!(published, 5);
    }

    proptest! {
        #[test]
        fn silence_never_exceeds_its_maximum(gaps in proptest::collection::vec(1u64..120, 1..100)) {
            let mut reporter = Reporter::new(Settings::default());
            let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
            for gap in gaps {
                let gap = Duration::from_mins(gap);
                now += gap;
                if reporter.on_snapshot(now, healthy()).is_some() {
                    last = now;
                }
                prop_assert!(now < last + Duration::from_hours(1));
            }
        }
    }
}
