//! Authorization: fixed allow-lists for the parts of the cluster, roles and bindings for everybody.
//!
//! | who | may |
//! |---|---|
//! | group `system:masters` | everything |
//! | a component of the control plane | the rows of [`COMPONENTS`] under its name |
//! | `system:node:NAME` | [`NODE`], and of it only what concerns that node (`node.rs`) |
//! | group `system:bootstrappers` | ask for a node's client certificate |
//! | anybody authenticated | discovery and OpenAPI, and [`BASIC`]: questions about themselves |
//! | anybody | health, version, and ConfigMap kube-public/cluster-info |
//! | anybody | what roles are bound to them (`rbac/`) |
//!
//! Differs from Kubernetes: what components need is not a matter of roles, so nobody can take it from them.

mod components;
pub(super) mod node;

use std::borrow::Cow;

use serde_json::{Value, json};

use super::request_info::RequestInfo;
use crate::identity::{AUTHENTICATED, BOOTSTRAPPERS, MASTERS, UserInfo};
use crate::rbac::{Action, Rbac};
use crate::registry::error::{ApiError, Target};
use crate::store::Snapshot;
use components::{ALL, BOOTSTRAP, COMPONENTS, NODE, Rule, rule};

/// What everybody who is authenticated may ask about themselves.
const BASIC: &[Rule] = &[
    rule(
        &["create"],
        "authorization.k8s.io",
        &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    ),
    rule(
        &["create"],
        "authentication.k8s.io",
        &["selfsubjectreviews"],
    ),
];

/// Non-resource paths by who may read them.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
const DISCOVERY: &[&str] = &["/", "/api", "/apis", "/openapi"];

/// Refuses what `user` may not do.
///
/// # Errors
/// [`ApiError::Forbidden`] in upstream's words.
pub fn authorize(
    user: &UserInfo,
    info: &RequestInfo,
    grounds: Grounds<'_>,
    field_selector: &str,
) -> Result<(), ApiError> {
    if may(user, info, grounds, field_selector) {
        Ok(())
    } else {
        Err(forbidden(user, info))
    }
}

/// Whether `user` may do what `info` says.
#[must_use]
pub fn may(
    user: &UserInfo,
    info: &RequestInfo,
    grounds: Grounds<'_>,
    field_selector: &str,
) -> bool {
    let info = &*with_selected_name(info, field_selector);
    user.is_in(MASTERS)
        || if info.is_resource {
            may_resource(user, info, grounds.snapshot, field_selector)
        } else {
            may_path(user, info)
        }
        || may_by_role(user, info, grounds)
}

/// A list or watch of the objects of one name is a question about that object.
fn with_selected_name<'a>(info: &'a RequestInfo, field_selector: &str) -> Cow<'a, RequestInfo> {
    let mut terms = field_selector.split(',');
    let name = terms.find_map(|term| term.strip_prefix("metadata.name="));
    match name.map(|name| name.trim_start_matches('=')) {
        Some(name) if info.name.is_empty() && info.verb != "create" => {
            let mut info = info.clone();
            name.clone_into(&mut info.name);
            Cow::Owned(info)
        }
        _ => Cow::Borrowed(info),
    }
}

/// What decisions are made on.
#[derive(Clone, Copy, Debug)]
pub struct Grounds<'a> {
    /// The cluster as of now.
    pub snapshot: &'a Snapshot,
    /// Its roles and bindings.
    pub rbac: &'a Rbac,
}

fn may_by_role(user: &UserInfo, info: &RequestInfo, grounds: Grounds<'_>) -> bool {
    let action = if info.is_resource {
        Action {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: "",
        }
    } else {
        Action {
            verb: info.verb,
            path: &info.path,
            ..Action::default()
        }
    };
    let Grounds { snapshot, rbac } = grounds;
    rbac.allows(snapshot, user, &info.namespace, &action)
}

