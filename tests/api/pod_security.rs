//! Pod security: what namespaces keep their pods from, and what writers are told.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_control::admission::PodSecurityConfiguration;
use windlass_tests::{Answer, Cluster};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn namespace(cluster: &Cluster, name: &str, labels: &Value) {
    let labels = labels.as_object().unwrap().iter();
    let labels: serde_json::Map<_, _> = labels
        .map(|(label, value)| (format!("pod-security.kubernetes.io/{label}"), value.clone()))
        .collect();
    let object = json!({"metadata": {"name": name, "labels": labels}});
    cluster.create("/api/v1/namespaces", &object).await.unwrap();
    let account = json!({"metadata": {"name": "default"}});
    let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
    // The controller may have been faster.
    let made = send(cluster, Method::POST, &accounts, &account).await;
    assert!([201, 409].contains(&made.status.as_u16()));
}

async fn send(cluster: &Cluster, method: Method, path: &str, body: &Value) -> Answer {
    let kind = match method {
        Method::PATCH => ("content-type", "application/merge-patch+json"),
        _ => JSON,
    };
    cluster
        .request(method, path, &[kind], body.to_string())
        .await
        .unwrap()
}

fn pod(name: &str, context: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "securityContext": context}]}})
}

fn careful(name: &str) -> Value {
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    pod(name, &context)
}

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    let text = |value: &http::HeaderValue| {
        let quoted = value.to_str().unwrap().strip_prefix("299 - ").unwrap();
        serde_json::from_str(quoted).unwrap()
    };
    all.map(text).collect()
}

#[tokio::test]
async fn a_namespace_refuses_pods_that_break_what_it_enforces() {
    let cluster = Cluster::control_plane().await.unwrap();
    namespace(&cluster, "strict", &json!({"enforce": "restricted"})).await;
    let pods = "/api/v1/namespaces/strict/pods";
    let refused = send(
        &cluster,
        Method::POST,
        pods,
        &pod("p", &json!({"runAsNonRoot": true})),
    )
    .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.body["message"],
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": \
         allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let made = send(&cluster, Method::POST, pods, &careful("p")).await;
    assert_eq!(
        (made.status, warnings(&made)),
        (StatusCode::CREATED, vec![])
    );
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let path = format!("{pods}/p/ephemeralcontainers");
    let refused = send(&cluster, Method::PATCH, &path, &debug).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    let patch = [("content-type", "application/strategic-merge-patch+json")];
    let changed = cluster
        .request(
            Method::PATCH,
            &format!("{pods}/p"),
            &patch,
            image.to_string(),
        )
        .await
        .unwrap();
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let deleted = send(&cluster, Method::DELETE, &format!("{pods}/p"), &json!({})).await;
    assert_eq!(deleted.status, StatusCode::OK, "{}", deleted.body);
    cluster.shutdown().await;
}

#[tokio::test]
async fn writers_of_workloads_are_warned_and_a_stricter_namespace_says_who_breaks_it() {
    let cluster = Cluster::control_plane().await.unwrap();
    namespace(
        &cluster,
        "soft",
        &json!({"warn": "baseline", "warn-version": "v1.30"}),
    )
    .await;
    let privileged = pod("p", &json!({"privileged": true}));
    let text = "would violate PodSecurity \"baseline:v1.30\": \
                privileged (container \"c\" must not set securityContext.privileged=true)";
    let pods = "/api/v1/namespaces/soft/pods";
    let made = send(&cluster, Method::POST, pods, &privileged).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(warnings(&made), [text]);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]}}});
    let deployments = "/apis/apps/v1/namespaces/soft/deployments?dryRun=All";
    let made = send(&cluster, Method::POST, deployments, &deployment).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(warnings(&made), [text]);
    let cron_job = json!({"metadata": {"name": "c"}, "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": privileged["spec"]["containers"]}}}}}});
    let cron_jobs = "/apis/batch/v1/namespaces/soft/cronjobs";
    let made = send(&cluster, Method::POST, cron_jobs, &cron_job).await;
    assert_eq!(warnings(&made), [text]);
    for name in ["q", "r"] {
        let made = send(
            &cluster,
            Method::POST,
            pods,
            &pod(name, &json!({"privileged": true})),
        )
        .await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let label = |value: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": value}}});
    let soft = "/api/v1/namespaces/soft";
    let stricter = send(&cluster, Method::PATCH, soft, &label("baseline")).await;
    assert_eq!(
        warnings(&stricter),
        [
            "existing pods in namespace \"soft\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "p (and 2 other pods): privileged",
        ]
    );
    let wrong = send(&cluster, Method::PATCH, soft, &label("strict")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        wrong.body["message"],
        "Namespace \"soft\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: \
         Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_configuration_says_what_holds_without_labels_and_who_is_exempt() {
    let configuration = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions: {namespaces: [free], usernames: [ann]}
";
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.admission.pod_security = PodSecurityConfiguration::parse(configuration).unwrap();
    })
    .await
    .unwrap();
    for (name, labels, status) in [
        ("silent", json!({}), StatusCode::FORBIDDEN),
        (
            "open",
            json!({"enforce": "privileged"}),
            StatusCode::CREATED,
        ),
        (
            "free",
            json!({"enforce": "restricted"}),
            StatusCode::CREATED,
        ),
    ] {
        namespace(&cluster, name, &labels).await;
        let pods = format!("/api/v1/namespaces/{name}/pods");
        let privileged = pod("p", &json!({"privileged": true}));
        let made = send(&cluster, Method::POST, &pods, &privileged).await;
        assert_eq!(made.status, status, "{name}");
    }
    let ann = cluster.client_of("ann", &["system:masters"]);
    let body = pod("p", &json!({"privileged": true})).to_string();
    let pods = "/api/v1/namespaces/silent/pods";
    let made = cluster.request_as(&ann, Method::POST, pods, &[JSON], body);
    assert_eq!(made.await.unwrap().status, StatusCode::CREATED);
    cluster.shutdown().await;
}
