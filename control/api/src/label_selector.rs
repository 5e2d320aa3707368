//! Label selectors: the text form of query parameters and the `LabelSelector` of objects.
//!
//! Both become a [`LabelSelector`], a conjunction of requirements sorted by key, matched against any map
//! of texts without copying. The text form is `key`, `!key`, `key=value`, `key==value`, `key!=value`,
//! `key in (a,b)`, `key notin (a,b)`, `key>1`, `key<1`, joined by commas. Source: apimachinery's `labels`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;

use crate::names;

/// What is asked of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label has one of these values.
    In(BTreeSet<String>),
    /// The label has none of these values, or is not there.
    NotIn(BTreeSet<String>),
    /// The label's value is a number greater than this.
    GreaterThan(i64),
    /// The label's value is a number less than this.
    LessThan(i64),
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

/// A conjunction of requirements, or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// `None` selects nothing; no requirements select everything.
    requirements: Option<Vec<Requirement>>,
}

/// Why a selector is refused, in upstream's words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Something stands where something else is expected.
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Unexpected {
        /// The text found.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A key breaks the rules.
    #[error("unable to parse requirement: key: Invalid value: \"{key}\": {text}")]
    Key {
        /// The key.
        key: String,
        /// The rule.
        text: String,
    },
    /// A value breaks the rules.
    #[error("unable to parse requirement: values[{at}][{key}]: Invalid value: \"{value}\": {text}")]
    Value {
        /// Place among the values.
        at: usize,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The rule.
        text: String,
    },
    /// `In` and `NotIn` without values.
    #[error("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")]
    NoValues,
    /// `Exists` and `DoesNotExist` with values.
    #[error("values: Invalid value: values set must be empty for exists and does not exist")]
    Values,
    /// `Gt` and `Lt` without a whole number.
    #[error(
        "values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
    )]
    Integer {
        /// The value.
        value: String,
    },
    /// An operator that does not exist.
    #[error("\"{operator}\" is not a valid label selector operator")]
    Operator {
        /// The operator.
        operator: String,
    },
}

/// A source of labels: any map from text to text.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for serde_json::Map<String, serde_json::Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

impl LabelSelector {
    /// Selects everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            requirements: Some(Vec::new()),
        }
    }

    /// Selects nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Parses the text form; an empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { rest: text };
        let requirements = parser.selector()?;
        Self::of(requirements)
    }

    /// Selects objects that carry all of these labels, as Services and ReplicationControllers do.
    #[must_use]
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In(BTreeSet::from([value.clone()])),
        };
        Self {
            requirements: Some(labels.iter().map(equals).collect()),
        }
    }

    /// Reads an object's selector. An empty one selects everything; an absent one, nothing.
    pub fn from_object(selector: Option<&ObjectSelector>) -> Result<Self, ParseError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut requirements: Vec<_> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In(BTreeSet::from([value.clone()])),
            })
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let operator = Operator::from_object(&expression.operator, values)?;
            requirements.push(Requirement {
                key: expression.key.clone(),
                operator,
            });
        }
        Self::of(requirements)
    }

    fn of(mut requirements: Vec<Requirement>) -> Result<Self, ParseError> {
        for requirement in &requirements {
            requirement.validate()?;
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements: Some(requirements),
        })
    }

    /// The same with further requirements; a selector of nothing stays one.
    #[must_use]
    pub fn and(mut self, further: impl IntoIterator<Item = Requirement>) -> Self {
        if let Some(requirements) = &mut self.requirements {
            requirements.extend(further);
        }
        self
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// The requirements; `None` if nothing is selected.
    #[must_use]
    pub fn requirements(&self) -> Option<&[Requirement]> {
        self.requirements.as_deref()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: impl Labels) -> bool {
        let matches = |requirement: &Requirement| requirement.matches(&labels);
        self.requirements
            .as_ref()
            .is_some_and(|requirements| requirements.iter().all(matches))
    }
}

impl Operator {
    /// An operator in the words of objects: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub fn from_object(operator: &str, values: Vec<String>) -> Result<Self, ParseError> {
        match operator {
            "In" | "NotIn" if values.is_empty() => Err(ParseError::NoValues),
            "In" => Ok(Self::In(values.into_iter().collect())),
            "NotIn" => Ok(Self::NotIn(values.into_iter().collect())),
            "Exists" | "DoesNotExist" if !values.is_empty() => Err(ParseError::Values),
            "Exists" => Ok(Self::Exists),
            "DoesNotExist" => Ok(Self::DoesNotExist),
            "Gt" => Ok(Self::GreaterThan(integer(&values.concat())?)),
            "Lt" => Ok(Self::LessThan(integer(&values.concat())?)),
            _ => Err(ParseError::Operator {
                operator: operator.to_owned(),
            }),
        }
    }
}

fn integer(value: &str) -> Result<i64, ParseError> {
    value.parse().map_err(|_| ParseError::Integer {
        value: value.to_owned(),
    })
}

impl Requirement {
    /// Whether the labels meet the requirement.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        let value = labels.label(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
            Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }

    fn validate(&self) -> Result<(), ParseError> {
        if let Some(text) = joined(&names::qualified_name(&self.key)) {
            return Err(ParseError::Key {
                key: self.key.clone(),
                text,
            });
        }
        let (Operator::In(values) | Operator::NotIn(values)) = &self.operator else {
            return Ok(());
        };
        for (at, value) in values.iter().enumerate() {
            if let Some(text) = joined(&names::label_value(value)) {
                let (key, value) = (self.key.clone(), value.clone());
                return Err(ParseError::Value {
                    at,
                    key,
                    value,
                    text,
                });
            }
        }
        Ok(())
    }
}

