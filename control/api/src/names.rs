//! The rules for names, in upstream's words: DNS labels and subdomains, label keys and values,
//! environment variables, ConfigMap keys, ports.
//!
//! Each check answers the texts of all rules that are broken, ready for `field: Invalid value: ...: TEXT`;
//! empty means valid. Source: apimachinery's `util/validation`.

/// Longest DNS label.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_MAP_KEY_TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_VAR_TEXT: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

const WILDCARD_TEXT: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const C_IDENTIFIER_TEXT: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether a text is not empty, starts and ends with `edge` bytes and holds `inner` bytes between.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| edge(*b)) && bytes.last().is_some_and(|b| edge(*b));
    ends && bytes.iter().all(|b| inner(*b))
}

fn is_label(text: &str) -> bool {
    shaped(text, lower_alphanumeric, |b| {
        lower_alphanumeric(b) || b == b'-'
    })
}

fn is_qualified_part(text: &str) -> bool {
    shaped(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b),
    )
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn check(valid: bool, text: &str, length: usize, max: usize) -> Vec<String> {
    let mut broken = Vec::new();
    if length > max {
        broken.push(too_long(max));
    }
    if !valid {
        broken.push(text.to_owned());
    }
    broken
}

/// A DNS-1123 label: namespaces, containers, volumes.
#[must_use]
pub fn dns1123_label(name: &str) -> Vec<String> {
    check(is_label(name), LABEL_TEXT, name.len(), LABEL_MAX)
}

/// A DNS-1123 subdomain: names of most objects.
#[must_use]
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    check(
        is_subdomain(name),
        SUBDOMAIN_TEXT,
        name.len(),
        SUBDOMAIN_MAX,
    )
}

/// A DNS-1123 subdomain behind `*.`: hosts of an Ingress.
#[must_use]
pub fn wildcard_subdomain(name: &str) -> Vec<String> {
    let valid = name.strip_prefix("*.").is_some_and(is_subdomain);
    check(valid, WILDCARD_TEXT, name.len(), SUBDOMAIN_MAX)
}

/// An identifier of C: attributes and capacities of devices.
#[must_use]
pub fn c_identifier(name: &str) -> Vec<String> {
    let valid = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    check(valid, C_IDENTIFIER_TEXT, 0, LABEL_MAX)
}

/// A DNS-1035 label: names of Services.
#[must_use]
pub fn dns1035_label(name: &str) -> Vec<String> {
    let valid = is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase());
    check(valid, LABEL_1035_TEXT, name.len(), LABEL_MAX)
}

/// A name that is one segment of a path: RBAC objects, the weakest rule there is.
#[must_use]
pub fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." => vec!["may not be '.'".to_owned()],
        ".." => vec!["may not be '..'".to_owned()],
        _ => ['/', '%']
            .into_iter()
            .filter(|illegal| name.contains(*illegal))
            .map(|illegal| format!("may not contain '{illegal}'"))
            .collect(),
    }
}

/// Applies a rule to what `generateName` starts a name with: a trailing dash stands for the rest.
#[must_use]
pub fn prefix(rule: fn(&str) -> Vec<String>, prefix: &str) -> Vec<String> {
    match prefix.strip_suffix('-') {
        Some(stem) if !stem.is_empty() => rule(&format!("{stem}a")),
        _ => rule(prefix),
    }
}

/// A qualified name: an optional DNS subdomain and `/`, then up to 63 characters.
#[must_use]
pub fn qualified_name(name: &str) -> Vec<String> {
    let mut parts = name.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let mut broken = Vec::new();
    let part = match (second, third) {
        (_, Some(_)) => {
            return vec![format!(
                "a qualified name {QUALIFIED_TEXT} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        (Some(part), None) => {
            if first.is_empty() {
                broken.push("prefix part must be non-empty".to_owned());
            } else {
                let texts = dns1123_subdomain(first);
                broken.extend(texts.into_iter().map(|text| format!("prefix part {text}")));
            }
            part
        }
        (None, None) => first,
    };
    if part.is_empty() {
        broken.push("name part must be non-empty".to_owned());
    } else if part.len() > LABEL_MAX {
        broken.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_qualified_part(part) {
        broken.push(format!("name part {QUALIFIED_TEXT}"));
    }
    broken
}

/// A label's value: empty, or up to 63 characters of a qualified name's second part.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    check(
        value.is_empty() || is_qualified_part(value),
        LABEL_VALUE_TEXT,
        value.len(),
        LABEL_MAX,
    )
}

/// An environment variable's name, by the relaxed rule that is the default since 1.34.
#[must_use]
pub fn env_var_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let valid = name
        .bytes()
        .all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    check(valid, ENV_VAR_TEXT, 0, LABEL_MAX)
}

