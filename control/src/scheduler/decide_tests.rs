//! Decisions over small clusters.

use std::sync::Arc;

use serde_json::{Value, json};

use super::decide::{self, Unschedulable};
use super::event::Event;
use super::pod_info::PodInfo;
use super::preempt::{NoRoom, Preemption, preempt};
use super::profile::{Profile, Profiles};
use super::snapshot::{NodeFacts, Snapshot};
use crate::controllers::runtime::informer::Cached;
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::Metadata;

fn decide(pod: &PodInfo, snapshot: &Snapshot) -> Result<String, Unschedulable> {
    decide_as(pod, snapshot, &Profile::default())
}

fn decide_as(
    pod: &PodInfo,
    snapshot: &Snapshot,
    profile: &Profile,
) -> Result<String, Unschedulable> {
    decide::decide(pod, snapshot, profile, &mut "".into()).map(ToString::to_string)
}

/// The node that a pod goes to, or the reasons for none.
fn chosen(pod: &PodInfo, snapshot: &Snapshot) -> String {
    decide(pod, snapshot).unwrap_or_else(|refused| {
        let (_, reasons) = refused.message.split_once(": ").unwrap();
        reasons.trim_end_matches('.').to_owned()
    })
}

fn node(name: &str, spec: Value, cpu: &str) -> Arc<NodeFacts> {
    let object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": &name[..1]}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "3"}},
    });
    Arc::new(NodeFacts::project(serde_json::from_value(object).unwrap()))
}

fn pod(uid: &str, spec: Value) -> Arc<PodInfo> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let object = json!({
        "metadata": {"name": uid, "uid": uid, "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": true}]},
        "spec": spec,
    });
    Arc::new(PodInfo::project(serde_json::from_value(object).unwrap()))
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn cluster(nodes: &[Arc<NodeFacts>]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes
        .iter()
        .for_each(|node| snapshot.put_node(Arc::clone(node)));
    snapshot
}

#[test]
fn a_pod_that_fits_nowhere_is_told_why_in_kubernetes_words() {
    let taint = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    let snapshot = cluster(&[
        node("a1", json!({}), "1"),
        node("b1", taint, "9"),
        node("c1", json!({"unschedulable": true}), "9"),
        node("d1", json!({}), "1"),
    ]);
    let refused = decide(&pod("p", asking("2")), &snapshot).unwrap_err();
    assert_eq!(
        refused.message,
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
    let hears = |event| {
        let filters = refused.refused_by.filters();
        filters.filter(|filter| filter.hears(event)).count()
    };
    let gone = PodInfo::default();
    assert_eq!(hears(Event::PodGone(&gone)), 1);
    assert_eq!(hears(Event::PodPlaced), 0);
    let names: Vec<_> = refused.crowded.iter().map(|name| &**name).collect();
    assert_eq!(
        names,
        Vec::<&str>::new(),
        "none would have room without pods"
    );
    let none = decide(&pod("p", json!({})), &Snapshot::default()).unwrap_err();
    assert_eq!(none.message, "no nodes available to schedule pods");
}

#[test]
fn every_filter_lets_through_what_it_should() {
    let taint = json!({"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]});
    let mut snapshot = cluster(&[node("a1", taint, "2"), node("b1", json!({}), "2")]);
    let taken = pod(
        "taken",
        json!({"nodeName": "b1", "containers": [{"name": "c",
        "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
    );
    snapshot.place(&taken);
    let tolerant = json!([{"key": "a", "operator": "Exists"}]);
    let affinity = |operator: &str, values: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}]}}})
    };
    let cases = [
        (json!({}), Ok("b1")),
        (
            json!({"nodeSelector": {"zone": "a"}, "tolerations": tolerant}),
            Ok("a1"),
        ),
        (
            json!({"nodeSelector": {"zone": "a"}}),
            Err(
                "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s)",
            ),
        ),
        (json!({"affinity": affinity("In", json!(["b"]))}), Ok("b1")),
        (
            json!({"affinity": affinity("NotIn", json!(["b"])), "tolerations": tolerant}),
            Ok("a1"),
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a1"]}]}]}}}, "tolerations": tolerant}),
            Ok("a1"),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
            Err(
                "1 node(s) didn't have free ports for the requested pod ports, 1 node(s) had untolerated taint(s)",
            ),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "protocol": "UDP"}]}]}),
            Ok("b1"),
        ),
        (
            json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}),
            Err("1 Insufficient example.com/gpu, 1 node(s) had untolerated taint(s)"),
        ),
    ];
    for (spec, expected) in cases {
        let found = decide(&pod("p", spec.clone()), &snapshot);
        match expected {
            Ok(node) => assert_eq!(found.unwrap(), node, "{spec}"),
            Err(reasons) => {
                let message = format!("0/2 nodes are available: {reasons}.");
                assert_eq!(found.unwrap_err().message, message, "{spec}");
            }
        }
    }
}

