//! One collector for each part of a snapshot, and the list that names them all.

mod cpu;
mod disks;
mod interfaces;
mod load;
mod memory;
mod temperatures;
mod uptime;

use vigil_protocol::state::Health;

/// Looks at one thing. What cannot be seen is left out of the snapshot, never guessed.
pub trait Collector: Send {
    /// Adds what it sees.
    fn collect(&mut self, health: &mut Health);
}

/// All collectors, with what they must remember between two snapshots.
pub struct Collectors(Vec<Box<dyn Collector>>);

impl Collectors {
    /// The list.
    pub fn new() -> Self {
        Self(vec![
            Box::new(cpu::Cpu::new()),
            Box::new(load::Load),
            Box::new(memory::Memory::new()),
            Box::new(uptime::Uptime),
            Box::new(disks::Disks),
            Box::new(interfaces::Interfaces::new()),
            Box::new(temperatures::Temperatures::new()),
        ])
    }

    /// Asks every collector. Blocks for a few milliseconds of file reads.
    pub fn snapshot(&mut self) -> Health {
        let mut health = Health::default();
        for collector in &mut self.0 {
            collector.collect(&mut health);
        }
        health
    }
}

impl Default for Collectors {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_plausible_snapshot() {
        let mut collectors = Collectors::new();
        assert_eq!(collectors.snapshot().cpu_permille, None, "a share of no time means nothing");
        let health = collectors.snapshot();
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
