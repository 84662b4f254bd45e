//! CPU time.

use std::time::Instant;

use sysinfo::{CpuRefreshKind, MINIMUM_CPU_UPDATE_INTERVAL, System};
use vigil_protocol::state::Health;

use super::Collector;

/// Remembers the counters of the last snapshot.
pub(super) struct Cpu {
    system: Option<System>,
    last: Option<Instant>,
}

impl Cpu {
    pub(super) fn new() -> Self {
        Self { system: System::new().ok(), last: None }
    }
}

impl Collector for Cpu {
    fn collect(&mut self, health: &mut Health) {
        let Some(system) = &mut self.system else { return };
        // Too short a span says nothing, and must not become the start of the next one.
        if self.last.is_some_and(|last| last.elapsed() < MINIMUM_CPU_UPDATE_INTERVAL) {
            return;
        }
        system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        if self.last.replace(Instant::now()).is_some() {
            let permille = (system.global_cpu_usage() * 10.0).round();
            health.cpu_permille = permille.is_finite().then(|| permille.clamp(0.0, 1000.0) as u32);
        }
    }
}
