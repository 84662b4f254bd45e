//! Network interfaces.

use sysinfo::Networks;
use vigil_protocol::state::{Health, InterfaceHealth};

use super::Collector;
use crate::health::{LIST, NAME_CHARS};
use vigil_text::clean;

pub(super) struct Interfaces(Option<Networks>);

impl Interfaces {
    pub(super) fn new() -> Self {
        Self(Networks::new().ok())
    }
}

impl Collector for Interfaces {
    fn collect(&mut self, health: &mut Health) {
        let Some(networks) = &mut self.0 else { return };
        networks.refresh(true);
        health.interfaces = networks
            .iter()
            .filter(|(name, _)| *name != "lo")
            .map(|(name, data)| InterfaceHealth {
                name: clean(&name.to_string_lossy(), NAME_CHARS),
                state: data.operational_state().to_string(),
                received_bytes: data.total_received(),
                sent_bytes: data.total_transmitted(),
                errors: data.total_errors_on_received().saturating_add(data.total_errors_on_transmitted()),
            })
            .collect();
        health.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        health.interfaces.truncate(LIST);
    }
}
