//! Bytes into a JSON value, noting duplicate fields.
//!
//! serde's `Value` keeps the last of two equal keys silently; a Kubernetes client that asks for strict
//! field validation wants to hear of it. The visitor here builds the same value and carries the path of
//! where it is, so that a duplicate is reported as `spec.replicas` or `spec.containers[0].image`.
//! Depth is bounded (by `serde_json` at 128 levels, by the YAML reader's budget).

use std::fmt;
use std::fmt::Write as _;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What the bytes said.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The value; of two equal keys the last one won.
    pub value: Value,
    /// Fields that were given more than once.
    pub duplicates: Vec<Duplicate>,
}

/// A field that was given more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// In JSON: the dotted path.
    Field(String),
    /// In YAML: the line of the second occurrence and its key.
    YamlKey {
        /// Line, from 1.
        line: u64,
        /// The repeated key.
        key: String,
    },
}

impl fmt::Display for Duplicate {
    /// As upstream words it in strict decoding errors and warnings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(path) => write!(f, "duplicate field \"{path}\""),
            Self::YamlKey { line, key } => {
                write!(
                    f,
                    "yaml: unmarshal errors:\n  line {line}: key \"{key}\" already set in map"
                )
            }
        }
    }
}

/// Why bytes are no JSON or YAML.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, or nested too deeply.
    #[error("json parse error: {message} at line {line} column {column}")]
    Json {
        /// What is wrong.
        message: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Not YAML, or over the reader's limits.
    #[error("yaml: line {line}, column {column}: {message}")]
    Yaml {
        /// What is wrong.
        message: String,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Column, from 1; 0 if unknown.
        column: u64,
    },
    /// More than one YAML document where one is expected.
    #[error("yaml: expected one document, found {found}")]
    Documents {
        /// How many there are.
        found: usize,
    },
}

/// Decodes one JSON value; anything but white space after it is an error.
pub fn decode_json(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut state = State::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { state: &mut state }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| json_error(&error))?;
    let duplicates = state.duplicates.into_iter().map(Duplicate::Field).collect();
    Ok(Decoded { value, duplicates })
}

fn json_error(error: &serde_json::Error) -> DecodeError {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let place = format!(" at line {line} column {column}");
    let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
    DecodeError::Json {
        message,
        line,
        column,
    }
}

/// What the visitor carries: the path of the value being read, and the duplicates seen.
#[derive(Default)]
pub(super) struct State {
    path: String,
    pub(super) duplicates: Vec<String>,
}

impl State {
    fn enter_field(&mut self, name: &str) -> usize {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        mark
    }

    fn enter_item(&mut self, at: usize) -> usize {
        let mark = self.path.len();
        // Writing to a String can't fail.
        let _ = write!(self.path, "[{at}]");
        mark
    }

    fn leave(&mut self, mark: usize) {
        self.path.truncate(mark);
    }
}

/// Reads one value at the state's path.
pub(super) struct Node<'a> {
    pub(super) state: &'a mut State,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        number_from_i128(value).ok_or_else(|| E::custom(format!("number {value} is out of range")))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        let out_of_range = || E::custom(format!("number {value} is out of range"));
        i128::try_from(value)
            .ok()
            .and_then(number_from_i128)
            .ok_or_else(out_of_range)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number is not finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let mark = self.state.enter_item(list.len());
            let item = items.next_element_seed(Node { state: self.state })?;
            self.state.leave(mark);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let mark = self.state.enter_field(&key);
            if object.contains_key(&key) {
                let path = self.state.path.clone();
                self.state.duplicates.push(path);
            }
            let value = entries.next_value_seed(Node { state: self.state })?;
            self.state.leave(mark);
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

fn number_from_i128(value: i128) -> Option<Value> {
    let signed = i64::try_from(value).map(Number::from);
    signed
        .or_else(|_| u64::try_from(value).map(Number::from))
        .ok()
        .map(Value::Number)
}

/// A key of an object: always a text in JSON; in YAML a scalar is written as JSON writes it.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<String, E> {
        Ok(key.to_owned())
    }

    fn visit_string<E>(self, key: String) -> Result<String, E> {
        Ok(key)
    }

    fn visit_bool<E>(self, key: bool) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_i64<E>(self, key: i64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_u64<E>(self, key: u64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_f64<E>(self, key: f64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<String, E> {
        Err(E::custom("a key must not be null"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_noted_with_their_path_and_the_last_one_wins() {
        let text =
            br#"{"spec":{"replicas":1,"c":[{"a":1},{"a":2,"a":3}],"replicas":2},"spec":{"x":{}}}"#;
        let decoded = decode_json(text).expect("decodes");
        let paths: Vec<_> = decoded.duplicates.iter().map(ToString::to_string).collect();
        assert_eq!(
            paths,
            [
                "duplicate field \"spec.c[1].a\"",
                "duplicate field \"spec.replicas\"",
                "duplicate field \"spec\""
            ]
        );
        assert_eq!(decoded.value, json!({"spec": {"x": {}}}));
    }

    #[test]
    fn broken_json_says_where() {
        for (text, line, column) in [("{\"a\":1,}", 1, 8), ("", 1, 0), ("{}\n x", 2, 2)] {
            match decode_json(text.as_bytes()) {
                Err(DecodeError::Json {
                    line: l,
                    column: c,
                    message,
                }) => {
                    assert_eq!((l, c), (line, column), "{text}");
                    assert!(!message.contains("column"), "{message}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let text = "[".repeat(100_000);
        assert!(decode_json(text.as_bytes()).is_err());
    }

    #[test]
    fn numbers_keep_their_kind() {
        let decoded = decode_json(b"[1,-1,18446744073709551615,1.0,1e3]").expect("decodes");
        assert_eq!(
            decoded.value.to_string(),
            "[1,-1,18446744073709551615,1.0,1000.0]"
        );
    }
}
