//! Tokens of other issuers, and the cluster's own seen by others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use windlass_control::pki::jwt::{Jwt, PublicKey, is_signed};
use windlass_control::pki::service_account::{Bound, Claims, Tokens};
use windlass_control::server::authn::AuthenticationConfiguration;
use windlass_tests::Cluster;

use super::{Server, bearer, over_tls, who_am_i};

/// An issuer, which counts how often it is asked for its keys.
struct Issuer {
    server: Server,
    tokens: Arc<Tokens>,
    asked: Arc<AtomicUsize>,
    dir: TempDir,
}

impl Issuer {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tokens = None;
        let server = Server::start(|url| {
            let made = Tokens::load_or_create(dir.path(), &[url.to_owned()]);
            let made = Arc::new(made.unwrap());
            tokens = Some(Arc::clone(&made));
            let document = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
            let count = Arc::clone(&asked);
            let keys = move || {
                count.fetch_add(1, Ordering::Relaxed);
                let set = made.key_set().to_string();
                async move { set }
            };
            Router::new()
                .route(
                    "/.well-known/openid-configuration",
                    get(|| async move { document }),
                )
                .route("/keys", get(keys))
        });
        Self {
            server: server.await,
            tokens: tokens.unwrap(),
            asked,
            dir,
        }
    }

    fn claims(&self, user: &str) -> Claims {
        let now = Timestamp::now().as_second();
        Claims {
            jti: "j".into(),
            iss: self.tokens.issuer().to_owned(),
            sub: user.to_owned(),
            aud: vec!["windlass".into()],
            exp: now + 600,
            iat: now,
            nbf: now,
            bound: Bound::default(),
        }
    }

    /// What makes a cluster believe this issuer.
    fn configuration(&self) -> Value {
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": self.server.url, "audiences": ["windlass"],
                           "certificateAuthority": self.server.ca},
                "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
            }],
        })
    }

    async fn cluster(&self) -> Cluster {
        let configuration = self.configuration().to_string();
        let configuration = AuthenticationConfiguration::parse(&configuration).unwrap();
        let cluster = Cluster::start(|config| {
            config.in_memory = true;
            config.authentication = configuration;
        });
        cluster.await.unwrap()
    }
}

