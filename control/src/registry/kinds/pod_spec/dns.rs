//! Name resolution: the pod's own configuration and its host aliases.

use std::net::IpAddr;

use windlass_api::names;

use super::super::field::{Errors, Field};
use crate::registry::field_error::FieldError;

/// Limits of the C library's resolver.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_MAX: usize = 2048;

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// All that is wrong with `dnsConfig`, and with its absence.
pub(super) fn validate(spec: &Field<'_, '_>, errors: &mut Errors) {
    let config = spec.child("dnsConfig");
    let servers = config.child("nameservers");
    if spec.text_of("dnsPolicy") == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.len() == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(servers.required(detail));
            return;
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(servers.invalid(detail));
    }
    for server in servers.items() {
        errors.extend(address(&server));
    }
    validate_searches(&config.child("searches"), errors);
    for option in config.child("options").items() {
        if option.text_of("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn validate_searches(searches: &Field<'_, '_>, errors: &mut Errors) {
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(searches.invalid(detail));
    }
    let length = searches
        .texts()
        .map(|search| search.len() + 1)
        .sum::<usize>();
    if length.saturating_sub(1) > SEARCH_LIST_MAX {
        let detail = format!(
            "must not have more than {SEARCH_LIST_MAX} characters (including spaces) in the search list"
        );
        errors.push(searches.invalid(detail));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        // Search paths may hold underscores, as service records do.
        let problems = names::dns1123_subdomain(&name.replace('_', "0")).into_iter();
        errors.extend(problems.map(|problem| search.invalid_as(name, problem)));
    }
}

/// All that is wrong with the lines the pod adds to its hosts file.
pub(super) fn validate_host_aliases(aliases: &Field<'_, '_>, errors: &mut Errors) {
    for alias in aliases.items() {
        errors.extend(address(&alias.child("ip")));
        for name in alias.child("hostnames").items() {
            errors.extend(name.follows(names::dns1123_subdomain));
        }
    }
}

/// An error unless the text is an address.
fn address(field: &Field<'_, '_>) -> Option<FieldError> {
    let valid = field.text().parse::<IpAddr>().is_ok();
    (!valid).then(|| field.invalid_as(field.text(), ADDRESS))
}