#[test]
fn pods_of_one_owner_spread_and_nodes_fill_up() {
    let mut snapshot = cluster(&[node("a1", json!({}), "4"), node("b1", json!({}), "4")]);
    let mut placed = Vec::new();
    for at in 0..6 {
        let pod = pod(&format!("p{at}"), json!({}));
        let node = decide(&pod, &snapshot).unwrap();
        snapshot.assume(&pod, &node);
        placed.push(node);
    }
    assert_eq!(placed, ["a1", "b1", "a1", "b1", "a1", "b1"]);
    let refused = decide(&pod("p7", json!({})), &snapshot).unwrap_err();
    assert_eq!(refused.message, "0/2 nodes are available: 2 Too many pods.");
}

#[test]
fn preferences_outweigh_names() {
    let shy = json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]});
    let snapshot = cluster(&[
        node("a1", shy, "4"),
        node("b1", json!({}), "4"),
        node("c1", json!({}), "4"),
    ]);
    assert_eq!(chosen(&pod("p", json!({})), &snapshot), "b1");
    let preferring = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["c"]}]}}]}}});
    assert_eq!(chosen(&pod("p", preferring), &snapshot), "c1");
}

/// A pod that can be told by labels; what is not there is left out.
fn labelled(uid: &str, labels: Value, spec: Value) -> Arc<PodInfo> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let metadata = json!({"name": uid, "uid": uid, "namespace": "default", "labels": labels});
    let object = json!({"metadata": metadata, "spec": spec});
    Arc::new(PodInfo::project(serde_json::from_value(object).unwrap()))
}

fn on(node: &str, mut spec: Value) -> Value {
    spec["nodeName"] = node.into();
    spec
}

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn required(kind: &str, term: Value) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

/// Nodes `a1`, `a2` and `b1` in the zones `a` and `b`.
fn zones() -> Snapshot {
    cluster(&["a1", "a2", "b1"].map(|name| node(name, json!({}), "4")))
}

#[test]
fn pods_go_where_the_pods_are_that_they_want_and_stay_away_from_others() {
    let mut snapshot = zones();
    let (near, apart) = ("podAffinity", "podAntiAffinity");
    let web = json!({"app": "web"});
    let pod = |spec| labelled("p", json!({"app": "p"}), spec);
    let of_zone = |kind| required(kind, term("web", "zone"));
    let no_near = "3 node(s) didn't match pod affinity rules";
    assert_eq!(chosen(&pod(of_zone(near)), &snapshot), no_near);
    // The first of a group that wants its own kind is let in.
    let own = required(near, term("p", "zone"));
    assert_eq!(chosen(&pod(own), &snapshot), "a1");
    snapshot.place(&labelled("web", web.clone(), on("b1", json!({}))));
    assert_eq!(chosen(&pod(of_zone(near)), &snapshot), "b1");
    assert_eq!(chosen(&pod(of_zone(apart)), &snapshot), "a1");
    snapshot.place(&labelled("web2", web, on("a1", json!({}))));
    assert_eq!(
        chosen(&pod(of_zone(apart)), &snapshot),
        "3 node(s) didn't match pod anti-affinity rules"
    );
    assert_eq!(
        chosen(
            &pod(required(apart, term("web", "kubernetes.io/hostname"))),
            &snapshot
        ),
        "a2"
    );
    // What is on a node already may not want the pod.
    let loner = required(apart, term("p", "zone"));
    snapshot.place(&labelled("loner", json!({}), on("a2", loner)));
    assert_eq!(chosen(&pod(json!({})), &snapshot), "b1");
    snapshot.remove_pod("loner");
    snapshot.remove_pod("web");
    snapshot.remove_pod("web2");
    assert_eq!(chosen(&pod(of_zone(near)), &snapshot), no_near);
}