/// A key of a ConfigMap or Secret, which may become a file's name.
#[must_use]
pub fn config_map_key(key: &str) -> Vec<String> {
    let valid = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let mut broken = check(valid, CONFIG_MAP_KEY_TEXT, key.len(), SUBDOMAIN_MAX);
    match key {
        "." => broken.push("must not be '.'".to_owned()),
        ".." => broken.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => broken.push("must not start with '..'".to_owned()),
        _ => {}
    }
    broken
}

/// A port's number.
#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".to_owned()]
}

/// A port's name: an IANA service name of up to 15 characters.
#[must_use]
pub fn port_name(name: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if name.len() > 15 {
        broken.push("must be no more than 15 characters".to_owned());
    }
    if !name.bytes().all(|b| lower_alphanumeric(b) || b == b'-') {
        broken.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        broken.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        broken.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        broken.push("must not begin or end with a hyphen".to_owned());
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(rule(name), Vec::<String>::new(), "{name:?}");
        }
        for name in bad {
            assert!(!rule(name).is_empty(), "{name:?}");
        }
    }

    #[test]
    fn names_follow_upstreams_rules() {
        let long = "a".repeat(64);
        let longer = "a".repeat(254);
        table(
            dns1123_label,
            &["a", "0", "a-b", "1a"],
            &["", "-", "a-", "A", "a.b", "a_b", "é", &long],
        );
        table(
            dns1123_subdomain,
            &["a.b", "0.1", "a-b.c"],
            &["", ".", "a..b", "a.", "a.-b", &longer],
        );
        table(
            wildcard_subdomain,
            &["*.a", "*.a.b"],
            &["", "*", "a.b", "*.*.a", "*a"],
        );
        table(c_identifier, &["a", "_1", "A_b"], &["", "1a", "a-b"]);
        table(dns1035_label, &["a", "a-1"], &["", "1a", "a-", "A"]);
        table(
            path_segment,
            &["a", "system:x", "A b"],
            &[".", "..", "a/b", "a%b"],
        );
        table(
            qualified_name,
            &["a", "A.b_c", "x.io/A", "0/1"],
            &["", "/a", "a/", "a/b/c", "X/a", "-a", "a b", &long],
        );
        table(
            label_value,
            &["", "a", "A_b.c-d"],
            &["-", "a-", "a b", "a/b", &long],
        );
        table(env_var_name, &["A", "_a", "a.b", "1"], &["", "a=b", "a\n"]);
        table(
            config_map_key,
            &["a.b", "_", "...a"[3..].trim(), "KEY"],
            &["", ".", "..", "..a", "a/b"],
        );
        table(
            port_name,
            &["http", "a-1", "8080a"],
            &["", "80", "a--b", "-a", "a-", "A", "a234567890123456"],
        );
    }

    #[test]
    fn texts_are_upstreams() {
        let text = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        assert_eq!(qualified_name("a b"), [format!("name part {text}")]);
        assert_eq!(
            qualified_name(""),
            [
                "name part must be non-empty".to_owned(),
                format!("name part {text}")
            ]
        );
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    }

    #[test]
    fn a_generated_names_prefix_may_end_in_a_dash() {
        assert!(prefix(dns1123_subdomain, "web-").is_empty());
        assert!(!prefix(dns1123_subdomain, "Web-").is_empty());
        assert!(!prefix(dns1123_subdomain, "-").is_empty());
    }
}
