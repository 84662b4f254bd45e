//! U-Boot's environment as it lies on a disk (env/common.c, include/env_internal.h): a CRC-32 of the data, where there
//! are two copies a flag byte, and the data: `name=value` texts, each ended by a NUL, and one more NUL. Pure.

use super::variables::Variables;

/// The largest environment that is read: the largest in the field are a quarter of it.
pub(super) const LARGEST: usize = 1024 * 1024;
/// The smallest that can hold anything.
pub(super) const SMALLEST: usize = 64;

const CRC: usize = 4;
/// In U-Boot's flash driver and for NOR in fw_env.config: this copy counts.
pub(super) const ACTIVE: u8 = 1;
/// And this one no longer does.
pub(super) const OBSOLETE: u8 = 0;

/// How two copies say which of them is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// The flag counts up and wraps around.
    Counter,
    /// Bits of NOR flash only go to 0: the flag is [`ACTIVE`] and is overwritten with [`OBSOLETE`].
    Boolean,
}

/// Which of two intact copies counts, by their flags: U-Boot's `env_check_redund` and, for NOR, `env_flash_init`.
pub(super) fn newer(scheme: Scheme, flags: [u8; 2]) -> usize {
    match (scheme, flags) {
        (Scheme::Counter, [255, 0]) | (Scheme::Boolean, [OBSOLETE, ACTIVE]) => 1,
        (Scheme::Counter, [0, 255]) => 0,
        (Scheme::Counter, [first, second]) => usize::from(second > first),
        (Scheme::Boolean, [first, 255]) if first != 255 => 1,
        (Scheme::Boolean, _) => 0,
    }
}

/// The bytes before the data.
fn header(redundant: bool) -> usize {
    CRC + usize::from(redundant)
}

/// The flag byte of a copy.
pub(super) fn flag(copy: &[u8]) -> u8 {
    copy.get(CRC).copied().unwrap_or_default()
}

/// Where the flag byte stands in a copy.
pub(super) const FLAG_AT: usize = CRC;

/// The variables, every one as its bytes, in the order in which they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    texts: Vec<Vec<u8>>,
}

