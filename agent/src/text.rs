//! Text from outside (the kernel, certificates, other machines) made fit for messages, logs and terminals.

/// At most `limit` characters, none of them a control or formatting character.
pub fn clean(text: &str, limit: usize) -> String {
    // U+200B.. and U+202A.. reorder or hide what a person reads.
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.trim().chars().filter(|c| !c.is_control() && !hidden(*c)).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_hidden_characters_and_excess_length_are_dropped() {
        assert_eq!(clean(" a\u{1b}[31mb\u{202e}c\n", 100), "a[31mbc");
        assert_eq!(clean(&"ü".repeat(100), 3), "üüü");
    }
}
