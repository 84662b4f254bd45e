//! File systems on disks.

use rustix::fs::statvfs;
use vigil_protocol::state::{DiskHealth, Health};

use super::Collector;
use crate::health::{NAME_CHARS, mounts};
use vigil_text::clean;

pub(super) struct Disks;

impl Collector for Disks {
    fn collect(&mut self, health: &mut Health) {
        health.disks = mounts::read()
            .into_iter()
            .filter_map(|mount| {
                let space = statvfs(mount.path.as_str()).ok().filter(|space| space.f_blocks > 0)?;
                Some(DiskHealth {
                    mount: clean(&mount.path, NAME_CHARS),
                    available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
                    used_permille: used_permille(space.f_blocks, space.f_bfree, space.f_bavail),
                    read_only: mount.read_only,
                })
            })
            .collect();
    }
}

/// As df(1) reckons: blocks that only root may use count as neither used nor available. Rounded up.
fn used_permille(blocks: u64, free: u64, available: u64) -> u32 {
    let used = u128::from(blocks.saturating_sub(free));
    let usable = used + u128::from(available);
    if usable == 0 { 1000 } else { (used * 1000).div_ceil(usable) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_blocks_count_as_neither_used_nor_available() {
        assert_eq!(used_permille(100, 100, 95), 0);
        assert_eq!(used_permille(100, 5, 0), 1000);
        assert_eq!(used_permille(100, 50, 50), 500);
        assert_eq!(used_permille(10, 0, 0), 1000);
    }

    proptest! {
        #[test]
        fn no_numbers_make_more_than_all_of_it(blocks: u64, free: u64, available: u64) {
            prop_assert!(used_permille(blocks, free, available) <= 1000);
        }
    }
}
