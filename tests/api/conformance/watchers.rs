//! sig-api-machinery: watches and lists in pages.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use windlass_control::store::Retention;
use windlass_tests::Cluster;

use super::collection::{Collection, PatchType, expect, get, labelled, names_of, told, version_of};

fn config_maps(cluster: &Cluster) -> Collection<'_> {
    Collection::new(cluster, "v1", "configmaps", Some("default"))
}

async fn create(config_maps: &Collection<'_>, name: &str, label: &str) -> Value {
    let object = json!({"metadata": {"name": name, "labels": {"watch": label}}});
    config_maps.create(&object).await
}

async fn mutate(config_maps: &Collection<'_>, name: &str, count: usize) -> Value {
    let change = json!({"data": {"mutation": count.to_string()}});
    config_maps.patch(PatchType::Merge, name, &change).await
}

async fn relabel(config_maps: &Collection<'_>, name: &str, label: &str) {
    let change = json!({"metadata": {"labels": {"watch": label}}});
    config_maps.patch(PatchType::Merge, name, &change).await;
}

/// Conformance: [sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]
#[tokio::test]
async fn watches_with_selectors_see_what_they_select() {
    let cluster = Cluster::control_plane().await.unwrap();
    let config_maps = config_maps(&cluster);
    let mut a = config_maps.watch("labelSelector=watch%3Da").await;
    let mut b = config_maps.watch("labelSelector=watch%3Db").await;
    let both = "labelSelector=watch%20in%20(a,b)";
    let mut both = config_maps.watch(both).await;
    for (name, label, mutations) in [("x", "a", 2), ("y", "b", 0)] {
        create(&config_maps, name, label).await;
        for count in 0..mutations {
            mutate(&config_maps, name, count).await;
        }
        config_maps.delete(name).await;
    }
    let of_x = [
        ("ADDED", "x"),
        ("MODIFIED", "x"),
        ("MODIFIED", "x"),
        ("DELETED", "x"),
    ];
    let of_y = [("ADDED", "y"), ("DELETED", "y")];
    assert_eq!(told(&a.take(4).await), of_x);
    assert_eq!(told(&b.take(2).await), of_y);
    assert_eq!(told(&both.take(6).await), [&of_x[..], &of_y].concat());
}

/// Conformance: [sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]
#[tokio::test]
async fn a_watch_starts_after_the_version_it_names() {
    let cluster = Cluster::control_plane().await.unwrap();
    let config_maps = config_maps(&cluster);
    create(&config_maps, "x", "a").await;
    let first = mutate(&config_maps, "x", 1).await;
    let second = mutate(&config_maps, "x", 2).await;
    config_maps.delete("x").await;
    let query = format!("resourceVersion={}&labelSelector=watch", version_of(&first));
    let events = config_maps.watch(&query).await.take(2).await;
    assert_eq!(told(&events), [("MODIFIED", "x"), ("DELETED", "x")]);
    assert_eq!(events[0]["object"], second);
}

/// Conformance: [sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]
#[tokio::test]
async fn a_watch_goes_on_where_another_ended() {
    let cluster = Cluster::control_plane().await.unwrap();
    let config_maps = config_maps(&cluster);
    let mut first = config_maps.watch("labelSelector=watch").await;
    create(&config_maps, "x", "a").await;
    mutate(&config_maps, "x", 1).await;
    let events = first.take(2).await;
    assert_eq!(told(&events), [("ADDED", "x"), ("MODIFIED", "x")]);
    drop(first);
    mutate(&config_maps, "x", 2).await;
    config_maps.delete("x").await;
    let last = version_of(&events[1]["object"]);
    let query = format!("resourceVersion={last}&labelSelector=watch");
    let events = config_maps.watch(&query).await.take(2).await;
    assert_eq!(told(&events), [("MODIFIED", "x"), ("DELETED", "x")]);
}

/// Conformance: [sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]
#[tokio::test]
async fn what_leaves_the_selector_is_deleted_and_comes_back_added() {
    let cluster = Cluster::control_plane().await.unwrap();
    let config_maps = config_maps(&cluster);
    let mut watch = config_maps.watch("labelSelector=watch%3Da").await;
    create(&config_maps, "x", "a").await;
    mutate(&config_maps, "x", 1).await;
    relabel(&config_maps, "x", "other").await;
    mutate(&config_maps, "x", 2).await;
    relabel(&config_maps, "x", "a").await;
    mutate(&config_maps, "x", 3).await;
    config_maps.delete("x").await;
    let events = watch.take(6).await;
    let types = told(&events).into_iter().map(|(kind, _)| kind);
    let expected = [
        "ADDED", "MODIFIED", "DELETED", "ADDED", "MODIFIED", "DELETED",
    ];
    assert_eq!(types.collect::<Vec<_>>(), expected);
    assert_eq!(events[3]["object"]["data"]["mutation"], "2");
}

