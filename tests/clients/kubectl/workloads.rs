//! Rollouts, scaling and deletion of workloads, on a cluster whose pods stay pending.

use super::{Kubectl, Program, with_each};

/// A Deployment through its revisions. It wants no pods, so that every rollout is done at once.
const ROLLOUTS: &[(&str, &str)] = &[
    (
        "create deployment web --image=registry.example/web:1 --replicas=0",
        "created",
    ),
    (
        "rollout status deployment/web",
        r#"deployment "web" successfully rolled out"#,
    ),
    (
        "set image deployment/web web=registry.example/web:2",
        "deployment.apps/web image updated",
    ),
    ("rollout status deployment/web", "successfully rolled out"),
    (
        "rollout history deployment/web",
        "REVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n",
    ),
    (
        "rollout history deployment/web --revision=2",
        "registry.example/web:2",
    ),
    (
        "rollout undo deployment/web",
        "deployment.apps/web rolled back",
    ),
    ("rollout status deployment/web", "successfully rolled out"),
    (
        "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}",
        "registry.example/web:1",
    ),
    (
        "rollout history deployment/web",
        "2         <none>\n3         <none>\n",
    ),
    ("rollout undo deployment/web --to-revision=2", "rolled back"),
    ("rollout pause deployment/web", "deployment.apps/web paused"),
    (
        "set env deployment/web A=B",
        "deployment.apps/web env updated",
    ),
    (
        "set resources deployment/web --limits=cpu=200m,memory=512Mi",
        "resource requirements updated",
    ),
    (
        "rollout resume deployment/web",
        "deployment.apps/web resumed",
    ),
    (
        "rollout restart deployment/web",
        "deployment.apps/web restarted",
    ),
    ("rollout status deployment/web", "successfully rolled out"),
    ("set env deployment/web --list", "A=B"),
    (
        "set serviceaccount deployment/web default",
        "serviceaccount updated",
    ),
];

