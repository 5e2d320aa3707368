//! One rule of a role: what it allows, and whether it covers another. Source: upstream's `rbac/v1` helpers.

use serde_json::Value;

/// What a request does, as rules see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Action<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural resource name; empty for a request on a path.
    pub resource: &'a str,
    /// Subresource, empty if none.
    pub subresource: &'a str,
    /// Object name, empty if none.
    pub name: &'a str,
    /// Path of a request on no resource.
    pub path: &'a str,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    urls: Vec<String>,
}

impl Rule {
    /// Reads an entry of a role's `rules`.
    #[must_use]
    pub fn of(rule: &Value) -> Self {
        let texts = |field: &str| {
            let items = rule.get(field).and_then(Value::as_array);
            let items = items.into_iter().flatten().filter_map(Value::as_str);
            items.map(str::to_owned).collect()
        };
        Self {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            urls: texts("nonResourceURLs"),
        }
    }

    /// The same as a rules review writes it: a resource rule, or one about paths.
    #[must_use]
    pub fn to_review(&self) -> (bool, Value) {
        if self.urls.is_empty() {
            let mut rule = serde_json::json!({
                "verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources,
            });
            if let (Some(rule), false) = (rule.as_object_mut(), self.names.is_empty()) {
                rule.insert("resourceNames".into(), self.names.clone().into());
            }
            return (true, rule);
        }
        let rule = serde_json::json!({ "verbs": self.verbs, "nonResourceURLs": self.urls });
        (false, rule)
    }

    /// Whether it allows the action.
    #[must_use]
    pub fn allows(&self, action: &Action<'_>) -> bool {
        if !has(&self.verbs, action.verb) {
            return false;
        }
        if action.resource.is_empty() {
            return self.urls.iter().any(|url| is_below(url, action.path));
        }
        has(&self.groups, action.group)
            && self.has_resource(action.resource, action.subresource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == action.name))
    }

    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|of| match of.split_once('/') {
            None => of == "*" || (subresource.is_empty() && of == resource),
            Some((of, sub)) => {
                !subresource.is_empty() && sub == subresource && (of == "*" || of == resource)
            }
        })
    }

    /// The rule split into actions that are each covered as a whole or not at all; `*` stays what it is.
    pub fn atoms(&self) -> Vec<Self> {
        let names: Vec<Option<&String>> = if self.names.is_empty() {
            vec![None]
        } else {
            self.names.iter().map(Some).collect()
        };
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                atoms.push(Self {
                    verbs: vec![verb.clone()],
                    urls: vec![url.clone()],
                    ..Self::default()
                });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    atoms.extend(names.iter().map(|name| Self {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        names: name.iter().map(|name| (*name).clone()).collect(),
                        urls: Vec::new(),
                    }));
                }
            }
        }
        atoms
    }

    /// Whether it allows everything that an atom does.
    #[must_use]
    pub fn covers(&self, atom: &Self) -> bool {
        let all = |own: &[String], others: &[String]| others.iter().all(|other| has(own, other));
        if !all(&self.verbs, &atom.verbs) {
            return false;
        }
        if !atom.urls.is_empty() {
            let covered = |url: &String| self.urls.iter().any(|own| is_below(own, url));
            return atom.urls.iter().all(covered);
        }
        let covered = |resource: &String| {
            let (of, sub) = resource.split_once('/').unwrap_or((resource, ""));
            self.resources.contains(resource) || self.has_resource(of, sub)
        };
        all(&self.groups, &atom.groups)
            && atom.resources.iter().all(covered)
            && (self.names.is_empty()
                || (!atom.names.is_empty()
                    && atom.names.iter().all(|name| self.names.contains(name))))
    }
}

/// As upstream writes it in refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("NonResourceURLs", &self.urls),
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let parts = parts.into_iter().filter(|(_, texts)| !texts.is_empty());
        let parts = parts.map(|(name, texts)| format!("{name}:{texts:?}"));
        write!(f, "{{{}}}", parts.collect::<Vec<_>>().join(", "))
    }
}

