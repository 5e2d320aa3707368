//! A proxy in front of the API, and those who pretend to be one.

use http::{HeaderName, StatusCode};
use serde_json::json;
use windlass_control::pki::Authority;
use windlass_control::server::authn::FrontProxy;
use windlass_tests::Cluster;

use super::{bearer, certificate, over_tls, who_am_i};

const USER: (&str, &str) = ("x-remote-user", "alice");
const GROUP: (&str, &str) = ("x-remote-group", "team");

#[tokio::test]
async fn only_the_proxy_says_who_its_users_are() {
    let dir = tempfile::tempdir().unwrap();
    let proxies = Authority::load_or_create(dir.path()).unwrap();
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.front_proxy = Some(FrontProxy {
            certificate_authority: proxies.certificate().to_string(),
            allowed_names: vec!["front".into()],
            username_headers: vec![HeaderName::from_static(USER.0)],
            group_headers: vec![HeaderName::from_static(GROUP.0)],
            ..FrontProxy::default()
        });
    });
    let cluster = cluster.await.unwrap();
    let connect = async |authority: &Authority, name: &str, groups: &[&str]| {
        let shown = authority.client(name, groups).unwrap();
        over_tls(&cluster, certificate(&shown.certificate, &shown.key)).await
    };
    let front = connect(&proxies, "front", &["system:masters"]).await;
    let answer = who_am_i(&cluster, &front, &[USER, GROUP]).await;
    let user = &answer.body["status"]["userInfo"];
    assert_eq!(user["username"], "alice", "{answer:?}");
    assert_eq!(user["groups"], json!(["team", "system:authenticated"]));
    // What its certificate says is worth nothing to the cluster: without a user it is nobody.
    let answer = who_am_i(&cluster, &front, &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    assert!(
        answer.body["message"]
            .as_str()
            .unwrap()
            .contains("system:anonymous")
    );
    // Another holder of such a certificate is not believed either.
    let other = connect(&proxies, "back", &["system:masters"]).await;
    let answer = who_am_i(&cluster, &other, &[USER]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    // Nor is a user of the cluster, or one with a token, or one without anything.
    let bob = connect(cluster.plane().authority(), "bob", &[]).await;
    let answer = who_am_i(&cluster, &bob, &[USER]).await;
    assert_eq!(answer.body["status"]["userInfo"]["username"], "bob");
    let forger = over_tls(&cluster, bearer("nonsense")).await;
    let answer = who_am_i(&cluster, &forger, &[USER]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let nobody = over_tls(&cluster, Some(Default::default())).await;
    let answer = who_am_i(&cluster, &nobody, &[USER]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    cluster.shutdown().await;
}
