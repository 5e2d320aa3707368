//! Images of other registries: with a pod's secrets, by digest, and when they go from the node.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode, header};
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::RootCertStore;
use windlass_node::images::ImageCollection;
use windlass_oci::content_store::ContentStore;
use windlass_oci::credentials::{Keyring, Origin};
use windlass_oci::push::push_wasm;
use windlass_oci::reference::Reference;
use windlass_oci::registry::remote::config::RegistryConfig;
use windlass_oci::registry::remote::registries::Registries;
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};
use windlass_tests::{Cluster, eventually};

use crate::{HELLO, is_ready};

const USER: &str = "somebody";
const PASSWORD: &str = "correct horse";

struct Anybody;

#[async_trait::async_trait]
impl Authorize for Anybody {
    async fn authorize(&self, _: &http::Extensions, _: &str, _: Access) -> Result<(), Denied> {
        Ok(())
    }
}

/// A registry of its own on this machine, for those who know the password.
struct PrivateRegistry {
    _directory: TempDir,
    host: String,
    serving: JoinHandle<()>,
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl PrivateRegistry {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ContentStore::open(directory.path()).await.unwrap();
        let routes = router(store, Arc::new(Anybody), Limits::default());
        let routes = routes.layer(middleware::from_fn(only_with_password));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            _directory: directory,
            host,
            serving,
        }
    }

    fn registries(&self) -> Registries {
        let text = format!("registries: {{'{}': {{plainHttp: true}}}}", self.host);
        let config = RegistryConfig::parse(&text, "".as_ref()).unwrap();
        Registries::new(config, RootCertStore::empty()).unwrap()
    }

    fn login(&self) -> Value {
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        json!({"auths": {self.host.clone(): {"auth": auth}}})
    }

    /// Pushes under a tag; answers the reference by digest.
    async fn push(&self, name: &str, wasm: &[u8]) -> Reference {
        let tag: Reference = format!("{}/{name}", self.host).parse().unwrap();
        let mut keyring = Keyring::default();
        let login = self.login().to_string();
        keyring
            .add_config_json(login.as_bytes(), &Origin::Machine)
            .unwrap();
        let client = self.registries().pusher(&tag, &keyring).unwrap();
        let digest = push_wasm(&client, &tag, wasm.to_vec().into())
            .await
            .unwrap();
        tag.with_digest(digest)
    }
}

async fn only_with_password(request: Request, next: Next) -> Response {
    let wanted = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if request
        .headers()
        .get(header::AUTHORIZATION)
        .is_some_and(|shown| *shown == wanted)
    {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"tests\"")];
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    (StatusCode::UNAUTHORIZED, challenge, body).into_response()
}

async fn cluster(registry: &PrivateRegistry, collection: ImageCollection) -> Cluster {
    let mut cluster = Cluster::control_plane().await.unwrap();
    let registries = registry.registries();
    let added = cluster.add_node_with("node-1", |builder| {
        builder.registries(registries).image_collection(collection)
    });
    added.await.unwrap();
    cluster
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client(), "default")
}

async fn run(cluster: &Cluster, name: &str, image: &str, more: Value) {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "c", "image": image, "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 8080}],
        }],
    });
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    let pod = json!({"metadata": {"name": name}, "spec": spec});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods(cluster)
        .create(&PostParams::default(), &pod)
        .await
        .unwrap();
}

async fn ready(cluster: &Cluster, name: &str) -> Pod {
    eventually(pods(cluster), name, "ready", is_ready)
        .await
        .unwrap()
}

/// The message with which a container waits for this reason.
async fn waits(cluster: &Cluster, name: &str, reason: &str) -> String {
    let message = |pod: &Pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        let waiting = statuses.first()?.state.as_ref()?.waiting.as_ref()?;
        let is_meant = waiting.reason.as_deref() == Some(reason);
        waiting.message.clone().filter(|_| is_meant)
    };
    let accept = |pod: Option<&Pod>| pod.and_then(message).is_some();
    let pod = eventually(pods(cluster), name, reason, accept).await;
    message(&pod.unwrap()).unwrap()
}

