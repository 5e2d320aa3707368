//! Rules that fields of several kinds follow: selectors, addresses, ports, references, conditions.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;
use windlass_api::names;

use super::field_path::Field;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::validation;

/// Protocols of ports.
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const BAD_OPERATOR: &str = "not a valid selector operator";
const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const TAKES_NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// All that is wrong with a `LabelSelector`.
pub(super) fn label_selector(selector: &Field<'_>) -> Vec<FieldError> {
    let labels = selector.at("matchLabels");
    let mut errors = validation::labels(labels.path(), Some(labels.value()));
    for expression in selector.at("matchExpressions").items() {
        let values = expression.at("values");
        match expression.at("operator").text() {
            "In" | "NotIn" if values.is_empty() => errors.push(values.required(NEEDS_VALUES)),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if values.is_empty() => {}
            "Exists" | "DoesNotExist" => errors.push(values.forbidden(TAKES_NO_VALUES)),
            _ => errors.push(expression.at("operator").invalid(BAD_OPERATOR)),
        }
        errors.extend(expression.at("key").checked(names::qualified_name));
        for value in values.items() {
            errors.extend(value.follows(names::label_value));
        }
    }
    errors
}

/// All that is wrong with a `NodeSelector`.
pub(super) fn node_selector(selector: &Field<'_>) -> Vec<FieldError> {
    let terms = selector.at("nodeSelectorTerms");
    if terms.is_empty() {
        return vec![terms.required("must have at least one node selector term")];
    }
    let mut errors = Vec::new();
    for term in terms.items() {
        for expression in term.at("matchExpressions").items() {
            errors.extend(node_selector_requirement(&expression));
        }
        for field in term.at("matchFields").items() {
            errors.extend(node_field_requirement(&field));
        }
    }
    errors
}

fn node_selector_requirement(requirement: &Field<'_>) -> Vec<FieldError> {
    let values = requirement.at("values");
    let mut errors = Vec::new();
    match requirement.at("operator").text() {
        "In" | "NotIn" if values.is_empty() => errors.push(values.required(NEEDS_VALUES)),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if values.is_empty() => {}
        "Exists" | "DoesNotExist" => errors.push(values.forbidden(TAKES_NO_VALUES)),
        "Gt" | "Lt" if values.len() == 1 => {}
        "Gt" | "Lt" => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(values.required(detail));
        }
        _ => errors.push(requirement.at("operator").invalid(BAD_OPERATOR)),
    }
    errors.extend(requirement.at("key").checked(names::qualified_name));
    for value in values.items() {
        errors.extend(value.follows(names::label_value));
    }
    errors
}

fn node_field_requirement(requirement: &Field<'_>) -> Vec<FieldError> {
    let (key, values) = (requirement.at("key"), requirement.at("values"));
    let mut errors = Vec::new();
    match requirement.at("operator").text() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let detail =
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(values.required(detail));
        }
        _ => errors.push(requirement.at("operator").invalid(BAD_OPERATOR)),
    }
    if key.text() == "metadata.name" {
        for value in values.items() {
            errors.extend(value.follows(names::dns1123_subdomain));
        }
    } else {
        errors.push(key.invalid("not a valid field selector key"));
    }
    errors
}

/// An address as fields from before the strict rules may hold it: leading zeros pass.
fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let octets: Option<Vec<u8>> = text
            .split('.')
            .map(|octet| {
                let digits = octet.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| octet.parse().ok()).flatten()
            })
            .collect();
        let octets: [u8; 4] = octets?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    })
}

/// A network: its first address as written, and its length in bits.
pub(super) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most)?;
    Some((address, bits))
}

/// The address with everything behind the first `bits` bits cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Whether the network holds an address.
pub(super) fn contains(network: (IpAddr, u8), address: IpAddr) -> bool {
    network.0.is_ipv4() == address.is_ipv4()
        && masked(network.0, network.1) == masked(address, network.1)
}

/// The text is an address, by the rule of fields older than the strict one.
pub(super) fn ip(field: &Field<'_>) -> Option<FieldError> {
    let bad = parse_ip(field.text()).is_none();
    bad.then(|| FieldError::invalid(field.path(), field.text(), NOT_AN_IP))
}

/// The text is an address in the one form that stands for it.
pub(super) fn strict_ip(text: &str) -> Vec<String> {
    let Some(address) = parse_ip(text) else {
        return vec![NOT_AN_IP.into()];
    };
    if text.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s".into()];
    }
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        _ if address.to_string() != text => {
            vec![format!(
                "must be in canonical form ({:?})",
                address.to_string()
            )]
        }
        _ => Vec::new(),
    }
}

/// The text is a network, by the rule of fields older than the strict one.
pub(super) fn cidr(field: &Field<'_>) -> Option<FieldError> {
    let bad = parse_cidr(field.text().trim()).is_none();
    bad.then(|| FieldError::invalid(field.path(), field.text(), NOT_A_CIDR))
}

/// The text is a network in the one form that stands for it.
pub(super) fn strict_cidr(text: &str) -> Vec<String> {
    let Some((address, bits)) = parse_cidr(text) else {
        return vec![NOT_A_CIDR.into()];
    };
    let written = text.split('/').next().unwrap_or_default();
    let canonical = format!("{}/{bits}", masked(address, bits));
    match address {
        _ if written.parse::<IpAddr>().is_err() => {
            vec!["must not have leading 0s in IP or prefix length".into()]
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            vec!["must not have an IPv4-mapped IPv6 address".into()]
        }
        _ if masked(address, bits) != address => {
            let detail = "must not have bits set beyond the prefix length";
            vec![detail.into()]
        }
        _ if canonical != text => vec![format!("must be in canonical form ({canonical:?})")],
        _ => Vec::new(),
    }
}