/// Everything `user` may do in a namespace, as the status of a SelfSubjectRulesReview. What a node may do
/// depends on the object besides.
#[must_use]
pub fn rules(user: &UserInfo, namespace: &str, grounds: Grounds<'_>) -> Value {
    let all = [rule(ALL, "*", ALL)];
    let (resources, paths): (Vec<&Rule>, Vec<String>) = if user.is_in(MASTERS) {
        (all.iter().collect(), vec!["*".to_owned()])
    } else {
        let own = own_rules(user).iter().chain(basic_rules(user));
        let discovery = DISCOVERY.iter().filter(|_| user.is_in(AUTHENTICATED));
        let paths = PUBLIC.iter().chain(discovery).copied();
        let below = paths.flat_map(|path| [path.to_owned(), format!("{path}/*")]);
        // What is below the root is another matter.
        (own.collect(), below.filter(|path| path != "//*").collect())
    };
    let resource = |rule: &&Rule| {
        json!({
            "verbs": rule.verbs, "apiGroups": [rule.group], "resources": rule.resources,
        })
    };
    let mut resources: Vec<_> = resources.iter().map(resource).collect();
    let verbs = if user.is_in(MASTERS) { "*" } else { "get" };
    let mut others = vec![json!({"verbs": [verbs], "nonResourceURLs": paths})];
    for rule in grounds.rbac.rules(grounds.snapshot, user, namespace) {
        match rule.to_review() {
            (true, rule) => resources.push(rule),
            (false, rule) => others.push(rule),
        }
    }
    json!({
        "resourceRules": resources,
        "nonResourceRules": others,
        "incomplete": user.node_name().is_some(),
    })
}

/// The allow-list of a user, before the restriction of nodes.
fn own_rules(user: &UserInfo) -> &'static [Rule] {
    if user.node_name().is_some() {
        return NODE;
    }
    if user.is_in(BOOTSTRAPPERS) {
        return BOOTSTRAP;
    }
    let found = COMPONENTS.iter().find(|(name, _)| *name == user.name);
    // A ServiceAccount of the same name made by a user has a uid; the component itself has none.
    match found {
        Some((_, rules)) if user.uid.is_empty() => rules,
        _ => &[],
    }
}

fn basic_rules(user: &UserInfo) -> &'static [Rule] {
    if user.is_in(AUTHENTICATED) {
        BASIC
    } else {
        &[]
    }
}

fn may_path(user: &UserInfo, info: &RequestInfo) -> bool {
    let below = |roots: &[&str]| {
        roots.iter().any(|root| {
            let rest = info.path.strip_prefix(root);
            rest.is_some_and(|rest| rest.is_empty() || (*root != "/" && rest.starts_with('/')))
        })
    };
    let reads = matches!(info.verb, "get" | "head");
    reads && (below(PUBLIC) || (user.is_in(AUTHENTICATED) && below(DISCOVERY)))
}

fn may_resource(
    user: &UserInfo,
    info: &RequestInfo,
    snapshot: &Snapshot,
    field_selector: &str,
) -> bool {
    if is_cluster_info(info) {
        return true;
    }
    if matches(basic_rules(user), info) {
        return true;
    }
    matches(own_rules(user), info)
        && user
            .node_name()
            .is_none_or(|node| node::concerns(node, info, snapshot, field_selector))
}

/// What a joining node reads to learn the cluster's authority; it holds nothing secret.
fn is_cluster_info(info: &RequestInfo) -> bool {
    let found = (
        info.verb,
        &*info.group,
        &*info.resource,
        &*info.namespace,
        &*info.name,
    );
    found == ("get", "", "configmaps", "kube-public", "cluster-info")
}

fn matches(rules: &[Rule], info: &RequestInfo) -> bool {
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    rules.iter().any(|rule| {
        (rule.group == "*" || rule.group == info.group)
            && rule
                .verbs
                .iter()
                .any(|verb| *verb == "*" || *verb == info.verb)
            && rule.resources.iter().any(|r| *r == "*" || *r == resource)
    })
}