#[test]
fn affinity_reaches_the_namespaces_it_names() {
    let mut snapshot = zones();
    let labels = json!({"team": "x"});
    snapshot
        .namespaces
        .insert("other".into(), serde_json::from_value(labels).unwrap());
    let mut web = (*labelled("web", json!({"app": "web"}), on("b1", json!({})))).clone();
    let mut class = (*web.class).clone();
    class.namespace = "other".into();
    web.class = Arc::new(class);
    snapshot.place(&Arc::new(web));
    let with = |more: Value| {
        let mut term = term("web", "zone");
        json_patch::merge(&mut term, &more);
        chosen(
            &labelled("p", json!({}), required("podAffinity", term)),
            &snapshot,
        )
    };
    let none = "3 node(s) didn't match pod affinity rules";
    assert_eq!(with(json!({})), none);
    assert_eq!(with(json!({"namespaces": ["other"]})), "b1");
    assert_eq!(with(json!({"namespaceSelector": {}})), "b1");
    assert_eq!(
        with(json!({"namespaceSelector": {"matchLabels": {"team": "x"}}})),
        "b1"
    );
    assert_eq!(
        with(json!({"namespaceSelector": {"matchLabels": {"team": "y"}}})),
        none
    );
}

#[test]
fn preferences_between_pods_count_both_ways() {
    let mut snapshot = zones();
    let preferred = |kind: &str| {
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term("web", "zone")}]}}})
    };
    snapshot.place(&labelled("web", json!({"app": "web"}), on("a2", json!({}))));
    let pod = |spec| labelled("p", json!({"app": "web"}), spec);
    assert_eq!(chosen(&pod(preferred("podAntiAffinity")), &snapshot), "b1");
    assert_eq!(chosen(&pod(preferred("podAffinity")), &snapshot), "a1");
    // The pod says nothing; one that is there already does.
    snapshot.place(&labelled(
        "shy",
        json!({}),
        on("a1", preferred("podAntiAffinity")),
    ));
    assert_eq!(chosen(&pod(json!({})), &snapshot), "b1");
}

