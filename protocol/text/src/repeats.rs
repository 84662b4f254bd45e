//! What strangers cause, told when it changes and counted when it repeats. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds that are kept apart at most; beyond that they share one place.
const KINDS: usize = 32;
/// Changes that are told at once, …
const BURST: u32 = 10;
/// … and how often one more is.
const EVERY: Duration = Duration::from_secs(600);
/// What goes on unchanged is told again after this, with its count.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// What becomes of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It is told, with how many of its kind were only counted since the last one.
    Tell {
        /// Occurrences that were only counted.
        untold: u64,
    },
    /// It is counted.
    Count,
}

/// For each kind of occurrence, what was told last, and what was not.
#[derive(Debug, Default)]
pub struct Repeats(BTreeMap<String, Kind>);

#[derive(Debug)]
struct Kind {
    last: Option<(String, Duration)>,
    tokens: u32,
    refilled: Duration,
    untold: u64,
}

impl Repeats {
    /// An occurrence of `kind`, said to be `what`, at the time `now` of a clock that only goes forward.
    pub fn on(&mut self, kind: &str, what: &str, now: Duration) -> Telling {
        let kind = if self.0.len() < KINDS || self.0.contains_key(kind) { kind } else { "" };
        let fresh = || Kind { last: None, tokens: BURST, refilled: now, untold: 0 };
        let kind = self.0.entry(kind.to_owned()).or_insert_with(fresh);
        let due =
            (now.saturating_sub(kind.refilled).as_secs() / EVERY.as_secs()).min(u64::from(BURST)) as u32;
        if due > 0 {
            kind.tokens = (kind.tokens + due).min(BURST);
            kind.refilled = now;
        }
        let is_news =
            kind.last.as_ref().is_none_or(|(last, at)| last != what || now.saturating_sub(*at) >= REMIND);
        if !is_news || kind.tokens == 0 {
            kind.untold = kind.untold.saturating_add(1);
            return Telling::Count;
        }
        kind.tokens -= 1;
        kind.last = Some((what.to_owned(), now));
        Telling::Tell { untold: std::mem::take(&mut kind.untold) }
    }

    /// It is well again: the next occurrence is news. Gives how many were only counted.
    pub fn is_over(&mut self, kind: &str) -> u64 {
        let Some(kind) = self.0.get_mut(kind) else { return 0 };
        kind.last = None;
        std::mem::take(&mut kind.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_goes_on_is_told_once_and_again_the_next_day_with_its_count() {
        let mut repeats = Repeats::default();
        let told: Vec<_> = (0..25 * 3600)
            .filter_map(|second| match repeats.on("fetch", "500", second * SECOND) {
                Telling::Tell { untold } => Some((second, untold)),
                Telling::Count => None,
            })
            .collect();
        assert_eq!(told, [(0, 0), (24 * 3600, 24 * 3600 - 1)]);
    }

    #[test]
    fn what_changes_all_the_time_is_told_so_often_an_hour_and_no_more() {
        let mut repeats = Repeats::default();
        let mut told = 0;
        for second in 0..3600 {
            told += u32::from(repeats.on("peer", &second.to_string(), second * SECOND) != Telling::Count);
        }
        assert_eq!(told, BURST + 5);
    }

    #[test]
    fn one_kind_does_not_hide_another_and_kinds_without_end_share_a_place() {
        let mut repeats = Repeats::default();
        for number in 0..1000 {
            let _ = repeats.on("peer", &number.to_string(), SECOND);
        }
        assert_eq!(repeats.on("fetch", "500", SECOND), Telling::Tell { untold: 0 });
        for number in 0..1000 {
            let _ = repeats.on(&number.to_string(), "", SECOND);
        }
        assert!(repeats.0.len() <= KINDS + 1);
    }

    #[test]
    fn after_it_was_well_the_same_is_news_again() {
        let mut repeats = Repeats::default();
        for _ in 0..3 {
            let _ = repeats.on("fetch", "500", SECOND);
        }
        assert_eq!(repeats.is_over("fetch"), 2);
        assert_eq!(repeats.on("fetch", "500", SECOND), Telling::Tell { untold: 0 });
        assert_eq!(repeats.is_over("never"), 0);
    }
}
