//! What is audited and how much of it: a file of kind `Policy`.
//!
//! The first rule that fits a request says the level; without one it is not audited.

use serde::Deserialize;
use thiserror::Error;

use crate::file_kind::{self, WrongKind};
use crate::identity::UserInfo;
use crate::server::request_info::RequestInfo;

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";

/// How much of a request is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who did what when, and with which result.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    /// Before the request is authorised.
    RequestReceived,
    /// Once the answer of a request that lasts by nature begins.
    ResponseStarted,
    /// Once there is nothing more to come.
    ResponseComplete,
    /// A fault in the server ended the request.
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is kept of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

/// What is audited.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What is wrong with a policy.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// It is not what it should be.
    #[error("not an audit policy: {0}")]
    Form(String),
    /// It is of another kind.
    #[error(transparent)]
    Kind(#[from] WrongKind),
    /// Nothing would be audited.
    #[error("rules: there must be at least one")]
    Empty,
    /// A rule is not as it must be.
    #[error("rules[{at}].{field}: {problem}")]
    Rule {
        /// Which.
        at: usize,
        /// Its field.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Policy {
    /// Reads a file of kind `Policy`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self =
            serde_yaml::from_str(text).map_err(|error| PolicyError::Form(error.to_string()))?;
        let kind = (&*policy.kind, &*policy.api_version);
        file_kind::check("the file", kind, KIND, &[API_VERSION])?;
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            if let Err((field, problem)) = rule.check() {
                return Err(PolicyError::Rule { at, field, problem });
            }
        }
        Ok(policy)
    }

    /// What is kept of a request.
    pub(super) fn decide(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, info)) else {
            return Decision::default();
        };
        let omitted = self.omit_stages.iter().chain(&rule.omit_stages);
        Decision {
            level: rule.level,
            omit_stages: omitted.copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.paths.is_empty() {
            let problem = "rules cannot apply to both regular resources and non-resource URLs";
            return Err(("nonResourceURLs", problem));
        }
        for path in &self.paths {
            let stem = path.strip_suffix('*').unwrap_or(path);
            if path != "*" && !path.starts_with('/') {
                let problem = "non-resource URL rules must begin with a '/' character";
                return Err(("nonResourceURLs", problem));
            }
            if stem.contains('*') {
                let problem =
                    "non-resource URL wildcards '*' must be the final character of the rule";
                return Err(("nonResourceURLs", problem));
            }
        }
        let names = |of: &Resources| !of.resource_names.is_empty() && of.resources.is_empty();
        if self.resources.iter().any(names) {
            let problem = "using resourceNames requires at least one resource";
            return Err(("resources", problem));
        }
        if self.resources.iter().any(|of| of.group.contains('/')) {
            let problem = "a group is named without its version";
            return Err(("resources", problem));
        }
        Ok(())
    }

    fn fits(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let is_one = |list: &[String], text: &str| list.iter().any(|item| item == text);
        let fits = |list: &[String], text: &str| list.is_empty() || is_one(list, text);
        if !fits(&self.users, &user.name) || !fits(&self.verbs, info.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.is_in(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && fits(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|of| of.fit(info)));
        }
        if !self.paths.is_empty() {
            let on_path = |path: &String| match path.strip_suffix('*') {
                Some(stem) => info.path.starts_with(stem),
                None => info.path == *path,
            };
            return !info.is_resource && self.paths.iter().any(on_path);
        }
        true
    }
}

impl Resources {
    fn fit(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        let names = &self.resource_names;
        let named = names.is_empty() || names.contains(&info.name);
        let fits = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || (*pattern == info.resource && info.subresource.is_empty()),
            Some((resource, subresource)) => {
                (resource == "*" && subresource == info.subresource)
                    || (resource == info.resource
                        && (subresource == "*" || subresource == info.subresource))
            }
        };
        self.resources.is_empty() || (named && self.resources.iter().any(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Policy {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n";
        Policy::parse(&format!("{head}rules:\n{rules}")).unwrap()
    }

    fn request(verb: &'static str, resource: &str, namespace: &str, name: &str) -> RequestInfo {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        RequestInfo {
            verb,
            is_resource: true,
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn the_first_rule_that_fits_says_the_level() {
        let policy = policy(
            r#"
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: Metadata, resources: [{group: "", resources: [secrets, configmaps, "pods/log"]}]}
- {level: None, userGroups: ["system:nodes"]}
- {level: Request, namespaces: [""], omitStages: [ResponseStarted], omitManagedFields: true}
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- {level: RequestResponse, resources: [{resources: ["*/status", "deployments/*"]}]}
- {level: Request, resources: [{resources: [pods], resourceNames: [a]}]}
"#,
        );
        let alice = UserInfo::authenticated("alice", &[]);
        let node = UserInfo::authenticated("system:node:n", &["system:nodes"]);
        let level = |user: &UserInfo, info: &RequestInfo| policy.decide(user, info).level;
        for (user, info, expected) in [
            (&alice, request("get", "secrets", "d", "s"), Level::Metadata),
            (&node, request("get", "secrets", "d", "s"), Level::Metadata),
            (&node, request("get", "pods", "d", "p"), Level::None),
            (
                &alice,
                request("get", "pods/log", "d", "p"),
                Level::Metadata,
            ),
            (&alice, request("get", "nodes", "", "n"), Level::Request),
            (&alice, request("get", "pods", "d", "a"), Level::Request),
            (&alice, request("get", "pods", "d", "b"), Level::None),
            (
                &alice,
                request("update", "pods/status", "d", "b"),
                Level::RequestResponse,
            ),
            (
                &alice,
                request("get", "deployments/scale", "d", "b"),
                Level::RequestResponse,
            ),
        ] {
            assert_eq!(
                level(&user.clone(), &info),
                expected,
                "{} {info:?}",
                user.name
            );
        }
        let decision = policy.decide(&alice, &request("get", "nodes", "", "n"));
        assert!(decision.omit_managed_fields);
        let omitted = [Stage::RequestReceived, Stage::ResponseStarted];
        assert_eq!(decision.omit_stages, omitted);
        let path = |path: &str| RequestInfo {
            verb: "get",
            path: path.into(),
            ..RequestInfo::default()
        };
        assert_eq!(level(&alice, &path("/healthz/ping")), Level::None);
    }

    #[test]
    fn a_policy_says_what_is_wrong_with_it() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for (rules, wanted) in [
            ("rules: []", "at least one"),
            ("rules: [{level: Some}]", "not an audit policy"),
            ("rules: [{level: None, verb: [get]}]", "not an audit policy"),
            (
                "rules: [{level: None, nonResourceURLs: [healthz]}]",
                "rules[0].nonResourceURLs",
            ),
            (
                "rules: [{level: None, nonResourceURLs: [\"/a*b\"]}]",
                "rules[0].nonResourceURLs",
            ),
            (
                "rules: [{level: None, namespaces: [a], nonResourceURLs: [\"/a\"]}]",
                "both",
            ),
            (
                "rules: [{level: None, resources: [{resourceNames: [a]}]}]",
                "rules[0].resources",
            ),
            (
                "rules: [{level: None, resources: [{group: apps/v1}]}]",
                "rules[0].resources",
            ),
        ] {
            let error = Policy::parse(&format!("{head}{rules}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(wanted), "{rules}: {error}");
        }
        let other = Policy::parse("apiVersion: v1\nkind: Policy\nrules: [{level: None}]");
        assert!(matches!(other, Err(PolicyError::Kind(_))));
    }
}
