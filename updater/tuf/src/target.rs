//! Names of targets, and where their files are.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::MAX_TARGET_NAME_BYTES;
use crate::document::Target;

/// The digits of the longest hash that is known, SHA-512's.
const MAX_HASH_DIGITS: usize = 128;
/// All but what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one part of a URL or as a file name: percent-encoded, `/` too.
pub fn encoded(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

/// A path as a URL has it: percent-encoded, but for `/`.
pub fn encoded_path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

/// Whether a name is safe as a relative path on a server and on a disk.
pub fn is_target_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_TARGET_NAME_BYTES
        && !name.contains(|c: char| c == '\\' || c.is_control())
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Where the file of a target is, relative to the base of the targets. With consistent snapshots the hash stands
/// before the file name, never before the directory: `operators/<sha256>.acme.json` (section 5.7.3).
pub fn target_path(name: &str, target: &Target, consistent_snapshot: bool) -> Option<String> {
    if !is_target_name(name) {
        return None;
    }
    if !consistent_snapshot {
        return Some(name.to_owned());
    }
    let hash = target.sha256().or_else(|| target.hashes.0.get("sha512").map(String::as_str))?;
    // A hash comes from metadata and lands in a path.
    if hash.len() > MAX_HASH_DIGITS || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(match name.rsplit_once('/') {
        Some((directory, file)) => format!("{directory}/{hash}.{file}"),
        None => format!("{hash}.{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Hashes;

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        let long = "n".repeat(201);
        for name in ["", "..", "a/../b", "/etc/passwd", "a\\b", "a//b", "a/", "./a", "a\nb", "a\u{7f}", &long]
        {
            assert!(!is_target_name(name), "{name:?}");
        }
        for name in ["acme.json", "operators/acme.json", "a..b", "...", "ä/日本.json", &long[..200]] {
            assert!(is_target_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_name_is_encoded_as_one_part_of_a_url_and_a_path_part_by_part() {
        assert_eq!(encoded("a/b ?#é-._~"), "a%2Fb%20%3F%23%C3%A9-._~");
        assert_eq!(encoded_path("a b/ä.json"), "a%20b/%C3%A4.json");
    }

    #[test]
    fn the_hash_stands_before_the_file_name_and_never_before_the_directory() {
        let target = Target { length: 1, hashes: Hashes::sha256_of(b"x"), custom: None };
        let hash = target.sha256().unwrap();
        assert_eq!(target_path("a/b/c.json", &target, true).unwrap(), format!("a/b/{hash}.c.json"));
        assert_eq!(target_path("c.json", &target, true).unwrap(), format!("{hash}.c.json"));
        assert_eq!(target_path("a/c.json", &target, false).unwrap(), "a/c.json");
    }

    #[test]
    fn a_hash_that_is_none_makes_no_path() {
        let hashes = Hashes([("sha256".to_owned(), "../../x".to_owned())].into_iter().collect());
        assert_eq!(target_path("a", &Target { length: 1, hashes, custom: None }, true), None);
    }
}
