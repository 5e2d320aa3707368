//! An object into a message, along its type: from a value, or from JSON text without one in between.
//!
//! Both are read through serde: a seed for each element knows its type and number, and writes what it is
//! visited with. Members come in the order of the object; once all of one object are written, their bytes
//! are put in ascending order of field numbers and of keys, as Go writes them, if they are not. That is
//! when fields of embedded structs get the message around them, too.
//!
//! Members that are absent or `null` are left out.
//!
//! // Differs from Kubernetes: Go also writes the empty values of fields that are no pointers. Readers take
//! an absent one for the same.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Number;
use serde_json::value::RawValue;

use super::wire::Writer;
use super::{FieldNumber, Problem, ProtobufError};
use crate::schema::{Field, MapType, Schema, StructType, Type, TypeRef};
use crate::time;

/// Room for a message of the usual size.
const USUAL_SIZE: usize = 2048;

/// Writes an object as a bare message.
pub(super) fn message<'de, D>(
    schema: &Schema,
    ty: TypeRef,
    object: D,
) -> Result<Vec<u8>, ProtobufError>
where
    D: Deserializer<'de>,
{
    let Type::Struct(of) = schema.get(ty) else {
        return Err(Problem::NoForm.into());
    };
    if !schema.has_protobuf(ty) {
        return Err(Problem::NoForm.into());
    }
    let mut encoder = Encoder {
        schema,
        out: Writer::with_capacity(USUAL_SIZE),
        parts: Vec::new(),
        failed: None,
    };
    let root = Root {
        encoder: &mut encoder,
        of,
    };
    match root.deserialize(object) {
        Ok(()) => Ok(encoder.out.into_bytes()),
        Err(error) => Err(encoder
            .failed
            .unwrap_or_else(|| Problem::Damaged(error.to_string()).into())),
    }
}

/// The bytes of one member of an object that is being written.
#[derive(Clone, Debug)]
struct Part {
    number: FieldNumber,
    bytes: Range<usize>,
}

struct Encoder<'s> {
    schema: &'s Schema,
    out: Writer,
    /// Members of the objects around the current one, and of that.
    parts: Vec<Part>,
    /// What is wrong, when serde's error says only that something is.
    failed: Option<ProtobufError>,
}

impl<'s> Encoder<'s> {
    fn fail<E: Error>(&mut self, problem: Problem) -> E {
        self.failed = Some(problem.into());
        E::custom("no such message")
    }

    fn within(&mut self, field: &str) {
        self.failed = self.failed.take().map(|error| error.within(field));
    }

    /// The fields of an object, without tag and length around them.
    fn object<'de, A: MapAccess<'de>>(
        &mut self,
        of: &'s StructType,
        mut members: A,
    ) -> Result<(), A::Error> {
        let (start, first) = (self.out.len(), self.parts.len());
        while let Some(field) = members.next_key_seed(Name(of))? {
            let Some((field, number)) = field.and_then(|of| Some((of, of.number.last()?))) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let before = self.out.len();
            let seed = Element {
                encoder: &mut *self,
                ty: field.ty,
                number,
                place: Place::Member,
            };
            let written = members.next_value_seed(seed);
            written.inspect_err(|_| self.within(&field.name))?;
            self.parts.push(Part {
                number: field.number,
                bytes: before..self.out.len(),
            });
        }
        self.arrange(start, first);
        Ok(())
    }

    /// Puts the members from `first` on, whose bytes begin at `start`, in order and in their messages.
    fn arrange(&mut self, start: usize, first: usize) {
        let parts = self.parts.get(first..).unwrap_or_default();
        let in_order = parts.is_sorted_by_key(|part| part.number.path())
            && parts.iter().all(|part| part.number.path().len() == 1);
        if !in_order {
            let mut parts = parts.to_vec();
            parts.sort_by(|a, b| a.number.path().cmp(b.number.path()));
            let written = self.out.split_off(start);
            regroup(&mut self.out, &written, start, &parts, 0);
        }
        self.parts.truncate(first);
    }

