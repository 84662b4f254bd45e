//! `fw_env.config`, as U-Boot's tools/env reads it: where the copies of the environment are. Pure.

use std::path::PathBuf;

use super::environment::{LARGEST, SMALLEST};

/// Where one copy of the environment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A block device, file or MTD.
    pub(super) device: PathBuf,
    /// Where it begins, in bytes; below 0 it counts from the end of the device.
    pub(super) offset: i64,
    /// Its bytes.
    pub(super) size: usize,
    /// A flash sector's bytes, if the file names it.
    pub(super) sector: Option<u64>,
}

/// One line a copy: device, offset, size and, if given, sector size (and a number of sectors, which only NAND needs).
pub(super) fn parse(text: &str) -> Result<Vec<Place>, String> {
    let mut places = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = place(line).map_err(|what| format!("line {}: {what}", number + 1))?;
        places.push(place);
    }
    match places.as_slice() {
        [_] => Ok(places),
        [first, second] if first.size == second.size => {
            if overlap(first, second) {
                Err("the two copies overlap".to_owned())
            } else {
                Ok(places)
            }
        }
        [_, _] => Err("the two copies differ in size".to_owned()),
        other => Err(format!("one or two copies are needed, it names {}", other.len())),
    }
}

fn overlap(first: &Place, second: &Place) -> bool {
    first.device == second.device
        && (first.offset < 0) == (second.offset < 0)
        && first.offset.abs_diff(second.offset) < first.size as u64
}

fn place(line: &str) -> Result<Place, String> {
    let mut words = line.split_whitespace();
    let (Some(device), Some(offset), Some(size)) = (words.next(), words.next(), words.next()) else {
        return Err("device, offset and size are needed".to_owned());
    };
    // As in C: 0x for hexadecimal, 0 for octal. The sizes are hexadecimal with or without 0x.
    let (minus, digits) = offset.strip_prefix('-').map_or((false, offset), |digits| (true, digits));
    let magnitude = if let Some(digits) = strip_0x(digits) {
        i64::from_str_radix(digits, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    let magnitude = magnitude.ok().filter(|magnitude| (0..=i64::MAX / 2).contains(magnitude));
    let magnitude = magnitude.ok_or_else(|| format!("offset {offset:?} is no number"))?;
    let hexadecimal = |word: &str| u64::from_str_radix(strip_0x(word).unwrap_or(word), 16).ok();
    let size = hexadecimal(size)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| (SMALLEST..=LARGEST).contains(size))
        .ok_or_else(|| format!("size {size:?} is no hexadecimal number from {SMALLEST:x} to {LARGEST:x}"))?;
    let sector = match words.next() {
        None => None,
        Some(word) if word.starts_with('#') => None,
        Some(word) => {
            Some(hexadecimal(word).ok_or_else(|| format!("sector size {word:?} is no hexadecimal number"))?)
        }
    };
    let sector = sector.filter(|sector| *sector > 0);
    Ok(Place { device: device.into(), offset: if minus { -magnitude } else { magnitude }, size, sector })
}

fn strip_0x(word: &str) -> Option<&str> {
    word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(device: &str, offset: i64, size: usize, sector: Option<u64>) -> Place {
        Place { device: device.into(), offset, size, sector }
    }

    #[test]
    fn the_forms_that_are_in_the_field_are_read() {
        for (text, places) in [
            (
                "# comment\n\n/dev/mtd1\t0x0000\t0x4000\t0x4000\t1\n",
                vec![at("/dev/mtd1", 0, 0x4000, Some(0x4000))],
            ),
            (
                "/dev/mmcblk0 -0x20000 20000\n/dev/mmcblk0 -0x40000 20000\n",
                vec![
                    at("/dev/mmcblk0", -0x20000, 0x20000, None),
                    at("/dev/mmcblk0", -0x40000, 0x20000, None),
                ],
            ),
            ("/env 4096 0x100 # single", vec![at("/env", 4096, 0x100, None)]),
            ("/env 010 0x100", vec![at("/env", 8, 0x100, None)]),
            ("/env 0 100 0", vec![at("/env", 0, 0x100, None)]),
        ] {
            assert_eq!(parse(text).unwrap(), places, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_its_line() {
        for (text, what) in [
            ("", "names 0"),
            ("/a 0 100\n/b 0 100\n/c 0 100\n", "names 3"),
            ("/a 0 100\n/b 0 200\n", "differ in size"),
            ("/a 0 100\n/a 0x80 100\n", "overlap"),
            ("# \n/a 0\n", "line 2"),
            ("/a x 100\n", "offset \"x\""),
            ("/a 0xffffffffffffffff 100\n", "offset"),
            ("/a 0 fffffffff\n", "size"),
            ("/a 0 0\n", "size"),
            ("/a 0 100 zz\n", "sector size"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([/a-fx0-9 #\\-\t]|\n){0,80}") {
            let _ = parse(&text);
        }
    }
}
