//! A value inside an object together with its path: what validation walks.
//!
//! [`Field::at`], [`Field::items`] and [`Field::entries`] lead from a value to what is in it, the path along
//! with it. What is absent reads as null, so no rule asks at each step whether there is anything. The other
//! methods are the objections a rule may have, with this value and this path.

use serde_json::Value;
use windlass_api::quantity::Quantity;

use crate::registry::field_error::{FieldError, Problem};

static ABSENT: Value = Value::Null;

/// A rule for texts: the texts of all that is broken.
pub(super) type Rule = fn(&str) -> Vec<String>;

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// A whole object.
    pub(super) fn root(object: &'a Value) -> Self {
        Self::new("", object)
    }

    /// A value whose path is known.
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self {
            path: path.into(),
            value,
        }
    }

    /// The member of a struct.
    pub(super) fn at(&self, member: &str) -> Self {
        let path = if self.path.is_empty() {
            member.to_owned()
        } else {
            format!("{}.{member}", self.path)
        };
        Self::new(path, self.value.get(member).unwrap_or(&ABSENT))
    }

    /// The value at a key of a map.
    pub(super) fn key(&self, key: &str) -> Self {
        let path = format!("{}[{key}]", self.path);
        Self::new(path, self.value.get(key).unwrap_or(&ABSENT))
    }

    /// The elements of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.value.as_array().into_iter().flatten();
        items
            .enumerate()
            .map(|(at, item)| Self::new(format!("{}[{at}]", self.path), item))
            .collect()
    }

    /// The keys and values of a map.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let members = self.value.as_object().into_iter().flatten();
        members
            .map(|(key, value)| {
                let path = format!("{}[{key}]", self.path);
                (key.as_str(), Self::new(path, value))
            })
            .collect()
    }

    /// Its path.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The value, null when absent.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// The text, empty when absent.
    pub(super) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> Vec<&'a str> {
        let items = self.value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).collect()
    }

    /// The integer, 0 when absent.
    pub(super) fn integer(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    /// The amount of a resource.
    pub(super) fn quantity(&self) -> Option<Quantity> {
        self.value.as_str()?.parse().ok()
    }

    /// Whether there is a value, be it empty.
    pub(super) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether it is the value `true`.
    pub(super) fn is_true(&self) -> bool {
        *self.value == Value::Bool(true)
    }

    /// Members of a map, elements of a list, bytes of a text.
    pub(super) fn len(&self) -> usize {
        match self.value {
            Value::Object(map) => map.len(),
            Value::Array(list) => list.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether there is nothing: absent, or an empty text, list or map.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn required(&self, detail: &str) -> FieldError {
        FieldError::required(self.path.as_str(), detail)
    }

    pub(super) fn invalid(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(self.path.as_str(), self.value.clone(), detail)
    }

    pub(super) fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(self.path.as_str(), detail)
    }

    pub(super) fn duplicate(&self) -> FieldError {
        FieldError::duplicate(self.path.as_str(), self.value.clone())
    }

    pub(super) fn not_supported(&self, supported: &[&'static str]) -> FieldError {
        FieldError::not_supported(self.path.as_str(), self.value.clone(), supported)
    }

    pub(super) fn too_long(&self, max: usize) -> FieldError {
        FieldError {
            path: self.path.clone(),
            problem: Problem::TooLong(max),
        }
    }

    pub(super) fn too_many(&self, max: usize) -> FieldError {
        FieldError {
            path: self.path.clone(),
            problem: Problem::TooMany(self.len(), max),
        }
    }

    /// What `rule` objects to in the text, be it empty.
    pub(super) fn checked(&self, rule: Rule) -> Vec<FieldError> {
        let problems = rule(self.text()).into_iter();
        problems
            .map(|problem| FieldError::invalid(self.path.as_str(), self.text(), problem))
            .collect()
    }

    /// What `rule` objects to in the text, if there is a text.
    pub(super) fn follows(&self, rule: Rule) -> Vec<FieldError> {
        if self.text().is_empty() {
            Vec::new()
        } else {
            self.checked(rule)
        }
    }

    /// As [`Field::follows`], and there must be a text.
    pub(super) fn must_follow(&self, rule: Rule) -> Vec<FieldError> {
        if self.text().is_empty() {
            vec![self.required("")]
        } else {
            self.follows(rule)
        }
    }

    /// The text must be one of `allowed`.
    pub(super) fn one_of(&self, allowed: &[&'static str]) -> Option<FieldError> {
        let wrong = !allowed.contains(&self.text());
        wrong.then(|| {
            let value = self.text();
            FieldError::not_supported(self.path.as_str(), value, allowed)
        })
    }

    /// The text must be one of `allowed`, if there is a value.
    pub(super) fn one_of_if_set(&self, allowed: &[&'static str]) -> Option<FieldError> {
        self.is_set().then(|| self.one_of(allowed)).flatten()
    }

    /// The text must be there and one of `allowed`.
    pub(super) fn must_be_one_of(&self, allowed: &[&'static str]) -> Option<FieldError> {
        if self.text().is_empty() {
            Some(self.required(""))
        } else {
            self.one_of(allowed)
        }
    }

    /// The integer must not be below 0.
    pub(super) fn not_negative(&self) -> Option<FieldError> {
        let detail = "must be greater than or equal to 0";
        (self.integer() < 0).then(|| self.invalid(detail))
    }

    /// The value must be what it was.
    pub(super) fn unchanged(&self, old: &Self) -> Option<FieldError> {
        let changed = self.value != old.value;
        changed.then(|| FieldError::immutable(self.path.as_str(), self.value.clone()))
    }
}

/// An objection to every field whose value occurs before.
pub(super) fn repeated(fields: &[Field<'_>]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let before = fields.iter().take(at);
        if before.into_iter().any(|other| other.value == field.value) {
            errors.push(field.duplicate());
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_written_as_upstream_writes_them() {
        let object = json!({"spec": {"rules": [{"host": "a"}, {"hard": {"cpu": "1"}}]}});
        let rules = Field::root(&object).at("spec").at("rules").items();
        let [first, second] = rules.as_slice() else {
            panic!("{rules:?}")
        };
        assert_eq!(first.at("host").path(), "spec.rules[0].host");
        assert_eq!(
            second.at("hard").key("cpu").path(),
            "spec.rules[1].hard[cpu]"
        );
        assert!(!second.at("host").at("deeper").is_set());
    }

    #[test]
    fn only_what_occurs_before_is_repeated() {
        let list = json!(["a", "b", "a"]);
        let errors = repeated(&Field::new("list", &list).items());
        assert_eq!(errors, [FieldError::duplicate("list[2]", "a")]);
    }
}
