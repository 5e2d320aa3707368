//! The table of field numbers, `numbers.tsv`, into the built-in schema.
//!
//! A row at the start of a line names a definition; those after it, indented by a tab, name its fields:
//! name, number, and `pointer` where Go holds one. The number of a field of an embedded struct is a path:
//! `2.19` is field 19 of the message in field 2. Times are not marked: an empty one is absent either way. The facts are those of Kubernetes 1.35; definitions that
//! the schema does not have are passed over, so that a kind which is added later finds its numbers here.

use super::{FieldNumber, MAX_PATH};
use crate::schema::{Schema, Type};

pub(super) const NUMBERS: &str = include_str!("numbers.tsv");

/// Writes the numbers into the fields of `schema`.
pub(in crate::schema) fn join(schema: &mut Schema) {
    let mut definition = None;
    for row in NUMBERS.lines() {
        let Some(row) = row.strip_prefix('\t') else {
            definition = place(schema, row);
            continue;
        };
        let Some(Type::Struct(of)) = definition.and_then(|at: usize| schema.types.get_mut(at))
        else {
            continue;
        };
        if let Some((name, number)) = parse(row)
            && let Ok(at) = of.fields.binary_search_by(|field| (*field.name).cmp(name))
            && let Some(field) = of.fields.get_mut(at)
        {
            field.number = number;
        }
    }
}

fn place(schema: &Schema, definition: &str) -> Option<usize> {
    usize::try_from(schema.definition(definition)?.0).ok()
}

/// A field's row: its name and number.
pub(super) fn parse(row: &str) -> Option<(&str, FieldNumber)> {
    let mut columns = row.split('\t');
    let name = columns.next()?;
    let mut path = [0; MAX_PATH];
    let mut numbers = columns.next()?.split('.');
    for (slot, number) in path.iter_mut().zip(&mut numbers) {
        *slot = number.parse().ok().filter(|number| *number != 0)?;
    }
    let pointer = columns.next()? == "pointer";
    (numbers.next().is_none() && columns.next().is_none())
        .then_some((name, FieldNumber { path, pointer }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{StructType, TypeRef};

    #[test]
    fn every_row_parses_and_no_definition_comes_twice() {
        let mut seen = std::collections::HashSet::new();
        for row in NUMBERS.lines() {
            match row.strip_prefix('\t') {
                Some(row) => assert!(parse(row).is_some(), "{row}"),
                None => assert!(seen.insert(row), "{row}"),
            }
        }
    }

    #[test]
    fn every_row_of_a_known_definition_finds_its_field() {
        let schema = Schema::builtin();
        let mut definition = "";
        for row in NUMBERS.lines() {
            let Some(row) = row.strip_prefix('\t') else {
                definition = row;
                continue;
            };
            let Some(ty) = schema.definition(definition) else {
                continue;
            };
            let Type::Struct(of) = schema.get(ty) else {
                panic!("{definition} is no struct")
            };
            let (name, number) = parse(row).expect("parses");
            let field = of
                .field(name)
                .unwrap_or_else(|| panic!("{definition}.{name}"));
            assert_eq!(field.number, number, "{definition}.{name}");
        }
    }

    /// The struct a field holds, by itself or in a list or map.
    fn struct_within(schema: &Schema, ty: TypeRef) -> Option<&StructType> {
        match schema.get(ty) {
            Type::Struct(of) => Some(of),
            Type::List(of) => struct_within(schema, of.item),
            Type::Map(of) => struct_within(schema, of.value),
            _ => None,
        }
    }

    #[test]
    fn what_has_numbers_has_them_throughout_but_for_what_the_envelope_holds() {
        let schema = Schema::builtin();
        let numbered = |of: &StructType| of.fields.iter().any(|field| field.number.is_known());
        for ty in &schema.types {
            let Type::Struct(of) = ty else { continue };
            let mut taken = std::collections::HashSet::new();
            for field in of.fields.iter().filter(|_| numbered(of)) {
                let known = field.number.is_known();
                let enveloped = matches!(&*field.name, "apiVersion" | "kind");
                let place = format!("{}.{}", of.name, field.name);
                assert!(known || enveloped, "{place}");
                assert!(!known || taken.insert(field.number.path), "{place}");
                let within = struct_within(schema, field.ty);
                assert!(within.is_none_or(numbered), "{place}");
            }
        }
    }
}
