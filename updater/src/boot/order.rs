//! The boot order and the tries left, in the terms of U-Boot's `BOOT_ORDER` and `BOOT_<n>_LEFT` as RAUC uses them;
//! what a bootloader does with it, and what the updater makes of it. Pure.

use std::collections::BTreeMap;

/// How often a slot is tried before the next one is.
pub const TRIES: u32 = 3;

/// What the bootloader chooses from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOrder {
    /// Slots by name, the first one first.
    pub order: Vec<String>,
    /// Tries left, by slot.
    pub left: BTreeMap<String, u32>,
}

impl BootOrder {
    /// Whether the bootloader may choose `slot`.
    pub fn may_boot(&self, slot: &str) -> bool {
        self.order.iter().any(|name| name == slot)
    }

    /// `slot` leaves the order. A counter of 0 would not do: the common boot script refills the counters when all
    /// are spent.
    #[must_use]
    pub fn without(mut self, slot: &str) -> Self {
        self.order.retain(|name| name != slot);
        self.left.insert(slot.to_owned(), 0);
        self
    }

    /// `slot` comes first, with all its tries.
    #[must_use]
    pub fn first(mut self, slot: &str) -> Self {
        self.order.retain(|name| name != slot);
        self.order.insert(0, slot.to_owned());
        self.left.insert(slot.to_owned(), TRIES);
        self
    }

    /// `slot` has all its tries again; its place stays.
    #[must_use]
    pub fn refilled(mut self, slot: &str) -> Self {
        self.left.insert(slot.to_owned(), TRIES);
        self
    }

    /// What a bootloader does at power-on: takes the first slot with tries left and spends one. When all are spent
    /// they are refilled, as the common script does: a device that boots something beats one that boots nothing.
    pub fn select(&mut self) -> Option<String> {
        for _ in 0..2 {
            for slot in &self.order {
                if let Some(left) = self.left.get_mut(slot).filter(|left| **left > 0) {
                    *left -= 1;
                    return Some(slot.clone());
                }
            }
            for slot in &self.order {
                self.left.insert(slot.clone(), TRIES);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> BootOrder {
        BootOrder::default().first("B").first("A")
    }

    #[test]
    fn a_slot_that_left_the_order_is_never_chosen_however_often_the_device_fails_to_start() {
        let mut order = both().without("B");
        for _ in 0..10 {
            assert_eq!(order.select().as_deref(), Some("A"));
        }
    }

    #[test]
    fn a_slot_on_trial_is_tried_three_times_and_then_the_old_one_runs() {
        let mut order = both().first("B");
        let chosen: Vec<_> = (0..4).filter_map(|_| order.select()).collect();
        assert_eq!(chosen, ["B", "B", "B", "A"]);
    }

    #[test]
    fn an_empty_order_chooses_nothing() {
        assert_eq!(BootOrder::default().select(), None);
    }
}
