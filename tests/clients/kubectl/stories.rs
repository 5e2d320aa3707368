//! What people do with workloads on a cluster of wasm nodes, told with kubectl.

use std::collections::HashSet;
use std::time::Duration;

use windlass_control::Clock;
use windlass_tests::load::Load;
use windlass_tests::{Cluster, PATIENCE, get, push};

use super::{Kubectl, newest};

/// The component of `examples/hello`.
const HELLO: &[u8] = include_bytes!("../../../examples/hello/hello.wasm");

/// A command that ends well unless its last argument is 7 or 23.
const UNLESS_7_OR_23: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $text i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $args (i32.const 16) (i32.const 1024)))
        (local.set $text (i32.load (i32.add (i32.const 12) (i32.mul (i32.const 4) (i32.load (i32.const 0))))))
        (if (i32.eq (i32.load16_u (local.get $text)) (i32.const 0x0037)) (then (call $exit (i32.const 1))))
        (if (i32.eq (i32.load16_u (local.get $text)) (i32.const 0x3332)) (then (call $exit (i32.const 1))))))"#;

/// A cluster of its own with its clock, the newest kubectl, and the image of the web app.
struct Story {
    cluster: Cluster,
    clock: Clock,
    kubectl: Kubectl,
    image: String,
}

impl Story {
    /// `None` without kubectl, which is said.
    async fn begin(nodes: usize) -> Option<Self> {
        let program = newest().await?;
        let clock = Clock::default();
        let mut cluster = Cluster::start(|config| {
            config.in_memory = true;
            config.clock = clock.clone();
            config.node_grace = Duration::from_secs(15);
        })
        .await
        .unwrap();
        for number in 1..=nodes {
            cluster.add_node(&format!("node-{number}")).await.unwrap();
        }
        let image = push(&cluster, "hello", HELLO).await;
        let kubectl = Kubectl::new(&program, &cluster);
        Some(Self {
            cluster,
            clock,
            kubectl,
            image,
        })
    }

    async fn apply(&self, manifest: &str) {
        self.kubectl.ok_with("apply -f -", manifest).await;
    }

    /// A web app whose pods are labelled `app: web` and `set: NAME`.
    async fn deploy(&self, name: &str, replicas: u32, more: &str) {
        let pod = pod(name, &self.image);
        self.apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  \
             replicas: {replicas}\n  selector: {{matchLabels: {{set: {name}}}}}\n{more}  template:\n{pod}"
        ))
        .await;
        let status = format!("rollout status deployment/{name}");
        self.kubectl.ok(&status).await;
    }

    /// A Service over the pods with a label, and the URL of its port on the first node.
    async fn serve(&self, selector: &str) -> String {
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  \
             selector: {{{selector}}}\n  ports: [{{port: 80, targetPort: http}}]"
        ))
        .await;
        let port = "get service web -o jsonpath={.spec.ports[0].nodePort}";
        let port = self.kubectl.ok(port).await;
        let url = format!("http://{}:{port}/", self.cluster.node_address());
        let answers = async { while get(&url).await.is_err() {} };
        tokio::time::timeout(PATIENCE, answers).await.unwrap();
        url
    }

    async fn end(self) {
        self.cluster.shutdown().await;
    }
}

/// The template of pods that say their name.
fn pod(name: &str, image: &str) -> String {
    format!(
        "    metadata: {{labels: {{app: web, set: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
      containers:
      - name: web
        image: {image}
        env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
"
    )
}