/// The address may be reached from elsewhere: not unspecified, loopback or link-local.
pub(super) fn not_special(field: &Field<'_>) -> Option<FieldError> {
    let text = field.text();
    let Some(address) = parse_ip(text) else {
        return Some(field.invalid("must be a valid IP address"));
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => {
            let first = v6.segments().first().copied().unwrap_or_default();
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    let detail = if address.is_unspecified() {
        format!("may not be unspecified ({text})")
    } else if address.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
    } else {
        return None;
    };
    Some(field.invalid(detail))
}

/// Whether an object of default/kubernetes is looked at, which says where the API server is.
// Differs from Kubernetes: the server of a single machine may listen on its loopback address only, so its
// own endpoint, and no other, may be a special address.
pub(super) fn is_of_api_server(object: &Value) -> bool {
    meta::name(object) == "kubernetes" && meta::namespace(object) == "default"
}

/// The integer is a port.
pub(super) fn port_number(field: &Field<'_>) -> Vec<FieldError> {
    let number = field.integer();
    let problems = names::port_number(number).into_iter();
    problems
        .map(|problem| FieldError::invalid(field.path(), number, problem))
        .collect()
}

/// The value is a port's number or its name.
pub(super) fn port_or_name(field: &Field<'_>) -> Vec<FieldError> {
    if field.value().is_string() {
        field.follows(names::port_name)
    } else {
        port_number(field)
    }
}

/// The text is a name that a CSI driver may have.
pub(super) fn csi_driver_name(field: &Field<'_>) -> Vec<FieldError> {
    if field.text().is_empty() {
        return vec![field.required("")];
    }
    let mut errors = Vec::new();
    if field.len() > names::LABEL_MAX {
        errors.push(field.too_long(names::LABEL_MAX));
    }
    errors.extend(field.follows(|name| names::dns1123_subdomain(&name.to_lowercase())));
    errors
}

/// The text is a domain and a path, as in `acme.io/foo`.
pub(super) fn domain_prefixed_path(field: &Field<'_>) -> Vec<FieldError> {
    const PATH_FORMAT: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let segments = field.text().split_once('/');
    let Some((host, path)) = segments.filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        let detail = r#"must be a domain-prefixed path (such as "acme.io/foo")"#;
        return vec![field.invalid(detail)];
    };
    let mut errors: Vec<_> =
        validation::invalid(field.path(), host, names::dns1123_subdomain(host)).collect();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || br"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(allowed) {
        let detail = format!("Invalid path (regex used for validation is '{PATH_FORMAT}')");
        errors.push(FieldError::invalid(field.path(), path, detail));
    }
    errors
}

/// All that is wrong with a list of `metav1.Condition`.
pub(super) fn conditions(conditions: &Field<'_>) -> Vec<FieldError> {
    const STATUSES: &[&str] = &["False", "True", "Unknown"];
    let mut errors = Vec::new();
    let mut seen = Vec::new();
    for condition in conditions.items() {
        let kind = condition.at("type");
        if seen.contains(&kind.text()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.text());
        errors.extend(kind.checked(names::qualified_name));
        errors.extend(condition.at("status").one_of(STATUSES));
        errors.extend(condition.at("observedGeneration").not_negative());
        if condition.at("lastTransitionTime").is_empty() {
            errors.push(condition.at("lastTransitionTime").required("must be set"));
        }
        let reason = condition.at("reason");
        if reason.is_empty() {
            errors.push(reason.required("must be set"));
        } else if reason.len() > 1024 {
            errors.push(reason.too_long(1024));
        }
        if condition.at("message").len() > 32 << 10 {
            errors.push(condition.at("message").too_long(32 << 10));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strict_addresses_have_one_form() {
        for (text, valid) in [
            ("10.0.0.1", true),
            ("10.0.0.01", false),
            ("2001:db8::1", true),
            ("2001:DB8::1", false),
            ("::ffff:1.2.3.4", false),
            ("host", false),
        ] {
            assert_eq!(strict_ip(text).is_empty(), valid, "{text}");
        }
        for (text, valid) in [
            ("10.0.0.0/8", true),
            ("10.0.0.1/8", false),
            ("10.0.0.0/33", false),
            ("2001:db8::/64", true),
            ("10.0.0.0", false),
        ] {
            assert_eq!(strict_cidr(text).is_empty(), valid, "{text}");
        }
    }

    #[test]
    fn a_selector_is_checked_expression_by_expression() {
        let selector = json!({
            "matchLabels": {"a b": "c"},
            "matchExpressions": [
                {"key": "k", "operator": "In"},
                {"key": "k", "operator": "Exists", "values": ["v"]},
                {"key": "k", "operator": "Near"},
            ],
        });
        let errors = label_selector(&Field::new("s", &selector));
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        for expected in [
            "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "s.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            r#"s.matchExpressions[2].operator: Invalid value: "Near": not a valid selector operator"#,
        ] {
            assert!(texts.iter().any(|text| text == expected), "{texts:#?}");
        }
        assert_eq!(texts.len(), 4);
    }
}
