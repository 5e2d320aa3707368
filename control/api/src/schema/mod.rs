//! The schema engine: one compact table of types that strict decoding, pruning, patches and
//! ownership of fields all read, for built-in and custom kinds alike.
//!
//! 1. `definitions` makes OpenAPI definitions of the built-in kinds: `k8s-openapi`'s JSON Schemas
//!    joined with `facts.tsv` (list types, merge keys, defaults that no Rust type carries).
//! 2. `compile` turns such definitions (those, or a custom resource's) into a [`Schema`].
//! 3. `check` walks a value along a [`Schema`]: prunes unknown fields and reports wrong types.
//! 4. `decode` reads JSON and YAML bytes into a value, noting duplicate fields.
//! 5. `protobuf` reads and writes Kubernetes' protobuf form of the same values.
//!
//! Invariant: a [`Schema`] never changes once built, so [`TypeRef`]s into it stay valid; a `TypeRef` is
//! only meaningful for the schema that gave it out (a foreign one reads as "anything goes").

mod check;
mod compile;
mod decode;
mod definitions;
pub mod protobuf;
mod yaml;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::resource::GroupVersionKind;

pub use check::{CheckReport, TypeError, strict_error, strict_messages};
pub use compile::CompileError;
pub use decode::{DecodeError, Decoded, Duplicate, decode_json};
pub use definitions::{builtin_definitions, builtin_kinds};
pub use protobuf::FieldNumber;
pub use yaml::{decode_yaml, decode_yaml_documents};

/// An interned text: field names and merge keys are shared between the types that use them.
pub type Text = Arc<str>;

/// A type of one [`Schema`], by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeRef(u32);

impl TypeRef {
    /// Anything at all, in every schema.
    pub const ANY: Self = Self(u32::MAX);
}

/// What a value may be.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything: unknown fields are kept, objects are maps of anything, lists are atomic.
    Any,
    /// A text.
    String,
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A floating point number.
    Number,
    /// Bytes, written as base64.
    Bytes,
    /// An amount such as `100m`; a text or a number.
    Quantity,
    /// A whole number or a text, such as a port or a percentage.
    IntOrString,
    /// An RFC 3339 time with whole seconds.
    Time,
    /// An RFC 3339 time with microseconds.
    MicroTime,
    /// An object with declared fields.
    Struct(StructType),
    /// An object with free keys.
    Map(MapType),
    /// A list.
    List(ListType),
}

/// An object with declared fields.
#[derive(Clone, Debug)]
pub struct StructType {
    /// Definition name such as `io.k8s.api.core.v1.PodSpec`; empty for an anonymous type.
    pub name: Text,
    /// Declared fields, sorted by name.
    pub fields: Vec<Field>,
    /// Whether the object is owned and replaced as a whole by server-side apply.
    pub atomic: bool,
    /// Whether fields that are not declared are kept.
    pub preserve_unknown: bool,
}

/// A declared field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: Text,
    /// Type of its value.
    pub ty: TypeRef,
    /// Whether the schema requires it.
    pub required: bool,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The value an absent field stands for, where the schema itself says so.
    pub default: Option<Value>,
    /// Where it stands in the protobuf form; nowhere in custom kinds.
    pub number: FieldNumber,
}

/// How a strategic merge patch treats a field: `x-kubernetes-patch-strategy` and `-merge-key`.
#[derive(Clone, Debug, Default)]
pub struct PatchStrategy {
    /// Whether a list is merged instead of replaced.
    pub merge: bool,
    /// Whether `$retainKeys` applies.
    pub retain_keys: bool,
    /// The field that identifies an item of a merged list; none for lists of scalars.
    pub merge_key: Option<Text>,
}

/// An object with free keys.
#[derive(Clone, Debug)]
pub struct MapType {
    /// Type of each value.
    pub value: TypeRef,
    /// Whether the map is owned and replaced as a whole.
    pub atomic: bool,
}

/// A list.
#[derive(Clone, Debug)]
pub struct ListType {
    /// Type of each item.
    pub item: TypeRef,
    /// What identifies an item.
    pub kind: ListKind,
}

/// What identifies an item of a list: `x-kubernetes-list-type`.
#[derive(Clone, Debug)]
pub enum ListKind {
    /// Nothing; the list is owned and replaced as a whole.
    Atomic,
    /// The item's own value.
    Set,
    /// The named fields of the item, sorted, each with the value an absent one stands for.
    Map(Vec<(Text, Option<Value>)>),
}

/// An immutable table of types.
#[derive(Debug)]
pub struct Schema {
    types: Vec<Type>,
    kinds: HashMap<GroupVersionKind, TypeRef>,
    definitions: HashMap<Text, TypeRef>,
}

impl Schema {
    /// The schema of every built-in kind, made on first use.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Schema> = OnceLock::new();
        BUILTIN.get_or_init(definitions::compile_builtin)
    }

    /// Compiles OpenAPI definitions (`#/components/schemas/NAME` references between them) and binds
    /// each kind to the definition that describes it.
    pub fn compile(
        definitions: &serde_json::Map<String, Value>,
        kinds: &[(GroupVersionKind, &str)],
    ) -> Result<Self, CompileError> {
        compile::compile(definitions, kinds)
    }

    /// The root type of a kind.
    #[must_use]
    pub fn kind(&self, gvk: &GroupVersionKind) -> Option<TypeRef> {
        self.kinds.get(gvk).copied()
    }

    /// The type of a definition such as `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn definition(&self, name: &str) -> Option<TypeRef> {
        self.definitions.get(name).copied()
    }

    /// What a reference stands for.
    #[must_use]
    pub fn get(&self, ty: TypeRef) -> &Type {
        const ANYTHING: &Type = &Type::Any;
        usize::try_from(ty.0)
            .ok()
            .and_then(|at| self.types.get(at))
            .unwrap_or(ANYTHING)
    }

    /// The name of the definition behind a type; `None` for scalars, lists, maps and anonymous types.
    #[must_use]
    pub fn name(&self, ty: TypeRef) -> Option<&str> {
        match self.get(ty) {
            Type::Struct(of) if !of.name.is_empty() => Some(&of.name),
            _ => None,
        }
    }

    /// The type of an object's field; [`TypeRef::ANY`] for what is not declared.
    #[must_use]
    pub fn field_type(&self, ty: TypeRef, name: &str) -> TypeRef {
        match self.get(ty) {
            Type::Struct(of) => of.field(name).map_or(TypeRef::ANY, |field| field.ty),
            Type::Map(of) => of.value,
            _ => TypeRef::ANY,
        }
    }

    /// The type of a list's items; [`TypeRef::ANY`] for what is no list.
    #[must_use]
    pub fn item_type(&self, ty: TypeRef) -> TypeRef {
        match self.get(ty) {
            Type::List(of) => of.item,
            _ => TypeRef::ANY,
        }
    }

    /// Checks a value against a type in place: unknown fields are removed and reported, `null` fields are
    /// removed as Go drops them, wrong types are reported in Go's words.
    pub fn check(&self, ty: TypeRef, value: &mut Value) -> CheckReport {
        check::check(self, ty, value)
    }

    /// The number of types, a measure of size.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether the table holds no type.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }
}

impl StructType {
    /// The declared field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self
            .fields
            .binary_search_by(|field| (*field.name).cmp(name))
            .ok()?;
        self.fields.get(at)
    }
}