/// Which pods answer `count` requests.
async fn answering(url: &str, count: usize) -> HashSet<String> {
    let mut pods = HashSet::new();
    for _ in 0..count {
        let (status, text) = get(url).await.unwrap();
        assert_eq!(status, 200, "{text}");
        let name = text.trim().rsplit(' ').next().unwrap_or_default();
        pods.insert(name.to_owned());
    }
    pods
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_replicas_are_replaced_under_load() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    story.deploy("web", 20, "").await;
    let url = story.serve("set: web").await;
    let before = answering(&url, 100).await;
    let load = Load::on(&url, 4);
    let steps = [
        ("set env deployment/web GREETING=new", "env updated"),
        ("rollout status deployment/web", "successfully rolled out"),
    ];
    story.kubectl.each_prints(&steps).await;
    load.none_failed().await;
    assert!(before.is_disjoint(&answering(&url, 100).await));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_stalls_and_is_undone() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    story
        .deploy("web", 3, "  progressDeadlineSeconds: 3\n")
        .await;
    let url = story.serve("set: web").await;
    let load = Load::on(&url, 1);
    let kubectl = &story.kubectl;
    kubectl
        .ok("set image deployment/web web=registry.windlass.local/default/none:1")
        .await;
    let said = kubectl.fails("rollout status deployment/web", "").await;
    assert!(said.contains("exceeded its progress deadline"), "{said}");
    let pods = kubectl.ok("get pods -l set=web").await;
    let mut states = ["ErrImagePull", "ImagePullBackOff"].iter();
    assert!(states.any(|state| pods.contains(state)), "{pods}");
    let progress =
        "get deployment web -o jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}";
    let steps = [
        ("describe pods -l set=web", "default/none:1"),
        (progress, "ProgressDeadlineExceeded"),
    ];
    kubectl.each_prints(&steps).await;
    let steps = [
        ("rollout undo deployment/web", "rolled back"),
        ("rollout status deployment/web", "successfully rolled out"),
    ];
    kubectl.each_prints(&steps).await;
    load.none_failed().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_and_then_the_other_colour_get_the_requests() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    story.deploy("blue", 3, "").await;
    story.deploy("green", 1, "").await;
    let url = story.serve("app: web").await;
    let both = answering(&url, 40).await;
    let of = |set: &str| both.iter().filter(|name| name.starts_with(set)).count();
    assert_eq!((of("blue"), of("green")), (3, 1), "{both:?}");
    let load = Load::on(&url, 2);
    for colour in ["blue", "green"] {
        let patch = format!(
            r#"patch service web --type=merge -p '{{"spec":{{"selector":{{"app":null,"set":"{colour}"}}}}}}'"#
        );
        story.kubectl.ok(&patch).await;
        // The switch reaches the node a moment after kubectl has ended.
        let switched = async {
            while !answering(&url, 10)
                .await
                .iter()
                .all(|name| name.starts_with(colour))
            {}
        };
        tokio::time::timeout(PATIENCE, switched).await.unwrap();
    }
    load.none_failed().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_goes_up_and_down_in_order() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    let mut watch = story
        .kubectl
        .start("get pods -w --output-watch-events -l set=db --no-headers");
    story
        .apply(&format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  replicas: 3\n  \
             serviceName: db\n  selector: {{matchLabels: {{set: db}}}}\n  template:\n{}",
            pod("db", &story.image)
        ))
        .await;
    story.kubectl.ok("rollout status statefulset/db").await;
    for next in ["db-0", "db-1", "db-2"] {
        let added = watch.says("ADDED").await;
        assert!(added.contains(next), "{added}");
        // It is ready before the next one is made.
        watch.says("1/1").await;
    }
    story.kubectl.ok("scale statefulset/db --replicas=0").await;
    for next in ["db-2", "db-1", "db-0"] {
        let deleted = watch.says("DELETED").await;
        assert!(deleted.contains(next), "{deleted}");
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_comes_to_a_joining_node() {
    let Some(mut story) = Story::begin(1).await else {
        return;
    };
    story
        .apply(&format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: agent}}\nspec:\n  \
             selector: {{matchLabels: {{set: agent}}}}\n  template:\n{}",
            pod("agent", &story.image)
        ))
        .await;
    story.kubectl.ok("rollout status daemonset/agent").await;
    story.cluster.add_node("node-2").await.unwrap();
    let wait = "wait --for=jsonpath={.status.numberReady}=2 daemonset/agent --timeout=60s";
    story.kubectl.ok(wait).await;
    let nodes = "get pods -l set=agent -o jsonpath={.items[*].spec.nodeName}";
    let nodes = story.kubectl.ok(nodes).await;
    let nodes: HashSet<_> = nodes.split(' ').collect();
    assert_eq!(nodes, ["node-1", "node-2"].into());
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_indexes_two_fail() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    let image = push(
        &story.cluster,
        "picky",
        &wat::parse_str(UNLESS_7_OR_23).unwrap(),
    )
    .await;
    story
        .apply(&format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: fifty}}\nspec:\n  completions: 50\n  \
             parallelism: 10\n  completionMode: Indexed\n  backoffLimitPerIndex: 0\n  maxFailedIndexes: 5\n  \
             template:\n    spec:\n      restartPolicy: Never\n      containers:\n      - name: picky\n        \
             image: {image}\n        args: [\"$(JOB_COMPLETION_INDEX)\"]"
        ))
        .await;
    let kubectl = &story.kubectl;
    kubectl
        .ok("wait --for=condition=Failed job/fifty --timeout=60s")
        .await;
    let field = async |path: &str| {
        let line = format!("get job fifty -o jsonpath={{{path}}}");
        kubectl.ok(&line).await
    };
    assert_eq!(field(".status.succeeded").await, "48");
    assert_eq!(field(".status.failedIndexes").await, "7,23");
    assert_eq!(field(".status.completedIndexes").await, "0-6,8-22,24-49");
    let reason = field(".status.conditions[?(@.type==\"Failed\")].reason").await;
    assert_eq!(reason, "FailedIndexes");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_goes_by_the_clock() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    let done = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    let image = push(&story.cluster, "done", &done.unwrap()).await;
    story
        .apply(&format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: hourly}}\nspec:\n  \
             schedule: \"30 * * * *\"\n  timeZone: Asia/Kolkata\n  successfulJobsHistoryLimit: 2\n  \
             jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          \
             containers: [{{name: done, image: {image}}}]"
        ))
        .await;
    let (kubectl, hour) = (&story.kubectl, jiff::SignedDuration::from_hours(1));
    let field = async |path: &str| {
        let line = format!("get cronjob hourly -o jsonpath={{{path}}}");
        kubectl.ok(&line).await
    };
    assert_eq!(field(".status.lastScheduleTime").await, "");
    let mut runs = Vec::new();
    for _ in 0..3 {
        story.clock.turn(hour);
        let run = async {
            loop {
                let last = field(".status.lastSuccessfulTime").await;
                if !last.is_empty() && runs.last() != Some(&last) {
                    return last;
                }
            }
        };
        runs.push(tokio::time::timeout(PATIENCE, run).await.unwrap());
    }
    // Half past of a zone that is half an hour off.
    let due = field(".status.lastScheduleTime").await;
    assert!(due.ends_with(":00:00Z"), "{due}");
    let names = "get jobs -o jsonpath={.items[*].metadata.name}";
    let kept = async { while kubectl.ok(names).await.split(' ').count() != 2 {} };
    tokio::time::timeout(PATIENCE, kept).await.unwrap();
    // While it is suspended nothing is due, and with the clock turned back nothing is due twice.
    kubectl
        .ok(r#"patch cronjob hourly -p '{"spec":{"suspend":true}}'"#)
        .await;
    story.clock.turn(hour);
    let by_hand = [
        ("create job by-hand --from=cronjob/hourly", "created"),
        (
            "wait --for=condition=Complete job/by-hand --timeout=60s",
            "met",
        ),
    ];
    kubectl.each_prints(&by_hand).await;
    story.clock.turn(-hour * 5);
    let again = [
        (
            r#"patch cronjob hourly -p '{"spec":{"suspend":false}}'"#,
            "patched",
        ),
        (&format!("create job other --image={image}"), "created"),
        (
            "wait --for=condition=Complete job/other --timeout=60s",
            "met",
        ),
    ];
    kubectl.each_prints(&again).await;
    assert_eq!(field(".status.lastScheduleTime").await, due);
    assert_eq!(field(".status.active").await, "");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_important_pod_takes_the_place_of_another() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    let kubectl = &story.kubectl;
    for (name, value) in [("low", 1), ("high", 1000)] {
        kubectl
            .ok(&format!("create priorityclass {name} --value={value}"))
            .await;
    }
    let all = kubectl
        .ok("get node node-1 -o jsonpath={.status.allocatable.cpu}")
        .await;
    let wants = |name: &str| {
        pod(name, &story.image)
            + &format!(
                "        resources: {{requests: {{cpu: \"{all}\"}}}}\n      priorityClassName: {name}\n"
            )
    };
    story
        .apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: low}}\nspec:\n  replicas: 1\n  \
             selector: {{matchLabels: {{set: low}}}}\n  template:\n{}",
            wants("low")
        ))
        .await;
    kubectl.ok("rollout status deployment/low").await;
    let first = kubectl
        .ok("get pods -l set=low -o jsonpath={.items[0].metadata.name}")
        .await;
    story
        .apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: high}}\nspec:\n  replicas: 1\n  \
             selector: {{matchLabels: {{set: high}}}}\n  template:\n{}",
            wants("high")
        ))
        .await;
    let waiting = "get pods -l set=low -o \
        jsonpath={.items[0].status.conditions[?(@.type==\"PodScheduled\")].message}";
    let steps = [
        ("rollout status deployment/high", "successfully rolled out"),
        ("get events", "Preempted by pod"),
        (waiting, "0/1 nodes are available: 1 Insufficient cpu."),
    ];
    kubectl.each_prints(&steps).await;
    let left = kubectl
        .ok("get pods -l set=low -o jsonpath={.items[*].metadata.name}")
        .await;
    assert!(!left.contains(&first), "{left}");
    // With the important one gone its place is free again.
    kubectl.ok("delete deployment high").await;
    kubectl.ok("rollout status deployment/low").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_nodes_is_drained_within_its_budget() {
    let Some(story) = Story::begin(3).await else {
        return;
    };
    story.deploy("web", 3, "").await;
    let url = story.serve("set: web").await;
    let kubectl = &story.kubectl;
    kubectl
        .ok("create pdb web --selector=set=web --min-available=2")
        .await;
    kubectl
        .ok("wait --for=jsonpath={.status.disruptionsAllowed}=1 pdb/web")
        .await;
    let load = Load::on(&url, 2);
    let steps = [
        ("drain node-2 --ignore-daemonsets", "node/node-2 drained"),
        ("rollout status deployment/web", "successfully rolled out"),
    ];
    kubectl.each_prints(&steps).await;
    load.none_failed().await;
    let nodes = "get pods -l set=web -o jsonpath={.items[*].spec.nodeName}";
    let nodes = kubectl.ok(nodes).await;
    assert!(!nodes.contains("node-2"), "{nodes}");
    assert_eq!(nodes.split(' ').count(), 3, "{nodes}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_killed_node_run_elsewhere() {
    let Some(mut story) = Story::begin(2).await else {
        return;
    };
    story.deploy("web", 2, "").await;
    let kubectl = &story.kubectl;
    let nodes = "get pods -l set=web -o jsonpath={.items[*].spec.nodeName}";
    let spread: HashSet<_> = kubectl
        .ok(nodes)
        .await
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!(spread.len(), 2, "{spread:?}");
    story.cluster.kill_node("node-2");
    let kubectl = &story.kubectl;
    kubectl
        .ok("wait --for=condition=Ready=Unknown node/node-2 --timeout=50s")
        .await;
    let replaced = async {
        loop {
            let running = "get pods -l set=web -o \
                jsonpath={range.items[?(@.status.phase==\"Running\")]}{.spec.nodeName}/{.metadata.deletionTimestamp}{.end}";
            let running = kubectl.ok(running).await;
            if running.matches("node-1/").count() == 2 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, replaced).await.unwrap();
    kubectl.ok("rollout status deployment/web").await;
    story.end().await;
}

/// Conformance: [sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_controller_are_described_exposed_and_changed() {
    let Some(story) = Story::begin(1).await else {
        return;
    };
    story
        .apply(&format!(
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: web}}\nspec:\n  replicas: 1\n  \
             selector: {{set: web}}\n  template:\n{}",
            pod("web", &story.image)
        ))
        .await;
    let kubectl = &story.kubectl;
    kubectl
        .ok("wait --for=jsonpath={.status.readyReplicas}=1 rc/web --timeout=60s")
        .await;
    let name = kubectl
        .ok("get pods -l set=web -o jsonpath={.items[0].metadata.name}")
        .await;
    let image = "-o jsonpath={.spec.containers[0].image}";
    let lines = [
        (
            format!("describe pod {name}"),
            "Controlled By:  ReplicationController/web",
        ),
        (
            "describe rc web".into(),
            "1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
        ),
        ("describe node node-1".into(), "Non-terminated Pods:"),
        ("describe namespace default".into(), "Status:       Active"),
        (
            "expose rc web --name=one --port=1234 --target-port=8080".into(),
            "service/one exposed",
        ),
        (
            "describe service one".into(),
            "TargetPort:               8080/TCP",
        ),
        (
            "expose service one --name=two --port=2345 --target-port=8080".into(),
            "service/two exposed",
        ),
        (
            "get endpoints two -o jsonpath={.subsets[0].ports[0].port}".into(),
            "8080",
        ),
        (format!("label pod {name} testing=value"), "labeled"),
        (format!("get pod {name} -L testing"), "value"),
        (format!("label pod {name} testing-"), "unlabeled"),
        (
            format!(r#"patch pod {name} -p '{{"metadata":{{"annotations":{{"x":"y"}}}}}}'"#),
            "patched",
        ),
        (
            format!("get pod {name} -o jsonpath={{.metadata.annotations.x}}"),
            "y",
        ),
        (
            format!(
                r#"patch pod {name} --dry-run=server -p '{{"spec":{{"containers":[{{"name":"web","image":"other"}}]}}}}'"#
            ),
            "patched",
        ),
        (format!("get pod {name} {image}"), &*story.image),
    ];
    for (line, expected) in &lines {
        kubectl.each_prints(&[(line, expected)]).await;
    }
    let pod = kubectl.ok(&format!("get pod {name} -o json")).await;
    let other = push(&story.cluster, "other", HELLO).await;
    kubectl
        .ok_with("replace -f -", &pod.replace(&story.image, &other))
        .await;
    let replaced = kubectl.ok(&format!("get pod {name} {image}")).await;
    assert_eq!(replaced, other);
    story.end().await;
}
