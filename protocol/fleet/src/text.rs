//! What reaches the terminal: cleaned of control characters, in aligned columns, coloured where that is wanted.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use serde_json::Value;

use crate::failure::Failure;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// In green.
    Good,
    /// In yellow.
    Warning,
    /// In red.
    Bad,
    /// The heading.
    Bold,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Bold => Style::new().bold(),
        }
    }
}

/// Text from the wire, made harmless for a terminal and cut to `limit` characters.
pub fn clean(text: &str, limit: usize) -> String {
    // U+202A..U+202E and U+2066..U+2069 turn the direction of writing, so that a line reads as another.
    let harmless = |c: char| {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            '\u{fffd}'
        } else {
            c
        }
    };
    let mut out: String = text.chars().take(limit).map(harmless).collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

/// One line to standard output.
pub fn line(text: &str, tone: Tone) -> Result<(), Failure> {
    let style = tone.style();
    let mut out = anstream::stdout();
    writeln!(out, "{style}{text}{style:#}")?;
    Ok(out.flush()?)
}

/// One JSON value on a line of its own.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&value.to_string(), Tone::Plain)
}

/// Aligned columns under a heading. A row is one line, so the whole line can take the row's tone.
pub fn table(heading: &[&str], rows: Vec<(Vec<String>, Tone)>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heading.to_vec());
    let mut tones = vec![Tone::Bold];
    for (cells, tone) in rows {
        table.add_row(cells);
        tones.push(tone);
    }
    for (text, tone) in table.lines().zip(tones) {
        line(text.trim_end().strip_prefix(' ').unwrap_or_default(), tone)?;
    }
    Ok(())
}

/// How long ago, in the largest whole unit.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match seconds {
        ..-5 => "in the future".to_owned(),
        -5..60 => format!("{} s ago", seconds.max(0)),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

/// About how long, in the largest whole unit.
pub fn about(seconds: u64) -> String {
    match seconds {
        0..60 => format!("about {seconds} s"),
        60..3600 => format!("about {} min", seconds.div_ceil(60)),
        _ => format!("about {} h", seconds.div_ceil(3600)),
    }
}

/// Bytes in binary units.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_turned_text_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d", 99), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d");
        assert_eq!(clean("abcdef", 3), "abc…");
    }

    #[test]
    fn an_age_is_in_the_largest_whole_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| ago(Timestamp::from_second(1_000_000 - seconds).unwrap(), now);
        assert_eq!(
            (ago(59), ago(3599), ago(-60)),
            ("59 s ago".into(), "59 min ago".into(), "in the future".into())
        );
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
