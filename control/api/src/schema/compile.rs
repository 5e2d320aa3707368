//! OpenAPI definitions into a compact table of types.
//!
//! Reads the subset of JSON Schema that Kubernetes publishes: objects, maps, lists, scalars, references
//! (bare or inside a one-element `allOf`) and the `x-kubernetes-*` extensions. A definition gets its
//! place in the table before its body is read, so that types may refer to themselves.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    Field, FieldNumber, ListKind, ListType, MapType, PatchStrategy, Schema, StructType, Text, Type,
    TypeRef,
};
use crate::resource::GroupVersionKind;

/// Where references between definitions point.
pub(super) const REFERENCE_PREFIX: &str = "#/components/schemas/";

/// Deepest nesting of anonymous schemas: a bound on recursion for definitions that users write.
const MAX_DEPTH: usize = 64;

/// Definitions whose JSON form no schema describes.
const WELL_KNOWN: &[(&str, Type)] = &[
    (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        Type::Quantity,
    ),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        Type::IntOrString,
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", Type::Time),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        Type::MicroTime,
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", Type::Any),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", Type::Any),
];

/// Why definitions could not be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// A reference or a kind names a definition that is not there.
    #[error("definition {name:?} is referred to but not defined")]
    Undefined {
        /// The missing definition.
        name: String,
    },
    /// Schemas are nested too deeply.
    #[error("schemas are nested more than {MAX_DEPTH} levels deep in definition {name:?}")]
    TooDeep {
        /// The definition.
        name: String,
    },
    /// More types than a reference can number.
    #[error("too many types")]
    TooMany,
}

pub(super) fn compile(
    definitions: &Map<String, Value>,
    kinds: &[(GroupVersionKind, &str)],
) -> Result<Schema, CompileError> {
    let mut compiler = Compiler::new(definitions)?;
    for (name, body) in definitions {
        compiler.define(name, body)?;
    }
    let mut by_kind = HashMap::with_capacity(kinds.len());
    for (gvk, name) in kinds {
        by_kind.insert(gvk.clone(), compiler.named(name)?);
    }
    compiler.fill_key_defaults();
    Ok(Schema {
        types: compiler.types,
        kinds: by_kind,
        definitions: compiler.named,
    })
}

struct Compiler {
    types: Vec<Type>,
    named: HashMap<Text, TypeRef>,
    texts: HashSet<Text>,
    scalars: HashMap<&'static str, TypeRef>,
}

impl Compiler {
    fn new(definitions: &Map<String, Value>) -> Result<Self, CompileError> {
        let mut compiler = Self {
            types: Vec::with_capacity(definitions.len() * 3),
            named: HashMap::with_capacity(definitions.len()),
            texts: HashSet::new(),
            scalars: HashMap::new(),
        };
        for name in definitions.keys() {
            let place = compiler.add(Type::Any)?;
            let name = compiler.intern(name);
            compiler.named.insert(name, place);
        }
        Ok(compiler)
    }

    fn define(&mut self, name: &str, body: &Value) -> Result<(), CompileError> {
        let place = self.named(name)?;
        let well_known = WELL_KNOWN.iter().find(|(known, _)| *known == name);
        let ty = match well_known {
            Some((_, ty)) => ty.clone(),
            None => self.read(name, name, body, 0)?,
        };
        if let Some(slot) = usize::try_from(place.0)
            .ok()
            .and_then(|at| self.types.get_mut(at))
        {
            *slot = ty;
        }
        Ok(())
    }

    fn named(&self, name: &str) -> Result<TypeRef, CompileError> {
        let found = self.named.get(name).copied();
        found.ok_or_else(|| CompileError::Undefined {
            name: name.to_owned(),
        })
    }

    fn add(&mut self, ty: Type) -> Result<TypeRef, CompileError> {
        let place = u32::try_from(self.types.len()).map_err(|_| CompileError::TooMany)?;
        self.types.push(ty);
        Ok(TypeRef(place))
    }

