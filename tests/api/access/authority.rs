//! Another authority, and other keys, while the control plane runs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use windlass_control::pki::manage;
use windlass_tests::{Cluster, eventually};

use super::{bearer, certificate, over_tls, who_am_i};

async fn name_of(cluster: &Cluster, client: &Client) -> String {
    let answer = who_am_i(cluster, client, &[]).await;
    let name = &answer.body["status"]["userInfo"]["username"];
    name.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_takes_over_without_a_restart() {
    let cluster = Cluster::control_plane().await.unwrap();
    let pki = cluster.directory().join("server/pki");
    let admin = cluster.client();
    let published: Api<ConfigMap> = Api::namespaced(admin.clone(), "kube-system");
    let infos: Api<ConfigMap> = Api::namespaced(admin, "kube-public");
    let certificates = |map: Option<&ConfigMap>| -> usize {
        let text = map.and_then(|map| map.data.as_ref()?.get("ca.crt"));
        text.map_or(0, |text| text.matches("BEGIN").count())
    };
    let shown = cluster.plane().authority().client("old", &[]).unwrap();
    let old = certificate(&shown.certificate, &shown.key);
    let old_id = manage::inventory(&pki).unwrap().authorities[0].id.clone();

    let new_id = manage::add(&pki, None).unwrap();
    eventually(published.clone(), "kube-root-ca.crt", "both", |map| {
        certificates(map) == 2
    })
    .await;
    // The new one issues; who trusts both connects, with certificates of either.
    manage::promote(&pki, &new_id).unwrap();
    let mut changes = cluster.plane().authority().changes();
    while manage_first(&cluster) != new_id {
        changes.changed().await.unwrap();
    }
    shows_the_present_one(&cluster, &infos).await;
    let shown = cluster.plane().authority().client("new", &[]).unwrap();
    let new = certificate(&shown.certificate, &shown.key);
    let client = over_tls(&cluster, old.clone()).await;
    assert_eq!(name_of(&cluster, &client).await, "old");
    let client = over_tls(&cluster, new.clone()).await;
    assert_eq!(name_of(&cluster, &client).await, "new");

    manage::remove(&pki, &old_id).unwrap();
    eventually(published, "kube-root-ca.crt", "the new one", |map| {
        certificates(map) == 1
    })
    .await;
    shows_the_present_one(&cluster, &infos).await;
    let client = over_tls(&cluster, new).await;
    assert_eq!(name_of(&cluster, &client).await, "new");
    let client = over_tls(&cluster, old).await;
    assert!(client.apiserver_version().await.is_err());
    cluster.shutdown().await;
}

/// Waits until joining nodes are told to trust what the control plane has now, which follows its own new certificates.
async fn shows_the_present_one(cluster: &Cluster, infos: &Api<ConfigMap>) {
    let bundle = STANDARD.encode(&*cluster.plane().authority().certificate());
    eventually(infos.clone(), "cluster-info", "what to trust", |info| {
        let text = info.and_then(|info| info.data.as_ref()?.get("kubeconfig"));
        text.is_some_and(|text| text.contains(&bundle))
    })
    .await;
}

/// The id of the authority that the control plane issues with.
fn manage_first(cluster: &Cluster) -> String {
    let dir = tempfile::tempdir().unwrap();
    let bundle = cluster.plane().authority().certificate();
    std::fs::write(dir.path().join("ca.crt"), &*bundle).unwrap();
    for file in ["ca.key", "sa.key"] {
        let from = cluster.directory().join("server/pki").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    manage::inventory(dir.path()).unwrap().authorities[0]
        .id
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_old_key_are_good_until_it_is_retired() {
    let cluster = Cluster::control_plane().await.unwrap();
    let pki = cluster.directory().join("server/pki");
    let accounts = "/api/v1/namespaces/kube-public/serviceaccounts";
    let robot = serde_json::json!({"metadata": {"name": "robot"}});
    cluster.create(accounts, &robot).await.unwrap();
    let issue = async || {
        let request = serde_json::json!({"spec": {}});
        let path = format!("{accounts}/robot/token");
        let issued = cluster.create(&path, &request);
        let issued = issued.await.unwrap();
        issued["status"]["token"].as_str().unwrap().to_owned()
    };
    let header = |token: &str| token.split_once('.').unwrap().0.to_owned();
    let status = async |token: &str| {
        let client = over_tls(&cluster, bearer(token)).await;
        who_am_i(&cluster, &client, &[]).await.status
    };
    let old = issue().await;
    manage::rotate_token_key(&pki).unwrap();
    let within = windlass_tests::PATIENCE;
    let new = tokio::time::timeout(within, async {
        loop {
            let token = issue().await;
            if header(&token) != header(&old) {
                return token;
            }
        }
    });
    let new = new.await.unwrap();
    assert_eq!(status(&old).await, StatusCode::CREATED);
    assert_eq!(status(&new).await, StatusCode::CREATED);
    manage::retire_token_keys(&pki).unwrap();
    let retired = tokio::time::timeout(within, async {
        while status(&old).await != StatusCode::UNAUTHORIZED {}
    });
    retired.await.unwrap();
    assert_eq!(status(&new).await, StatusCode::CREATED);
    cluster.shutdown().await;
}