fn joined(texts: &[String]) -> Option<String> {
    (!texts.is_empty()).then(|| texts.join("; "))
}

impl fmt::Display for LabelSelector {
    /// The text form, as `scale` shows a selector to autoscalers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().flatten().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let join = |values: &BTreeSet<String>| {
            values
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        };
        match &self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", join(values)),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", join(values)),
            Operator::In(values) => write!(f, "{key} in ({})", join(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", join(values)),
            Operator::GreaterThan(bound) => write!(f, "{key}>{bound}"),
            Operator::LessThan(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// A recursive-descent parser over the rest of the text.
struct Parser<'a> {
    rest: &'a str,
}

/// Characters that end a word.
const SPECIAL: &[char] = &['=', '!', '(', ')', ',', '>', '<'];
const OPERATORS: &[&str] = &["==", "!=", "=", ">", "<"];

impl<'a> Parser<'a> {
    fn selector(&mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut requirements = Vec::new();
        self.skip_space();
        if self.rest.is_empty() {
            return Ok(requirements);
        }
        loop {
            requirements.push(self.requirement()?);
            if self.rest.is_empty() {
                return Ok(requirements);
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or 'end of string'"));
            }
            self.skip_space();
            if self.rest.is_empty() {
                return Err(self.unexpected("identifier after ','"));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        if self.take("!") {
            let key = self.word();
            return self.key(key, Operator::DoesNotExist);
        }
        let key = self.word();
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return self.key(key, Operator::Exists);
        }
        let operator = OPERATORS
            .iter()
            .find(|operator| self.take(operator))
            .copied();
        let operator = match operator {
            Some("!=") => Operator::NotIn(BTreeSet::from([self.word().to_owned()])),
            Some(">") => Operator::GreaterThan(integer(self.word())?),
            Some("<") => Operator::LessThan(integer(self.word())?),
            Some(_) => Operator::In(BTreeSet::from([self.word().to_owned()])),
            None => self.set()?,
        };
        self.key(key, operator)
    }

    fn key(&self, key: &str, operator: Operator) -> Result<Requirement, ParseError> {
        if key.is_empty() {
            return Err(self.unexpected("!, identifier, or 'end of string'"));
        }
        Ok(Requirement {
            key: key.to_owned(),
            operator,
        })
    }

    fn set(&mut self) -> Result<Operator, ParseError> {
        let before = Parser { rest: self.rest };
        let make = match self.word() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            _ => return Err(before.unexpected("in, notin, =, ==, !=, gt, lt")),
        };
        if !self.take("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.word().to_owned());
            if self.take(")") {
                return Ok(make(values));
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }

    /// The next word, without the white space around it; empty if there is none.
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let ends = |c: char| c.is_whitespace() || SPECIAL.contains(&c);
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_space();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        let mut parser = Parser { rest: self.rest };
        let word = parser.word();
        let found = match (word, self.rest.chars().next()) {
            ("", Some(special)) => special.to_string(),
            (word, _) => word.to_owned(),
        };
        ParseError::Unexpected { found, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn selectors_match_as_upstream_matches() {
        let labels = labels(&[
            ("app", "web"),
            ("tier", "front"),
            ("n", "5"),
            ("x.io/e", ""),
        ]);
        for (text, selected) in [
            ("", true),
            ("  ", true),
            ("app", true),
            ("!app", false),
            ("! no", true),
            ("no", false),
            ("app=web", true),
            ("app==web", true),
            ("app = web", true),
            ("app!=web", false),
            ("no!=x", true),
            ("app in (web, api)", true),
            ("app in (api)", false),
            ("app notin (web)", false),
            ("no notin (web)", true),
            ("app=web,tier=front", true),
            ("app=web,tier=back", false),
            ("x.io/e=", true),
            ("x.io/e in ()", true),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
            ("in in (in)", false),
            ("app,tier , !no", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&labels), selected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            ",",
            "a,",
            "a,,b",
            "=a",
            "!",
            "a in",
            "a in (",
            "a in (b",
            "a in b",
            "a b",
            "a=b c",
            "a=b=c",
            "a>x",
            "-a",
            "a=-",
            "a/b/c",
            "!a=b",
            "a in (b c)",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            LabelSelector::parse("a b")
                .expect_err("two words")
                .to_string(),
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
    }

    #[test]
    fn objects_selectors_are_conjunctions() {
        let read = |value: serde_json::Value| {
            let selector: ObjectSelector = serde_json::from_value(value).expect("is a selector");
            LabelSelector::from_object(Some(&selector))
        };
        let labels = labels(&[("app", "web"), ("tier", "front")]);
        for (value, selected) in [
            (serde_json::json!({}), true),
            (serde_json::json!({"matchLabels": {"app": "web"}}), true),
            (
                serde_json::json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]}),
                false,
            ),
            (
                serde_json::json!({"matchLabels": {"app": "web"}, "matchExpressions": [
                {"key": "no", "operator": "DoesNotExist"}]}),
                true,
            ),
        ] {
            assert_eq!(
                read(value.clone()).expect("is valid").matches(&labels),
                selected,
                "{value}"
            );
        }
        assert!(
            !LabelSelector::from_object(None)
                .expect("is valid")
                .matches(&labels)
        );
        for bad in [
            serde_json::json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
            serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["x"]}]}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_selectors_text_selects_the_same() {
        for text in ["a=b", "a in (b,c)", "!a", "a", "a!=b,c notin (d,e)", "n>3"] {
            let selector = LabelSelector::parse(text).expect("parses");
            assert_eq!(selector.to_string(), text);
            assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "\\PC{0,32}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
