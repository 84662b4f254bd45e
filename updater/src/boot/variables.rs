//! What the variables of a bootloader say, as a boot order, and the other way. Pure.

use std::collections::BTreeMap;
use std::io;

use vigil_protocol::topic::is_name;

use super::{BootOrder, Booted, Reading, TRIES};

/// Slots that an order may name; what lists more is no boot order.
const SLOTS: usize = 16;

/// Variables by name, and their values.
pub(super) type Variables = BTreeMap<String, String>;

/// What is made up for what cannot be read.
type WhatRuns<'a> = &'a dyn Fn() -> io::Result<Booted>;

/// From U-Boot's `BOOT_ORDER` and `BOOT_<slot>_LEFT`. `damage` is what the reader of the variables found already.
pub(super) fn from_uboot(
    variables: &Variables,
    damage: Option<String>,
    runs: WhatRuns,
) -> io::Result<Reading> {
    let mut reading = Decoding::begin("BOOT_ORDER", variables, damage, runs)?;
    let counters = variables.iter().filter_map(|(name, value)| {
        Some((name.strip_prefix("BOOT_")?.strip_suffix("_LEFT")?, value.as_str()))
    });
    for (slot, value) in counters.filter(|(slot, _)| is_name(slot)) {
        // Hexadecimal without a prefix, as U-Boot's setexpr writes it.
        let left = u32::from_str_radix(value.trim_start_matches("0x"), 16).ok();
        reading.left(slot, left, &format!("BOOT_{slot}_LEFT={value}"))?;
    }
    Ok(reading.end())
}

/// The variables of [`from_uboot`], in the order in which U-Boot itself sorts them.
pub(super) fn to_uboot(order: &BootOrder) -> Vec<(String, String)> {
    let mut variables: Vec<_> =
        order.left.iter().map(|(slot, left)| (format!("BOOT_{slot}_LEFT"), format!("{left:x}"))).collect();
    variables.push(("BOOT_ORDER".to_owned(), order.order.join(" ")));
    variables.sort();
    variables
}

/// From GRUB's `ORDER`, `<slot>_OK` and `<slot>_TRY`: a slot that is not OK has no tries left, another one has those
/// that its `TRY` has not counted yet.
pub(super) fn from_grub(
    variables: &Variables,
    damage: Option<String>,
    runs: WhatRuns,
) -> io::Result<Reading> {
    let mut reading = Decoding::begin("ORDER", variables, damage, runs)?;
    let names = variables.keys().filter_map(|name| name.strip_suffix("_OK").or(name.strip_suffix("_TRY")));
    for slot in names.filter(|slot| is_name(slot)) {
        let ok = variables.get(&format!("{slot}_OK")).map_or("1", String::as_str);
        let tried = variables.get(&format!("{slot}_TRY")).map_or("0", String::as_str);
        let left = match ok {
            "0" => Some(0),
            "1" => tried.parse().ok().map(|tried: u32| TRIES.saturating_sub(tried)),
            _ => None,
        };
        reading.left(slot, left, &format!("{slot}_OK={ok}, {slot}_TRY={tried}"))?;
    }
    Ok(reading.end())
}

/// The variables of [`from_grub`].
pub(super) fn to_grub(order: &BootOrder) -> Vec<(String, String)> {
    let mut variables = vec![("ORDER".to_owned(), order.order.join(" "))];
    for (slot, left) in &order.left {
        let tried = if *left == 0 { 0 } else { TRIES.saturating_sub(*left) };
        variables.push((format!("{slot}_OK"), u32::from(*left > 0).to_string()));
        variables.push((format!("{slot}_TRY"), tried.to_string()));
    }
    variables
}

struct Decoding<'a> {
    order: BootOrder,
    damage: Vec<String>,
    runs: WhatRuns<'a>,
    /// The order was not readable: nothing else counts.
    made_up: Option<Reading>,
}

impl<'a> Decoding<'a> {
    fn begin(
        name: &str,
        variables: &Variables,
        damage: Option<String>,
        runs: WhatRuns<'a>,
    ) -> io::Result<Self> {
        let words = || variables.get(name).into_iter().flat_map(|value| value.split_whitespace());
        let mut decoding =
            Self { order: BootOrder::default(), damage: Vec::from_iter(damage), runs, made_up: None };
        for slot in words().take(SLOTS).filter(|slot| is_name(slot)) {
            if !decoding.order.may_boot(slot) {
                decoding.order.order.push(slot.to_owned());
                // A counter that is not there is a full one to the boot scripts.
                decoding.order.left.insert(slot.to_owned(), TRIES);
            }
        }
        if words().count() > SLOTS || !words().all(is_name) {
            decoding.damage.push(format!("{name}={:.80} names what is no slot", variables[name]));
        }
        if decoding.order.order.is_empty() {
            if decoding.damage.is_empty() {
                decoding.damage.push(format!("{name} is not set"));
            }
            let reading = Reading::of_the_running_slot(&runs()?.slot, &decoding.damage.join("; "));
            decoding.made_up = Some(reading);
        }
        Ok(decoding)
    }

