//! JSON as TUF signs it: strict parsing (no duplicate keys, no floats) and the canonical encoding that
//! securesystemslib calls OLPC canonical JSON. There is deliberately no Unicode normalisation: securesystemslib has
//! none, so an encoder that normalises would refuse what every other client accepts.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// A JSON value without floats, whose objects have each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any integer that fits 64 bits, signed or not.
    Integer(i128),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object. The order of UTF-8 bytes is the order of code points, which canonical JSON asks for.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads one JSON value and nothing after it. Nesting is bounded by `serde_json` (128 levels).
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The bytes that are signed.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::String(value) => encode_string(value, out),
            Self::Array(values) => {
                out.push(b'[');
                for (position, value) in values.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    value.encode(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (position, (key, value)) in members.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    encode_string(key, out);
                    out.push(b':');
                    value.encode(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Only `\` and `"` are escaped; control characters stand as they are, so the result need not be valid JSON.
fn encode_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floating-point numbers")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Json>()? {
            if members.contains_key(&key) {
                return Err(A::Error::custom(vigil_text::DUPLICATE_KEY));
            }
            members.insert(key, value);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(Json::parse(text.as_bytes()).unwrap().canonical()).unwrap()
    }

    #[test]
    fn keys_are_sorted_by_code_point_and_whitespace_is_gone() {
        assert_eq!(
            canonical("{\"b\" : [1, -2, true, null], \"\u{e000}\": 1, \"\u{10000}\": 2, \"a\": {} }"),
            "{\"a\":{},\"b\":[1,-2,true,null],\"\u{e000}\":1,\"\u{10000}\":2}"
        );
    }

    #[test]
    fn only_quotes_and_backslashes_are_escaped() {
        assert_eq!(canonical(r#""a\"b\\c\/d\n\u0001é""#), "\"a\\\"b\\\\c/d\n\u{1}é\"");
    }

    #[test]
    fn strings_are_not_normalised() {
        assert_eq!(canonical("\"e\u{301}\""), "\"e\u{301}\"");
        assert_ne!(canonical("\"e\u{301}\""), canonical("\"\u{e9}\""));
    }

    #[test]
    fn the_encoding_is_that_of_securesystemslib() {
        // What encode_canonical of securesystemslib 1.6.0 makes of this object.
        let text = r#"{"b": [1, -2, true, false, null, {}], "a\"\\": "e\u0301 \u00e9 \n\u0001\u007f/",
            "\ud800\udc00": 2, "\ue000": 18446744073709551615, "": [], "Z": "<&>\u2028"}"#;
        let expected = "7b22223a5b5d2c225a223a223c263ee280a8222c22615c225c5c223a2265cc8120c3a9200a017f2f222c2262223a5b\
            312c2d322c747275652c66616c73652c6e756c6c2c7b7d5d2c22ee8080223a31383434363734343037333730393535313631352c\
            22f0908080223a327d";
        let canonical = Json::parse(text.as_bytes()).unwrap().canonical();
        assert_eq!(data_encoding::HEXLOWER.encode(&canonical), expected);
    }

    #[test]
    fn floats_are_refused() {
        for text in ["1.0", "1e3", "-0.5", "[1.5]", "-0", "99999999999999999999"] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        let error = Json::parse(b"[1.5]").unwrap_err().to_string();
        assert!(error.contains("expected JSON without floating-point numbers"), "{error}");
        assert_eq!(
            canonical("[18446744073709551615,-9223372036854775808]"),
            "[18446744073709551615,-9223372036854775808]"
        );
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth_and_however_they_are_written() {
        assert!(Json::parse(br#"{"a":1,"a":1}"#).is_err());
        assert!(Json::parse(br#"[{"b":{"a":1,"\u0061":2}}]"#).is_err());
        assert!(Json::parse(br#"{"a":{"a":1}}"#).is_ok());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(Json::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn nothing_may_follow_the_value() {
        assert!(Json::parse(b"{} x").is_err());
        assert!(Json::parse(b"").is_err());
    }
}
