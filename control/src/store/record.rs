//! Records: an object encoded once, with a hole where its resourceVersion goes.
//!
//! A write encodes its object before the store has given it a revision. The record therefore notes the
//! offset between the quotes of `"resourceVersion":""`; when the revision is known the index splices
//! it in, once, and from then on every reader is handed those same bytes. A deletion splices the last
//! bytes again with the revision of the deletion.
//!
//! Labels and selectable fields travel beside the bytes, because lists and watches filter by them and
//! must not parse the object to do so.
//!
//! The durable form (all integers little-endian) is
//!
//! ```text
//! put:     1u8 | hole u32 | pairs(labels) | pairs(fields) | JSON with the hole, to the end
//! delete:  0u8
//! pairs:   count u16 | count × (len u32 | key | len u32 | value)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use thiserror::Error;

use super::Revision;

/// Sorted key-value pairs: labels or selectable fields of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl Pairs {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, v)| &**v)
    }

    /// All pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        pairs.sort_unstable_by(|a: &(Box<str>, Box<str>), b| a.0.cmp(&b.0));
        Self(pairs.into())
    }
}

/// An encoded object that has no revision yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// JSON with an empty `metadata.resourceVersion`.
    pub bytes: Bytes,
    /// Offset of the closing quote of that empty string.
    pub hole: u32,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// What field selectors of the kind can ask for.
    pub fields: Pairs,
}

/// Why an object could not be encoded, or stored bytes could not be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The value is not an object with an object under `metadata`.
    #[error("an object to store must have metadata")]
    NoMetadata,
    /// The encoder failed, or the object exceeds 4 GiB.
    #[error("encode object: {0}")]
    Encode(String),
    /// Stored bytes are not a record; the data file is damaged.
    #[error("stored record is damaged: {0}")]
    Damaged(&'static str),
}

impl Record {
    /// Encodes `object`, whatever resourceVersion it carries, with a hole in that place.
    ///
    /// # Errors
    /// When the value is not a Kubernetes object.
    pub fn encode(object: &Value, fields: Pairs) -> Result<Self, RecordError> {
        let (Some(map), Some(metadata)) = (
            object.as_object(),
            object.get("metadata").and_then(Value::as_object),
        ) else {
            return Err(RecordError::NoMetadata);
        };
        let mut writer = Writer {
            bytes: BytesMut::with_capacity(2048).writer(),
        };
        let mut hole = 0;
        writer.raw("{");
        for (at, (key, value)) in map.iter().enumerate() {
            writer.key(at, key)?;
            if key == "metadata" {
                hole = writer.metadata(metadata)?;
            } else {
                writer.value(value)?;
            }
        }
        writer.raw("}");
        let bytes = writer.bytes.into_inner().freeze();
        let hole = u32::try_from(hole).map_err(|e| RecordError::Encode(e.to_string()))?;
        Ok(Self {
            bytes,
            hole,
            labels: labels_of(metadata),
            fields,
        })
    }

    /// The bytes with `revision` in the hole.
    #[must_use]
    pub fn splice(&self, revision: Revision) -> Bytes {
        splice(&self.bytes, self.hole, self.hole, revision)
    }

    pub(super) fn to_durable(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 256);
        out.put_u8(1);
        out.put_u32_le(self.hole);
        put_pairs(&mut out, &self.labels);
        put_pairs(&mut out, &self.fields);
        out.put_slice(&self.bytes);
        out
    }

    /// Reads the durable form; `None` is a deletion.
    pub(super) fn from_durable(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        let mut reader = Reader(bytes);
        match reader.take(1)? {
            [0] => return Ok(None),
            [1] => {}
            _ => return Err(RecordError::Damaged("unknown tag")),
        }
        let hole = reader.u32()?;
        let labels = reader.pairs()?;
        let fields = reader.pairs()?;
        let bytes = Bytes::copy_from_slice(reader.0);
        if bytes.get(hole as usize) != Some(&b'"') {
            return Err(RecordError::Damaged("the hole is not inside a string"));
        }
        Ok(Some(Self {
            bytes,
            hole,
            labels,
            fields,
        }))
    }
}

pub(super) const DURABLE_DELETE: &[u8] = &[0];

