//! Validation errors of single fields, worded as Kubernetes words them.

use std::fmt;

use serde_json::Value;

/// What is wrong with a field, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.containers[0].name`.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// It must be there. The text may add why; it may be empty.
    Required(String),
    /// Its value breaks a rule.
    Invalid(Value, String),
    /// It breaks a rule, and its value would tell nothing.
    Unfit(String),
    /// Its value is none of the allowed ones.
    NotSupported(Value, Vec<&'static str>),
    /// Its value occurs before.
    Duplicate(Value),
    /// It must not be there, or not change.
    Forbidden(String),
    /// What it refers to does not exist.
    NotFound(Value),
    /// It has more than this many bytes.
    TooLong(usize),
    /// It has so many items, more than this many.
    TooMany(usize, usize),
}

impl FieldError {
    /// The field is missing.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: Problem::Required(detail.into()),
        }
    }

    /// The field's value breaks a rule.
    pub fn invalid(
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            problem: Problem::Invalid(value.into(), detail.into()),
        }
    }

    /// The field's value is none of `supported`.
    pub fn not_supported(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&'static str],
    ) -> Self {
        Self {
            path: path.into(),
            problem: Problem::NotSupported(value.into(), supported.to_vec()),
        }
    }

    /// The field's value occurs before.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            path: path.into(),
            problem: Problem::Duplicate(value.into()),
        }
    }

    /// The field must not be there, or not change.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: Problem::Forbidden(detail.into()),
        }
    }

    /// The field may not change.
    pub fn immutable(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::invalid(path, value, "field is immutable")
    }

    /// The cause's machine-readable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required(_) => "FieldValueRequired",
            Problem::Invalid(..) | Problem::Unfit(_) => "FieldValueInvalid",
            Problem::NotSupported(..) => "FieldValueNotSupported",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::Forbidden(_) => "FieldValueForbidden",
            Problem::NotFound(_) => "FieldValueNotFound",
            Problem::TooLong(_) => "FieldValueTooLong",
            Problem::TooMany(..) => "FieldValueTooMany",
        }
    }

    /// The problem without the path.
    #[must_use]
    pub fn message(&self) -> String {
        match &self.problem {
            Problem::Required(detail) => with_detail("Required value", detail),
            Problem::Invalid(value, detail) => {
                with_detail(&format!("Invalid value: {value}"), detail)
            }
            Problem::Unfit(detail) => with_detail("Invalid value", detail),
            Problem::NotSupported(value, supported) => {
                let supported: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
                format!(
                    "Unsupported value: {value}: supported values: {}",
                    supported.join(", ")
                )
            }
            Problem::Duplicate(value) => format!("Duplicate value: {value}"),
            Problem::Forbidden(detail) => with_detail("Forbidden", detail),
            Problem::NotFound(value) => format!("Not found: {value}"),
            Problem::TooLong(max) => format!("Too long: may not be more than {max} bytes"),
            Problem::TooMany(found, max) => {
                let items = if *max == 1 { "item" } else { "items" };
                format!("Too many: {found}: must have at most {max} {items}")
            }
        }
    }
}

fn with_detail(text: &str, detail: &str) -> String {
    if detail.is_empty() {
        text.to_owned()
    } else {
        format!("{text}: {detail}")
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_read_as_upstream_words_them() {
        let cases = [
            (FieldError::required("spec.x", ""), "spec.x: Required value"),
            (
                FieldError::invalid("a", -1, "must be greater than or equal to 0"),
                "a: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                FieldError::not_supported("t", "Bad", &["A", "B"]),
                r#"t: Unsupported value: "Bad": supported values: "A", "B""#,
            ),
            (
                FieldError::duplicate("n[1]", "x"),
                r#"n[1]: Duplicate value: "x""#,
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
