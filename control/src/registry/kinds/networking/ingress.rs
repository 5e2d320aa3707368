//! Ingress: which Service answers for which host and path.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::ingress::CLASS_ANNOTATION;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, typed_reference};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{abbreviate, count, items, rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct Ingress;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "Ingress");
    Kind::namespaced(gvk, "ingresses", &Ingress).short_names(&["ing"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Class", "string", "Who is to act on it."),
    Column::new("Hosts", "string", "The hosts it has rules for."),
    Column::new("Address", "string", "Where it is reached."),
    Column::new("Ports", "string", "Its ports: 443 as well if it has TLS."),
    AGE,
];

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

const NOT_AN_ADDRESS: &str = "must be a DNS name, not an IP address";

impl Strategy for Ingress {
    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"loadBalancer": {}}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let (rules, backend) = (spec.at("rules"), spec.at("defaultBackend"));
        let mut errors = Vec::new();
        if rules.is_empty() && !backend.is_set() {
            let detail = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid(spec.path(), json!([]), detail));
        }
        if backend.is_set() {
            errors.extend(validate_backend(&backend));
        }
        errors.extend(rules.items().iter().flat_map(validate_rule));
        errors.extend(spec.at("tls").items().iter().flat_map(validate_tls));
        errors.extend(
            spec.at("ingressClassName")
                .follows(names::dns1123_subdomain),
        );
        errors.extend(validate_class(object));
        errors
    }

    fn validate_update(&self, _: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint != Endpoint::Status {
            return Vec::new();
        }
        let balancer = Field::root(new).at("status").at("loadBalancer");
        let ingresses = balancer.at("ingress").items();
        ingresses.iter().flat_map(validate_address).collect()
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let class = match text(object, "/spec/ingressClassName") {
            "" => "<none>",
            class => class,
        };
        let tls = count(object, "/spec/tls") > 0;
        vec![
            meta::name(object).into(),
            class.into(),
            hosts(object).into(),
            addresses(object).into(),
            if tls { "80, 443" } else { "80" }.into(),
            age(object, now).into(),
        ]
    }
}

