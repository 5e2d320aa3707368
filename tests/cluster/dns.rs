//! The cluster's names: as guests resolve them, and on the wire.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, LogParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::built::guest;
use crate::{HELLO, apply, is_ready, push};

/// A plain client of the first node's DNS.
pub(crate) struct Client {
    server: SocketAddr,
    socket: UdpSocket,
}

impl Client {
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = cluster.dns_address();
        Self { server, socket }
    }

    fn question(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        let mut name = Name::from_ascii(name).unwrap();
        name.set_fqdn(true);
        message.queries.push(Query::query(name, kind));
        message
    }

    /// One question by a datagram.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let question = Self::question(name, kind);
        let bytes = question.to_vec().unwrap();
        self.socket.send_to(&bytes, self.server).await.unwrap();
        let mut buffer = [0; 4096];
        loop {
            let (length, _) = self.socket.recv_from(&mut buffer).await.unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            if answer.metadata.id == question.metadata.id {
                return answer;
            }
        }
    }

    /// One question by a connection.
    async fn ask_by_stream(&self, name: &str, kind: RecordType) -> Message {
        let bytes = Self::question(name, kind).to_vec().unwrap();
        let mut stream = TcpStream::connect(self.server).await.unwrap();
        stream
            .write_u16(bytes.len().try_into().unwrap())
            .await
            .unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }

    /// Asks until the answer's data are these, in any order.
    pub(crate) async fn until(&self, name: &str, kind: RecordType, wanted: &[&str]) {
        let mut last = Vec::new();
        let asking = async {
            while last != wanted {
                last = data(&self.ask(name, kind).await);
            }
        };
        let came = tokio::time::timeout(PATIENCE, asking).await;
        assert!(
            came.is_ok(),
            "{name} {kind}: wanted {wanted:?}, last {last:?}"
        );
    }
}

/// The data of an answer's records, sorted.
pub(crate) fn data(answer: &Message) -> Vec<String> {
    let mut all: Vec<_> = answer
        .answers
        .iter()
        .map(|it| it.data.to_string())
        .collect();
    all.sort();
    all
}

/// Runs the probe in a pod of its own and returns what it says.
pub(crate) async fn probe(cluster: &Cluster, image: &str, args: &[&str], spec: &Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "probe", "image": image, "args": args}]},
    });
    let fields = spec.as_object().unwrap().clone();
    pod["spec"].as_object_mut().unwrap().extend(fields);
    apply::<Pod>(cluster, &pod).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let ended = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        let phase = status.and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    eventually(pods.clone(), "probe", "the end", ended).await;
    let text = pods.logs("probe", &LogParams::default()).await.unwrap();
    pods.delete("probe", &DeleteParams::default())
        .await
        .unwrap();
    eventually(pods, "probe", "removal", |pod| pod.is_none()).await;
    text.trim().to_owned()
}

/// A pod of the hello component behind Service `web`, and its address.
async fn serve(cluster: &Cluster) -> String {
    let image = push(cluster, "hello", HELLO).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "hostname": "first", "subdomain": "members", "containers": [{
            "name": "hello", "image": image, "env": [{"name": "POD_NAME", "value": "one"}],
            "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    apply::<Pod>(cluster, &pod).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let ready = eventually(pods, "one", "readiness", is_ready)
        .await
        .unwrap();
    ready.status.unwrap().pod_ip.unwrap()
}

fn service(name: &str, more: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    let fields = more.as_object().unwrap().clone();
    service["spec"].as_object_mut().unwrap().extend(fields);
    service
}

async fn address(cluster: &Cluster, namespace: &str, name: &str) -> String {
    let services: Api<Service> = Api::namespaced(cluster.client(), namespace);
    let spec = services.get(name).await.unwrap().spec.unwrap();
    spec.cluster_ip.unwrap()
}

fn reverse(address: &str) -> String {
    Name::from(address.parse::<IpAddr>().unwrap()).to_ascii()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_their_pods_have_every_record_on_the_wire() {
    use RecordType::{A, AAAA, PTR, SOA, SRV};
    let cluster = Cluster::with_node().await.unwrap();
    let pod = serve(&cluster).await;
    apply::<Service>(&cluster, &service("web", &json!({}))).await;
    apply::<Service>(&cluster, &service("members", &json!({"clusterIP": "None"}))).await;
    let web = address(&cluster, "default", "web").await;
    let client = Client::of(&cluster).await;
    let first = "first.members.default.svc.cluster.local.";
    client.until(first, A, &[&pod]).await;
    for (name, kind, want) in [
        ("web.default.svc.cluster.local", A, web.as_str()),
        ("members.default.svc.cluster.local", A, &pod),
        (
            "_http._tcp.web.default.svc.cluster.local",
            SRV,
            "0 100 80 web.default.svc.cluster.local.",
        ),
        (
            "_http._tcp.members.default.svc.cluster.local",
            SRV,
            &format!("0 100 8080 {first}"),
        ),
        (&reverse(&web), PTR, "web.default.svc.cluster.local."),
        (&reverse(&pod), PTR, first),
        (
            &format!("{}.default.pod.cluster.local", pod.replace('.', "-")),
            A,
            &pod,
        ),
        ("kubernetes.default.svc.cluster.local", A, "10.96.0.1"),
        ("kube-dns.kube-system.svc.cluster.local", A, "10.96.0.10"),
    ] {
        client.until(name, kind, &[want]).await;
        let by_stream = client.ask_by_stream(name, kind).await;
        assert_eq!(data(&by_stream), [want], "{name}");
        assert!(by_stream.metadata.authoritative);
    }
    let missing = client.ask("nosuch.default.svc.cluster.local", A).await;
    let empty = client.ask("web.default.svc.cluster.local", AAAA).await;
    for (answer, code) in [
        (missing, ResponseCode::NXDomain),
        (empty, ResponseCode::NoError),
    ] {
        assert_eq!(answer.metadata.response_code, code);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities[0].record_type(), SOA);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_told_by_its_resolver_and_by_packets_of_its_own() {
    let Some(probe_file) = guest("probe") else {
        return;
    };
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "probe", &std::fs::read(probe_file).unwrap()).await;
    apply::<Service>(&cluster, &service("web", &json!({}))).await;
    let web = address(&cluster, "default", "web").await;
    let dns = address(&cluster, "kube-system", "kube-dns").await;
    assert_eq!(dns, "10.96.0.10");
    let client = Client::of(&cluster).await;
    client
        .until("web.default.svc.cluster.local", RecordType::A, &[&web])
        .await;
    let server = format!("{dns}:53");
    let none = json!({});
    let packet = ["dns-ask", &server, "web.default.svc.cluster.local"];
    let missing = ["dns-ask", &server, "nosuch.default.svc.cluster.local"];
    let own = json!({"dnsPolicy": "None",
        "dnsConfig": {"nameservers": [dns], "searches": ["default.svc.cluster.local"]}});
    let alias = json!({"hostAliases": [{"ip": "192.0.2.7", "hostnames": ["old.example"]}]});
    for (args, spec, want) in [
        (&["resolve", "web"][..], &none, web.as_str()),
        (&["resolve", "kubernetes.default"], &none, "10.96.0.1"),
        (&packet, &none, &format!("code 0, {web}")),
        (&missing, &none, "code 3"),
        (&["resolve", "web"], &own, &web),
        (&["resolve", "old.example"], &alias, "192.0.2.7"),
    ] {
        assert_eq!(
            probe(&cluster, &image, args, spec).await,
            want,
            "{args:?} {spec}"
        );
    }
    cluster.shutdown().await;
}
