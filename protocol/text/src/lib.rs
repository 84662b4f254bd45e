//! Text that outsiders chose, on its way to a log, a journal, a message or a terminal: one type, [`Text`], bounded and
//! free of controls from the edge on. And what is said of JSON that could not be read, [`json_fault`]: where and of what
//! kind, never in its own words.
//!
//! A leaf: everything that speaks to a stranger links it.

mod repeats;

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::error::Category;

pub use repeats::{Repeats, Telling};

/// Stands in for each run of characters that are not shown.
const HIDDEN: char = '\u{fffd}';
/// Ends a text that was longer.
const CUT: char = '…';

/// At most `MAX` bytes of UTF-8 on one line, none of them of a control or formatting character. Each run of such
/// characters is one U+FFFD, so that what is hidden shows and takes no room; a text that is cut ends in "…".
///
/// In JSON none of its characters but `"` and `\` is escaped: `2 * MAX + 2` bytes at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MAX: usize>(String);

/// A sentence for people: why something was refused, what a program said.
pub type Sentence = Text<500>;
/// A name or a short claim.
pub type Label = Text<128>;

impl<const MAX: usize> Text<MAX> {
    /// Takes what can be shown of `text`.
    pub fn new(text: &str) -> Self {
        Self(clean(text, MAX))
    }

    /// What can be shown of the JSON error, by [`json_fault`].
    pub fn of_json_error(error: &serde_json::Error) -> Self {
        Self::new(&json_fault(error))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, as a string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> From<&str> for Text<MAX> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const MAX: usize> From<String> for Text<MAX> {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> PartialEq<str> for Text<MAX> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl<const MAX: usize> PartialEq<&str> for Text<MAX> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What comes from outside is cut and cleaned, not refused: it is for people.
impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// At most `limit` bytes of what can be shown of `text`.
pub fn clean(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut is_hidden = false;
    for character in text.trim().chars() {
        let next = if is_shown(character) { character } else { HIDDEN };
        if next == HIDDEN && is_hidden {
            continue;
        }
        is_hidden = next == HIDDEN;
        if shown.len() + next.len_utf8() > limit {
            // What was shown last gives way to the mark.
            shown.truncate(shown.floor_char_boundary(limit.saturating_sub(CUT.len_utf8())));
            if limit >= CUT.len_utf8() {
                shown.push(CUT);
            }
            break;
        }
        shown.push(next);
    }
    shown
}

/// Control characters move the cursor; the others reorder or hide what a person reads, or end a line where the reader of a
/// log does not expect it.
fn is_shown(character: char) -> bool {
    let formats = matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !character.is_control() && !formats
}

/// What is wrong with JSON and where, in words of ours alone. `serde_json`'s own quote what was read ("unknown field
/// `…`", "invalid type: string \"…\""), which nobody has vouched for.
pub fn json_fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = match error.classify() {
        Category::Io => "it could not be read",
        Category::Syntax => "it is no JSON",
        Category::Eof => "it ends in the middle",
        Category::Data => return format!("{}{}", fault_of_data(&message), place(error)),
    };
    format!("{what}{}", place(error))
}

fn place(error: &serde_json::Error) -> String {
    // A value that was read before has no place any more.
    if error.line() == 0 {
        return String::new();
    }
    format!(" at line {}, column {}", error.line(), error.column())
}

/// Of what `serde` says, that part which names our own fields and types.
fn fault_of_data(message: &str) -> String {
    for (prefix, what) in
        [("missing field `", "a field is missing"), ("duplicate field `", "a field is there twice")]
    {
        // The name is one of ours: it stands in our types.
        if let Some(name) = message.strip_prefix(prefix).and_then(|rest| rest.split('`').next()) {
            return format!("{what}: {}", clean(name, 64));
        }
    }
    for (prefix, what) in [
        ("unknown field", "it has a field that is not known"),
        ("unknown variant", "it has a word that is not known where one of a list is due"),
        ("invalid length", "a list of another length than is due"),
        ("invalid value", "a value that cannot be"),
        ("invalid type", "a value of another type than is due"),
        (DUPLICATE_KEY, DUPLICATE_KEY),
    ] {
        if message.starts_with(prefix) {
            return what.to_owned();
        }
    }
    "it does not have the form that is due".to_owned()
}

/// What whoever refuses an object with a key that is there twice says of it.
pub const DUPLICATE_KEY: &str = "a key is there twice";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Form {
        number: u32,
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
    }

    #[test]
    fn controls_and_what_hides_are_one_mark_and_a_cut_shows() {
        assert_eq!(clean(" a\u{1b}[31mb\u{202e}c\n", 100), "a\u{fffd}[31mb\u{fffd}c");
        assert_eq!(clean(&"\u{7f}".repeat(100_000), 500), "\u{fffd}");
        assert_eq!(clean(&"ü".repeat(100), 9), "üüü…");
        assert_eq!(clean("two\nlines\u{2028}three", 100), "two\u{fffd}lines\u{fffd}three");
        assert_eq!(clean("as it is", 8), "as it is");
    }

    #[test]
    fn an_error_names_the_place_and_the_kind_and_quotes_nothing() {
        for (text, fault) in [
            ("{\"number\":1,\"evil\":2}", "it has a field that is not known at line 1, column 18"),
            ("{\"number\":\"evil\"}", "a value of another type than is due at line 1, column 16"),
            (
                "{\"number\":1,\"kind\":\"evil\"}",
                "it has a word that is not known where one of a list is due at line 1, column 25",
            ),
            ("{\"number\":1}", "a field is missing: kind at line 1, column 12"),
            ("{\"number\":1,\"number\":2}", "a field is there twice: number at line 1, column 20"),
            ("{\"number\":-1,\"evil", "a value that cannot be at line 1, column 12"),
            ("{\"number\":1,\"evil", "it ends in the middle at line 1, column 17"),
            ("{evil}", "it is no JSON at line 1, column 2"),
        ] {
            let error = serde_json::from_str::<Form>(text).unwrap_err();
            assert_eq!(json_fault(&error), fault, "{text}");
        }
        let read = serde_json::from_str::<Value>("{\"number\":1,\"kind\":[\"evil\"]}").unwrap();
        assert!(!json_fault(&serde_json::from_value::<Form>(read).unwrap_err()).contains("evil"));
    }

    proptest! {
        #[test]
        fn whatever_comes_in_its_json_has_a_bound_and_reads_back_the_same(text in "\\PC{0,80}|[\u{0}-\u{ff}]{0,80}|.{0,80}") {
            let shown = Text::<40>::new(&text);
            prop_assert!(shown.len() <= 40 && !shown.chars().any(char::is_control));
            let json = serde_json::to_string(&shown).unwrap();
            prop_assert!(json.len() <= 82, "{json}");
            prop_assert_eq!(serde_json::from_str::<Text<40>>(&json).unwrap(), shown);
        }

        #[test]
        fn no_json_makes_an_error_that_repeats_it(key in "evil[a-z]{0,20}") {
            for text in [format!("{{\"{key}\":1}}"), format!("\"{key}\""), format!("{{\"number\":\"{key}\"}}"), format!("[\"{key}\"]")] {
                let error = serde_json::from_str::<Form>(&text).unwrap_err();
                prop_assert!(!json_fault(&error).contains("evil"));
            }
        }
    }
}
