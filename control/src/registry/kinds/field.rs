//! A place in an object: what is there, and how errors name it.
//!
//! Validation walks down an object with fields. Each knows the one it came from, so a path is written only
//! where an error is found; a valid object costs no texts. A null member is an absent one.
//!
//! ```text
//! let spec = Field::root("spec", spec);
//! for container in spec.child("containers").items() {
//!     errors.extend(container.child("image").present());   // spec.containers[0].image: Required value
//! }
//! ```

use std::collections::HashSet;
use std::fmt::Write;

use serde_json::Value;

use crate::registry::field_error::{FieldError, Problem};

/// What was found to be wrong so far.
pub(super) type Errors = Vec<FieldError>;

/// A rule of names, as in `windlass_api::names`: the texts of what is broken.
pub(super) type Rule = fn(&str) -> Vec<String>;

const NEGATIVE: &str = "must be greater than or equal to 0";

/// A value within an object and the way to it; see the header.
#[derive(Clone, Copy)]
pub(super) struct Field<'p, 'v> {
    parent: Option<&'p Field<'p, 'v>>,
    step: Step<'p>,
    value: &'v Value,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Child(&'p str),
    Key(&'p str),
    Index(usize),
}

impl<'p, 'v> Field<'p, 'v> {
    /// The value that errors call `path`; the empty path is the object itself.
    pub(super) fn root(path: &'p str, value: &'v Value) -> Self {
        Self {
            parent: None,
            step: Step::Child(path),
            value,
        }
    }

