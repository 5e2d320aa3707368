//! Who the client says it is, and to whom.

use axum::response::Response;
use base64::Engine;
use http::{Method, header};
use serde_json::json;
use windlass_oci::credentials::{Keyring, Origin};
use windlass_oci::pull::ImageAccess;

use crate::fake::{Asked, Fake, Image, ok, status, with};
use crate::{Node, component, keyring, plain, reference};

fn basic(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

fn unauthorized(challenge: &str) -> Response {
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
    with(status(401, &body), header::WWW_AUTHENTICATE, challenge)
}

fn bearer(asked: &Asked) -> Response {
    let host = asked.header(header::HOST).unwrap();
    let scope = "repository:a/b:pull";
    unauthorized(&format!(
        r#"Bearer realm="http://{host}/token",service="fake",scope="{scope}""#
    ))
}

#[tokio::test]
async fn a_token_is_fetched_once_and_shown_from_then_on() {
    let image = Image::wasm(&component());
    let fake = Fake::serve(move |asked, _| match asked.authorization() {
        _ if asked.is_for("/token") => ok(r#"{"token":"t1","expires_in":300}"#),
        Some("Bearer t1") => image.answer(asked),
        _ => bearer(asked),
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let host = fake.address.to_string();
    let keyring = keyring(&[(&host, "u", "p")]);
    let name = format!("{host}/a/b:v1");
    node.pull_with(&name, &keyring).await.unwrap();
    node.pull_with(&name, &keyring).await.unwrap();
    let tokens = fake.asked("/token");
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].method, Method::GET);
    assert_eq!(tokens[0].authorization(), Some(&*basic("u", "p")));
    assert_eq!(
        tokens[0].query,
        "service=fake&scope=repository%3Aa%2Fb%3Apull"
    );
    let refused = fake.asked("/v2/").into_iter();
    let refused = refused.filter(|asked| asked.authorization().is_none());
    assert_eq!(refused.count(), 1);
}

#[tokio::test]
async fn a_token_that_has_expired_is_replaced() {
    let image = Image::wasm(&component());
    let fake = Fake::serve(move |asked, before| match asked.authorization() {
        _ if asked.is_for("/token") => {
            ok(json!({"access_token": format!("t{before}"), "expires_in": 1}).to_string())
        }
        Some("Bearer t1") if asked.is_for("/manifests/") => image.answer(asked),
        Some(_) if !asked.is_for("/manifests/") => image.answer(asked),
        _ => bearer(asked),
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let name = format!("{}/a/b:v1", fake.address);
    let error = node.pull(&name).await.unwrap_err().to_string();
    assert!(error.contains("authentication required"), "{error}");
    node.pull(&name).await.unwrap();
}

#[tokio::test]
async fn strangers_and_holders_of_refresh_tokens_get_tokens_too() {
    let image = Image::wasm(&component());
    let fake = Fake::serve(
        move |asked, _| match (&asked.method, asked.authorization()) {
            (&Method::POST, None) if asked.is_for("/token") => {
                let right = asked.body.contains("grant_type=refresh_token")
                    && asked.body.contains("refresh_token=r1")
                    && asked.body.contains("scope=repository%3Aa%2Fb%3Apull");
                assert!(right, "{}", asked.body);
                ok(r#"{"access_token":"private"}"#)
            }
            (&Method::GET, None) if asked.is_for("/token") => ok(r#"{"token":"public"}"#),
            (_, Some("Bearer private")) => image.answer(asked),
            (_, Some("Bearer public")) if asked.is_for("/v2/a/b/") => image.answer(asked),
            _ => bearer(asked),
        },
    )
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let name = format!("{}/a/b:v1", fake.address);
    node.pull(&name).await.unwrap();
    let mut refresh = Keyring::default();
    let file = json!({"auths": {fake.address.to_string(): {"identitytoken": "r1"}}});
    let origin = Origin::Source("s".to_owned());
    refresh
        .add_config_json(file.to_string().as_bytes(), &origin)
        .unwrap();
    node.pull_with(&name, &refresh).await.unwrap();
    let posts = fake.asked("/token").into_iter();
    let posts = posts.filter(|asked| asked.method == Method::POST);
    assert_eq!(posts.count(), 1);
}

#[tokio::test]
async fn a_registry_that_says_401_for_ever_is_asked_twice() {
    let fake = Fake::serve(|asked, _| match asked.is_for("/token") {
        true => ok(r#"{"token":"t"}"#),
        false => bearer(asked),
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let error = node.pull(&format!("{}/a/b:v1", fake.address)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a/b:v1: authentication required"), "{error}");
    assert_eq!(fake.asked("/v2/").len(), 2);
    assert_eq!(fake.asked("/token").len(), 1);
}

#[tokio::test]
async fn what_a_token_server_refuses_is_denied_without_its_words() {
    let fake = Fake::serve(|asked, _| match asked.is_for("/token") {
        true => status(403, &json!({"details": "what only this machine sees"})),
        false => bearer(asked),
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let error = node.pull(&format!("{}/a/b:v1", fake.address)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("/token: 403"), "{error}");
    assert!(!error.contains("only this machine"), "{error}");
}

#[tokio::test]
async fn several_credentials_are_tried_in_order() {
    let image = Image::wasm(&component());
    let right = basic("second", "p");
    let fake = Fake::serve(move |asked, _| match asked.authorization() {
        Some(shown) if shown == right => image.answer(asked),
        Some(_) => status(404, &json!({"errors": [{"code": "NAME_UNKNOWN"}]})),
        None => unauthorized(r#"Basic realm="fake""#),
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let host = fake.address.to_string();
    let name = format!("{host}/a/b:v1");
    let keys = keyring(&[(&host, "first", "p"), (&host, "second", "p")]);
    let pulled = node.pull_with(&name, &keys).await.unwrap();
    let may_use = |keyring| {
        let puller = &node.puller;
        puller
            .may_use(&pulled.access, &reference(&name), keyring)
            .unwrap()
    };
    assert_ne!(pulled.access, ImageAccess::Everybody);
    assert!(may_use(&keys));
    assert!(!may_use(&Keyring::default()));
    let wrong = keyring(&[(&host, "first", "p"), (&host, "third", "p")]);
    let error = node.pull_with(&name, &wrong).await.unwrap_err().to_string();
    assert!(error.ends_with("a/b:v1: not found"), "{error}");
    let stranger = node.pull(&name).await.unwrap_err().to_string();
    assert!(stranger.contains("authentication required"), "{stranger}");
    // What was pulled with one Secret is remembered with it, also by a process that starts later.
    let found = node.puller.local(&reference(&name)).await.unwrap().unwrap();
    assert_eq!(found.access, pulled.access);
}

#[tokio::test]
async fn a_redirect_leads_to_the_blob_and_no_credential_goes_along() {
    let image = Image::wasm(&component());
    let storage = Fake::serve({
        let image = image.clone();
        move |asked, _| match asked.is_for("/secret") {
            true => status(400, &json!({"message": "what only this machine sees"})),
            false => image.answer(asked),
        }
    })
    .await;
    let elsewhere = storage.address;
    let fake = Fake::serve(move |asked, _| {
        if asked.authorization().is_none() {
            return unauthorized("Basic");
        }
        if asked.is_for("/blobs/") {
            let digest = asked.path.rsplit('/').next().unwrap();
            let location = format!("http://{elsewhere}/storage/{digest}");
            return with(status(307, &json!({})), header::LOCATION, &location);
        }
        if asked.is_for("/inside/") {
            let location = format!("http://{elsewhere}/secret");
            return with(status(302, &json!({})), header::LOCATION, &location);
        }
        if asked.is_for("/loop/") {
            return with(status(302, &json!({})), header::LOCATION, &asked.path);
        }
        image.answer(asked)
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let host = fake.address.to_string();
    let keys = keyring(&[(&host, "u", "p"), (&elsewhere.to_string(), "other", "p")]);
    let pull = async |name: &str| node.pull_with(&format!("{host}/{name}:v1"), &keys).await;
    let pulled = pull("a/b").await.unwrap();
    assert_eq!(node.program(&pulled).await, component());
    let seen = storage.asked("/storage/");
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|asked| asked.authorization().is_none()));
    let inside = pull("a/inside").await.unwrap_err().to_string();
    assert!(
        inside.contains("400") && !inside.contains("only this"),
        "{inside}"
    );
    let endless = pull("a/loop").await.unwrap_err().to_string();
    assert!(endless.contains("more than 5 redirects"), "{endless}");
}
