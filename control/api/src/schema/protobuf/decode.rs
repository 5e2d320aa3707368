//! A message into a value, along its type.
//!
//! Input is hostile: nesting and the number of values are bounded, a length is never believed, and what
//! the type does not know is skipped. Of two occurrences of a single field the last one wins, and
//! messages merge, as protobuf says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::wire::{Reader, Tag, WireType};
use super::{FieldNumber, MAX_PATH, Problem, ProtobufError};
use crate::schema::{Field, Schema, StructType, Type, TypeRef, decode_json};
use crate::time;

/// Deepest nesting of messages; Kubernetes' own types need less than half.
pub(super) const MAX_DEPTH: usize = 64;
/// Most values of one object: a bound on memory, since an empty value takes a byte or two on the wire.
pub(super) const MAX_VALUES: usize = 1 << 20;

/// Reads a bare message into an object.
pub(super) fn message(
    schema: &Schema,
    ty: TypeRef,
    message: &[u8],
) -> Result<Value, ProtobufError> {
    let Type::Struct(of) = schema.get(ty) else {
        return Err(Problem::NoForm.into());
    };
    if !schema.has_protobuf(ty) {
        return Err(Problem::NoForm.into());
    }
    let mut decoder = Decoder {
        schema,
        depth: 0,
        values: 0,
    };
    let mut object = Map::new();
    decoder.object(of, message, &mut object)?;
    Ok(Value::Object(object))
}

struct Decoder<'s> {
    schema: &'s Schema,
    depth: usize,
    values: usize,
}

/// What a number means within a message.
enum Found<'s> {
    Field(&'s Field),
    /// A struct that Go embeds; the fields within begin with this path.
    Embedded([u8; MAX_PATH], usize),
}

impl<'s> Decoder<'s> {
    fn object(
        &mut self,
        of: &'s StructType,
        bytes: &[u8],
        object: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        self.members(of, bytes, object, [0; MAX_PATH], 0)
    }

    /// The members of `of` whose numbers begin with the first `length` of `path`.
    fn members(
        &mut self,
        of: &'s StructType,
        bytes: &[u8],
        object: &mut Map<String, Value>,
        path: [u8; MAX_PATH],
        length: usize,
    ) -> Result<(), ProtobufError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem::TooDeep.into());
        }
        let mut reader = Reader::new(bytes);
        while let Some(tag) = reader.tag()? {
            match find(of, path, length, tag.number) {
                Some(Found::Field(field)) => self
                    .member(field, tag, &mut reader, object)
                    .map_err(|error| error.within(&field.name))?,
                Some(Found::Embedded(path, length)) => {
                    tag.expect(WireType::Delimited)?;
                    self.members(of, reader.delimited()?, object, path, length)?;
                }
                None => reader.skip(tag)?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn member(
        &mut self,
        field: &Field,
        tag: Tag,
        reader: &mut Reader<'_>,
        object: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        match self.schema.get(field.ty) {
            Type::List(of) => {
                let list = object
                    .entry(&*field.name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    self.items(of.item, tag, reader, list)?;
                }
                return Ok(());
            }
            Type::Map(of) => {
                let map = object
                    .entry(&*field.name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    self.entry(of.value, tag, reader, map)?;
                }
                return Ok(());
            }
            _ => {}
        }
        let before = object.shift_remove(&*field.name);
        let value = self.element(field.ty, tag, reader, before)?;
        let empty_counts = field.required || field.number.pointer;
        if !value.is_null() && (empty_counts || !is_zero(&value)) {
            object.insert(field.name.to_string(), value);
        }
        Ok(())
    }

    /// One more item of a list, or all of them where numbers are packed.
    fn items(
        &mut self,
        item: TypeRef,
        tag: Tag,
        reader: &mut Reader<'_>,
        list: &mut Vec<Value>,
    ) -> Result<(), ProtobufError> {
        let packable = matches!(
            self.schema.get(item),
            Type::Boolean | Type::Int32 | Type::Int64
        );
        if !packable || tag.wire != WireType::Delimited {
            list.push(self.element(item, tag, reader, None)?);
            return Ok(());
        }
        let mut packed = Reader::new(reader.delimited()?);
        let tag = Tag {
            wire: WireType::Varint,
            ..tag
        };
        while !packed.is_empty() {
            list.push(self.element(item, tag, &mut packed, None)?);
        }
        Ok(())
    }

    /// One entry of a map: a message of key and value, either of which may be left out.
    fn entry(
        &mut self,
        ty: TypeRef,
        tag: Tag,
        reader: &mut Reader<'_>,
        map: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        tag.expect(WireType::Delimited)?;
        let mut entry = Reader::new(reader.delimited()?);
        let (mut key, mut value) = (String::new(), None);
        while let Some(tag) = entry.tag()? {
            match tag.number {
                1 => key = text(tag, &mut entry)?,
                2 => value = Some(self.element(ty, tag, &mut entry, None)?),
                _ => entry.skip(tag)?,
            }
        }
        let value = value.unwrap_or_else(|| zero(self.schema.get(ty)));
        map.insert(key, value);
        Ok(())
    }

    /// One value. `before` is what an earlier occurrence of the same field left: messages merge.
    fn element(
        &mut self,
        ty: TypeRef,
        tag: Tag,
        reader: &mut Reader<'_>,
        before: Option<Value>,
    ) -> Result<Value, ProtobufError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Problem::TooManyValues.into());
        }
        let ty = self.schema.get(ty);
        match ty {
            Type::Boolean | Type::Int32 | Type::Int64 => {
                tag.expect(WireType::Varint)?;
                Ok(varint(ty, reader.varint()?))
            }
            Type::Number => {
                tag.expect(WireType::Fixed64)?;
                let number = Number::from_f64(f64::from_bits(reader.fixed64()?));
                Ok(Value::Number(number.ok_or(Problem::NotFinite)?))
            }
            Type::String => text(tag, reader).map(Value::String),
            _ => {
                tag.expect(WireType::Delimited)?;
                self.delimited(ty, reader.delimited()?, before)
            }
        }
    }

    fn delimited(
        &mut self,
        ty: &'s Type,
        bytes: &[u8],
        before: Option<Value>,
    ) -> Result<Value, ProtobufError> {
        match ty {
            Type::Bytes => Ok(Value::String(STANDARD.encode(bytes))),
            Type::Quantity => quantity(bytes),
            Type::IntOrString => int_or_string(bytes),
            Type::Time => instant(bytes, false),
            Type::MicroTime => instant(bytes, true),
            Type::Any => raw(bytes),
            Type::List(of) => {
                let mut list = Vec::new();
                let mut reader = Reader::new(bytes);
                while let Some(tag) = reader.tag()? {
                    match tag.number {
                        1 => self.items(of.item, tag, &mut reader, &mut list)?,
                        _ => reader.skip(tag)?,
                    }
                }
                Ok(Value::Array(list))
            }
            Type::Struct(of) => {
                let mut object = match before {
                    Some(Value::Object(object)) => object,
                    _ => Map::new(),
                };
                self.object(of, bytes, &mut object)?;
                Ok(Value::Object(object))
            }
            // A map within a map or a list has no form.
            _ => Err(Problem::NoForm.into()),
        }
    }
}

