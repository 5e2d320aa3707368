//! Roles and bindings: what they give, to whom, and that nobody gives what they do not have.

use http::{Method, StatusCode};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use windlass_tests::{Answer, Cluster};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/kube-public/pods";

async fn send(
    cluster: &Cluster,
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Answer {
    let json = [("content-type", "application/json")];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    cluster
        .request_as(client, method, path, &json, body)
        .await
        .unwrap()
}

async fn get(cluster: &Cluster, client: &Client, path: &str) -> StatusCode {
    send(cluster, client, Method::GET, path, &Value::Null)
        .await
        .status
}

async fn admin_creates(cluster: &Cluster, path: &str, object: Value) {
    cluster.create(path, &object).await.unwrap();
}

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "verbs": verbs, "resources": resources}]})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

#[tokio::test]
async fn a_binding_gives_what_its_role_says_where_it_is_until_it_is_taken_away() {
    let cluster = Cluster::control_plane().await.unwrap();
    let ann = cluster.client_of("ann", &[]);
    assert_eq!(get(&cluster, &ann, PODS).await, StatusCode::FORBIDDEN);
    let here = format!("{RBAC}/namespaces/kube-public");
    admin_creates(
        &cluster,
        &format!("{here}/roles"),
        role("reader", &["get", "list"], &["pods"]),
    )
    .await;
    let own = binding("ann-reads", "Role", "reader", "ann");
    admin_creates(&cluster, &format!("{here}/rolebindings"), own).await;
    assert_eq!(get(&cluster, &ann, PODS).await, StatusCode::OK);
    for refused in [
        "/api/v1/pods",
        "/api/v1/namespaces/default/pods",
        "/api/v1/namespaces/kube-public/secrets",
    ] {
        assert_eq!(
            get(&cluster, &ann, refused).await,
            StatusCode::FORBIDDEN,
            "{refused}"
        );
    }
    let delete = send(&cluster, &ann, Method::DELETE, PODS, &Value::Null).await;
    assert_eq!(delete.status, StatusCode::FORBIDDEN);
    let review = json!({"spec": {"namespace": "kube-public"}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = send(&cluster, &ann, Method::POST, reviews, &review)
        .await
        .body;
    let expected = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
    assert!(
        rules["status"]["resourceRules"]
            .as_array()
            .unwrap()
            .contains(&expected),
        "{rules}"
    );
    // Changing the role, and taking the binding away, take effect at once.
    let path = format!("{here}/roles/reader");
    let patch = [("content-type", "application/merge-patch+json")];
    let change = json!({"rules": [{"apiGroups": [""], "verbs": ["get"], "resources": ["pods"]}]});
    cluster
        .request(Method::PATCH, &path, &patch, change.to_string())
        .await
        .unwrap();
    assert_eq!(get(&cluster, &ann, PODS).await, StatusCode::FORBIDDEN);
    assert_eq!(
        get(&cluster, &ann, &format!("{PODS}/x")).await,
        StatusCode::NOT_FOUND
    );
    let path = format!("{here}/rolebindings/ann-reads");
    cluster
        .request(Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(
        get(&cluster, &ann, &format!("{PODS}/x")).await,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let cluster = Cluster::control_plane().await.unwrap();
    let here = format!("{RBAC}/namespaces/kube-public");
    let (roles, bindings) = (format!("{here}/roles"), format!("{here}/rolebindings"));
    let keeper = json!({"metadata": {"name": "keeper"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "verbs": ["*"], "resources": ["roles", "rolebindings"],
         "resourceNames": []},
        {"apiGroups": [""], "verbs": ["get"], "resources": ["pods"]},
    ]});
    let rules = keeper["rules"].as_array().unwrap().clone();
    // Without `escalate` and `bind`, which `*` would hold.
    let mut limited = rules;
    limited[0]["verbs"] = json!(["get", "create", "update", "patch", "delete"]);
    admin_creates(
        &cluster,
        &roles,
        json!({"metadata": {"name": "keeper"}, "rules": limited}),
    )
    .await;
    admin_creates(
        &cluster,
        &bindings,
        binding("bob-keeps", "Role", "keeper", "bob"),
    )
    .await;
    admin_creates(&cluster, &roles, role("strong", &["*"], &["*"])).await;
    let bob = cluster.client_of("bob", &["team"]);
    let own = send(
        &cluster,
        &bob,
        Method::POST,
        &roles,
        &role("own", &["get"], &["pods"]),
    )
    .await;
    assert_eq!(own.status, StatusCode::CREATED, "{own:?}");
    let more = send(
        &cluster,
        &bob,
        Method::POST,
        &roles,
        &role("more", &["get", "delete"], &["pods"]),
    )
    .await;
    assert_eq!(more.status, StatusCode::FORBIDDEN);
    let message = more.body["message"].as_str().unwrap();
    let expected = "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"bob\" (groups=[\"team\" \
                    \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
                    {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}";
    assert_eq!(message, expected);
    let bound = [
        (binding("a", "Role", "own", "eve"), StatusCode::CREATED),
        (binding("b", "Role", "strong", "bob"), StatusCode::FORBIDDEN),
        (
            binding("c", "ClusterRole", "cluster-admin", "bob"),
            StatusCode::FORBIDDEN,
        ),
        (
            binding("d", "Role", "missing", "bob"),
            StatusCode::NOT_FOUND,
        ),
    ];
    for (object, expected) in bound {
        let answer = send(&cluster, &bob, Method::POST, &bindings, &object).await;
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    // Raising a role that is bound to oneself is the same thing.
    let raise = json!({"rules": [{"apiGroups": ["*"], "verbs": ["*"], "resources": ["*"]}]});
    let patch = [("content-type", "application/merge-patch+json")];
    let path = format!("{roles}/keeper");
    let raised = cluster
        .request_as(&bob, Method::PATCH, &path, &patch, raise.to_string())
        .await
        .unwrap();
    assert_eq!(raised.status, StatusCode::FORBIDDEN);
    // A change that leaves the rules alone is none of this.
    let label = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let labelled = cluster
        .request_as(
            &bob,
            Method::PATCH,
            &format!("{roles}/strong"),
            &patch,
            label,
        )
        .await
        .unwrap();
    assert_eq!(labelled.status, StatusCode::OK, "{labelled:?}");
}

#[tokio::test]
async fn the_usual_roles_are_there_and_collect_each_others_rules() {
    let cluster = Cluster::control_plane().await.unwrap();
    let here = format!("{RBAC}/namespaces/kube-public/rolebindings");
    for (name, role) in [("v", "view"), ("e", "edit"), ("a", "admin")] {
        let user = format!("{role}-user");
        admin_creates(&cluster, &here, binding(name, "ClusterRole", role, &user)).await;
    }
    // The controller collects soon after the start.
    let roles: Api<ClusterRole> = Api::all(cluster.client());
    let collected = |role: Option<&ClusterRole>| {
        let rules = role.and_then(|role| role.rules.as_ref());
        let secrets = |rule: &PolicyRule| rule.resources.iter().flatten().any(|of| of == "secrets");
        rules.is_some_and(|rules| rules.iter().any(secrets))
    };
    await_condition(roles, "admin", collected).await.unwrap();
    let secrets = "/api/v1/namespaces/kube-public/secrets";
    let roles = format!("{RBAC}/namespaces/kube-public/roles");
    let cases = [
        ("view-user", PODS, Method::GET, true),
        ("view-user", secrets, Method::GET, false),
        ("view-user", PODS, Method::DELETE, false),
        ("edit-user", secrets, Method::GET, true),
        ("edit-user", PODS, Method::DELETE, true),
        ("edit-user", &roles, Method::GET, false),
        ("admin-user", &roles, Method::GET, true),
        ("admin-user", "/api/v1/nodes", Method::GET, false),
    ];
    for (user, path, method, allowed) in cases {
        let client = cluster.client_of(user, &[]);
        let answer = send(&cluster, &client, method.clone(), path, &Value::Null).await;
        assert_eq!(
            answer.status == StatusCode::OK,
            allowed,
            "{user} {method} {path}"
        );
    }
}
