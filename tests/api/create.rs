//! POST.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::Cluster;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_created_object_has_what_the_server_fills_in() {
    let cluster = Cluster::control_plane().await.unwrap();
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let created = cluster.create(CONFIG_MAPS, &object).await.unwrap();
    assert_eq!(
        (&created["apiVersion"], &created["kind"]),
        (&json!("v1"), &json!("ConfigMap"))
    );
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(
            !created["metadata"][field].as_str().unwrap().is_empty(),
            "{field}"
        );
    }
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(
        created["metadata"]["managedFields"][0]["operation"],
        "Update"
    );
}

#[tokio::test]
async fn generated_names_are_unique() {
    let cluster = Cluster::control_plane().await.unwrap();
    let object = json!({"metadata": {"generateName": "x-"}});
    let mut names = Vec::new();
    for _ in 0..10 {
        let created = cluster.create(CONFIG_MAPS, &object).await.unwrap();
        names.push(created["metadata"]["name"].as_str().unwrap().to_owned());
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10);
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("x-") && name.len() == 7),
        "{names:?}"
    );
}

#[tokio::test]
async fn bad_objects_are_refused_in_kubernetes_words() {
    let cluster = Cluster::control_plane().await.unwrap();
    cluster
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "there"}}))
        .await
        .unwrap();
    let cases = [
        (
            r#"{"metadata":{"name":"there"}}"#,
            409,
            r#"configmaps "there" already exists"#,
        ),
        (
            r#"{"metadata":{"name":"Bad_Name"}}"#,
            422,
            r#"ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of"#,
        ),
        (
            r#"{"metadata":{}}"#,
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            r#"{"metadata":{"name":"x","namespace":"other"}}"#,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            r#"{"metadata":{"name":"x","resourceVersion":"7"}}"#,
            400,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}"#,
            400,
            "does not match the expected kind",
        ),
        (
            r#"{"metadata":{"name":"x"},"data":{"k":7}}"#,
            400,
            "cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (r#"{"metadata":"#, 400, "line 1 column"),
        ("[]", 400, "the body is not a ConfigMap object"),
    ];
    for (body, status, message) in cases {
        let json = [("content-type", "application/json")];
        let answer = cluster
            .request(Method::POST, CONFIG_MAPS, &json, body)
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
        let found = answer.body["message"].as_str().unwrap();
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[tokio::test]
async fn unknown_and_duplicate_fields_follow_field_validation() {
    let cluster = Cluster::control_plane().await.unwrap();
    let body = r#"{"metadata":{"name":"v"},"data":{},"extra":1,"data":{}}"#;
    let json = [("content-type", "application/json")];
    let path = |mode| format!("{CONFIG_MAPS}?dryRun=All&fieldValidation={mode}");
    let strict = cluster
        .request(Method::POST, &path("Strict"), &json, body)
        .await
        .unwrap();
    assert_eq!(strict.status, StatusCode::BAD_REQUEST);
    let message = strict.body["message"].as_str().unwrap();
    let expected = r#"strict decoding error: unknown field "extra", duplicate field "data""#;
    assert!(message.ends_with(expected), "{message}");
    let warn = cluster
        .request(Method::POST, &path("Warn"), &json, body)
        .await
        .unwrap();
    assert_eq!(warn.status, StatusCode::CREATED);
    let warnings: Vec<_> = warn.headers.get_all("warning").iter().collect();
    assert_eq!(warnings[0], r#"299 - "unknown field \"extra\"""#);
    let ignore = cluster
        .request(Method::POST, &path("Ignore"), &json, body)
        .await
        .unwrap();
    assert!(!ignore.headers.contains_key("warning"));
}

#[tokio::test]
async fn yaml_is_read_and_unknown_formats_are_refused_by_name() {
    let cluster = Cluster::control_plane().await.unwrap();
    let yaml = [("content-type", "application/yaml")];
    let body = "metadata:\n  name: yam\ndata:\n  a: b\n";
    let answer = cluster
        .request(Method::POST, CONFIG_MAPS, &yaml, body)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let broken = cluster
        .request(Method::POST, CONFIG_MAPS, &yaml, "a: [\n")
        .await
        .unwrap();
    assert!(
        broken.body["message"].as_str().unwrap().contains("line"),
        "{broken:?}"
    );
    let cbor = [("content-type", "application/cbor")];
    let answer = cluster
        .request(Method::POST, CONFIG_MAPS, &cbor, "k8s")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(answer.body["reason"], "UnsupportedMediaType");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let cluster = Cluster::control_plane().await.unwrap();
    let body = format!(
        r#"{{"metadata":{{"name":"x"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(4 << 20)
    );
    let answer = cluster
        .request(Method::POST, CONFIG_MAPS, &[], body)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.body["reason"], "RequestEntityTooLarge");
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_not_there() {
    let cluster = Cluster::control_plane().await.unwrap();
    let path = "/api/v1/namespaces/nowhere/configmaps";
    let body = r#"{"metadata":{"name":"x"}}"#;
    let answer = cluster
        .request(Method::POST, path, &[], body)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.body["message"], r#"namespaces "nowhere" not found"#);
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let cluster = Cluster::control_plane().await.unwrap();
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    cluster
        .create(&path, &json!({"metadata": {"name": "dry"}}))
        .await
        .unwrap();
    let get = format!("{CONFIG_MAPS}/dry");
    let answer = cluster.request(Method::GET, &get, &[], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn services_get_addresses_that_nobody_else_has() {
    let cluster = Cluster::control_plane().await.unwrap();
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: Option<&str>| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "clusterIP": ip}});
    let first = cluster.create(path, &service("a", None)).await.unwrap();
    let ip = first["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let body = service("b", Some(&ip)).to_string();
    let answer = cluster
        .request(Method::POST, path, &[], body.clone())
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.contains("provided IP is already allocated"),
        "{message}"
    );
    cluster
        .request(Method::DELETE, &format!("{path}/a"), &[], "")
        .await
        .unwrap();
    let answer = cluster
        .request(Method::POST, path, &[], body)
        .await
        .unwrap();
    assert_eq!(
        answer.status,
        StatusCode::CREATED,
        "a deleted Service gives its address back"
    );
}

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class() {
    let cluster = Cluster::control_plane().await.unwrap();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let pods = "/api/v1/namespaces/kube-public/pods";
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let plain = cluster
        .create(pods, &pod("plain", json!({})))
        .await
        .unwrap();
    assert_eq!(plain["spec"]["priority"], 0);
    assert_eq!(plain["spec"]["preemptionPolicy"], "PreemptLowerPriority");
    let class = json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true, "preemptionPolicy": "Never"});
    cluster.create(classes, &class).await.unwrap();
    let usual = cluster
        .create(pods, &pod("usual", json!({})))
        .await
        .unwrap();
    let given = (
        &usual["spec"]["priority"],
        &usual["spec"]["priorityClassName"],
        &usual["spec"]["preemptionPolicy"],
    );
    assert_eq!(given, (&json!(7), &json!("usual"), &json!("Never")));
    let critical = json!({"priorityClassName": "system-node-critical"});
    let critical = cluster
        .create(pods, &pod("critical", critical))
        .await
        .unwrap();
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
    let refused = [
        (
            pods,
            pod("a", json!({"priorityClassName": "none"})),
            "pods \"a\" is forbidden: no PriorityClass with name none was found",
        ),
        (
            pods,
            pod("b", json!({"priority": 5})),
            "pods \"b\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name",
        ),
        (
            classes,
            json!({"metadata": {"name": "other"}, "value": 1, "globalDefault": true}),
            "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist",
        ),
    ];
    let headers = [("content-type", "application/json")];
    for (path, object, expected) in refused {
        let answer = cluster
            .request(Method::POST, path, &headers, object.to_string())
            .await
            .unwrap();
        assert_eq!(answer.body["message"], expected);
    }
}