fn has(texts: &[String], text: &str) -> bool {
    texts.iter().any(|own| own == "*" || own == text)
}

/// Whether a path is what a URL of a rule says, which may end in `*`.
fn is_below(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => url == path,
    }
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(verbs: Value, groups: Value, resources: Value, names: Value) -> Rule {
        Rule::of(&json!({
            "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names,
        }))
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let action = |verb, group, resource, subresource, name| Action {
            verb,
            group,
            resource,
            subresource,
            name,
            path: "",
        };
        let get_pod = action("get", "", "pods", "", "a");
        let get_log = action("get", "", "pods", "log", "a");
        let scale = action("update", "apps", "deployments", "scale", "a");
        let cases = [
            (
                rule(json!(["get"]), json!([""]), json!(["pods"]), json!([])),
                [true, false, false],
            ),
            (
                rule(json!(["get"]), json!([""]), json!(["pods/log"]), json!([])),
                [false, true, false],
            ),
            (
                rule(json!(["*"]), json!(["*"]), json!(["*"]), json!([])),
                [true, true, true],
            ),
            (
                rule(json!(["*"]), json!(["apps"]), json!(["*/scale"]), json!([])),
                [false, false, true],
            ),
            (
                rule(json!(["get"]), json!([""]), json!(["pods"]), json!(["b"])),
                [false, false, false],
            ),
            (
                rule(json!(["get"]), json!([""]), json!(["pods"]), json!(["a"])),
                [true, false, false],
            ),
            (
                rule(json!(["GET"]), json!([""]), json!(["Pods"]), json!([])),
                [false, false, false],
            ),
        ];
        for (rule, expected) in cases {
            let found = [get_pod, get_log, scale].map(|action| rule.allows(&action));
            assert_eq!(found, expected, "{rule}");
        }
    }

    #[test]
    fn paths_are_matched_whole_or_by_prefix() {
        let rule = Rule::of(&json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
        let path = |path| Action {
            verb: "get",
            path,
            ..Action::default()
        };
        for (of, expected) in [
            ("/healthz", true),
            ("/healthz/x", false),
            ("/api/v1", true),
            ("/api", false),
        ] {
            assert_eq!(rule.allows(&path(of)), expected, "{of}");
        }
    }

    #[test]
    fn a_rule_covers_no_more_than_it_allows() {
        let own = rule(
            json!(["get", "list"]),
            json!([""]),
            json!(["pods", "pods/log"]),
            json!([]),
        );
        let named = rule(
            json!(["get"]),
            json!([""]),
            json!(["secrets"]),
            json!(["a"]),
        );
        let covered = |of: &Rule, rule: &Rule| rule.atoms().iter().all(|atom| of.covers(atom));
        let cases = [
            (
                &own,
                rule(
                    json!(["get"]),
                    json!([""]),
                    json!(["pods", "pods/log"]),
                    json!([]),
                ),
                true,
            ),
            (
                &own,
                rule(json!(["get"]), json!([""]), json!(["pods"]), json!(["x"])),
                true,
            ),
            (
                &own,
                rule(json!(["*"]), json!([""]), json!(["pods"]), json!([])),
                false,
            ),
            (
                &own,
                rule(json!(["get"]), json!(["*"]), json!(["pods"]), json!([])),
                false,
            ),
            (
                &own,
                rule(json!(["get"]), json!([""]), json!(["*"]), json!([])),
                false,
            ),
            (
                &named,
                rule(
                    json!(["get"]),
                    json!([""]),
                    json!(["secrets"]),
                    json!(["a"]),
                ),
                true,
            ),
            (
                &named,
                rule(json!(["get"]), json!([""]), json!(["secrets"]), json!([])),
                false,
            ),
            (
                &named,
                rule(
                    json!(["get"]),
                    json!([""]),
                    json!(["secrets"]),
                    json!(["a", "b"]),
                ),
                false,
            ),
        ];
        for (of, rule, expected) in cases {
            assert_eq!(covered(of, &rule), expected, "{of} covers {rule}");
        }
    }
}
