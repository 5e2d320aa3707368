//! kube-rs over the TLS listener: typed objects, and objects of kinds found by discovery.

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::{Client, Error, ResourceExt, discovery};
use serde_json::{Value, json};
use windlass_tests::Cluster;

fn config_map(name: &str, step: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("app".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([("step".to_owned(), step.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn deployment(name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]},
            },
        },
    })
}

/// Code and reason of what the server answered.
fn answered<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_objects_are_created_watched_patched_and_deleted() {
    let cluster = Cluster::control_plane().await.unwrap();
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client_over_tls().await.unwrap());
    let before = api.list(&ListParams::default()).await.unwrap().metadata;
    let post = PostParams::default();
    let created = api.create(&post, &config_map("seen", "1")).await.unwrap();
    assert!(created.uid().is_some());
    let again = answered(api.create(&post, &config_map("seen", "1")).await);
    assert_eq!(again, (409, "AlreadyExists".to_owned()));
    let patch = Patch::Strategic(json!({"data": {"step": "2"}}));
    api.patch("seen", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let stale = answered(api.replace("seen", &post, &created).await);
    assert_eq!(stale, (409, "Conflict".to_owned()));
    api.delete("seen", &DeleteParams::default()).await.unwrap();
    let missing = answered(api.get("seen").await);
    assert_eq!(missing, (404, "NotFound".to_owned()));
    let params = WatchParams::default().labels("app=seen").timeout(30);
    let version = before.resource_version.unwrap();
    let mut events = Box::pin(api.watch(&params, &version).await.unwrap());
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => ("added", map.data.unwrap()["step"].clone()),
            WatchEvent::Modified(map) => ("modified", map.data.unwrap()["step"].clone()),
            WatchEvent::Deleted(map) => ("deleted", map.data.unwrap()["step"].clone()),
            other => panic!("{other:?}"),
        });
    }
    let expected = [("added", "1"), ("modified", "2"), ("deleted", "2")];
    assert_eq!(seen, expected.map(|(event, step)| (event, step.to_owned())));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_field_belongs_to_its_manager() {
    let cluster = Cluster::control_plane().await.unwrap();
    let api: Api<Deployment> = Api::default_namespaced(cluster.client_over_tls().await.unwrap());
    let one = PatchParams::apply("one");
    let patch = |replicas| Patch::Apply(deployment("web", replicas));
    api.patch("web", &one, &patch(0)).await.unwrap();
    let two = PatchParams::apply("two");
    let taken = api.patch("web", &two, &patch(1)).await;
    let Err(Error::Api(status)) = taken else {
        panic!("{taken:?}");
    };
    let expected = r#"Apply failed with 1 conflict: conflict with "one": .spec.replicas"#;
    assert_eq!((status.code, &*status.message), (409, expected));
    let forced = api.patch("web", &two.force(), &patch(1)).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(1));
    let scale = api.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamic_objects_are_found_by_discovery() {
    let cluster = Cluster::control_plane().await.unwrap();
    let client: Client = cluster.client_over_tls().await.unwrap();
    let group = discovery::group(&client, "apps").await.unwrap();
    let (resource, capabilities) = group.recommended_kind("Deployment").unwrap();
    assert_eq!(resource.plural, "deployments");
    assert!(capabilities.supports_operation(discovery::verbs::PATCH));
    assert!(
        capabilities
            .subresources
            .iter()
            .any(|(of, _)| of.plural == "scale")
    );
    let api: Api<DynamicObject> = Api::default_namespaced_with(client, &resource);
    let object: DynamicObject = serde_json::from_value(deployment("web", 0)).unwrap();
    let created = api.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(created.data["spec"]["revisionHistoryLimit"], 10);
    let patch = Patch::Merge(json!({"metadata": {"labels": {"tier": "front"}}}));
    api.patch("web", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let listed = api
        .list(&ListParams::default().labels("tier=front"))
        .await
        .unwrap();
    assert_eq!(listed.items[0].name_any(), "web");
    api.delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    cluster.shutdown().await;
}