fn hosts(object: &Value) -> String {
    let hosts = items(object, "/spec/rules").iter();
    let hosts: Vec<_> = hosts
        .map(|rule| text(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    match hosts.as_slice() {
        [] => "*".into(),
        hosts => abbreviate(hosts, 3),
    }
}

fn addresses(object: &Value) -> String {
    let ingresses = items(object, "/status/loadBalancer/ingress").iter();
    let addresses = ingresses.map(|ingress| match text(ingress, "/ip") {
        "" => text(ingress, "/hostname"),
        ip => ip,
    });
    let mut addresses: Vec<_> = addresses.filter(|address| !address.is_empty()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

// Differs from Kubernetes: upstream lets the two differ on updates.
fn validate_class(object: &Value) -> Option<FieldError> {
    let annotations = meta::get(object, "annotations");
    let annotated = annotations.and_then(|all| all.get(CLASS_ANNOTATION));
    let class = object.pointer("/spec/ingressClassName");
    match (annotated, class) {
        (Some(annotated), Some(class)) if annotated != class => Some(FieldError::invalid(
            format!("annotations.{CLASS_ANNOTATION}"),
            annotated.clone(),
            "must match `ingressClassName` when both are specified",
        )),
        _ => None,
    }
}

fn validate_host(host: &Field<'_>) -> Vec<FieldError> {
    if host.text().contains('*') {
        host.checked(names::wildcard_subdomain)
    } else {
        host.checked(names::dns1123_subdomain)
    }
}

fn validate_rule(rule: &Field<'_>) -> Vec<FieldError> {
    let (host, http) = (rule.at("host"), rule.at("http"));
    let mut errors = Vec::new();
    if !host.is_empty() {
        if rules::ip(&host).is_none() {
            errors.push(host.invalid(NOT_AN_ADDRESS));
        }
        errors.extend(validate_host(&host));
    }
    if http.is_set() {
        let paths = http.at("paths");
        if paths.is_empty() {
            errors.push(paths.required(""));
        }
        errors.extend(paths.items().iter().flat_map(validate_path));
    }
    errors
}

fn validate_path(rule: &Field<'_>) -> Vec<FieldError> {
    const FORBIDDEN: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const FORBIDDEN_ENDS: [&str; 2] = ["/..", "/."];
    let (kind, path) = (rule.at("pathType"), rule.at("path"));
    if !kind.is_set() {
        return vec![kind.required("pathType must be specified")];
    }
    let at = |detail: String| FieldError::invalid(path.path(), path.text(), detail);
    let literal = matches!(kind.text(), "Exact" | "Prefix");
    let relative = !path.text().starts_with('/') && (literal || !path.is_empty());
    let mut errors: Vec<_> = kind.one_of(PATH_TYPES).into_iter().collect();
    if errors.is_empty() && relative {
        errors.push(at("must be an absolute path".into()));
    }
    if literal {
        let inside = FORBIDDEN.iter().filter(|part| path.text().contains(**part));
        errors.extend(inside.map(|part| at(format!("must not contain '{part}'"))));
        let ends = FORBIDDEN_ENDS.iter();
        let ends = ends.filter(|end| path.text().ends_with(**end));
        errors.extend(ends.map(|end| at(format!("cannot end with '{end}'"))));
    }
    errors.extend(validate_backend(&rule.at("backend")));
    errors
}

fn validate_backend(backend: &Field<'_>) -> Vec<FieldError> {
    let (resource, service) = (backend.at("resource"), backend.at("service"));
    let at = |detail: &str| vec![FieldError::invalid(backend.path(), "", detail)];
    match (resource.is_set(), service.is_set()) {
        (true, true) => at("cannot set both resource and service backends"),
        (true, false) => typed_reference(&resource),
        (false, true) => validate_service(backend, &service),
        (false, false) => at("resource or service backend is required"),
    }
}

fn validate_service(backend: &Field<'_>, service: &Field<'_>) -> Vec<FieldError> {
    let port = service.at("port");
    let (name, number) = (port.at("name"), port.at("number"));
    let mut errors = service.at("name").must_follow(names::dns1035_label);
    match (!name.is_empty(), number.integer() != 0) {
        (true, true) => {
            let detail = "cannot set both port name & port number";
            errors.push(FieldError::invalid(backend.path(), "", detail));
        }
        (true, false) => errors.extend(name.follows(names::port_name)),
        (false, true) => errors.extend(rules::port_number(&number)),
        (false, false) => errors.push(backend.required("port name or number is required")),
    }
    errors
}

fn validate_tls(tls: &Field<'_>) -> Vec<FieldError> {
    let mut errors: Vec<_> = tls
        .at("hosts")
        .items()
        .iter()
        .flat_map(validate_host)
        .collect();
    errors.extend(tls.at("secretName").follows(names::dns1123_subdomain));
    errors
}

fn validate_address(ingress: &Field<'_>) -> Vec<FieldError> {
    let (ip, hostname) = (ingress.at("ip"), ingress.at("hostname"));
    let mut errors = Vec::new();
    if !ip.is_empty() {
        errors.extend(rules::ip(&ip));
    }
    if !hostname.is_empty() {
        errors.extend(hostname.follows(names::dns1123_subdomain));
        if rules::ip(&hostname).is_none() {
            errors.push(hostname.invalid(NOT_AN_ADDRESS));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: &Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "i"}, "spec": spec});
        Ingress
            .validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn rules_and_backends_are_checked_where_they_are() {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        assert_eq!(errors(&json!({"defaultBackend": service})), [""; 0]);
        assert_eq!(
            errors(&json!({})),
            ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"]
        );
        let path = |path: &str, backend: &Value| {
            json!({"rules": [{"host": "*.example.com", "http": {"paths": [
                {"path": path, "pathType": "Prefix", "backend": backend}]}}]})
        };
        assert_eq!(errors(&path("/", &service)), [""; 0]);
        assert_eq!(
            errors(&path(
                "/a//b",
                &json!({"service": {"name": "web", "port": {}}})
            )),
            [
                r#"spec.rules[0].http.paths[0].path: Invalid value: "/a//b": must not contain '//'"#,
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            ]
        );
    }

    #[test]
    fn the_table_shows_every_host_once() {
        let object = json!({"metadata": {"name": "i"}, "spec": {
            "tls": [{}], "rules": [{"host": "a"}, {}]}, "status": {
            "loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}]}}});
        let cells = Ingress.cells(&object, Timestamp::UNIX_EPOCH);
        let shown: Vec<_> = cells.iter().skip(1).take(4).collect();
        assert_eq!(shown, ["<none>", "a", "1.2.3.4", "80, 443"]);
    }
}