#[tokio::test]
async fn a_user_of_another_issuer_is_taken_for_whom_its_token_says() {
    let issuer = Issuer::start().await;
    let cluster = issuer.cluster().await;
    let token = issuer.tokens.sign(&issuer.claims("alice")).unwrap();
    let alice = over_tls(&cluster, bearer(&token)).await;
    let answer = who_am_i(&cluster, &alice, &[]).await;
    let user = &answer.body["status"]["userInfo"];
    assert_eq!(user["username"], "oidc:alice", "{answer:?}");
    assert_eq!(user["groups"], json!(["system:authenticated"]));
    // A server that authenticates by the API is told the same.
    let review = json!({"spec": {"token": token, "audiences": ["windlass"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = cluster.create(reviews, &review).await.unwrap();
    assert_eq!(reviewed["status"]["user"]["username"], "oidc:alice");
    assert_eq!(reviewed["status"]["audiences"], json!(["windlass"]));
    cluster.shutdown().await;
}

#[tokio::test]
async fn tokens_that_are_not_as_they_must_be_are_refused() {
    let issuer = Issuer::start().await;
    let stranger = Issuer::start().await;
    let cluster = issuer.cluster().await;
    let now = Timestamp::now().as_second();
    let good = issuer.claims("alice");
    let changed = |change: &dyn Fn(&mut Claims)| {
        let mut claims = good.clone();
        change(&mut claims);
        issuer.tokens.sign(&claims).unwrap()
    };
    let (head, rest) = issuer
        .tokens
        .sign(&good)
        .unwrap()
        .split_once('.')
        .map(|(head, rest)| (head.to_owned(), rest.to_owned()))
        .unwrap();
    assert!(!head.is_empty());
    let (body, signature) = rest.split_once('.').unwrap();
    let none = {
        use base64::Engine;
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        format!("{header}.{body}.")
    };
    let wrong = [
        ("expired", changed(&|claims| claims.exp = now - 1)),
        ("not yet valid", changed(&|claims| claims.nbf = now + 3600)),
        (
            "for others",
            changed(&|claims| claims.aud = vec!["other".into()]),
        ),
        (
            "of another issuer",
            changed(&|claims| claims.iss = "https://a".into()),
        ),
        (
            "without a user",
            changed(&|claims| claims.sub = String::new()),
        ),
        ("of another key", stranger.tokens.sign(&good).unwrap()),
        ("not signed", none),
        (
            "with a signature of something else",
            format!("{head}.e30.{signature}"),
        ),
    ];
    for (what, token) in wrong {
        let client = over_tls(&cluster, bearer(&token)).await;
        let answer = who_am_i(&cluster, &client, &[]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
    }
    cluster.shutdown().await;
}

/// However many tokens of unknown keys come, the issuer is left in peace, and its new key is found.
#[tokio::test]
async fn keys_are_fetched_when_they_are_needed_and_not_for_every_forgery() {
    let issuer = Issuer::start().await;
    let stranger = Issuer::start().await;
    let cluster = issuer.cluster().await;
    cluster.plane().server().authenticator().prepare().await;
    let begin = Instant::now();
    let mut forged = issuer.claims("mallory");
    for at in 0..20 {
        forged.jti = at.to_string();
        let token = stranger.tokens.sign(&forged).unwrap();
        let client = over_tls(&cluster, bearer(&token)).await;
        let answer = who_am_i(&cluster, &client, &[]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    // At the start, and once more for every ten seconds that all this took.
    let most = 1 + usize::try_from(begin.elapsed().as_secs() / 10).unwrap();
    let asked = issuer.asked.load(Ordering::Relaxed);
    assert!(asked <= most, "{asked} times");
    assert!(issuer.dir.path().join("sa.key").exists());
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_clusters_own_tokens_are_verified_by_its_published_keys() {
    let cluster = Cluster::control_plane().await.unwrap();
    let accounts = "/api/v1/namespaces/kube-public/serviceaccounts";
    let robot = json!({"metadata": {"name": "robot"}});
    cluster.create(accounts, &robot).await.unwrap();
    let path = format!("{accounts}/robot/token");
    let issued = cluster.create(&path, &json!({"spec": {}})).await.unwrap();
    let token = issued["status"]["token"].as_str().unwrap();
    // ServiceAccounts may read both documents, nobody else may unless a role says so.
    let robot = over_tls(&cluster, bearer(token)).await;
    let read = async |path: &str| {
        let answer = cluster.request_as(&robot, Method::GET, path, &[], "").await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer
    };
    let document = read("/.well-known/openid-configuration").await;
    let issuer = "https://kubernetes.default.svc.cluster.local";
    assert_eq!(document.body["issuer"], issuer);
    assert_eq!(
        document.body["jwks_uri"],
        format!("{issuer}/openid/v1/jwks")
    );
    let keys = read("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let keys = PublicKey::set(keys.body.to_string().as_bytes()).unwrap();
    assert!(is_signed(&Jwt::parse(token).unwrap(), &keys));
    let someone = cluster.client_of("someone", &[]);
    let refused = cluster.request_as(&someone, Method::GET, "/openid/v1/jwks", &[], "");
    assert_eq!(refused.await.unwrap().status, StatusCode::FORBIDDEN);
    cluster.shutdown().await;
}

#[tokio::test]
async fn requests_without_credentials_are_let_in_where_the_configuration_says() {
    let text = "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
";
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.authentication = AuthenticationConfiguration::parse(text).unwrap();
    });
    let cluster = cluster.await.unwrap();
    let nobody = over_tls(&cluster, Some(Default::default())).await;
    for (path, expected) in [("/livez", 200), ("/readyz", 401), ("/version", 401)] {
        let answer = cluster
            .request_as(&nobody, Method::GET, path, &[], "")
            .await;
        assert_eq!(answer.unwrap().status.as_u16(), expected, "{path}");
    }
    cluster.shutdown().await;
}