/// What `number` means behind the first `length` numbers of `path`.
fn find(
    of: &StructType,
    mut path: [u8; MAX_PATH],
    length: usize,
    number: u32,
) -> Option<Found<'_>> {
    *path.get_mut(length)? = u8::try_from(number).ok()?;
    let whole = |field: &&Field| field.number.path == path;
    if let Some(field) = of.fields.iter().find(whole) {
        return Some(Found::Field(field));
    }
    let length = length + 1;
    let begins =
        |FieldNumber { path: found, .. }: &FieldNumber| found.get(..length) == path.get(..length);
    let embedded = of.fields.iter().any(|field| begins(&field.number));
    embedded.then_some(Found::Embedded(path, length))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an int32 travels sign-extended; Go keeps the lower half, too"
)]
fn varint(ty: &Type, value: u64) -> Value {
    match ty {
        Type::Boolean => Value::Bool(value != 0),
        Type::Int32 => Value::from(value.cast_signed() as i32),
        _ => Value::from(value.cast_signed()),
    }
}

fn text(tag: Tag, reader: &mut Reader<'_>) -> Result<String, ProtobufError> {
    tag.expect(WireType::Delimited)?;
    let text = std::str::from_utf8(reader.delimited()?).map_err(|_| Problem::Utf8)?;
    Ok(text.to_owned())
}

/// `Quantity`: its text.
fn quantity(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let mut amount = String::new();
    while let Some(tag) = reader.tag()? {
        match tag.number {
            1 => amount = text(tag, &mut reader)?,
            _ => reader.skip(tag)?,
        }
    }
    if amount.is_empty() {
        amount.push('0');
    }
    Ok(Value::String(amount))
}

/// `IntOrString`: which of the two, the number, the text.
fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let (mut which, mut number, mut string) = (0, 0, String::new());
    while let Some(tag) = reader.tag()? {
        match tag.number {
            1 | 2 => {
                tag.expect(WireType::Varint)?;
                let value = reader.varint()?;
                *(if tag.number == 1 {
                    &mut which
                } else {
                    &mut number
                }) = value;
            }
            3 => string = text(tag, &mut reader)?,
            _ => reader.skip(tag)?,
        }
    }
    match which {
        0 => Ok(varint(&Type::Int32, number)),
        1 => Ok(Value::String(string)),
        other => Err(Problem::IntOrString(other).into()),
    }
}

/// A time: seconds and nanoseconds. An empty message is Go's zero time, which JSON writes as `null`.
fn instant(bytes: &[u8], micros: bool) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let mut reader = Reader::new(bytes);
    let (mut seconds, mut nanos) = (0, 0);
    while let Some(tag) = reader.tag()? {
        match tag.number {
            1 | 2 => {
                tag.expect(WireType::Varint)?;
                let value = reader.varint()?;
                *(if tag.number == 1 {
                    &mut seconds
                } else {
                    &mut nanos
                }) = value;
            }
            _ => reader.skip(tag)?,
        }
    }
    let nanos = if micros { nanos } else { 0 };
    let nanos = i32::try_from(nanos).map_err(|_| Problem::Time)?;
    let instant = Timestamp::new(seconds.cast_signed(), nanos).map_err(|_| Problem::Time)?;
    Ok(Value::String(if micros {
        time::format_micros(instant)
    } else {
        time::format_seconds(instant)
    }))
}

/// `RawExtension` and `FieldsV1`: JSON in a field.
fn raw(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let mut json: &[u8] = &[];
    while let Some(tag) = reader.tag()? {
        match tag.number {
            1 => {
                tag.expect(WireType::Delimited)?;
                json = reader.delimited()?;
            }
            _ => reader.skip(tag)?,
        }
    }
    if json.is_empty() {
        return Ok(Value::Null);
    }
    let decoded = decode_json(json).map_err(Problem::Json)?;
    Ok(decoded.value)
}

/// Whether Go would take the value for none, were the field no pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// What a value stands for that was left out of a map's entry.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes => Value::String(String::new()),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Boolean => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => Value::from(0),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Struct(_) | Type::Map(_) => Value::Object(Map::new()),
        Type::Any | Type::Time | Type::MicroTime => Value::Null,
    }
}
