//! What kubectl reads: every output, selectors, watches, documentation, rights, and the proxy.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::everyday::APP;
use super::{Kubectl, Program, with_each};

/// Every form in which objects are printed, of the objects of [`APP`].
const OUTPUTS: &[(&str, &str)] = &[
    ("get cm settings", "NAME       DATA   AGE\nsettings   1 "),
    ("get deployment web -o wide", "CONTAINERS"),
    ("get deployment web -o json", "\"kind\": \"Deployment\""),
    (
        "get deployment web -o yaml",
        "\n  strategy:\n    rollingUpdate:\n      maxSurge: 25%",
    ),
    (
        "get deployment web -o yaml --show-managed-fields",
        "f:strategy",
    ),
    (
        "get deployment,cm -o name",
        "deployment.apps/web\nconfigmap/kube-root-ca.crt\nconfigmap/settings\n",
    ),
    ("get deployment web -o jsonpath={.spec.replicas}", "0"),
    ("get deployment web -o go-template={{.spec.replicas}}", "0"),
    (
        "get deployment -o custom-columns=NAME:.metadata.name,WANTED:.spec.replicas",
        "NAME   WANTED\nweb    0\n",
    ),
    ("get cm --show-labels -A", "NAMESPACE"),
    (
        "get deployment web --subresource=status -o name",
        "deployment.apps/web",
    ),
    (
        "get cm --chunk-size=1 -o name",
        "configmap/kube-root-ca.crt\nconfigmap/settings\n",
    ),
    ("get cm --sort-by=.metadata.name --no-headers", "settings"),
    (
        "get cm --field-selector=metadata.name=settings -o name",
        "configmap/settings\n",
    ),
    (
        "get cm --field-selector=metadata.name!=settings -o name",
        "configmap/kube-root-ca.crt\n",
    ),
    ("label deployment web app=web", "labeled"),
    (
        "get deployment -l 'app in (web,other),!x' -o name",
        "deployment.apps/web\n",
    ),
    ("get cm nothing --ignore-not-found", ""),
    ("describe cm settings", "colour:\n----\nblue\n"),
    ("get --raw /version", "\"major\":\"1\""),
    ("get --raw /readyz?verbose", "readyz check passed"),
    (
        "explain cronjob.spec.jobTemplate --recursive",
        "backoffLimit",
    ),
    (
        "explain hpa --api-version=autoscaling/v1",
        "HorizontalPodAutoscaler",
    ),
    ("api-resources --namespaced=false -o name", "nodes"),
    ("api-resources --verbs=list --api-group=apps", "deploy"),
    (
        "config view --minify -o jsonpath={.clusters[0].cluster.server}",
        "https://127.0.0.1:",
    ),
    ("auth can-i create pods", "yes"),
    ("auth can-i --list", "*.*"),
];

const COMPLAINTS: &[(&str, &str)] = &[
    (
        "get nothing",
        r#"the server doesn't have a resource type "nothing""#,
    ),
    (
        "get cm -l 'a in (b'",
        "unable to parse requirement: found '', expected: ',' or ')'",
    ),
    (
        "get pods --field-selector=spec.x=y",
        "field label not supported: spec.x",
    ),
    (
        "get --raw /apis/nothing",
        "the server could not find the requested resource",
    ),
    ("auth can-i get secrets --as=jane", "no"),
    (
        "get secrets --as=jane",
        r#"secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "default""#,
    ),
    (
        "explain deployment.nothing",
        r#"field "nothing" does not exist"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prints_objects_in_every_form() {
    with_each(Program::is_thorough, async |kubectl| {
        kubectl.ok_with("create -f -", APP).await;
        // Its controller makes this one; the lists below count on it.
        kubectl
            .ok("wait --for=jsonpath={.metadata.name}=kube-root-ca.crt cm/kube-root-ca.crt")
            .await;
        kubectl.each_prints(OUTPUTS).await;
        kubectl.each_complains(COMPLAINTS).await;
        about_the_cluster(kubectl).await;
        impersonated(kubectl).await;
        watched(kubectl).await;
    })
    .await;
}

/// Conformance: [sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]
async fn about_the_cluster(kubectl: &Kubectl) {
    let versions = kubectl.ok("api-versions").await;
    assert!(versions.lines().any(|line| line == "v1"), "{versions}");
    let steps = [
        ("cluster-info", "Kubernetes control plane"),
        ("cluster-info", "is running at"),
        ("version", "Client Version: "),
        ("version", "Server Version: "),
        ("version -o json", "\"serverVersion\""),
        ("cluster-info dump", "\"kind\": \"NodeList\""),
    ];
    kubectl.each_prints(&steps).await;
}

async fn impersonated(kubectl: &Kubectl) {
    // Before 1.28 kubectl asks for alpha and beta versions of the review, which are gone.
    if (1..28).contains(&kubectl.minor) {
        return;
    }
    let steps = [
        ("auth whoami", "system:masters"),
        (
            "auth whoami --as=jane --as-group=staff --as-uid=7 -o jsonpath={.status.userInfo}",
            r#""uid":"7""#,
        ),
        (
            "auth whoami --as=system:serviceaccount:default:robot",
            "system:serviceaccounts:default",
        ),
    ];
    kubectl.each_prints(&steps).await;
}

/// A watch tells of each change as it happens.
async fn watched(kubectl: &Kubectl) {
    let mut watch =
        kubectl.start("get cm -w --output-watch-events --field-selector=metadata.name=seen");
    // It prints its head with the first object; the list before it is empty.
    kubectl.ok("create cm seen --from-literal=a=b").await;
    watch.says("ADDED").await;
    kubectl.ok("label cm seen x=y").await;
    watch.says("MODIFIED").await;
    kubectl.ok("delete cm seen").await;
    watch.says("DELETED").await;
    let ended = kubectl.ok("get cm -w --request-timeout=1s -o name").await;
    assert!(ended.contains("configmap/settings"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_proxies_the_api() {
    with_each(Program::is_thorough, async |kubectl| {
        over_a_port(kubectl).await;
        over_a_socket(kubectl).await;
    })
    .await;
}

/// Conformance: [sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]
async fn over_a_port(kubectl: &Kubectl) {
    let mut proxy = kubectl.start("proxy --port=0 --disable-filter");
    let says = proxy.says("Starting to serve on ").await;
    let address = says.trim_start_matches("Starting to serve on ").trim();
    let answer = ask(TcpStream::connect(address).await.unwrap(), "/api/").await;
    assert!(answer.contains(r#""kind":"APIVersions""#), "{answer}");
}

/// Conformance: [sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]
async fn over_a_socket(kubectl: &Kubectl) {
    let path = kubectl.kubeconfig.with_file_name("proxy.sock");
    let mut proxy = kubectl.start(&format!("proxy --unix-socket={}", path.display()));
    proxy.says("Starting to serve on ").await;
    let answer = ask(UnixStream::connect(path).await.unwrap(), "/api/").await;
    assert!(answer.contains(r#""kind":"APIVersions""#), "{answer}");
}

/// One request over a connection; the whole answer.
pub(super) async fn ask(mut connection: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}
