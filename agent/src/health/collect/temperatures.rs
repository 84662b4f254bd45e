//! Temperature sensors.

use sysinfo::Components;
use vigil_protocol::state::{Health, Temperature};

use super::Collector;
use crate::health::{LIST, NAME_CHARS};
use vigil_text::clean;

pub(super) struct Temperatures(Option<Components>);

impl Temperatures {
    pub(super) fn new() -> Self {
        Self(Components::new().ok())
    }
}

impl Collector for Temperatures {
    fn collect(&mut self, health: &mut Health) {
        let Some(components) = &mut self.0 else { return };
        components.refresh(true);
        health.temperatures = components
            .iter()
            .filter_map(|component| {
                Some(Temperature {
                    sensor: clean(component.label(), NAME_CHARS),
                    celsius: tenths(component.temperature())?,
                    critical_celsius: tenths(component.critical()),
                })
            })
            .collect();
        health.temperatures.sort_by(|a, b| a.sensor.cmp(&b.sensor));
        health.temperatures.truncate(LIST);
    }
}

/// JSON has no NaN, and a broken sensor reads absolute zero or the sun.
fn tenths(celsius: Option<f32>) -> Option<f64> {
    celsius.filter(|celsius| (-100.0..=500.0).contains(celsius)).map(|c| (f64::from(c) * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_sensor_can_mean_is_left_out() {
        assert_eq!(tenths(Some(41.26)), Some(41.3));
        for broken in [f32::NAN, f32::INFINITY, -273.0, 5000.0] {
            assert_eq!(tenths(Some(broken)), None);
        }
    }
}