    /// The entries of a map, each a message of key and value.
    fn map<'de, A: MapAccess<'de>>(
        &mut self,
        of: &MapType,
        number: u8,
        mut members: A,
    ) -> Result<(), A::Error> {
        let start = self.out.len();
        let mut entries: Vec<(String, Range<usize>)> = Vec::new();
        while let Some(key) = members.next_key::<String>()? {
            let before = self.out.len();
            let entry = self.out.begin(number);
            self.out.bytes(1, key.as_bytes());
            members.next_value_seed(Element {
                encoder: &mut *self,
                ty: of.value,
                number: 2,
                place: Place::Value,
            })?;
            self.out.end(entry);
            entries.push((key, before..self.out.len()));
        }
        if !entries.is_sorted_by(|(a, _), (b, _)| a <= b) {
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let written = self.out.split_off(start);
            for (_, bytes) in entries {
                self.out.raw(moved(&written, start, &bytes));
            }
        }
        Ok(())
    }
}

/// Writes parts in order; those whose numbers agree up to `depth` and go on share a message there.
fn regroup(out: &mut Writer, written: &[u8], start: usize, mut parts: &[Part], depth: usize) {
    while let Some(first) = parts.first() {
        let path = first.number.path();
        if path.len() <= depth + 1 {
            out.raw(moved(written, start, &first.bytes));
            parts = parts.get(1..).unwrap_or_default();
            continue;
        }
        let number = path.get(depth).copied().unwrap_or_default();
        let shared = parts
            .iter()
            .take_while(|part| part.number.path().get(depth) == Some(&number));
        let (now, later) = parts.split_at(shared.count());
        let message = out.begin(number);
        regroup(out, written, start, now, depth + 1);
        out.end(message);
        parts = later;
    }
}

/// Bytes that stood at `range` before everything from `start` on was taken out as `written`.
fn moved<'w>(written: &'w [u8], start: usize, range: &Range<usize>) -> &'w [u8] {
    let range = range.start - start..range.end - start;
    written.get(range).unwrap_or_default()
}

/// The object itself: its envelope stands around it, so it has no number.
struct Root<'e, 's> {
    encoder: &'e mut Encoder<'s>,
    of: &'s StructType,
}

impl<'de> DeserializeSeed<'de> for Root<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, object: D) -> Result<(), D::Error> {
        object.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        self.encoder.object(self.of, members)
    }
}

/// The name of a member, for its field; `None` for one that is not declared.
struct Name<'s>(&'s StructType);