/// Scaling and what stands around a Deployment.
const AROUND: &[(&str, &str)] = &[
    (
        "scale deployment/web --replicas=1",
        "deployment.apps/web scaled",
    ),
    (
        "wait --for=jsonpath={.status.replicas}=1 deployment/web",
        "condition met",
    ),
    (
        "scale deployment/web --current-replicas=1 --replicas=2",
        "scaled",
    ),
    (
        "autoscale deployment/web --min=1 --max=5 --cpu-percent=80",
        "horizontalpodautoscaler.autoscaling/web autoscaled",
    ),
    ("get hpa web", "Deployment/web"),
    (
        "expose deployment/web --port=80 --target-port=8080 --type=NodePort",
        "service/web exposed",
    ),
    (
        "get service web -o jsonpath={.spec.selector}:{.spec.ports[0].targetPort}",
        r#"{"app":"web"}:8080"#,
    ),
    (
        "set selector service/web app=other",
        "service/web selector updated",
    ),
    (
        "get events --field-selector=involvedObject.name=web",
        "ScalingReplicaSet",
    ),
    ("events --for=deployment/web", "ScalingReplicaSet"),
    ("describe deployment web", "ScalingReplicaSet"),
    ("get replicasets -l app=web", "DESIRED   CURRENT   READY"),
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_rolls_out_and_scales() {
    with_each(Program::is_thorough, async |kubectl| {
        kubectl.each_prints(ROLLOUTS).await;
        kubectl.each_prints(AROUND).await;
        let refused = [
            (
                "scale deployment/web --current-replicas=9 --replicas=3",
                "Expected replicas to be 9, was 2",
            ),
            (
                "rollout undo deployment/web --to-revision=99",
                "unable to find specified revision 99 in history",
            ),
            (
                "rollout status deployment/web --timeout=1s",
                "timed out waiting for the condition",
            ),
        ];
        kubectl.each_complains(&refused).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_pods_and_changes_them() {
    with_each(Program::is_thorough, async |kubectl| {
        run(kubectl).await;
        dry_run(kubectl).await;
        replace(kubectl).await;
        let waits = [
            (
                "wait --for=jsonpath={.status.phase}=Pending pod/web",
                "pod/web condition met",
            ),
            ("label pod web tier=front", "pod/web labeled"),
            ("get pods -L tier", "front"),
            ("annotate pod web note=x", "pod/web annotate"),
            (
                "debug web --image=registry.example/shell:1 --target=web",
                "",
            ),
            (
                "get pod web -o jsonpath={.spec.ephemeralContainers[0].targetContainerName}",
                "web",
            ),
        ];
        kubectl.each_prints(&waits).await;
        let unscheduled = [
            (
                "wait --for=condition=Ready pod/web --timeout=1s",
                "timed out waiting for the condition on pods/web",
            ),
            ("logs web -c web", "pod web does not have a host assigned"),
            (
                "exec web -c web -- ls",
                "pod web does not have a host assigned",
            ),
        ];
        kubectl.each_complains(&unscheduled).await;
        kubectl
            .each_prints(&[("delete pod web --now", r#"pod "web" deleted"#)])
            .await;
    })
    .await;
}

/// Conformance: [sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]
async fn run(kubectl: &Kubectl) {
    let steps = [
        (
            "run web --image=registry.example/web:1 --restart=Never --dry-run=client -o yaml",
            "restartPolicy: Never",
        ),
        (
            "run web --image=registry.example/web:1 --dry-run=server -o yaml",
            "qosClass: BestEffort",
        ),
        (
            "run web --image=registry.example/web:1 --restart=Never --labels=app=web",
            "pod/web created",
        ),
        (
            "get pod web -o jsonpath={.spec.containers[0].image}:{.spec.restartPolicy}",
            "registry.example/web:1:Never",
        ),
    ];
    kubectl.each_prints(&steps).await;
}

/// Conformance: [sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]
async fn dry_run(kubectl: &Kubectl) {
    let patch = r#"patch pod web --dry-run=server -p '{"spec":{"containers":[{"name":"web","image":"registry.example/web:2"}]}}'"#;
    let steps = [
        (patch, "pod/web patched"),
        (
            "get pod web -o jsonpath={.spec.containers[0].image}",
            "registry.example/web:1",
        ),
    ];
    kubectl.each_prints(&steps).await;
}

/// Conformance: [sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]
async fn replace(kubectl: &Kubectl) {
    let pod = kubectl.ok("get pod web -o json").await;
    let changed = pod.replace("registry.example/web:1", "registry.example/web:2");
    let replaced = kubectl.ok_with("replace -f -", &changed).await;
    assert_eq!(replaced, "pod/web replaced\n");
    let image = [(
        "get pod web -o jsonpath={.spec.containers[0].image}",
        "registry.example/web:2",
    )];
    kubectl.each_prints(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_deletes_with_each_cascade() {
    with_each(Program::is_thorough, async |kubectl| {
        let replica_set = deployed(kubectl).await;
        kubectl.ok("delete deployment web --cascade=orphan").await;
        let orphan = format!("get {replica_set} -o jsonpath={{.metadata.ownerReferences}}");
        assert_eq!(kubectl.ok(&orphan).await, "");
        gone(
            kubectl,
            &format!("delete {replica_set} --cascade=background"),
            &replica_set,
        )
        .await;
        let replica_set = deployed(kubectl).await;
        gone(
            kubectl,
            "delete deployment web --cascade=foreground",
            &replica_set,
        )
        .await;
        // In the foreground the owner goes last, and kubectl waits for it.
        assert_eq!(kubectl.ok("get replicasets,pods -o name").await, "");
        kubectl.ok("create namespace team").await;
        kubectl.ok("create cm settings -n team").await;
        let namespace = [("delete namespace team", r#"namespace "team" deleted"#)];
        kubectl.each_prints(&namespace).await;
    })
    .await;
}

/// Makes a Deployment with a pod, and returns its ReplicaSet.
async fn deployed(kubectl: &Kubectl) -> String {
    kubectl
        .ok("create deployment web --image=registry.example/web:1")
        .await;
    kubectl
        .ok("wait --for=jsonpath={.status.replicas}=1 deployment/web")
        .await;
    let name = kubectl.ok("get replicasets -l app=web -o name").await;
    name.trim().to_owned()
}

/// Deletes, and waits until the ReplicaSet and its pods are gone.
async fn gone(kubectl: &Kubectl, delete: &str, replica_set: &str) {
    let pods = kubectl.ok("get pods -l app=web -o name").await;
    kubectl.ok(delete).await;
    for name in [replica_set, pods.trim()] {
        kubectl.ok(&format!("wait --for=delete {name}")).await;
    }
}
