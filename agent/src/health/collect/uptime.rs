//! Time since the kernel started.

use sysinfo::System;
use vigil_protocol::state::Health;

use super::Collector;

pub(super) struct Uptime;

impl Collector for Uptime {
    fn collect(&mut self, health: &mut Health) {
        health.uptime_seconds = System::uptime().ok();
    }
}