async fn secret(cluster: &Cluster, name: &str, login: &Value) {
    let api: Api<Secret> = Api::namespaced(cluster.client(), "default");
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": login.to_string()},
    }))
    .unwrap();
    api.create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_runs_for_those_with_the_secret() {
    let registry = PrivateRegistry::start().await;
    let image = registry.push("team/hello:v1", HELLO).await.to_string();
    let cluster = cluster(&registry, ImageCollection::default()).await;
    let with = json!({"imagePullSecrets": [{"name": "login"}]});
    // Without the Secret, and before it is there.
    run(&cluster, "stranger", &image, json!({})).await;
    run(&cluster, "early", &image, with.clone()).await;
    let denied = waits(&cluster, "stranger", "ErrImagePull").await;
    assert!(
        denied.contains("team/hello") && denied.contains("authentication required"),
        "{denied}"
    );
    waits(&cluster, "early", "ImagePullBackOff").await;
    let wrong = json!({"auths": {registry.host.clone(): {"username": USER, "password": "wrong"}}});
    secret(&cluster, "wrong", &wrong).await;
    secret(&cluster, "login", &registry.login()).await;
    // The first credential is wrong, the second is tried.
    let both = json!({"imagePullSecrets": [{"name": "wrong"}, {"name": "login"}]});
    run(&cluster, "both", &image, both).await;
    ready(&cluster, "both").await;
    // What is on the node by then is for those with the Secret, not for everybody.
    run(&cluster, "later", &image, json!({})).await;
    let denied = waits(&cluster, "later", "ErrImagePull").await;
    assert!(denied.contains("authentication required"), "{denied}");
    let mut never = json!({"imagePullSecrets": []});
    never["containers"] = json!([{"name": "c", "image": image, "imagePullPolicy": "Never"}]);
    run(&cluster, "never", &image, never).await;
    let withheld = waits(&cluster, "never", "ErrImageNeverPull").await;
    assert!(
        withheld.contains("credentials that the pod does not have"),
        "{withheld}"
    );
    // A pod whose Secret comes late is mended by it.
    ready(&cluster, "early").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_pulls_with_the_secrets_of_its_account() {
    let registry = PrivateRegistry::start().await;
    let image = registry.push("team/hello:v1", HELLO).await.to_string();
    let cluster = cluster(&registry, ImageCollection::default()).await;
    secret(&cluster, "login", &registry.login()).await;
    let account = "/api/v1/namespaces/default/serviceaccounts";
    let puller = json!({"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "login"}]});
    cluster.create(account, &puller).await.unwrap();
    run(
        &cluster,
        "p",
        &image,
        json!({"serviceAccountName": "puller"}),
    )
    .await;
    let pod = ready(&cluster, "p").await;
    let secrets = pod.spec.unwrap().image_pull_secrets.unwrap();
    assert_eq!(secrets[0].name, "login");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_stays_what_it_is_when_the_tag_moves() {
    let registry = PrivateRegistry::start().await;
    let pinned = registry.push("team/hello:v1", HELLO).await;
    // Another program under the tag; it cannot run at all.
    registry.push("team/hello:v1", b"\0asm\x0d\0\x01\0").await;
    let cluster = cluster(&registry, ImageCollection::default()).await;
    secret(&cluster, "login", &registry.login()).await;
    let with = json!({"imagePullSecrets": [{"name": "login"}]});
    run(&cluster, "pinned", &pinned.to_string(), with.clone()).await;
    let pod = ready(&cluster, "pinned").await;
    let status = &pod.status.unwrap().container_statuses.unwrap()[0];
    assert!(
        status
            .image_id
            .ends_with(&pinned.digest().unwrap().to_string())
    );
    let tag = format!("{}/team/hello:v1", registry.host);
    run(&cluster, "moved", &tag, with).await;
    waits(&cluster, "moved", "CreateContainerError").await;
    cluster.shutdown().await;
}

/// Names of the images in the Node's status.
fn listed(node: Option<&Node>) -> Vec<String> {
    let status = node.and_then(|node| node.status.as_ref());
    let images = status.and_then(|status| status.images.as_ref());
    let names = images.into_iter().flatten();
    names
        .flat_map(|image| image.names.clone().unwrap_or_default())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_when_no_container_uses_it_and_the_disk_is_too_full() {
    let registry = PrivateRegistry::start().await;
    let image = registry.push("team/hello:v1", HELLO).await.to_string();
    // Any disk is too full.
    let eager = ImageCollection {
        high_threshold: 1,
        low_threshold: 0,
        min_age: Duration::ZERO,
        period: Duration::from_millis(200),
    };
    let cluster = cluster(&registry, eager).await;
    secret(&cluster, "login", &registry.login()).await;
    let with = json!({"imagePullSecrets": [{"name": "login"}]});
    run(&cluster, "p", &image, with.clone()).await;
    ready(&cluster, "p").await;
    let nodes: Api<Node> = Api::all(cluster.client());
    let is_listed = |node: Option<&Node>| listed(node).contains(&image);
    eventually(nodes.clone(), "node-1", "lists the image", is_listed).await;
    // Collections pass, as the events of the node tell, and the image stays.
    let events = "/api/v1/namespaces/default/events?fieldSelector=reason=FreeDiskSpaceFailed";
    let passed = async || {
        let answer = cluster.request(Method::GET, events, &[], "").await.unwrap();
        let counts = answer.body["items"].as_array().unwrap().iter();
        counts
            .map(|event| event["count"].as_u64().unwrap_or(1))
            .sum::<u64>()
    };
    let before = passed().await;
    let patience = tokio::time::timeout(windlass_tests::PATIENCE, async {
        while passed().await < before + 3 {
            tokio::task::yield_now().await;
        }
    });
    patience.await.expect("no collection passes");
    assert!(is_listed(nodes.get_opt("node-1").await.unwrap().as_ref()));
    let now = DeleteParams::default().grace_period(0);
    pods(&cluster).delete("p", &now).await.unwrap();
    eventually(nodes.clone(), "node-1", "lists nothing", |node| {
        node.is_some() && listed(node).is_empty()
    })
    .await;
    // It can be had again.
    run(&cluster, "again", &image, with).await;
    ready(&cluster, "again").await;
    cluster.shutdown().await;
}