/// Conformance: [sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]
#[tokio::test]
async fn watches_from_every_version_tell_one_order() {
    let cluster = Cluster::control_plane().await.unwrap();
    let config_maps = config_maps(&cluster);
    let first = create(&config_maps, "start", "a").await;
    let mut writes = vec![version_of(&first)];
    for count in 0..10 {
        let name = format!("c{}", count % 3);
        match count / 3 % 2 {
            0 => writes.push(version_of(&create(&config_maps, &name, "a").await)),
            _ => config_maps.delete(&name).await,
        }
        writes.push(version_of(&mutate(&config_maps, "start", count).await));
    }
    let last = *writes.last().unwrap();
    let mut whole: Option<Vec<Value>> = None;
    for version in writes.iter().filter(|version| **version < last) {
        let query = format!("resourceVersion={version}&labelSelector=watch");
        let mut watch = config_maps.watch(&query).await;
        let events = watch.until(|event| version_of(&event["object"]) == last);
        let events = events.await;
        let whole = whole.get_or_insert_with(|| events.clone());
        assert!(whole.ends_with(&events), "from {version}: {events:#?}");
    }
}

const TEMPLATES: usize = 40;

async fn with_templates() -> Cluster {
    let cluster = Cluster::control_plane().await.unwrap();
    let templates = templates(&cluster);
    let spec = json!({"containers": [{"name": "test", "image": "test2"}]});
    for n in 0..TEMPLATES {
        let template = json!({
            "metadata": labelled(&format!("template-{n:04}")), "template": {"spec": spec},
        });
        templates.create(&template).await;
    }
    cluster
}

fn templates(cluster: &Cluster) -> Collection<'_> {
    Collection::new(cluster, "v1", "podtemplates", Some("default"))
}

async fn page(templates: &Collection<'_>, query: &str) -> Value {
    let path = format!("{}?{query}", templates.path());
    expect(get(templates.cluster, &path).await, StatusCode::OK)
}

fn token(list: &Value) -> Option<&str> {
    list["metadata"]["continue"].as_str()
}

/// Conformance: [sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]
#[tokio::test]
async fn pages_add_up_to_one_list() {
    let cluster = with_templates().await;
    let templates = templates(&cluster);
    for limit in [1, 7, TEMPLATES - 1, TEMPLATES] {
        let mut list = page(&templates, &format!("limit={limit}")).await;
        let version = version_of(&list);
        let mut found = Vec::new();
        loop {
            let items = list["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            found.extend(items.iter().cloned());
            assert_eq!(version_of(&list), version);
            let remaining = list["metadata"]["remainingItemCount"].as_u64();
            assert_eq!(
                remaining.unwrap_or_default() as usize,
                TEMPLATES - found.len()
            );
            let Some(token) = token(&list) else { break };
            list = page(&templates, &format!("limit={limit}&continue={token}")).await;
        }
        assert_eq!(names_of(&found), names_of(&templates.list("").await));
        assert_eq!(found.len(), TEMPLATES);
    }
}

/// Conformance: [sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Conformance] [Slow]
#[tokio::test]
async fn a_list_whose_version_is_gone_goes_on_from_its_last_key() {
    let cluster = with_templates().await;
    let templates = templates(&cluster);
    let first = page(&templates, "limit=10").await;
    let spec = json!({"containers": [{"name": "test", "image": "test2"}]});
    let late = json!({"metadata": labelled("template-9999"), "template": {"spec": spec}});
    templates.create(&late).await;
    let nothing = Retention {
        age: Duration::ZERO,
        events: 0,
    };
    let store = cluster.plane().server().registry().store();
    store.compact(nothing).await.unwrap();
    let old = token(&first).unwrap();
    let path = format!("{}?limit=10&continue={old}", templates.path());
    let expired = expect(get(&cluster, &path).await, StatusCode::GONE);
    assert_eq!(expired["reason"], "Expired");
    let go_on = token(&expired).unwrap();
    let second = page(&templates, &format!("limit=10&continue={go_on}")).await;
    assert_eq!(second["items"].as_array().unwrap().len(), 10);
    assert_eq!(second["items"][0]["metadata"]["name"], "template-0010");
    assert!(version_of(&second) > version_of(&first));
    let rest = page(&templates, &format!("continue={}", token(&second).unwrap())).await;
    assert_eq!(version_of(&rest), version_of(&second));
    let rest = rest["items"].as_array().unwrap();
    assert_eq!(rest.len(), TEMPLATES + 1 - 20);
}