impl<'de, 's> DeserializeSeed<'de> for Name<'s> {
    type Value = Option<&'s Field>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'s> Visitor<'_> for Name<'s> {
    type Value = Option<&'s Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// Where an element stands, which decides what `null` and a list are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Member of an object: `null` is absence, a list repeats its number.
    Member,
    /// Item of a list.
    Item,
    /// Value of a map: a list stands where a message must (`ExtraValue`), and is one with field 1.
    Value,
}

/// A value to be written under a number.
struct Element<'e, 's> {
    encoder: &'e mut Encoder<'s>,
    ty: TypeRef,
    number: u8,
    place: Place,
}

impl<'s> Element<'_, 's> {
    fn ty(&self) -> &'s Type {
        self.encoder.schema.get(self.ty)
    }

    fn mismatch<E: Error>(self) -> E {
        let problem = mismatch(self.ty());
        self.encoder.fail(problem)
    }

    /// A message with the bytes of one field.
    fn message(self, body: impl FnOnce(&mut Writer)) {
        let out = &mut self.encoder.out;
        let message = out.begin(self.number);
        body(out);
        out.end(message);
    }

    fn instant<E: Error>(self, text: &str, precision: i128) -> Result<(), E> {
        match instant(text, precision) {
            Some((seconds, nanos)) => self.message(|out| {
                out.signed(1, seconds);
                out.signed(2, nanos);
            }),
            None => return Err(self.encoder.fail(Problem::Time)),
        }
        Ok(())
    }

    fn integer<E: Error>(self, value: Option<i64>, number: &Number) -> Result<(), E> {
        match (self.ty(), value) {
            (Type::Int32 | Type::Int64, Some(value)) => {
                self.encoder.out.signed(self.number, value);
            }
            (Type::IntOrString, Some(value)) => self.message(|out| int_or_string(out, value, None)),
            (Type::Quantity, _) => {
                self.message(|out| out.bytes(1, number.to_string().as_bytes()));
            }
            (Type::Number, _) => match number.as_f64() {
                Some(value) => self.encoder.out.fixed64(self.number, value.to_bits()),
                None => return Err(self.mismatch()),
            },
            _ => return Err(self.mismatch()),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if !matches!(self.ty(), Type::Any) {
            return value.deserialize_any(self);
        }
        let value = Box::<RawValue>::deserialize(value)?;
        match (value.get(), self.place) {
            ("null", Place::Member) => {}
            ("null", _) => self.message(|_| {}),
            (text, _) => self.message(|out| out.bytes(1, text.as_bytes())),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match (self.place, self.ty()) {
            (Place::Member, _) => {}
            (_, Type::Time | Type::MicroTime) => self.message(|_| {}),
            _ => return Err(self.mismatch()),
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.ty() {
            Type::Boolean => {
                self.encoder.out.varint(self.number, u64::from(value));
                Ok(())
            }
            _ => Err(self.mismatch()),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(Some(value), &value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i64::try_from(value).ok(), &value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match Number::from_f64(value) {
            Some(number) => self.integer(None, &number),
            None => Err(self.encoder.fail(Problem::NotFinite)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.ty() {
            Type::String => self.encoder.out.bytes(self.number, text.as_bytes()),
            Type::Bytes => match STANDARD.decode(text) {
                Ok(bytes) => self.encoder.out.bytes(self.number, &bytes),
                Err(_) => return Err(self.mismatch()),
            },
            Type::Quantity => self.message(|out| out.bytes(1, text.as_bytes())),
            Type::IntOrString => self.message(|out| int_or_string(out, 0, Some(text))),
            Type::Time => return self.instant(text, 1_000_000_000),
            Type::MicroTime => return self.instant(text, 1_000),
            _ => return Err(self.mismatch()),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Type::List(of) = self.ty() else {
            return Err(self.mismatch());
        };
        let (message, number) = match self.place {
            Place::Member => (None, self.number),
            _ => (Some(self.encoder.out.begin(self.number)), 1),
        };
        let mut item = || {
            items.next_element_seed(Element {
                encoder: &mut *self.encoder,
                ty: of.item,
                number,
                place: Place::Item,
            })
        };
        while item()?.is_some() {}
        if let Some(message) = message {
            self.encoder.out.end(message);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        match self.ty() {
            Type::Struct(of) => {
                let message = self.encoder.out.begin(self.number);
                self.encoder.object(of, members)?;
                self.encoder.out.end(message);
                Ok(())
            }
            Type::Map(of) if self.place == Place::Member => {
                self.encoder.map(of, self.number, members)
            }
            _ => Err(self.mismatch()),
        }
    }
}

/// `IntOrString`: which of the two, the number, the text; Go writes all three.
fn int_or_string(out: &mut Writer, number: i64, text: Option<&str>) {
    out.varint(1, u64::from(text.is_some()));
    out.signed(2, number);
    out.bytes(3, text.unwrap_or_default().as_bytes());
}

/// A time as seconds and nanoseconds, the latter down to `precision`.
fn instant(text: &str, precision: i128) -> Option<(i64, i64)> {
    let instant = time::parse(text).ok()?;
    let whole = instant.as_nanosecond().div_euclid(precision) * precision;
    let seconds = whole.div_euclid(1_000_000_000).try_into().ok()?;
    let nanos = whole.rem_euclid(1_000_000_000).try_into().ok()?;
    Some((seconds, nanos))
}

fn mismatch(expected: &Type) -> Problem {
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
}
