//! FlowSchema: which requests go to which priority level.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, conditions};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{default_number, integer, items, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct FlowSchema;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "FlowSchema");
    Kind::cluster(gvk, "flowschemas", &FlowSchema)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("PriorityLevel", "string", "Where its requests go."),
    Column::new(
        "MatchingPrecedence",
        "string",
        "Lower ones are asked first whether they match.",
    ),
    Column::new("DistinguisherMethod", "string", "What makes flows of it."),
    AGE,
    Column::new(
        "MissingPL",
        "string",
        "Whether its priority level is missing.",
    ),
];

const DISTINGUISHERS: &[&str] = &["ByNamespace", "ByUser"];
const SUBJECT_KINDS: &[&str] = &["Group", "ServiceAccount", "User"];
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
const MAX_PRECEDENCE: i64 = 10_000;

/// Kinds of subjects with the member that describes each.
const SUBJECTS: [(&str, &str); 3] = [
    ("ServiceAccount", "serviceAccount"),
    ("User", "user"),
    ("Group", "group"),
];

impl Strategy for FlowSchema {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default_number(spec, "matchingPrecedence", 1000);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = validate_precedence(&spec.at("matchingPrecedence"), meta::name(object));
        let distinguisher = spec.at("distinguisherMethod");
        if distinguisher.is_set() {
            errors.extend(distinguisher.at("type").one_of(DISTINGUISHERS));
        }
        let level = spec.at("priorityLevelConfiguration").at("name");
        if level.is_empty() {
            errors.push(level.required("must reference a priority level"));
        }
        errors.extend(level.follows(names::dns1123_subdomain));
        errors.extend(spec.at("rules").items().iter().flat_map(validate_rule));
        errors
    }

    fn validate_update(&self, _: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        match endpoint {
            Endpoint::Status => conditions(&Field::root(new).at("status").at("conditions")),
            _ => Vec::new(),
        }
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("FlowSchema is stored but not enforced by Windlass yet")
    }

    fn has_status(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let distinguisher = match text(object, "/spec/distinguisherMethod/type") {
            "" => "<none>",
            method => method,
        };
        let conditions = items(object, "/status/conditions").iter();
        let mut dangling = conditions.filter(|c| text(c, "/type") == "Dangling");
        let missing = dangling.next().map_or("?", |c| text(c, "/status"));
        vec![
            meta::name(object).into(),
            text(object, "/spec/priorityLevelConfiguration/name").into(),
            integer(object, "/spec/matchingPrecedence").into(),
            distinguisher.into(),
            age(object, now).into(),
            missing.into(),
        ]
    }
}

fn validate_precedence(precedence: &Field<'_>, name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match precedence.integer() {
        ..=0 => errors.push(precedence.invalid("must be a positive value")),
        1 if name != "exempt" => {
            let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.push(precedence.invalid(detail));
        }
        1..=MAX_PRECEDENCE => {}
        _ => {
            let detail = format!("must not be greater than {MAX_PRECEDENCE}");
            errors.push(precedence.invalid(detail));
        }
    }
    errors
}

