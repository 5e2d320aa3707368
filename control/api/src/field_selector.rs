//! Field selectors: `metadata.name=x,status.phase!=Running`.
//!
//! A selector is a conjunction of equalities and inequalities over field labels; which labels a kind
//! supports is the kind's business. Values may escape `,`, `=` and `\` with a backslash.

/// One requirement on a field label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The field label, such as `spec.nodeName`.
    pub field: String,
    /// The value compared with.
    pub value: String,
    /// Whether the field must equal the value; otherwise it must differ.
    pub equal: bool,
}

/// A conjunction of requirements; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

/// Why a text is no field selector, in upstream's words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole text.
        selector: String,
        /// The term without an operator.
        term: String,
    },
    /// A backslash stands before a character that needs none.
    #[error("invalid field selector: invalid escape sequence: \\{escaped}")]
    Escape {
        /// The character after the backslash.
        escaped: char,
    },
    /// A backslash stands at the end.
    #[error("invalid field selector: unterminated escape sequence")]
    Unterminated,
    /// An unescaped `=` stands in a value.
    #[error("invalid field selector: unescaped character in value: =")]
    Unescaped,
}

impl FieldSelector {
    /// Parses a selector; an empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = Vec::new();
        for term in split_terms(text)
            .into_iter()
            .filter(|term| !term.is_empty())
        {
            let (field, operator, value) =
                split_operator(term).ok_or_else(|| ParseError::Term {
                    selector: text.to_owned(),
                    term: term.to_owned(),
                })?;
            requirements.push(Requirement {
                field: field.to_owned(),
                value: unescape(value)?,
                equal: operator != "!=",
            });
        }
        Ok(Self { requirements })
    }

    /// The selector with every field under the name that `rename` gives it.
    ///
    /// # Errors
    /// The first that `rename` answers.
    pub fn try_rename<E>(self, rename: impl Fn(&str) -> Result<&str, E>) -> Result<Self, E> {
        let renamed = |mut requirement: Requirement| {
            let name = rename(&requirement.field)?;
            if name != requirement.field {
                requirement.field = name.to_owned();
            }
            Ok(requirement)
        };
        let requirements = self.requirements.into_iter().map(renamed);
        Ok(Self {
            requirements: requirements.collect::<Result<_, E>>()?,
        })
    }

    /// The requirements, in the order given.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value a field must equal, if the selector asks for exactly one: lets a list go straight to the
    /// object of `metadata.name=x`.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        let exact = |requirement: &&Requirement| requirement.equal && requirement.field == field;
        self.requirements
            .iter()
            .find(exact)
            .map(|requirement| requirement.value.as_str())
    }

    /// Whether an object is selected. `get` answers the value of a field label; an absent field is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = get(&requirement.field).unwrap_or_default();
            (value == requirement.value) == requirement.equal
        })
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
    .collect()
}

/// Splits at the first operator that no backslash escapes.
fn split_operator(term: &str) -> Option<(&str, &str, &str)> {
    let mut escaped = false;
    for (at, c) in term.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        escaped = c == '\\';
        let (field, rest) = term.split_at_checked(at)?;
        for operator in ["!=", "==", "="] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((field, operator, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, ParseError> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(escaped) => return Err(ParseError::Escape { escaped }),
                None => return Err(ParseError::Unterminated),
            },
            '=' => return Err(ParseError::Unescaped),
            _ => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(text: &str) -> Vec<(String, bool, String)> {
        let selector = FieldSelector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        selector
            .requirements
            .into_iter()
            .map(|r| (r.field, r.equal, r.value))
            .collect()
    }

    #[test]
    fn selectors_are_lists_of_terms() {
        let term = |field: &str, equal, value: &str| (field.to_owned(), equal, value.to_owned());
        assert_eq!(terms(""), []);
        assert_eq!(terms("a=b"), [term("a", true, "b")]);
        assert_eq!(
            terms("a==b,c!=d"),
            [term("a", true, "b"), term("c", false, "d")]
        );
        assert_eq!(terms("a=,b!="), [term("a", true, ""), term("b", false, "")]);
        assert_eq!(terms(r"a=b\,c\=d\\"), [term("a", true, r"b,c=d\")]);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["a", "a,b=c", r"a=\x", "a=b=c", "a=b\\"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            FieldSelector::parse("foo")
                .expect_err("no operator")
                .to_string(),
            "invalid selector: 'foo'; can't understand 'foo'"
        );
    }

    #[test]
    fn absent_fields_are_empty() {
        let get = |field: &str| (field == "spec.nodeName").then_some("n1");
        for (text, selected) in [
            ("", true),
            ("spec.nodeName=n1", true),
            ("spec.nodeName!=n1", false),
            ("x=", true),
            ("x!=a", true),
            ("spec.nodeName=n1,x=a", false),
        ] {
            let selector = FieldSelector::parse(text).expect("parses");
            assert_eq!(selector.matches(get), selected, "{text}");
        }
        let selector = FieldSelector::parse("a!=b,metadata.name=x").expect("parses");
        assert_eq!(selector.exact("metadata.name"), Some("x"));
        assert_eq!(selector.exact("a"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "\\PC{0,32}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