/// Replaces `bytes[from..to]` by the decimal revision.
pub(super) fn splice(bytes: &Bytes, from: u32, to: u32, revision: Revision) -> Bytes {
    let digits = revision.to_string();
    let mut out = BytesMut::with_capacity(bytes.len() + digits.len());
    out.put_slice(bytes.get(..from as usize).unwrap_or_default());
    out.put_slice(digits.as_bytes());
    out.put_slice(bytes.get(to as usize..).unwrap_or_default());
    out.freeze()
}

fn labels_of(metadata: &serde_json::Map<String, Value>) -> Pairs {
    let labels = metadata.get("labels").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect()
}

struct Writer {
    bytes: bytes::buf::Writer<BytesMut>,
}

impl Writer {
    fn raw(&mut self, text: &str) {
        self.bytes.get_mut().put_slice(text.as_bytes());
    }

    fn key(&mut self, at: usize, key: &str) -> Result<(), RecordError> {
        if at > 0 {
            self.raw(",");
        }
        serde_json::to_writer(&mut self.bytes, key)
            .map_err(|e| RecordError::Encode(e.to_string()))?;
        self.raw(":");
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), RecordError> {
        serde_json::to_writer(&mut self.bytes, value)
            .map_err(|e| RecordError::Encode(e.to_string()))
    }

    /// Writes metadata with an empty resourceVersion after the fields that precede it; returns the hole.
    fn metadata(
        &mut self,
        metadata: &serde_json::Map<String, Value>,
    ) -> Result<usize, RecordError> {
        self.raw("{");
        let mut written = 0;
        for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
            self.key(written, key)?;
            self.value(value)?;
            written += 1;
        }
        self.key(written, "resourceVersion")?;
        self.raw("\"");
        let hole = self.bytes.get_ref().len();
        self.raw("\"");
        self.raw("}");
        Ok(hole)
    }
}

fn put_pairs(out: &mut Vec<u8>, pairs: &Pairs) {
    // A Kubernetes object cannot carry 65,535 labels within the request limit; more would be cut here,
    // and only from what selectors see.
    let count = u16::try_from(pairs.0.len()).unwrap_or(u16::MAX);
    out.put_u16_le(count);
    for (key, value) in pairs.iter().take(count.into()) {
        for text in [key, value] {
            out.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
            out.put_slice(text.as_bytes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(RecordError::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        let bytes = self
            .take(4)?
            .try_into()
            .map_err(|_| RecordError::Damaged("integer"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<Box<str>, RecordError> {
        let len = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(len)?);
        Ok(text
            .map_err(|_| RecordError::Damaged("text is not UTF-8"))?
            .into())
    }

    fn pairs(&mut self) -> Result<Pairs, RecordError> {
        let count = self
            .take(2)?
            .try_into()
            .map_err(|_| RecordError::Damaged("integer"))?;
        (0..u16::from_le_bytes(count))
            .map(|_| Ok((self.text()?, self.text()?)))
            .collect::<Result<_, _>>()
            .map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record() -> Record {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"b": "2", "a": "1"}},
            "data": {"metadata": "x"},
        });
        Record::encode(&object, [("metadata.name", "a")].into_iter().collect()).unwrap()
    }

    #[test]
    fn the_revision_goes_into_the_hole() {
        let spliced: Value = serde_json::from_slice(&record().splice(Revision(42))).unwrap();
        assert_eq!(spliced["metadata"]["resourceVersion"], "42");
        assert_eq!(spliced["data"]["metadata"], "x");
    }

    #[test]
    fn labels_and_fields_are_found_by_name() {
        let record = record();
        assert_eq!(record.labels.get("b"), Some("2"));
        assert_eq!(record.labels.get("c"), None);
        assert_eq!(record.fields.get("metadata.name"), Some("a"));
    }

    #[test]
    fn the_durable_form_reads_back() {
        let record = record();
        assert_eq!(
            Record::from_durable(&record.to_durable()).unwrap(),
            Some(record)
        );
        assert_eq!(Record::from_durable(DURABLE_DELETE).unwrap(), None);
    }

    #[test]
    fn every_cut_of_the_durable_form_is_an_error_or_another_record_but_no_panic() {
        let durable = record().to_durable();
        for end in 0..durable.len() {
            let _ = Record::from_durable(&durable[..end]);
        }
        assert!(Record::from_durable(&[9]).is_err());
    }
}