#[tokio::test]
async fn what_names_no_class_gets_the_newest_default() {
    let cluster = Cluster::control_plane().await.unwrap();
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, more: Value| {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let made = cluster.create(claims, &claim("none", json!({}))).await;
    assert_eq!(made.unwrap()["spec"].get("storageClassName"), None);
    for (name, default) in [("z", "true"), ("a", "true"), ("b", "false")] {
        let mark = json!({"storageclass.kubernetes.io/is-default-class": default});
        let class = json!({"metadata": {"name": name, "annotations": mark}, "provisioner": "example.com/p"});
        let classes = "/apis/storage.k8s.io/v1/storageclasses";
        cluster.create(classes, &class).await.unwrap();
    }
    let given = cluster.create(claims, &claim("some", json!({}))).await;
    let given = given.unwrap()["spec"]["storageClassName"].clone();
    // Both may have been made within one second.
    assert!(given == "a" || given == "z", "{given}");
    for class in ["", "b"] {
        let own = claim(&format!("own-{class}x"), json!({"storageClassName": class}));
        let made = cluster.create(claims, &own).await.unwrap();
        assert_eq!(made["spec"]["storageClassName"], class);
    }
    let mark = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "front", "annotations": mark}, "spec": {"controller": "example.com/c"}});
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    cluster.create(classes, &class).await.unwrap();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}});
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let made = cluster.create(ingresses, &ingress).await.unwrap();
    assert_eq!(made["spec"]["ingressClassName"], "front");
    cluster.shutdown().await;
}