fn spread(key: &str, when: &str, more: Value) -> Value {
    let mut constraint = json!({
        "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    json_patch::merge(&mut constraint, &more);
    json!({"topologySpreadConstraints": [constraint]})
}

#[test]
fn pods_are_spread_as_evenly_as_they_ask() {
    let strict = |more| spread("zone", "DoNotSchedule", more);
    let web = json!({"app": "web"});
    let mut snapshot = zones();
    let mut placed = Vec::new();
    for at in 0..4 {
        let pod = labelled(&format!("web{at}"), web.clone(), strict(json!({})));
        let node = decide(&pod, &snapshot).unwrap();
        snapshot.assume(&pod, &node);
        placed.push(node[..1].to_owned());
    }
    placed.sort();
    assert_eq!(placed, ["a", "a", "b", "b"]);
    snapshot.place(&labelled("web4", web.clone(), on("a1", json!({}))));
    let next = |more: Value| labelled("next", web.clone(), more);
    assert_eq!(chosen(&next(strict(json!({}))), &snapshot), "b1");
    // As long as there are too few zones the emptiest counts as empty.
    assert_eq!(
        chosen(&next(strict(json!({"minDomains": 3}))), &snapshot),
        "3 node(s) didn't match pod topology spread constraints"
    );
    let missing = spread("rack", "DoNotSchedule", json!({}));
    assert_eq!(
        chosen(&next(missing), &snapshot),
        "3 node(s) didn't match pod topology spread constraints (missing required label)"
    );
    let wish = spread("kubernetes.io/hostname", "ScheduleAnyway", json!({}));
    snapshot.place(&labelled("web5", web.clone(), on("b1", json!({}))));
    snapshot.place(&labelled("web6", web.clone(), on("b1", json!({}))));
    assert_ne!(chosen(&next(wish), &snapshot), "b1");
}

#[test]
fn nodes_that_a_pod_cannot_take_do_not_count_as_empty() {
    let taint = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    let mut snapshot = cluster(&[node("a1", json!({}), "4"), node("b1", taint, "4")]);
    snapshot.place(&labelled("web", json!({"app": "web"}), on("a1", json!({}))));
    let pod = |more| {
        let spec = spread("zone", "DoNotSchedule", more);
        labelled("p", json!({"app": "web"}), spec)
    };
    // By default taints are not looked at, so zone b stays the emptiest for ever.
    assert_eq!(
        chosen(&pod(json!({})), &snapshot),
        "1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint(s)"
    );
    assert_eq!(
        chosen(&pod(json!({"nodeTaintsPolicy": "Honor"})), &snapshot),
        "a1"
    );
}

fn with_priority(uid: &str, priority: i32, cpu: &str, node: &str) -> Arc<PodInfo> {
    let mut spec = asking(cpu);
    spec["priority"] = priority.into();
    labelled(uid, json!({"app": uid}), on(node, spec))
}

fn make_room(pod: &PodInfo, snapshot: &Snapshot) -> Result<Preemption, NoRoom> {
    let refused = decide(pod, snapshot).unwrap_err();
    preempt(pod, snapshot, &Profile::default(), &refused)
}

fn victims(found: Result<Preemption, NoRoom>) -> (String, Vec<String>) {
    let found = found.unwrap();
    let names = found
        .victims
        .iter()
        .map(|pod| pod.metadata.name().to_owned());
    (found.node.to_string(), names.collect())
}

#[test]
fn room_is_made_by_as_few_and_as_unimportant_pods_as_can_be() {
    let mut snapshot = zones();
    for (uid, priority, cpu, node) in [
        ("a-low", 1, "3", "a1"),
        ("a-high", 9, "1", "a1"),
        ("b-low", 1, "2", "a2"),
        ("b-low2", 2, "2", "a2"),
        ("c-mid", 5, "4", "b1"),
    ] {
        snapshot.place(&with_priority(uid, priority, cpu, node));
    }
    let pod = with_priority("p", 8, "2", "");
    // a2: the less important of the two is enough, and it is as unimportant as a1's.
    assert_eq!(
        victims(make_room(&pod, &snapshot)),
        ("a1".into(), vec!["a-low".into()])
    );
    let larger = with_priority("p", 8, "4", "");
    assert_eq!(
        victims(make_room(&larger, &snapshot)),
        ("a2".into(), vec!["b-low2".into(), "b-low".into()])
    );
    let unimportant = with_priority("p", 1, "2", "");
    let refused = make_room(&unimportant, &snapshot).unwrap_err();
    assert_eq!(
        refused.message,
        "0/3 nodes are available: 3 No preemption victims found for incoming pod."
    );
    let huge = make_room(&with_priority("p", 8, "8", ""), &snapshot).unwrap_err();
    assert_eq!(
        huge.message,
        "0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let mut polite = (*pod).clone();
    polite.wants.never_preempts = true;
    let refused = make_room(&polite, &snapshot).unwrap_err();
    assert_eq!(
        refused.message,
        "not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn budgets_decide_whom_to_take_if_there_is_a_choice() {
    let mut snapshot = zones();
    for (uid, node) in [("one", "a1"), ("two", "a2"), ("three", "b1")] {
        snapshot.place(&with_priority(uid, 1, "4", node));
    }
    for (name, allowed) in [("one", 0), ("two", 1)] {
        let budget = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": name}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                "expectedPods": 1},
        });
        let budget: k8s_openapi::api::policy::v1::PodDisruptionBudget =
            serde_json::from_value(budget).unwrap();
        let key = Key::of(&budget.metadata);
        snapshot.budgets.insert(key, Arc::new(budget));
    }
    let pod = with_priority("p", 8, "2", "");
    assert_eq!(
        victims(make_room(&pod, &snapshot)),
        ("a2".into(), vec!["two".into()])
    );
    snapshot.remove_pod("two");
    snapshot.remove_pod("three");
    snapshot.place(&with_priority("important", 9, "4", "a2"));
    snapshot.place(&with_priority("important2", 9, "4", "b1"));
    // A budget is broken if nothing else helps.
    assert_eq!(
        victims(make_room(&pod, &snapshot)),
        ("a1".into(), vec!["one".into()])
    );
}

#[test]
fn room_that_is_promised_is_not_given_to_those_who_matter_less() {
    let mut snapshot = cluster(&[node("a1", json!({}), "4")]);
    snapshot.nominate(&with_priority("promised", 5, "3", ""), "a1");
    assert_eq!(
        chosen(&with_priority("p", 4, "2", ""), &snapshot),
        "1 Insufficient cpu"
    );
    assert_eq!(chosen(&with_priority("p", 6, "2", ""), &snapshot), "a1");
    assert_eq!(
        chosen(&with_priority("promised", 5, "3", ""), &snapshot),
        "a1"
    );
    snapshot.forget_nomination("promised");
    assert_eq!(chosen(&with_priority("p", 4, "2", ""), &snapshot), "a1");
}

#[test]
fn anti_affinity_can_be_answered_by_making_room() {
    let mut snapshot = cluster(&[node("a1", json!({}), "4")]);
    snapshot.place(&labelled("web", json!({"app": "web"}), on("a1", json!({}))));
    let mut spec = required("podAntiAffinity", term("web", "kubernetes.io/hostname"));
    spec["priority"] = 5.into();
    let pod = labelled("p", json!({}), spec);
    assert_eq!(
        victims(make_room(&pod, &snapshot)),
        ("a1".into(), vec!["web".into()])
    );
}

fn store(snapshot: &mut Snapshot, objects: &[Value]) {
    let storage = &mut snapshot.storage;
    for object in objects {
        let object = object.clone();
        match object["kind"].as_str().unwrap() {
            "PersistentVolumeClaim" => {
                let claim = super::Claim::project(serde_json::from_value(object).unwrap());
                let name = claim.metadata.name().to_owned();
                storage
                    .claims
                    .insert(Key::new("default", &name), Arc::new(claim));
            }
            "PersistentVolume" => {
                let volume = super::Volume::project(serde_json::from_value(object).unwrap());
                let name = volume.metadata.name().to_owned();
                storage.volumes.insert(name, Arc::new(volume));
            }
            _ => {
                let class = super::Class::project(serde_json::from_value(object).unwrap());
                let name = class.metadata.name().to_owned();
                storage.classes.insert(name, Arc::new(class));
            }
        }
    }
}

fn claim(name: &str, more: Value) -> Value {
    let mut claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    json_patch::merge(&mut claim, &more);
    claim
}

fn volume(name: &str, zone: &str) -> Value {
    json!({"kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
        "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}}})
}

#[test]
fn pods_go_where_their_volumes_are() {
    let mut snapshot = zones();
    let mounting = |claim: &str| {
        let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
        labelled("p", json!({}), json!({ "volumes": [volume] }))
    };
    let class = |name: &str, provisioner: &str| {
        json!({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer"})
    };
    store(
        &mut snapshot,
        &[
            volume("in-b", "b"),
            volume("in-c", "c"),
            class("slow", "kubernetes.io/no-provisioner"),
            class("made", "example.com/disks"),
            claim("bound", json!({"spec": {"volumeName": "in-b"}})),
            claim("far", json!({"spec": {"volumeName": "in-c"}})),
            claim(
                "lost",
                json!({"spec": {"volumeName": "x"}, "status": {"phase": "Lost"}}),
            ),
            claim("unbound", json!({})),
            claim("waits", json!({"spec": {"storageClassName": "slow"}})),
            claim(
                "large",
                json!({"spec": {"storageClassName": "slow",
                "resources": {"requests": {"storage": "5Gi"}}}}),
            ),
            claim("made", json!({"spec": {"storageClassName": "made"}})),
            claim(
                "alone",
                json!({"spec": {"volumeName": "in-b", "accessModes": ["ReadWriteOncePod"]}}),
            ),
        ],
    );
    for (claim, expected) in [
        ("none", "persistentvolumeclaim \"none\" not found"),
        ("bound", "b1"),
        (
            "far",
            "3 node(s) didn't match PersistentVolume's node affinity",
        ),
        (
            "lost",
            "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"x\"",
        ),
        (
            "unbound",
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        ("waits", "b1"),
        (
            "large",
            "3 node(s) didn't find available persistent volumes to bind",
        ),
        ("made", "a1"),
        ("alone", "b1"),
    ] {
        assert_eq!(chosen(&mounting(claim), &snapshot), expected, "{claim}");
    }
    let mut user = (*mounting("alone")).clone();
    user.node = "b1".into();
    user.metadata.uid = Some("user".into());
    snapshot.place(&Arc::new(user));
    let taken = "3 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert_eq!(chosen(&mounting("alone"), &snapshot), taken);
}

#[test]
fn images_draw_pods_and_profiles_decide_what_counts() {
    let with_image = json!({"metadata": {"name": "b1", "labels": {}}, "status": {
        "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "9"},
        "images": [{"names": ["registry/app:latest"], "sizeBytes": 900 << 20}]}});
    let with_image = NodeFacts::project(serde_json::from_value(with_image).unwrap());
    let snapshot = cluster(&[node("a1", json!({}), "4"), Arc::new(with_image)]);
    let spec = json!({"containers": [{"name": "c", "image": "registry/app"}]});
    let pod = labelled("p", json!({}), spec);
    assert_eq!(chosen(&pod, &snapshot), "b1");
    let text = "
        apiVersion: kubescheduler.config.k8s.io/v1
        kind: KubeSchedulerConfiguration
        profiles:
        - schedulerName: plain
          plugins: {score: {disabled: [{name: '*'}]}}
        - schedulerName: packing
          pluginConfig:
          - name: NodeResourcesFit
            args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
          plugins: {score: {disabled: [{name: NodeResourcesBalancedAllocation}]}}
        - schedulerName: careless
          plugins: {multiPoint: {disabled: [{name: NodeResourcesFit}]}, postFilter: {disabled: [{name: '*'}]}}
    ";
    let profiles = Profiles::parse(text).unwrap();
    let profile = |name| profiles.get(name).unwrap();
    assert!(profiles.get("default-scheduler").is_none());
    assert_eq!(decide_as(&pod, &snapshot, profile("plain")).unwrap(), "a1");
    let mut snapshot = zones();
    snapshot.place(&with_priority("there", 0, "2", "a2"));
    let next = with_priority("next", 0, "1", "");
    assert_ne!(chosen(&next, &snapshot), "a2");
    assert_eq!(
        decide_as(&next, &snapshot, profile("packing")).unwrap(),
        "a2"
    );
    let large = with_priority("large", 0, "100", "");
    assert!(decide_as(&large, &snapshot, profile("careless")).is_ok());
    assert!(!profile("careless").preempts && profile("packing").preempts);
}

#[test]
fn a_configuration_that_cannot_be_followed_is_refused_by_name() {
    let refused = |profile: &str| {
        let text = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [{profile}]"
        );
        Profiles::parse(&text).unwrap_err().to_string()
    };
    for (profile, expected) in [
        (
            "{plugins: {score: {enabled: [{name: Mine}]}}}",
            "there is no plugin \"Mine\"",
        ),
        (
            "{plugins: {filter: {disabled: [{name: PrioritySort}]}}}",
            "cannot be switched off",
        ),
        (
            "{percentageOfNodesToScore: 101}",
            "101 is not within 0 to 100",
        ),
        (
            "{pluginConfig: [{name: NodePorts, args: {}}]}",
            "takes no arguments",
        ),
        (
            "{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}",
            "there is no \"Best\"",
        ),
        ("{plugins: {permit: {}}}", "permit"),
        (
            "{}, {}",
            "profiles[1]: schedulerName \"default-scheduler\" is there twice",
        ),
    ] {
        let error = refused(profile);
        assert!(error.contains(expected), "{profile}: {error}");
    }
    let other = "apiVersion: v1\nkind: Pod";
    assert!(
        Profiles::parse(other)
            .unwrap_err()
            .to_string()
            .contains("is of kind \"Pod\" of \"v1\"")
    );
}

#[test]
fn a_large_cluster_is_looked_at_in_turns() {
    let nodes: Vec<_> = (0..300)
        .map(|at| node(&format!("n{at:03}"), json!({}), "4"))
        .collect();
    let snapshot = cluster(&nodes);
    let pod = labelled("p", json!({}), json!({}));
    let mut last = "".into();
    let mut asked = Vec::new();
    for _ in 0..3 {
        decide::decide(&pod, &snapshot, &Profile::default(), &mut last).unwrap();
        asked.push(last.to_string());
    }
    // 48 of a hundred are enough.
    assert_eq!(asked, ["n143", "n287", "n131"]);
}