impl Environment {
    /// What an intact copy holds, or what is wrong with it.
    pub(super) fn parse(copy: &[u8], redundant: bool) -> Result<Self, &'static str> {
        let (Some(crc), Some(data)) = (copy.first_chunk::<CRC>(), copy.get(header(redundant)..)) else {
            return Err("too short");
        };
        if copy.iter().all(|byte| *byte == 0) || copy.iter().all(|byte| *byte == 0xff) {
            return Err("empty");
        }
        // In the byte order of the processor, which is also the bootloader's.
        if u32::from_ne_bytes(*crc) != crc32fast::hash(data) {
            return Err("its checksum is wrong");
        }
        let texts = data.split(|byte| *byte == 0).take_while(|text| !text.is_empty());
        Ok(Self { texts: texts.map(<[u8]>::to_vec).collect() })
    }

    /// From lines of text, as `u-boot-initial-env` has them.
    pub(super) fn from_lines(text: &[u8]) -> Self {
        let lines =
            text.split(|byte| *byte == b'\n').filter(|line| line.contains(&b'=') && !line.contains(&0));
        Self { texts: lines.map(<[u8]>::to_vec).collect() }
    }

    /// The copy that holds these variables, or `None` when it would not fit.
    pub(super) fn to_copy(&self, size: usize, flag: Option<u8>) -> Option<Vec<u8>> {
        let mut copy = vec![0; header(flag.is_some())];
        for text in &self.texts {
            copy.extend_from_slice(text);
            copy.push(0);
        }
        if copy.len() >= size {
            return None;
        }
        copy.resize(size, 0);
        let crc = crc32fast::hash(&copy[header(flag.is_some())..]);
        copy[..CRC].copy_from_slice(&crc.to_ne_bytes());
        if let Some(flag) = flag {
            copy[FLAG_AT] = flag;
        }
        Some(copy)
    }

    /// The variables that are text. Of several of one name U-Boot takes the last one, and an empty value removes it.
    pub(super) fn variables(&self) -> Variables {
        let mut variables = Variables::new();
        for text in self.texts.iter().filter_map(|text| std::str::from_utf8(text).ok()) {
            match split(text) {
                (name, "") => drop(variables.remove(name)),
                (name, value) => drop(variables.insert(name.to_owned(), value.to_owned())),
            }
        }
        variables
    }

    /// Sets our variables and leaves the others as they lie. With `fixed` no byte of another variable moves as long
    /// as ours were set so before: an order that became shorter is filled up with blanks.
    pub(super) fn put(&mut self, ours: &[(String, String)], fixed: bool) {
        let places: Vec<_> = ours.iter().map(|(name, value)| self.place_for(name, value)).collect();
        if fixed && places.iter().all(Option::is_some) {
            for ((name, value), place) in ours.iter().zip(places.into_iter().flatten()) {
                let width = self.texts[place].len();
                self.texts[place] = format!("{:width$}", format!("{name}={value}")).into_bytes();
            }
            return;
        }
        self.texts.retain(|text| {
            let name = std::str::from_utf8(text).map_or("", |text| split(text).0);
            ours.iter().all(|(own, _)| own != name)
        });
        let ours = ours.iter().map(|(name, value)| {
            // Room for every slot.
            let width = if fixed && name == "BOOT_ORDER" { name.len() + 1 + width_of_all(ours) } else { 0 };
            format!("{:width$}", format!("{name}={value}")).into_bytes()
        });
        self.texts.splice(0..0, ours.collect::<Vec<_>>());
    }

    /// Where `name` stands, if `value` fits there to the byte.
    fn place_for(&self, name: &str, value: &str) -> Option<usize> {
        let is_ours = |text: &Vec<u8>| std::str::from_utf8(text).is_ok_and(|text| split(text).0 == name);
        let mut places = self.texts.iter().enumerate().filter(|(_, text)| is_ours(text));
        let (place, text) = places.next()?;
        let length = name.len() + 1 + value.len();
        let fits = text.len() == length || (name == "BOOT_ORDER" && text.len() > length);
        (fits && places.next().is_none()).then_some(place)
    }
}

/// The bytes of an order of all slots that have a counter.
fn width_of_all(ours: &[(String, String)]) -> usize {
    let slots = ours.iter().filter_map(|(name, _)| name.strip_prefix("BOOT_")?.strip_suffix("_LEFT"));
    slots.map(|slot| slot.len() + 1).sum::<usize>().saturating_sub(1)
}