    fn left(&mut self, slot: &str, left: Option<u32>, text: &str) -> io::Result<()> {
        let in_order = self.order.may_boot(slot);
        if let Some(left) = left {
            self.order.left.insert(slot.to_owned(), left);
        } else if in_order {
            let left = if (self.runs)()?.slot == slot { TRIES } else { 0 };
            self.damage.push(format!("{text:.80} is not readable and counts as {left} tries left"));
            self.order.left.insert(slot.to_owned(), left);
        }
        Ok(())
    }

    fn end(self) -> Reading {
        let damage = (!self.damage.is_empty()).then(|| self.damage.join("; "));
        self.made_up.unwrap_or(Reading { order: self.order, damage, made_up: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // As what asks a device, which may fail.
    #[allow(clippy::unnecessary_wraps)]
    fn b_runs() -> io::Result<Booted> {
        Ok(Booted { slot: "B".into(), boot_id: "1".into() })
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn counters_are_hexadecimal_and_one_that_is_missing_is_full() {
        let reading =
            from_uboot(&variables(&[("BOOT_ORDER", "B A"), ("BOOT_A_LEFT", "a")]), None, &b_runs).unwrap();
        assert_eq!(reading.order.left, BTreeMap::from([("A".into(), 10), ("B".into(), 3)]));
        assert_eq!(reading.damage, None);
    }

    #[test]
    fn without_an_order_the_running_slot_is_the_order() {
        for value in [None, Some(""), Some("  "), Some("../../x")] {
            let set: Vec<_> = value.map(|value| ("BOOT_ORDER", value)).into_iter().collect();
            let reading = from_uboot(&variables(&set), None, &b_runs).unwrap();
            assert_eq!(reading.order, BootOrder::default().first("B"), "{value:?}");
            assert!(reading.damage.unwrap().contains("running slot B"));
        }
    }

    #[test]
    fn a_counter_that_is_garbage_is_full_for_the_running_slot_and_spent_for_the_other() {
        let set =
            [("BOOT_ORDER", "A B"), ("BOOT_A_LEFT", "zz"), ("BOOT_B_LEFT", "-1"), ("BOOT_C_LEFT", "zz")];
        let reading = from_uboot(&variables(&set), None, &b_runs).unwrap();
        assert_eq!(reading.order.left, BTreeMap::from([("A".into(), 0), ("B".into(), 3)]));
        let damage = reading.damage.unwrap();
        assert!(damage.contains("BOOT_A_LEFT=zz") && !damage.contains("BOOT_C_LEFT"), "{damage}");
    }

    #[test]
    fn a_try_that_grub_counted_is_one_less_and_a_slot_that_is_not_ok_has_none() {
        let set = [("ORDER", "A B C"), ("A_OK", "1"), ("A_TRY", "2"), ("B_OK", "0"), ("B_TRY", "0")];
        let reading = from_grub(&variables(&set), None, &b_runs).unwrap();
        assert_eq!(reading.order.left, BTreeMap::from([("A".into(), 1), ("B".into(), 0), ("C".into(), 3)]));
        assert_eq!(reading.damage, None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            order in prop::sample::subsequence(vec!["A", "B", "C"], 1..=3).prop_shuffle(),
            left in prop::array::uniform3(0..=TRIES),
        ) {
            let order = BootOrder {
                order: order.into_iter().map(str::to_owned).collect(),
                left: ["A", "B", "C"].map(str::to_owned).into_iter().zip(left).collect(),
            };
            let whole = Reading { order: order.clone(), damage: None, made_up: false };
            let read = from_uboot(&to_uboot(&order).into_iter().collect(), None, &b_runs).unwrap();
            prop_assert_eq!(&read, &whole);
            let read = from_grub(&to_grub(&order).into_iter().collect(), None, &b_runs).unwrap();
            prop_assert_eq!(&read, &whole);
        }

        #[test]
        fn no_variables_make_it_panic_or_leave_nothing_to_boot(
            set in prop::collection::btree_map(
                prop::sample::select(vec!["ORDER", "BOOT_ORDER", "BOOT_A_LEFT", "BOOT__LEFT", "A_OK", "A_TRY", "_OK"])
                    .prop_map(str::to_owned),
                "[AB 0-9a-fzé_]{0,12}",
                0..7,
            ),
        ) {
            for reading in [from_uboot(&set, None, &b_runs), from_grub(&set, None, &b_runs)] {
                prop_assert!(reading.unwrap().order.select().is_some());
            }
        }
    }
}