fn forbidden(user: &UserInfo, info: &RequestInfo) -> ApiError {
    let target = Target {
        group: info.group.clone(),
        resource: info.resource.clone(),
        name: info.name.clone(),
        kind: String::new(),
    };
    let subresource = match &*info.subresource {
        "" => String::new(),
        name => format!("/{name}"),
    };
    let scope = match &*info.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let reason = if info.is_resource {
        format!(
            "User {:?} cannot {} resource \"{}{subresource}\" in API group {:?} {scope}",
            user.name, info.verb, info.resource, info.group
        )
    } else {
        format!(
            "User {:?} cannot {} path {:?}",
            user.name, info.verb, info.path
        )
    };
    ApiError::Forbidden {
        target,
        reason,
        cause: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::Query;
    use http::{Method, Uri};

    fn may(user: &UserInfo, method: &Method, uri: &str) -> bool {
        let uri: Uri = uri.parse().unwrap();
        let query = Query::of(&uri);
        let info = RequestInfo::of(method, &uri, &query);
        let grounds = Grounds {
            snapshot: &Snapshot::default(),
            rbac: &Rbac::default(),
        };
        authorize(user, &info, grounds, query.get("fieldSelector")).is_ok()
    }

    #[test]
    fn everybody_gets_what_the_table_says_and_no_more() {
        let admin = UserInfo::authenticated("admin", &[MASTERS]);
        let node = UserInfo::authenticated("system:node:a", &[crate::identity::NODES]);
        let joining = UserInfo::authenticated("system:bootstrap:abc", &[BOOTSTRAPPERS]);
        let someone = UserInfo::authenticated("someone", &[]);
        let nobody = UserInfo::anonymous();
        let scheduler = UserInfo::authenticated("system:kube-scheduler", &[]);
        let csr = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let cases = [
            (&admin, Method::DELETE, "/api/v1/nodes/a", true),
            (&someone, Method::GET, "/apis", true),
            (&someone, Method::GET, "/openapi/v3", true),
            (&someone, Method::GET, "/metrics", false),
            (&someone, Method::GET, "/api/v1/pods", false),
            (&nobody, Method::GET, "/version", true),
            (&nobody, Method::GET, "/api", false),
            (
                &nobody,
                Method::GET,
                "/api/v1/namespaces/kube-public/configmaps/cluster-info",
                true,
            ),
            (
                &nobody,
                Method::GET,
                "/api/v1/namespaces/kube-public/configmaps/other",
                false,
            ),
            (&joining, Method::POST, csr, true),
            (
                &joining,
                Method::PUT,
                "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval",
                false,
            ),
            (&node, Method::PATCH, "/api/v1/nodes/a/status", true),
            (&node, Method::PATCH, "/api/v1/nodes/b/status", false),
            (
                &node,
                Method::GET,
                "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Da",
                true,
            ),
            (
                &node,
                Method::GET,
                "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dab",
                false,
            ),
            (&node, Method::GET, "/api/v1/pods", false),
            (&node, Method::GET, "/api/v1/namespaces/x/secrets/s", false),
            (
                &node,
                Method::DELETE,
                "/apis/apps/v1/namespaces/x/deployments/d",
                false,
            ),
            (
                &scheduler,
                Method::POST,
                "/api/v1/namespaces/x/pods/p/binding",
                true,
            ),
            (&scheduler, Method::DELETE, "/api/v1/nodes/a", false),
        ];
        for (user, method, uri, expected) in cases {
            assert_eq!(
                may(user, &method, uri),
                expected,
                "{} {method} {uri}",
                user.name
            );
        }
    }

    #[test]
    fn a_refusal_says_who_cannot_do_what_where() {
        let info = RequestInfo::of(
            &Method::GET,
            &"/api/v1/namespaces/a/pods/b/log".parse().unwrap(),
            &Query::default(),
        );
        let error = forbidden(&UserInfo::anonymous(), &info);
        assert_eq!(
            error.to_string(),
            r#"pods "b" is forbidden: User "system:anonymous" cannot get resource "pods/log" in API group "" in the namespace "a""#
        );
    }
}
