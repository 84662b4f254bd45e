//! Long texts in few letters, for scenarios: `«x*7600»` is `x` 7,600 times.

use anyhow::{Context, ensure};

/// What a text may grow to, in bytes: more than any packet that a scenario needs.
const MOST: usize = 1024 * 1024;

/// `text` with each `«what*count»` written out. The innermost is first, so that what is repeated may hold another.
pub fn written_out(text: &str) -> anyhow::Result<String> {
    let mut text = text.to_owned();
    while let Some(end) = text.find('»') {
        let start = text[..end].rfind('«').context("» without «")?;
        let (what, count) = text[start + '«'.len_utf8()..end].rsplit_once('*').context("«…» without *")?;
        let count: usize = count.parse().with_context(|| format!("{count} times"))?;
        ensure!(text.len() + what.len().saturating_mul(count) <= MOST, "longer than {MOST} bytes");
        let repeated = what.repeat(count);
        text.replace_range(start..end + '»'.len_utf8(), &repeated);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_repeated_from_the_inside_out() {
        assert_eq!(written_out("a«b*3»c").unwrap(), "abbbc");
        assert_eq!(written_out("«[*2»«x«y*2»*2»").unwrap(), "[[xyyxyy");
        assert_eq!(written_out("as it is").unwrap(), "as it is");
        assert!(written_out("x»").is_err());
        assert!(written_out("«x*999999999999»").is_err());
    }
}