    fn intern(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return Text::clone(known);
        }
        let text = Text::from(text);
        self.texts.insert(Text::clone(&text));
        text
    }

    /// A reference to the type of a schema: of the definition it names, or of a new or shared entry.
    fn reference(
        &mut self,
        within: &str,
        schema: &Value,
        depth: usize,
    ) -> Result<TypeRef, CompileError> {
        if depth > MAX_DEPTH {
            return Err(CompileError::TooDeep {
                name: within.to_owned(),
            });
        }
        if let Some(name) = referenced(schema) {
            return self.named(name);
        }
        let ty = self.read(within, "", schema, depth)?;
        let Some(scalar) = scalar_name(&ty) else {
            return self.add(ty);
        };
        if let Some(known) = self.scalars.get(scalar) {
            return Ok(*known);
        }
        let place = self.add(ty)?;
        self.scalars.insert(scalar, place);
        Ok(place)
    }

    fn read(
        &mut self,
        within: &str,
        name: &str,
        schema: &Value,
        depth: usize,
    ) -> Result<Type, CompileError> {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Ok(Type::IntOrString);
        }
        let format = text(schema, "format");
        match text(schema, "type") {
            "string" => Ok(match format {
                "byte" => Type::Bytes,
                "date-time" => Type::Time,
                _ => Type::String,
            }),
            "boolean" => Ok(Type::Boolean),
            "integer" if format == "int32" => Ok(Type::Int32),
            "integer" => Ok(Type::Int64),
            "number" => Ok(Type::Number),
            "array" => self.list(within, schema, depth),
            "object" | "" => self.object(within, name, schema, depth),
            _ => Ok(Type::Any),
        }
    }

    fn list(&mut self, within: &str, schema: &Value, depth: usize) -> Result<Type, CompileError> {
        let item = self.reference(
            within,
            schema.get("items").unwrap_or(&Value::Null),
            depth + 1,
        )?;
        let kind = match text(schema, "x-kubernetes-list-type") {
            "set" => ListKind::Set,
            "map" => ListKind::Map(self.list_keys(schema)),
            _ => ListKind::Atomic,
        };
        Ok(Type::List(ListType { item, kind }))
    }

    /// The keys of a map-like list, sorted; `fill_key_defaults` adds their defaults later.
    fn list_keys(&mut self, schema: &Value) -> Vec<(Text, Option<Value>)> {
        let keys = schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array);
        let mut keys: Vec<_> = keys
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|key| (self.intern(key), None))
            .collect();
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        keys
    }

    fn object(
        &mut self,
        within: &str,
        name: &str,
        schema: &Value,
        depth: usize,
    ) -> Result<Type, CompileError> {
        let atomic = text(schema, "x-kubernetes-map-type") == "atomic";
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let fields = self.fields(within, schema, properties, depth)?;
            let preserve_unknown = flag(schema, "x-kubernetes-preserve-unknown-fields");
            let name = self.intern(name);
            return Ok(Type::Struct(StructType {
                name,
                fields,
                atomic,
                preserve_unknown,
            }));
        }
        match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => {
                let value = self.reference(within, values, depth + 1)?;
                Ok(Type::Map(MapType { value, atomic }))
            }
            _ => Ok(Type::Any),
        }
    }

    fn fields(
        &mut self,
        within: &str,
        schema: &Value,
        properties: &Map<String, Value>,
        depth: usize,
    ) -> Result<Vec<Field>, CompileError> {
        let required: HashSet<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut fields = Vec::with_capacity(properties.len());
        for (name, property) in properties {
            fields.push(Field {
                name: self.intern(name),
                ty: self.reference(within, property, depth + 1)?,
                required: required.contains(name.as_str()),
                patch: self.patch_strategy(property),
                default: property.get("default").cloned(),
                number: FieldNumber::default(),
            });
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fields)
    }

    /// Copies the defaults of key fields from the items to their lists, once all items are read.
    fn fill_key_defaults(&mut self) {
        let mut filled = Vec::new();
        for (at, ty) in self.types.iter().enumerate() {
            let Type::List(ListType {
                item,
                kind: ListKind::Map(keys),
            }) = ty
            else {
                continue;
            };
            let item = usize::try_from(item.0)
                .ok()
                .and_then(|at| self.types.get(at));
            let Some(Type::Struct(item)) = item else {
                continue;
            };
            let with_default = |(key, _): &(Text, _)| {
                (
                    Text::clone(key),
                    item.field(key).and_then(|field| field.default.clone()),
                )
            };
            filled.push((at, keys.iter().map(with_default).collect()));
        }
        for (at, keys) in filled {
            if let Some(Type::List(list)) = self.types.get_mut(at) {
                list.kind = ListKind::Map(keys);
            }
        }
    }

    fn patch_strategy(&mut self, property: &Value) -> PatchStrategy {
        let strategies = text(property, "x-kubernetes-patch-strategy");
        let merge_key = text(property, "x-kubernetes-patch-merge-key");
        PatchStrategy {
            merge: strategies.split(',').any(|strategy| strategy == "merge"),
            retain_keys: strategies
                .split(',')
                .any(|strategy| strategy == "retainKeys"),
            merge_key: (!merge_key.is_empty()).then(|| self.intern(merge_key)),
        }
    }
}

/// The definition a schema refers to, bare or inside a one-element `allOf`.
pub(super) fn referenced(schema: &Value) -> Option<&str> {
    let reference = schema.get("$ref").or_else(|| {
        let all_of = schema.get("allOf")?.as_array()?;
        all_of.first().filter(|_| all_of.len() == 1)?.get("$ref")
    });
    reference?.as_str()?.strip_prefix(REFERENCE_PREFIX)
}

fn scalar_name(ty: &Type) -> Option<&'static str> {
    Some(match ty {
        Type::Any => "any",
        Type::String => "string",
        Type::Boolean => "boolean",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Number => "number",
        Type::Bytes => "bytes",
        Type::Quantity => "quantity",
        Type::IntOrString => "int-or-string",
        Type::Time => "time",
        Type::MicroTime => "micro-time",
        Type::Struct(_) | Type::Map(_) | Type::List(_) => return None,
    })
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}
