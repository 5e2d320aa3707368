//! What a registry that answers 401 wants: the header `WWW-Authenticate`.
//!
//! Spec: RFC 9110, 11.6.1: challenges, each a scheme and its parameters, both separated by commas.

use http::{HeaderMap, header};

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a token, to be had at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
    /// With user name and password.
    Basic,
}

impl Challenge {
    /// The challenge to take up: tokens before passwords.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::WWW_AUTHENTICATE).into_iter();
        let parsed: Vec<Self> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = parsed.iter().find(|challenge| **challenge != Self::Basic);
        bearer.or(parsed.first()).cloned()
    }

    fn new(scheme: &str, parameters: &[(String, String)]) -> Option<Self> {
        let get = |name: &str| {
            let mut all = parameters.iter();
            let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Self::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope"),
        })
    }
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(&str, Vec<(String, String)>)> = Vec::new();
    for part in parts(text) {
        let part = part.trim();
        // A scheme stands before the first parameter, or alone.
        let equals = part.find('=').unwrap_or(part.len());
        let parameter = match part.find(' ') {
            Some(space) if space < equals => {
                let (scheme, rest) = part.split_at(space);
                found.push((scheme, Vec::new()));
                rest.trim()
            }
            _ if equals == part.len() => {
                found.push((part, Vec::new()));
                continue;
            }
            _ => part,
        };
        if let (Some((key, value)), Some((_, parameters))) =
            (parameter.split_once('='), found.last_mut())
        {
            parameters.push((key.trim().to_owned(), unquoted(value.trim())));
        }
    }
    let challenges = found.iter();
    challenges
        .filter_map(|(scheme, parameters)| Challenge::new(scheme, parameters))
        .collect()
}

/// Splits at commas outside of quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character: char| {
        let ends = character == ',' && !quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
    .collect()
}

fn unquoted(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut escaped = false;
    let keep = |character: &char| {
        escaped = *character == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let docker =
            r#"Bearer realm="https://a.io/token",service="r.io",scope="repository:a/b:pull,push""#;
        let scope = Some("repository:a/b:pull,push");
        assert_eq!(
            of(&[docker]),
            bearer("https://a.io/token", Some("r.io"), scope)
        );
        assert_eq!(of(&["bearer realm=x"]), bearer("x", None, None));
        assert_eq!(
            of(&[r#"Basic realm="Registry, \"x\"""#]),
            Some(Challenge::Basic)
        );
        assert_eq!(of(&["Basic"]), Some(Challenge::Basic));
        let both = r#"Basic realm="x", Bearer realm="y", service="z""#;
        assert_eq!(of(&[both]), bearer("y", Some("z"), None));
        assert_eq!(
            of(&["Basic realm=x", "Bearer realm=y"]),
            bearer("y", None, None)
        );
        assert_eq!(of(&[r#"Bearer realm="a\"b""#]), bearer("a\"b", None, None));
        for nothing in ["", "Negotiate", "Bearer service=x", ",,,", "=", r#"""#] {
            assert_eq!(of(&[nothing]), None, "{nothing}");
        }
        assert_eq!(of(&[]), None);
    }
}
