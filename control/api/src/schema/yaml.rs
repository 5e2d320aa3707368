//! YAML into JSON values, as Kubernetes reads it: YAML 1.1 booleans, keys of any scalar type, the
//! reader's budget against alias bombs, duplicate keys noted with their line.

use serde::de::{Deserialize, DeserializeSeed, Deserializer};
use serde_json::Value;
use serde_yaml::{DuplicateKeyPolicy, Error, Options};

use super::decode::{DecodeError, Decoded, Duplicate, Node, State};

/// Decodes one YAML document; JSON is YAML too. An empty document is `null`.
pub fn decode_yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut documents = decode_yaml_documents(bytes)?;
    match documents.len() {
        0 => Ok(Decoded {
            value: Value::Null,
            duplicates: Vec::new(),
        }),
        1 => Ok(documents.remove(0)),
        found => Err(DecodeError::Documents { found }),
    }
}

/// Decodes all documents of a YAML stream; empty ones are left out.
///
/// A repeated key is reported once per stream, at its first repetition: the line of each would need
/// another pass over the bytes.
pub fn decode_yaml_documents(bytes: &[u8]) -> Result<Vec<Decoded>, DecodeError> {
    let lenient = options(DuplicateKeyPolicy::PassThrough);
    let documents = serde_yaml::from_slice_multiple_with_options::<Document>(bytes, lenient);
    let documents = documents.map_err(|error| yaml_error(&error))?;
    let mut decoded = Vec::with_capacity(documents.len());
    let mut repeated = None;
    for Document { value, duplicates } in documents {
        let duplicates = match duplicates.first() {
            Some(first) if repeated.is_none() => {
                let key = last_key(first);
                repeated = Some(());
                vec![Duplicate::YamlKey {
                    line: duplicate_line(bytes),
                    key,
                }]
            }
            _ => duplicates.into_iter().map(Duplicate::Field).collect(),
        };
        decoded.push(Decoded { value, duplicates });
    }
    Ok(decoded)
}

/// The line of the stream's first repeated key; 0 if the strict reader sees none.
fn duplicate_line(bytes: &[u8]) -> u64 {
    let strict = options(DuplicateKeyPolicy::Error);
    match serde_yaml::from_slice_multiple_with_options::<Document>(bytes, strict) {
        Ok(_) => 0,
        Err(error) => error.location().map_or(0, |location| location.line()),
    }
}

fn last_key(path: &str) -> String {
    path.rsplit('.').next().unwrap_or(path).to_owned()
}

fn options(duplicates: DuplicateKeyPolicy) -> Options {
    let mut options = Options::default();
    options.duplicate_keys = duplicates;
    options.with_snippet = false;
    options.legacy_octal_numbers = true;
    options
}

fn yaml_error(error: &Error) -> DecodeError {
    let error = error.without_snippet();
    let (line, column) = error
        .location()
        .map_or((0, 0), |location| (location.line(), location.column()));
    let message = error.to_string();
    let message = message.lines().next().unwrap_or_default();
    let message = match message.split_once(" at line ") {
        Some((message, _)) => message,
        None => message,
    };
    DecodeError::Yaml {
        message: message.to_owned(),
        line,
        column,
    }
}

/// One document with the paths of its repeated keys.
struct Document {
    value: Value,
    duplicates: Vec<String>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut state = State::default();
        let value = Node { state: &mut state }.deserialize(deserializer)?;
        Ok(Self {
            value,
            duplicates: state.duplicates,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        decode_yaml(text.as_bytes()).expect("decodes").value
    }

    #[test]
    fn scalars_are_read_as_yaml_1_1_reads_them() {
        assert_eq!(
            value(
                "a: yes\nb: Off\nc: 0644\nd: '1'\ne: ~\nf: 1.5\ng: x\nh: true\n8080: port\ntrue: t"
            ),
            json!({"a": true, "b": false, "c": 420, "d": "1", "e": null, "f": 1.5, "g": "x",
                   "h": true, "8080": "port", "true": "t"})
        );
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(value("{\"a\": [1, \"b\"]}"), json!({"a": [1, "b"]}));
    }

    #[test]
    fn a_repeated_key_is_named_with_its_line() {
        let decoded = decode_yaml(b"a: 1\nb:\n  foo: 1\n  bar: 2\n  foo: 3\n").expect("decodes");
        let texts: Vec<_> = decoded.duplicates.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["yaml: unmarshal errors:\n  line 5: key \"foo\" already set in map"]
        );
        assert_eq!(decoded.value, json!({"a": 1, "b": {"foo": 3, "bar": 2}}));
    }

    #[test]
    fn broken_yaml_says_where() {
        let error = decode_yaml(b"a:\n  - b\n c: d\n").expect_err("is broken");
        let text = error.to_string();
        assert!(text.starts_with("yaml: line 3, column "), "{text}");
    }

    #[test]
    fn streams_hold_several_documents_and_skip_empty_ones() {
        let documents =
            decode_yaml_documents(b"---\na: 1\n---\n# nothing\n---\nb: 2\n").expect("decodes");
        let values: Vec<_> = documents
            .into_iter()
            .map(|document| document.value)
            .collect();
        assert_eq!(values, [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(
            decode_yaml(b"a: 1\n---\nb: 1\n"),
            Err(DecodeError::Documents { found: 2 })
        );
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for at in 1..12 {
            let of = vec![format!("*a{}", at - 1); 10].join(",");
            text.push_str(&format!("a{at}: &a{at} [{of}]\n"));
        }
        assert!(decode_yaml(text.as_bytes()).is_err());
    }
}
