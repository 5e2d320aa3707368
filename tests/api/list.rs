//! GET of collections.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::Cluster;

const CONFIG_MAPS: &str = "/api/v1/namespaces/list/configmaps";

async fn with_config_maps(count: usize) -> Cluster {
    let cluster = Cluster::control_plane().await.unwrap();
    cluster
        .create("/api/v1/namespaces", &json!({"metadata": {"name": "list"}}))
        .await
        .unwrap();
    for n in 0..count {
        let labels = json!({"n": n.to_string(), "all": "yes"});
        let object = json!({"metadata": {"name": format!("c{n}"), "labels": labels}});
        cluster.create(CONFIG_MAPS, &object).await.unwrap();
    }
    cluster
}

async fn get(cluster: &Cluster, query: &str) -> Value {
    let path = format!("{CONFIG_MAPS}?{query}");
    cluster
        .request(Method::GET, &path, &[], "")
        .await
        .unwrap()
        .body
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn pages_show_one_snapshot() {
    let cluster = with_config_maps(5).await;
    let first = get(&cluster, "limit=2&labelSelector=").await;
    assert_eq!(
        first["metadata"]["remainingItemCount"].as_u64().unwrap() + 2,
        {
            let all = get(&cluster, "").await;
            names(&all).len() as u64
        }
    );
    let mut seen: Vec<String> = names(&first).iter().map(|n| n.to_string()).collect();
    cluster
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "c9-late"}}))
        .await
        .unwrap();
    let mut token = first["metadata"]["continue"].as_str().map(str::to_owned);
    while let Some(next) = token {
        let page = get(&cluster, &format!("limit=2&continue={next}")).await;
        assert_eq!(
            page["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        seen.extend(names(&page).iter().map(|n| n.to_string()));
        token = page["metadata"]["continue"].as_str().map(str::to_owned);
    }
    seen.retain(|name| name.starts_with('c'));
    assert_eq!(seen, ["c0", "c1", "c2", "c3", "c4"]);
}

#[tokio::test]
async fn selectors_select() {
    let cluster = with_config_maps(4).await;
    let cases = [
        ("labelSelector=n%3D1", vec!["c1"]),
        ("labelSelector=n%20in%20(0,3)", vec!["c0", "c3"]),
        ("labelSelector=all,n%20notin%20(0,1)", vec!["c2", "c3"]),
        ("fieldSelector=metadata.name%3Dc2", vec!["c2"]),
        (
            "fieldSelector=metadata.name!%3Dc2&labelSelector=all",
            vec!["c0", "c1", "c3"],
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&get(&cluster, query).await), expected, "{query}");
    }
    let unknown = get(&cluster, "fieldSelector=data.x%3D1").await;
    assert_eq!(
        unknown["message"],
        r#""data.x" is not a known field selector: only "metadata.name", "metadata.namespace""#
    );
    let broken = get(&cluster, "labelSelector=a%20b").await;
    assert_eq!(broken["code"], 400);
}

#[tokio::test]
async fn resource_versions_mean_what_they_say() {
    let cluster = with_config_maps(1).await;
    let too_large = get(&cluster, "resourceVersion=999999999").await;
    assert_eq!(
        (&too_large["code"], &too_large["reason"]),
        (&json!(504), &json!("Timeout"))
    );
    assert_eq!(
        too_large["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert_eq!(get(&cluster, "resourceVersion=x").await["code"], 400);
    assert_eq!(
        get(&cluster, "resourceVersionMatch=Exact").await["code"],
        422
    );
    assert_eq!(get(&cluster, "continue=nonsense").await["code"], 400);
    let gone = get(&cluster, "resourceVersion=1&resourceVersionMatch=Exact").await;
    assert_eq!(
        (&gone["code"], &gone["reason"]),
        (&json!(410), &json!("Expired"))
    );
}

#[tokio::test]
async fn tables_and_metadata_are_served_when_asked_for() {
    let cluster = with_config_maps(1).await;
    let table = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let path = format!("{CONFIG_MAPS}?labelSelector=all");
    let answer = cluster
        .request(Method::GET, &path, &table, "")
        .await
        .unwrap();
    assert_eq!(answer.body["kind"], "Table");
    let columns: Vec<_> = answer.body["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(answer.body["rows"][0]["cells"][0], "c0");
    assert_eq!(
        answer.body["rows"][0]["object"]["kind"],
        "PartialObjectMetadata"
    );
    let partial = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let answer = cluster
        .request(Method::GET, &path, &partial, "")
        .await
        .unwrap();
    assert_eq!(answer.body["kind"], "PartialObjectMetadataList");
    let none = [("accept", "text/html")];
    let answer = cluster
        .request(Method::GET, &path, &none, "")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE);
}
