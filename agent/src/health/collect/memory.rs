//! Memory and swap.

use sysinfo::{MemoryRefreshKind, System};
use vigil_protocol::state::Health;

use super::Collector;

pub(super) struct Memory(Option<System>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(System::new().ok())
    }
}

impl Collector for Memory {
    fn collect(&mut self, health: &mut Health) {
        let Some(system) = &mut self.0 else { return };
        system.refresh_memory_specifics(MemoryRefreshKind::everything());
        if system.total_memory() == 0 {
            return;
        }
        health.memory_used_bytes = Some(system.used_memory());
        health.memory_available_bytes = Some(system.available_memory());
        health.swap_used_bytes = Some(system.used_swap());
    }
}