/// Name and value of a text, as U-Boot's `himport_r` takes it apart: blanks before the name are skipped.
fn split(text: &str) -> (&str, &str) {
    text.trim_start_matches([' ', '\t']).split_once('=').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours(order: &str, a: &str, b: &str) -> Vec<(String, String)> {
        [("BOOT_A_LEFT", a), ("BOOT_B_LEFT", b), ("BOOT_ORDER", order)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    #[test]
    fn of_two_intact_copies_the_newer_one_counts_also_when_the_counter_wraps() {
        for (flags, newest) in
            [([1, 2], 1), ([2, 1], 0), ([255, 0], 1), ([0, 255], 0), ([254, 255], 1), ([7, 7], 0)]
        {
            assert_eq!(newer(Scheme::Counter, flags), newest, "{flags:?}");
        }
        for (flags, newest) in
            [([1, 0], 0), ([0, 1], 1), ([1, 1], 0), ([0, 0], 0), ([255, 0], 0), ([1, 255], 1)]
        {
            assert_eq!(newer(Scheme::Boolean, flags), newest, "{flags:?}");
        }
    }

    #[test]
    fn foreign_variables_stay_byte_for_byte_and_in_their_order() {
        let mut environment = Environment {
            texts: [&b"zeta=\xff\xfe"[..], b"BOOT_ORDER=A B", b"noequals", b"arch=arm\\\\64"]
                .map(<[u8]>::to_vec)
                .to_vec(),
        };
        environment.put(&ours("B", "0", "3"), false);
        let copy = environment.to_copy(256, Some(1)).unwrap();
        assert_eq!(
            &copy[5..77],
            b"BOOT_A_LEFT=0\0BOOT_B_LEFT=3\0BOOT_ORDER=B\0zeta=\xff\xfe\0noequals\0arch=arm\\\\64\0\0"
        );
        assert_eq!(Environment::parse(&copy, true).unwrap(), environment);
    }

    #[test]
    fn in_a_single_copy_a_change_stays_within_the_first_sector() {
        let mut environment = Environment { texts: vec![vec![b'x'; 2000]] };
        environment.put(&ours("A B", "3", "3"), true);
        let before = environment.to_copy(8192, None).unwrap();
        for (order, a, b) in [("A", "3", "0"), ("B A", "3", "3"), ("B", "0", "1")] {
            environment.put(&ours(order, a, b), true);
            let after = environment.to_copy(8192, None).unwrap();
            assert_eq!(before[512..], after[512..], "{order}");
            assert_eq!(
                Environment::parse(&after, false).unwrap().variables()["BOOT_ORDER"].trim_end(),
                order
            );
        }
    }

    #[test]
    fn where_u_boot_sorted_the_variables_they_are_changed_in_place() {
        let texts = [&b"ARCH=x"[..], b"BOOT_A_LEFT=3", b"BOOT_B_LEFT=3", b"BOOT_ORDER=A B", b"zz=1"];
        let mut environment = Environment { texts: texts.map(<[u8]>::to_vec).to_vec() };
        environment.put(&ours("A", "3", "0"), true);
        let texts = [&b"ARCH=x"[..], b"BOOT_A_LEFT=3", b"BOOT_B_LEFT=0", b"BOOT_ORDER=A  ", b"zz=1"];
        assert_eq!(environment.texts, texts.map(<[u8]>::to_vec).to_vec());
    }

    #[test]
    fn of_a_variable_that_is_there_twice_u_boot_takes_the_last_and_one_is_left_after_a_write() {
        let texts = [&b"BOOT_ORDER=A"[..], b"BOOT_ORDER=B", b"gone=1", b"gone="];
        let mut environment = Environment { texts: texts.map(<[u8]>::to_vec).to_vec() };
        assert_eq!(environment.variables(), Variables::from([("BOOT_ORDER".into(), "B".into())]));
        environment.put(&ours("A", "3", "3"), true);
        assert_eq!(environment.texts.iter().filter(|text| text.starts_with(b"BOOT_ORDER")).count(), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let environment = Environment { texts: vec![vec![b'x'; 122]] };
        assert!(environment.to_copy(128, None).is_some());
        assert!(environment.to_copy(128, Some(1)).is_none() || environment.to_copy(127, None).is_none());
        assert!(environment.to_copy(127, None).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), redundant: bool) {
            let _ = Environment::parse(&bytes, redundant).map(|environment| environment.variables());
            // And with a checksum that is right.
            if let Some(data) = bytes.get(header(redundant)..) {
                let mut bytes = bytes.clone();
                bytes[..CRC].copy_from_slice(&crc32fast::hash(data).to_ne_bytes());
                let Ok(mut environment) = Environment::parse(&bytes, redundant) else { return Ok(()) };
                environment.variables();
                environment.put(&ours("A B", "3", "3"), !redundant);
                let copy = environment.to_copy(1024, redundant.then_some(0)).unwrap();
                let again = Environment::parse(&copy, redundant).unwrap();
                prop_assert_eq!(&again, &environment);
                prop_assert!(again.variables()["BOOT_ORDER"].trim_end() == "A B");
            }
        }

        #[test]
        fn one_flipped_bit_is_noticed(at in 0..128_usize, bit in 0..8_u32) {
            let mut environment = Environment::default();
            environment.put(&ours("A B", "3", "3"), true);
            let mut copy = environment.to_copy(128, None).unwrap();
            copy[at] ^= 1 << bit;
            prop_assert!(Environment::parse(&copy, false).is_err());
        }
    }
}
