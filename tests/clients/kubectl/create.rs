//! `kubectl create`: objects that kubectl writes itself and sends as protobuf.

use super::{Kubectl, Program, with_each};

/// Commands, and what they print.
const GENERATORS: &[(&str, &str)] = &[
    ("create namespace team", "namespace/team created"),
    (
        "create configmap settings --from-literal=colour=blue --from-literal=size=9",
        "configmap/settings created",
    ),
    (
        "create secret generic credentials --from-literal=password=x",
        "secret/credentials created",
    ),
    (
        "create secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "secret/pull created",
    ),
    (
        "create deployment web --image=registry.example/web:1 --replicas=2 --port=80",
        "deployment.apps/web created",
    ),
    (
        "create role reader --verb=get,list --resource=pods",
        "role.rbac.authorization.k8s.io/reader created",
    ),
    (
        "create rolebinding readers --role=reader --user=jane",
        "rolebinding.rbac.authorization.k8s.io/readers created",
    ),
    (
        "create clusterrole viewer --verb=get --resource=nodes",
        "clusterrole.rbac.authorization.k8s.io/viewer created",
    ),
    (
        "create clusterrolebinding viewers --clusterrole=viewer --group=staff",
        "clusterrolebinding.rbac.authorization.k8s.io/viewers created",
    ),
    (
        "create job once --image=registry.example/job:1 -- date -u",
        "job.batch/once created",
    ),
    (
        "create cronjob often --image=registry.example/job:1 --schedule='*/5 * * * *' -- date",
        "cronjob.batch/often created",
    ),
    (
        "create job now --from=cronjob/often",
        "job.batch/now created",
    ),
    (
        "create ingress front --rule=example.com/*=web:80,tls=certificate --class=x",
        "ingress.networking.k8s.io/front created",
    ),
    (
        "create quota few --hard=cpu=1,pods=10",
        "resourcequota/few created",
    ),
    (
        "create priorityclass urgent --value=1000 --description=soon",
        "priorityclass.scheduling.k8s.io/urgent created",
    ),
    (
        "create pdb web --selector=app=web --min-available=1",
        "poddisruptionbudget.policy/web created",
    ),
    (
        "create service clusterip web --tcp=80:8080",
        "service/web created",
    ),
    (
        "create service nodeport open --tcp=80:8080",
        "service/open created",
    ),
    (
        "create service externalname far --external-name=example.com",
        "service/far created",
    ),
    (
        "create serviceaccount robot",
        "serviceaccount/robot created",
    ),
];

/// What the objects hold that no flag said.
const RESULTS: &[(&str, &str)] = &[
    (
        "get cm settings -o jsonpath={.data}",
        r#"{"colour":"blue","size":"9"}"#,
    ),
    (
        "get secret credentials -o jsonpath={.type}:{.data.password}",
        "Opaque:eA==",
    ),
    (
        "get secret pull -o jsonpath={.type}",
        "kubernetes.io/dockerconfigjson",
    ),
    (
        "get deployment web -o jsonpath={.spec.strategy.type}:{.spec.template.spec.containers[0].ports[0].containerPort}",
        "RollingUpdate:80",
    ),
    (
        "get role reader -o jsonpath={.rules[0].verbs}",
        r#"["get","list"]"#,
    ),
    (
        "get rolebinding readers -o jsonpath={.subjects[0].apiGroup}",
        "rbac.authorization.k8s.io",
    ),
    (
        "get job once -o jsonpath={.spec.backoffLimit}:{.spec.completionMode}:{.spec.template.spec.restartPolicy}",
        "6:NonIndexed:Never",
    ),
    (
        "get job now -o jsonpath={.metadata.ownerReferences[0].kind}",
        "CronJob",
    ),
    (
        "get cronjob often -o jsonpath={.spec.schedule}:{.spec.concurrencyPolicy}",
        "*/5 * * * *:Allow",
    ),
    (
        "get ingress front -o jsonpath={.spec.rules[0].http.paths[0].pathType}:{.spec.tls[0].secretName}",
        "Prefix:certificate",
    ),
    (
        "get priorityclass urgent -o jsonpath={.preemptionPolicy}",
        "PreemptLowerPriority",
    ),
    (
        "get service open -o jsonpath={.spec.type}:{.spec.ports[0].nodePort}",
        "NodePort:3",
    ),
    ("get service far -o wide", "example.com"),
    ("describe quota few", "few"),
    ("describe job once", "batch.kubernetes.io/job-name=once"),
    ("describe ingress front", "example.com"),
    ("describe pdb web", "Min available:  1"),
    ("describe namespace team", "Status:       Active"),
    ("get all", "deployment.apps/web"),
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_what_it_writes_itself() {
    with_each(Program::is_thorough, async |kubectl| {
        kubectl.each_prints(GENERATORS).await;
        kubectl.each_prints(RESULTS).await;
        tokens(kubectl).await;
        let again = [
            (
                "create configmap settings",
                r#"configmaps "settings" already exists"#,
            ),
            (
                "create namespace Bad_Name",
                "a lowercase RFC 1123 label must consist of",
            ),
            (
                "create quota bad --hard=cpu=x",
                "quantities must match the regular expression",
            ),
        ];
        kubectl.each_complains(&again).await;
    })
    .await;
}

/// A token says who its bearer is.
async fn tokens(kubectl: &Kubectl) {
    let token = kubectl.ok("create token robot --duration=1h").await;
    let credentials = format!("config set-credentials robot --token={}", token.trim());
    kubectl.ok(&credentials).await;
    // Older versions have no `auth whoami` for this version of the review.
    let review = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
    // Validation by versions before 1.28 asks for custom resources, which a robot may not list.
    let who = "create --user=robot --validate=false -o jsonpath={.status.userInfo.username} -f -";
    let bearer = kubectl.ok_with(who, review).await;
    assert_eq!(bearer, "system:serviceaccount:default:robot");
}
