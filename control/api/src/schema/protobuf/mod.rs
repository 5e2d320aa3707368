//! Kubernetes' protobuf form of objects: JSON values to messages and back, by the schema.
//!
//! 1. `numbers.tsv` holds what JSON cannot tell: each field's number, and whether it is a pointer in Go.
//!    `numbers` writes them into the fields of the built-in schema; custom kinds have none.
//! 2. `encode` walks a value or its JSON text along its type and writes a message; `decode` reads one into
//!    a value.
//! 3. `envelope` wraps messages as they travel: `k8s\0` and a `runtime.Unknown`, lists, watch frames.
//! 4. `wire` reads and writes varints, tags and lengths, and trusts no byte.
//!
//! The form of each type follows from the schema: times, quantities, int-or-strings and raw JSON are the
//! messages upstream has for them; an entry of a map is a message of key and value; a list inside a map
//! (`ExtraValue`) is a message whose field 1 repeats. A struct that Go embeds is a message of its own on
//! the wire and not in JSON: its fields carry the path of numbers that leads to them.
//!
//! Presence: Go writes every field that is no pointer, also when it is empty. Such an emptiness is
//! decoded as absence, unless the schema requires the field; behind a pointer it is a value.
//!
//! Invariant: what is decoded has declared fields only; `Schema::check` still has to look at it, because
//! the texts inside (quantities, say) may be anything.

mod decode;
mod encode;
pub mod envelope;
mod numbers;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use serde::Deserializer;
use serde_json::Value;

use super::{Schema, Type, TypeRef};

pub(super) use numbers::join;
pub use wire::Writer;

/// Longest path of numbers to a field: two embedded structs around it.
const MAX_PATH: usize = 3;

/// Where a field stands in its object's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldNumber {
    /// The numbers of the embedded structs on the way and of the field, then zeroes.
    path: [u8; MAX_PATH],
    /// Whether the field is a pointer in Go, so that an empty value differs from none.
    pointer: bool,
}

impl FieldNumber {
    fn path(&self) -> &[u8] {
        let end = self.path.iter().position(|number| *number == 0);
        self.path.get(..end.unwrap_or(MAX_PATH)).unwrap_or_default()
    }

    /// The field's own number, in the innermost of the messages around it; none when it has no place.
    fn last(&self) -> Option<u8> {
        self.path().last().copied()
    }

    fn is_known(&self) -> bool {
        self.path.first().is_some_and(|number| *number != 0)
    }
}

/// Why a message could not be read or written, and where in the object.
#[derive(Debug, PartialEq, Eq)]
pub struct ProtobufError {
    /// Names of the fields that lead there, dotted; may be empty.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a message or a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// The envelope's four magic bytes are missing.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoPrefix,
    /// The envelope says that its content is compressed or otherwise encoded.
    #[error("content encoding {0:?} is not supported")]
    ContentEncoding(String),
    /// The bytes end inside a value.
    #[error("unexpected EOF")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// Field numbers begin at 1 and have 29 bits.
    #[error("proto: illegal tag {0}")]
    IllegalTag(u64),
    /// No such wire type.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// A group ends that did not begin.
    #[error("proto: wiretype end group for non-group")]
    EndGroup,
    /// The field is of another type than the bytes say.
    #[error("proto: wrong wireType = {0}")]
    WrongWireType(u8),
    /// A text is not UTF-8.
    #[error("string field contains invalid UTF-8")]
    Utf8,
    /// Messages are nested too deeply.
    #[error("messages are nested more than {} levels deep", decode::MAX_DEPTH)]
    TooDeep,
    /// More values than any real object has.
    #[error("more than {} values", decode::MAX_VALUES)]
    TooManyValues,
    /// A time that no RFC 3339 text can say.
    #[error("time is out of range")]
    Time,
    /// Not a finite number.
    #[error("number is not finite")]
    NotFinite,
    /// An int-or-string that is neither.
    #[error("impossible IntOrString.Type {0}")]
    IntOrString(u64),
    /// Raw JSON inside the message is none.
    #[error(transparent)]
    Json(super::DecodeError),
    /// What should be an object's JSON is none.
    #[error("{0}")]
    Damaged(String),
    /// The type has no protobuf form.
    #[error("the type has no protobuf form")]
    NoForm,
    /// A value is not of its field's type.
    #[error("the value is no {0}")]
    Mismatch(&'static str),
}

impl ProtobufError {
    /// The same error seen from the object around it.
    fn within(mut self, field: &str) -> Self {
        self.path = if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{field}.{}", self.path)
        };
        self
    }
}

impl From<Problem> for ProtobufError {
    fn from(problem: Problem) -> Self {
        Self {
            path: String::new(),
            problem,
        }
    }
}

impl fmt::Display for ProtobufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for ProtobufError {}

impl Schema {
    /// Whether objects of the type have a protobuf form: built-in ones do, custom ones do not.
    #[must_use]
    pub fn has_protobuf(&self, ty: TypeRef) -> bool {
        match self.get(ty) {
            Type::Struct(of) => of.fields.iter().any(|field| field.number.is_known()),
            _ => false,
        }
    }

    /// Writes an object, a value or its JSON text, as a bare message. `apiVersion` and `kind` of a root are
    /// not part of it: they travel in the envelope.
    ///
    /// # Errors
    /// [`Problem::NoForm`], [`Problem::Damaged`] for a text that is no JSON, or [`Problem::Mismatch`] for a
    /// value the schema's check would not let through.
    pub fn encode_protobuf<'de>(
        &self,
        ty: TypeRef,
        object: impl Deserializer<'de>,
    ) -> Result<Vec<u8>, ProtobufError> {
        encode::message(self, ty, object)
    }

    /// Reads a bare message into an object, without `apiVersion` and `kind`.
    ///
    /// # Errors
    /// When the bytes are no message of the type. Fields the type does not have are skipped.
    pub fn decode_protobuf(&self, ty: TypeRef, message: &[u8]) -> Result<Value, ProtobufError> {
        decode::message(self, ty, message)
    }
}
