//! Who may do what, as people who run a cluster and those who use it see it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use windlass_tests::{Cluster, PATIENCE};

use super::{Kubectl, file, newest};

/// The newest kubectl with a control plane of its own; `None` without kubectl, which is said.
async fn begin() -> Option<(Cluster, Kubectl)> {
    let program = newest().await?;
    let cluster = Cluster::control_plane().await.unwrap();
    let kubectl = Kubectl::new(&program, &cluster);
    Some((cluster, kubectl))
}

/// A context of that name for a user whose credentials are these flags of `config set-credentials`.
async fn context(kubectl: &Kubectl, name: &str, credentials: &str) {
    let cluster = kubectl
        .ok("config view -o jsonpath={.clusters[0].name}")
        .await;
    kubectl
        .ok(&format!("config set-credentials {name} {credentials}"))
        .await;
    kubectl
        .ok(&format!(
            "config set-context {name} --cluster={cluster} --user={name}"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_gets_a_certificate_and_a_namespace_to_work_in() {
    let Some((cluster, kubectl)) = begin().await else {
        return;
    };
    let key = KeyPair::generate().unwrap();
    let request = |name: &str, group: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = STANDARD.encode(pem);
        format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  \
             request: {request}\n  signerName: kubernetes.io/kube-apiserver-client\n  \
             expirationSeconds: 86400\n  usages: [client auth]"
        )
    };
    let refused = kubectl
        .fails("create -f -", &request("eve", "system:masters"))
        .await;
    let reason = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert!(refused.contains(reason), "{refused}");
    kubectl
        .ok_with("create -f -", &request("ann", "developers"))
        .await;
    // Whoever may approve nodes may not approve people.
    let may = "create clusterrole half --verb=get,list,watch,update --resource=certificatesigningrequests,certificatesigningrequests/approval";
    kubectl.ok(may).await;
    for role in [
        "half",
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
    ] {
        let name = role.rsplit(':').next().unwrap_or_default();
        kubectl
            .ok(&format!(
                "create clusterrolebinding {name} --clusterrole={role} --user=bob"
            ))
            .await;
    }
    let refused = kubectl.fails("--as=bob certificate approve ann", "").await;
    let reason = "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\"";
    assert!(refused.contains(reason), "{refused}");
    kubectl.ok("certificate approve ann").await;
    let signed = async {
        loop {
            let certificate = kubectl
                .ok("get csr ann -o jsonpath={.status.certificate}")
                .await;
            if !certificate.is_empty() {
                return certificate;
            }
        }
    };
    let certificate = tokio::time::timeout(PATIENCE, signed).await.unwrap();
    let certificate = STANDARD.decode(&certificate).unwrap();
    let certificate = file(
        &kubectl,
        "ann.crt",
        std::str::from_utf8(&certificate).unwrap(),
    );
    let key = file(&kubectl, "ann.key", &key.serialize_pem());
    let credentials =
        format!("--client-certificate={certificate} --client-key={key} --embed-certs=true");
    context(&kubectl, "ann", &credentials).await;
    let steps = [
        ("create namespace team", "created"),
        (
            "create rolebinding ann -n team --clusterrole=edit --user=ann",
            "created",
        ),
        ("--context=ann auth whoami", "developers"),
        (
            "--context=ann create configmap one -n team --from-literal=a=b",
            "created",
        ),
        ("--context=ann get configmaps -n team", "one"),
        ("--context=ann auth can-i delete pods -n team", "yes"),
        (
            "--context=ann auth can-i --list -n team",
            "deployments.apps",
        ),
        ("--as=ann get configmaps -n team", "one"),
        ("--as=carl --as-group=system:masters get nodes", ""),
    ];
    kubectl.each_prints(&steps).await;
    let refused = [
        (
            "--context=ann get configmaps",
            "User \"ann\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"",
        ),
        ("--context=ann get nodes", "at the cluster scope"),
        (
            "--context=ann --as=bob get pods -n team",
            "cannot impersonate resource \"users\"",
        ),
        (
            "--context=ann create rolebinding more -n team --clusterrole=admin --user=ann",
            "cannot create resource \"rolebindings\"",
        ),
        ("--context=ann auth can-i get nodes", "no"),
    ];
    kubectl.each_complains(&refused).await;
    kubectl.ok("delete rolebinding ann -n team").await;
    let gone = [("--context=ann get configmaps -n team", "forbidden")];
    kubectl.each_complains(&gone).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_deleted_account_is_refused_at_once() {
    let Some((cluster, kubectl)) = begin().await else {
        return;
    };
    kubectl.ok("create serviceaccount robot").await;
    let token = kubectl.ok("create token robot").await;
    context(&kubectl, "robot", &format!("--token={}", token.trim())).await;
    let steps = [
        (
            "--context=robot auth whoami",
            "system:serviceaccount:default:robot",
        ),
        ("delete serviceaccount robot", "deleted"),
    ];
    kubectl.each_prints(&steps).await;
    // The same name does not make it the same account.
    kubectl
        .each_complains(&[("--context=robot auth whoami", "Unauthorized")])
        .await;
    kubectl.ok("create serviceaccount robot").await;
    kubectl
        .each_complains(&[("--context=robot auth whoami", "Unauthorized")])
        .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_pods_at_once_a_quota_lets_ten_in() {
    let Some((cluster, kubectl)) = begin().await else {
        return;
    };
    kubectl.ok("create quota ten --hard=pods=10").await;
    let wait = "wait --for=jsonpath={.status.hard.pods}=10 quota/ten --timeout=60s";
    kubectl.ok(wait).await;
    let runs = (0..50).map(|number| {
        let line = format!("run pod-{number} --image=i");
        let kubectl = &kubectl;
        async move {
            let output = kubectl.output(&line, "").await;
            (
                output.status.success(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        }
    });
    let ended = join_all(runs).await;
    assert_eq!(ended.iter().filter(|(made, _)| *made).count(), 10);
    for (_, said) in ended.iter().filter(|(made, _)| !made) {
        let text = "exceeded quota: ten, requested: pods=1, used: pods=10, limited: pods=10";
        assert!(said.contains(text), "{said}");
    }
    let used = "get quota ten -o jsonpath={.status.used.pods}";
    assert_eq!(kubectl.ok(used).await, "10");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_namespace_refuses_careless_pods() {
    let Some((cluster, kubectl)) = begin().await else {
        return;
    };
    let steps = [
        ("create namespace strict", "created"),
        (
            "label namespace strict pod-security.kubernetes.io/enforce=restricted",
            "labeled",
        ),
    ];
    kubectl.each_prints(&steps).await;
    let careless = [(
        "run careless -n strict --image=i",
        "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false",
    )];
    kubectl.each_complains(&careless).await;
    let output = kubectl
        .output("create deployment web -n strict --image=i", "")
        .await;
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    let warning = "Warning: would violate PodSecurity \"restricted:latest\"";
    assert!(said.contains(warning), "{said}");
    let careful = "
apiVersion: v1
kind: Pod
metadata: {name: careful, namespace: strict}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: c
    image: i
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";
    // The namespace gets its account a moment after it is made, unless this is faster.
    kubectl
        .output("create serviceaccount default -n strict", "")
        .await;
    kubectl.ok_with("create -f -", careful).await;
    let message = "wait -n strict --timeout=60s --for=condition=ReplicaFailure deployment/web";
    kubectl.ok(message).await;
    cluster.shutdown().await;
}