fn validate_rule(rule: &Field<'_>) -> Vec<FieldError> {
    let subjects = rule.at("subjects");
    let mut errors = Vec::new();
    if subjects.is_empty() {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    errors.extend(subjects.items().iter().flat_map(validate_subject));
    let (resources, others) = (rule.at("resourceRules"), rule.at("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(rule.required(detail));
    }
    errors.extend(resources.items().iter().flat_map(validate_resource_rule));
    errors.extend(others.items().iter().flat_map(validate_url_rule));
    errors
}

fn validate_subject(subject: &Field<'_>) -> Vec<FieldError> {
    let kind = subject.at("kind");
    if let Some(error) = kind.one_of(SUBJECT_KINDS) {
        return vec![error];
    }
    let mut errors = Vec::new();
    for (of, member) in SUBJECTS {
        let described = subject.at(member);
        match (of == kind.text(), described.is_set()) {
            (true, true) => errors.extend(validate_described(of, &described)),
            (true, false) => {
                let detail = format!("{member} is required when subject kind is '{of}'");
                errors.push(described.required(&detail));
            }
            (false, true) => {
                let detail = format!("{member} is forbidden when subject kind is not '{of}'");
                errors.push(described.forbidden(detail));
            }
            (false, false) => {}
        }
    }
    errors
}

fn validate_described(kind: &str, subject: &Field<'_>) -> Vec<FieldError> {
    let (name, namespace) = (subject.at("name"), subject.at("namespace"));
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push(name.required(""));
    }
    if kind == "ServiceAccount" {
        if name.text() != "*" {
            errors.extend(name.follows(names::dns1123_subdomain));
        }
        if namespace.is_empty() {
            let detail = "must specify namespace for service account";
            errors.push(namespace.required(detail));
        }
        errors.extend(namespace.follows(names::dns1123_label));
    }
    errors
}

/// `*` stands alone in a list.
fn alone(list: &Field<'_>, what: &str) -> Option<FieldError> {
    let crowded = list.len() > 1 && list.texts().contains(&"*");
    let detail = format!("if '*' is present, must not specify other {what}");
    crowded.then(|| list.invalid(detail))
}

fn validate_verbs(verbs: &Field<'_>) -> Vec<FieldError> {
    let texts = verbs.texts();
    if texts.is_empty() {
        vec![verbs.required("verbs must contain at least one value")]
    } else if texts.contains(&"*") {
        alone(verbs, "verbs").into_iter().collect()
    } else if texts.iter().all(|verb| VERBS.contains(verb)) {
        Vec::new()
    } else {
        vec![verbs.not_supported(VERBS)]
    }
}

fn validate_resource_rule(rule: &Field<'_>) -> Vec<FieldError> {
    let mut errors = validate_verbs(&rule.at("verbs"));
    for (list, one, many) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let list = rule.at(list);
        if list.is_empty() {
            let detail = format!("resource rules must supply at least one {one}");
            errors.push(list.required(&detail));
        }
        errors.extend(alone(&list, many));
    }
    let namespaces = rule.at("namespaces");
    if namespaces.is_empty() && !rule.at("clusterScope").is_true() {
        let detail =
            "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(namespaces.required(detail));
    } else if namespaces.texts().contains(&"*") {
        errors.extend(alone(&namespaces, "namespaces"));
    } else {
        let rule = |namespace: &str| {
            let problems = names::dns1123_label(namespace).into_iter();
            let introduce = |problem| {
                format!("each member of this list must be '*' or a DNS-1123 label; {problem}")
            };
            problems.map(introduce).collect()
        };
        let members = namespaces.items();
        errors.extend(members.iter().flat_map(|member| member.checked(rule)));
    }
    errors
}

fn validate_url_rule(rule: &Field<'_>) -> Vec<FieldError> {
    let mut errors = validate_verbs(&rule.at("verbs"));
    let urls = rule.at("nonResourceURLs");
    if urls.is_empty() {
        let detail = "nonResourceURLs must contain at least one value";
        errors.push(urls.required(detail));
    } else if urls.texts().contains(&"*") {
        errors.extend(alone(&urls, "non-resource URLs"));
    } else {
        let problem = |url: &Field<'_>| validate_url(url.text()).map(|detail| url.invalid(detail));
        errors.extend(urls.items().iter().filter_map(problem));
    }
    errors
}

fn validate_url(path: &str) -> Option<&'static str> {
    let wildcards = path.matches('*').count();
    if path == "/" {
        None
    } else if path.is_empty() {
        Some("must not be empty")
    } else if !path.starts_with('/') {
        Some("must start with slash")
    } else if path.contains(' ') {
        Some("must not contain white-space")
    } else if path.contains("//") {
        Some("must not contain double slash")
    } else if wildcards > 1 || (wildcards == 1 && !path.ends_with("/*")) {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_whose_requests_for_what() {
        let mut object = json!({"metadata": {"name": "f"}, "spec": {
            "priorityLevelConfiguration": {"name": "global-default"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "u"}, "group": {"name": "g"}}],
                "resourceRules": [{"verbs": ["*", "get"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a*", "/b/*"]}],
            }],
        }});
        FlowSchema.set_defaults(&mut object);
        let errors = FlowSchema.validate(&object);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let rule = "spec.rules[0]";
        assert_eq!(
            texts,
            [
                format!(
                    "{rule}.subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'"
                ),
                format!(
                    r#"{rule}.resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs"#
                ),
                format!(
                    "{rule}.resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace"
                ),
                format!(
                    r#"{rule}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: "/a*": wildcard can only do suffix matching"#
                ),
            ]
        );
    }
}
