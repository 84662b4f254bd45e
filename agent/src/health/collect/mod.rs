//! One collector for each part of a snapshot, and the list that names them all.

mod cpu;
mod disks;
mod interfaces;
mod load;
mod memory;
mod temperatures;
mod uptime;

use vigil_protocol::state::Health;

use super::worker::Named;

/// Looks at one thing. What cannot be seen is left out of the snapshot, never guessed.
pub trait Collector: Send {
    /// Adds what it sees.
    fn collect(&mut self, health: &mut Health);
}

/// All collectors, each by the name under which it is reported missing.
pub(super) fn all() -> Vec<Named> {
    vec![
        ("cpu", Box::new(cpu::Cpu::new())),
        ("load", Box::new(load::Load)),
        ("memory", Box::new(memory::Memory::new())),
        ("uptime", Box::new(uptime::Uptime)),
        ("disks", Box::new(disks::Disks)),
        ("interfaces", Box::new(interfaces::Interfaces::new())),
        ("temperatures", Box::new(temperatures::Temperatures::new())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_plausible_snapshot() {
        let mut collectors = all();
        let mut snapshot = || {
            let mut health = Health::default();
            for (_, collector) in &mut collectors {
                collector.collect(&mut health);
            }
            health
        };
        assert_eq!(snapshot().cpu_permille, None, "a share of no time means nothing");
        let health = snapshot();
        assert!(health.memory_used_bytes.unwrap() > 0);
        assert!(health.memory_available_bytes.unwrap() > 0);
        assert!(health.uptime_seconds.unwrap() > 0);
        assert!(health.load.unwrap().iter().all(|load| *load >= 0.0));
        assert!(health.disks.iter().all(|disk| disk.used_permille <= 1000));
        assert!(health.interfaces.iter().all(|interface| interface.name != "lo"));
        let mut mounts: Vec<_> = health.disks.iter().map(|disk| &disk.mount).collect();
        mounts.dedup();
        assert_eq!(mounts.len(), health.disks.len());
    }
}
