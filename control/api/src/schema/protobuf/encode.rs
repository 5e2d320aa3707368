//! A value into a message, along its type.
//!
//! Fields are written by ascending number and maps by key, as Go does. Members that are absent or `null`
//! are left out.
//!
//! // Differs from Kubernetes: Go also writes the empty values of fields that are no pointers. Readers take
//! an absent one for the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::wire::Writer;
use super::{Problem, ProtobufError};
use crate::schema::{Field, Schema, StructType, Type, TypeRef};
use crate::time;

/// Writes an object as a bare message.
pub(super) fn message(
    schema: &Schema,
    ty: TypeRef,
    object: &Value,
) -> Result<Vec<u8>, ProtobufError> {
    if !schema.has_protobuf(ty) {
        return Err(Problem::NoForm.into());
    }
    let mut out = Writer::with_capacity(1024);
    Encoder { schema }.body(&mut out, ty, object)?;
    Ok(out.into_bytes())
}

/// A member of an object with its field and the path of numbers to it.
struct Member<'a> {
    path: &'a [u8],
    field: &'a Field,
    value: &'a Value,
}

struct Encoder<'s> {
    schema: &'s Schema,
}

impl Encoder<'_> {
    /// What a message holds, without its tag and length.
    fn body(&self, out: &mut Writer, ty: TypeRef, value: &Value) -> Result<(), ProtobufError> {
        match (self.schema.get(ty), value) {
            (Type::Struct(of), Value::Object(object)) => self.object(out, of, object),
            // `ExtraValue`: a list that stands where a message must.
            (Type::List(_), Value::Array(_)) => self.field(out, 1, ty, value),
            (Type::Quantity, Value::String(text)) => {
                out.bytes(1, text.as_bytes());
                Ok(())
            }
            (Type::Quantity, Value::Number(number)) => {
                out.bytes(1, number.to_string().as_bytes());
                Ok(())
            }
            (Type::IntOrString, value) => int_or_string(out, value),
            (Type::Time, Value::String(text)) => instant(out, text, 1_000_000_000),
            (Type::MicroTime, Value::String(text)) => instant(out, text, 1_000),
            (Type::Any | Type::Time | Type::MicroTime, Value::Null) => Ok(()),
            (Type::Any, value) => {
                out.bytes(1, value.to_string().as_bytes());
                Ok(())
            }
            (expected, _) => Err(mismatch(expected)),
        }
    }

    fn object(
        &self,
        out: &mut Writer,
        of: &StructType,
        object: &Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        let member = |(name, value): (&String, _)| {
            let field = of.field(name)?;
            let path = field.number.path();
            Some(Member { path, field, value })
        };
        let mut members: Vec<_> = object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .filter_map(member)
            .filter(|member| !member.path.is_empty())
            .collect();
        members.sort_unstable_by_key(|member| member.path);
        self.members(out, &members, 0)
    }

    /// Members whose paths agree in the first `depth` numbers; those behind a further number share the
    /// message of an embedded struct.
    fn members(
        &self,
        out: &mut Writer,
        mut members: &[Member<'_>],
        depth: usize,
    ) -> Result<(), ProtobufError> {
        while let Some(first) = members.first() {
            let number = first.path.get(depth).copied().unwrap_or_default();
            let embedded = first.path.len() > depth + 1;
            let shared = members
                .iter()
                .take_while(|member| member.path.get(depth) == Some(&number));
            let (now, later) = members.split_at(if embedded { shared.count() } else { 1 });
            members = later;
            if embedded {
                out.message(number, |out| self.members(out, now, depth + 1))?;
            } else {
                self.field(out, number, first.field.ty, first.value)
                    .map_err(|error| error.within(&first.field.name))?;
            }
        }
        Ok(())
    }

    /// A field: an element, or as many as its list or map has.
    fn field(
        &self,
        out: &mut Writer,
        number: u8,
        ty: TypeRef,
        value: &Value,
    ) -> Result<(), ProtobufError> {
        match (self.schema.get(ty), value) {
            (Type::List(of), Value::Array(items)) => items
                .iter()
                .try_for_each(|item| self.element(out, number, of.item, item)),
            (Type::Map(of), Value::Object(entries)) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                entries.into_iter().try_for_each(|(key, value)| {
                    out.message(number, |out| {
                        out.bytes(1, key.as_bytes());
                        self.element(out, 2, of.value, value)
                    })
                })
            }
            (expected @ (Type::List(_) | Type::Map(_)), _) => Err(mismatch(expected)),
            _ => self.element(out, number, ty, value),
        }
    }

    fn element(
        &self,
        out: &mut Writer,
        number: u8,
        ty: TypeRef,
        value: &Value,
    ) -> Result<(), ProtobufError> {
        match (self.schema.get(ty), value) {
            (Type::String, Value::String(text)) => out.bytes(number, text.as_bytes()),
            (Type::Boolean, Value::Bool(value)) => out.varint(number, u64::from(*value)),
            (expected @ (Type::Int32 | Type::Int64), Value::Number(value)) => {
                let value = value.as_i64().ok_or_else(|| mismatch(expected))?;
                out.signed(number, value);
            }
            (expected @ Type::Number, Value::Number(value)) => {
                let value = value.as_f64().ok_or_else(|| mismatch(expected))?;
                out.fixed64(number, value.to_bits());
            }
            (expected @ Type::Bytes, Value::String(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| mismatch(expected))?;
                out.bytes(number, &bytes);
            }
            (
                expected @ (Type::String
                | Type::Boolean
                | Type::Int32
                | Type::Int64
                | Type::Number
                | Type::Bytes),
                _,
            ) => return Err(mismatch(expected)),
            _ => return out.message(number, |out| self.body(out, ty, value)),
        }
        Ok(())
    }
}

/// `IntOrString`: which of the two, the number, the text; Go writes all three.
fn int_or_string(out: &mut Writer, value: &Value) -> Result<(), ProtobufError> {
    let (number, text) = match value {
        Value::Number(number) => (number.as_i64(), ""),
        Value::String(text) => (Some(0), text.as_str()),
        _ => (None, ""),
    };
    let number = number.ok_or_else(|| mismatch(&Type::IntOrString))?;
    out.varint(1, u64::from(value.is_string()));
    out.signed(2, number);
    out.bytes(3, text.as_bytes());
    Ok(())
}

/// A time: seconds, and nanoseconds down to what its type holds.
fn instant(out: &mut Writer, text: &str, precision: i32) -> Result<(), ProtobufError> {
    let instant = time::parse(text).map_err(|_| Problem::Time)?;
    let nanos = i128::from(precision);
    let whole = instant.as_nanosecond().div_euclid(nanos) * nanos;
    let (seconds, nanos) = (
        whole.div_euclid(1_000_000_000),
        whole.rem_euclid(1_000_000_000),
    );
    out.signed(1, i64::try_from(seconds).map_err(|_| Problem::Time)?);
    out.signed(2, i64::try_from(nanos).map_err(|_| Problem::Time)?);
    Ok(())
}

fn mismatch(expected: &Type) -> ProtobufError {
    Problem::Mismatch(match expected {
        Type::String => "string",
        Type::Boolean => "boolean",
        Type::Int32 | Type::Int64 => "integer",
        Type::Number => "number",
        Type::Bytes => "base64 text",
        Type::Quantity => "quantity",
        Type::IntOrString => "integer or string",
        Type::Time | Type::MicroTime => "time",
        Type::List(_) => "list",
        Type::Any | Type::Struct(_) | Type::Map(_) => "object",
    })
    .into()
}
