//! Load averages.

use sysinfo::System;
use vigil_protocol::state::Health;

use super::Collector;

pub(super) struct Load;

impl Collector for Load {
    fn collect(&mut self, health: &mut Health) {
        let load = System::load_average().ok().map(|load| [load.one, load.five, load.fifteen]);
        // JSON has no NaN.
        health.load = load
            .filter(|load| load.iter().all(|value| value.is_finite()))
            .map(|load| load.map(|value| (value * 100.0).round() / 100.0));
    }
}
