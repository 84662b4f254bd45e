//! What the machine is: what changes only when someone changes it.

use rustix::fs::statvfs;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, Networks, System};
use vigil_protocol::state::{DiskInventory, Interface, Inventory};

use super::{LIST, NAME_CHARS, mounts};
use crate::config::Config;
use crate::identity::Identity;
use vigil_text::clean;

/// Addresses of one interface, at most.
const ADDRESSES: usize = 16;

/// What the machine itself tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    cpu: String,
    cpus: u32,
    memory_bytes: u64,
    hostname: String,
    os: String,
    kernel: String,
    interfaces: Vec<Interface>,
    disks: Vec<DiskInventory>,
}

impl Machine {
    /// Reads it: on a thread, since the kernel may let a reader wait.
    pub(super) fn look() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            system.refresh_cpu_list(CpuRefreshKind::nothing());
        }
        let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
        Self {
            cpu: cpus.first().map(|cpu| clean(cpu.brand(), NAME_CHARS)).unwrap_or_default(),
            cpus: cpus.len() as u32,
            memory_bytes: system.as_ref().map(System::total_memory).unwrap_or_default(),
            hostname: shown(System::host_name().ok()),
            os: shown(System::long_os_version().ok()),
            kernel: shown(System::kernel_version().ok()),
            interfaces: interfaces(),
            disks: disks(),
        }
    }
}

/// From the configuration, the identity and the machine itself.
pub fn inventory(config: &Config, identity: &Identity, machine: Machine) -> Inventory {
    Inventory {
        tenant: config.device.tenant.clone(),
        groups: config.device.groups.clone(),
        product: config.device.product.clone(),
        hardware_revision: config.device.hardware_revision.clone(),
        device_key: identity.public_key().to_string(),
        cpu: machine.cpu,
        cpus: machine.cpus,
        memory_bytes: machine.memory_bytes,
        architecture: std::env::consts::ARCH.to_owned(),
        hostname: machine.hostname,
        os: machine.os,
        kernel: machine.kernel,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        interfaces: machine.interfaces,
        disks: machine.disks,
    }
}

fn shown(text: Option<String>) -> String {
    clean(&text.unwrap_or_default(), NAME_CHARS)
}

fn interfaces() -> Vec<Interface> {
    let Ok(networks) = Networks::new_with_refreshed_list() else { return Vec::new() };
    let mut interfaces: Vec<Interface> = networks
        .iter()
        .filter(|(name, _)| *name != "lo")
        .map(|(name, data)| {
            let mut addresses: Vec<String> = data.ip_networks().iter().map(ToString::to_string).collect();
            addresses.sort();
            addresses.truncate(ADDRESSES);
            let name = clean(&name.to_string_lossy(), NAME_CHARS);
            Interface { name, mac: data.mac_address().to_string(), addresses }
        })
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    interfaces.truncate(LIST);
    interfaces
}

fn disks() -> Vec<DiskInventory> {
    let space = |path: &str| statvfs(path).map_or(0, |space| space.f_blocks.saturating_mul(space.f_frsize));
    mounts::read()
        .into_iter()
        .map(|mount| DiskInventory {
            total_bytes: space(&mount.path),
            mount: clean(&mount.path, NAME_CHARS),
            file_system: clean(&mount.file_system, NAME_CHARS),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_names_this_machine_and_the_devices_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("vigil.toml");
        std::fs::write(&file, include_str!("../../../packaging/vigil.toml")).unwrap();
        let config = Config::load(&file, None).unwrap();
        let identity = Identity::open(directory.path(), &config.device.id).unwrap();
        let inventory = inventory(&config, &identity, Machine::look());
        assert_eq!(inventory.device_key, identity.public_key().to_string());
        assert!(inventory.cpus > 0 && inventory.memory_bytes > 0);
        assert!(!inventory.kernel.is_empty() && !inventory.hostname.is_empty());
        assert!(inventory.interfaces.iter().all(|interface| interface.name != "lo"));
    }
}