    fn below<'s>(&'s self, step: Step<'s>, value: Option<&'v Value>) -> Field<'s, 'v> {
        Field {
            parent: Some(self),
            step,
            value: value.unwrap_or(&Value::Null),
        }
    }

    /// A member.
    pub(super) fn child<'s>(&'s self, name: &'s str) -> Field<'s, 'v> {
        self.below(Step::Child(name), self.value.get(name))
    }

    /// An entry of a map.
    pub(super) fn key<'s>(&'s self, key: &'s str) -> Field<'s, 'v> {
        self.below(Step::Key(key), self.value.get(key))
    }

    /// An element of a list.
    pub(super) fn index(&self, index: usize) -> Field<'_, 'v> {
        self.below(Step::Index(index), self.value.get(index))
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> impl Iterator<Item = Field<'_, 'v>> {
        (0..self.len()).map(|index| self.index(index))
    }

    /// The entries of a map with their keys.
    pub(super) fn entries<'s>(&'s self) -> impl Iterator<Item = (&'v str, Field<'s, 'v>)>
    where
        'v: 's,
    {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), self.below(Step::Key(key), Some(value))))
    }

    /// How many elements the list, or entries the map, has.
    pub(super) fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// What is there.
    pub(super) fn value(&self) -> &'v Value {
        self.value
    }

    /// Whether anything is there.
    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether the member `name` is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some_and(|value| !value.is_null())
    }

    /// The text, empty when there is none.
    pub(super) fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The text of the member `name`.
    pub(super) fn text_of(&self, name: &str) -> &'v str {
        let value = self.value.get(name).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    /// The whole number, if there is one.
    pub(super) fn integer(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The whole number of the member `name`.
    pub(super) fn integer_of(&self, name: &str) -> Option<i64> {
        self.value.get(name).and_then(Value::as_i64)
    }

    /// Whether the member `name` is true.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.value.get(name) == Some(&Value::Bool(true))
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> impl Iterator<Item = &'v str> + use<'v> {
        let list = self.value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str)
    }

    /// The path, such as `spec.containers[0].image`.
    pub(super) fn path(&self) -> String {
        let mut path = self.parent.map(Self::path).unwrap_or_default();
        match self.step {
            Step::Child(name) => {
                if !path.is_empty() && !name.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            // Writing to a String never fails.
            Step::Key(key) => drop(write!(path, "[{key}]")),
            Step::Index(index) => drop(write!(path, "[{index}]")),
        }
        path
    }

    /// The error that it is missing.
    pub(super) fn required(&self, detail: impl Into<String>) -> FieldError {
        FieldError::required(self.path(), detail)
    }

    /// The error that its value breaks a rule.
    pub(super) fn invalid(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(self.path(), self.value.clone(), detail)
    }

    /// The same, naming another value than the one that is there.
    pub(super) fn invalid_as(
        &self,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError::invalid(self.path(), value, detail)
    }

    /// The error that its value, not worth showing, breaks a rule.
    pub(super) fn unfit(&self, detail: impl Into<String>) -> FieldError {
        self.error(Problem::Unfit(detail.into()))
    }

    /// The error that it must not be there, or not change.
    pub(super) fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(self.path(), detail)
    }

    /// The error that its value is none of `supported`.
    pub(super) fn not_supported(&self, supported: &[&'static str]) -> FieldError {
        FieldError::not_supported(self.path(), self.value.clone(), supported)
    }

    /// The error that its value occurs before.
    pub(super) fn duplicate(&self) -> FieldError {
        FieldError::duplicate(self.path(), self.value.clone())
    }

    /// The error that what it names does not exist.
    pub(super) fn not_found(&self) -> FieldError {
        self.error(Problem::NotFound(self.value.clone()))
    }

    /// Any other error.
    pub(super) fn error(&self, problem: Problem) -> FieldError {
        FieldError {
            path: self.path(),
            problem,
        }
    }

    /// An error unless there is a text.
    pub(super) fn present(&self) -> Option<FieldError> {
        self.text().is_empty().then(|| self.required(""))
    }

    /// An error if the list has more than `max` elements.
    pub(super) fn at_most(&self, max: usize) -> Option<FieldError> {
        (self.len() > max).then(|| self.error(Problem::TooMany(self.len(), max)))
    }

    /// An error if the number is negative.
    pub(super) fn non_negative(&self) -> Option<FieldError> {
        let negative = self.integer().is_some_and(|number| number < 0);
        negative.then(|| self.invalid(NEGATIVE))
    }

    /// An error if the number is there and out of range.
    pub(super) fn within(&self, from: i64, to: i64) -> Option<FieldError> {
        let number = self.integer()?;
        let wrong = !(from..=to).contains(&number);
        wrong.then(|| self.invalid(format!("must be between {from} and {to}, inclusive")))
    }

    /// An error if there is a text that is none of `supported`.
    pub(super) fn one_of(&self, supported: &[&'static str]) -> Option<FieldError> {
        let wrong = self.is_set() && !supported.contains(&self.text());
        wrong.then(|| self.not_supported(supported))
    }

    /// An error unless there is a text and it is one of `supported`.
    pub(super) fn choice(&self, supported: &[&'static str]) -> Option<FieldError> {
        self.present().or_else(|| self.one_of(supported))
    }

    /// One error per part of the rule that the text breaks.
    pub(super) fn follows(&self, rule: Rule) -> impl Iterator<Item = FieldError> {
        let broken = rule(self.text()).into_iter();
        broken.map(|text| self.invalid(text))
    }

    /// The same for a text that may be absent or empty.
    pub(super) fn follows_if_set(&self, rule: Rule) -> impl Iterator<Item = FieldError> {
        let set = !self.text().is_empty();
        set.then(|| self.follows(rule)).into_iter().flatten()
    }

    /// The same for a text that must be there.
    pub(super) fn named(&self, rule: Rule) -> Vec<FieldError> {
        match self.present() {
            Some(missing) => vec![missing],
            None => self.follows(rule).collect(),
        }
    }

    /// An error if `seen` has the text already; it has it afterwards.
    pub(super) fn unique(&self, seen: &mut HashSet<&'v str>) -> Option<FieldError> {
        (!seen.insert(self.text())).then(|| self.duplicate())
    }

    /// An error if the value is not what it was.
    pub(super) fn unchanged(&self, old: &Value) -> Option<FieldError> {
        let changed = self.value != old;
        changed.then(|| FieldError::immutable(self.path(), self.value.clone()))
    }
}

/// The value of a member, null when there is none.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

/// The value at a JSON pointer, null when there is none.
pub(super) fn pointer<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// The members of a list that are objects, to be filled in.
pub(super) fn objects_mut<'a>(
    object: &'a mut serde_json::Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut serde_json::Map<String, Value>> {
    let list = object.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_the_way_to_the_value() {
        let object = json!({"list": [{"a": {"x/y": "1"}}]});
        let spec = Field::root("spec", &object);
        let list = spec.child("list");
        let first = list.index(0);
        let map = first.child("a");
        assert_eq!(map.key("x/y").path(), "spec.list[0].a[x/y]");
        assert_eq!(
            first.child("b").required("").to_string(),
            "spec.list[0].b: Required value"
        );
        let root = Field::root("", &object);
        assert_eq!(root.child("list").path(), "list");
    }
}
