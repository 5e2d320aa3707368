//! Debian's `docker-registry`, which is the distribution project's, with TLS and both ways to authenticate.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::fake::{Asked, Fake, ok, status};
use crate::keyring;
use crate::suite::{self, Server};
use crate::tls::{Certificate, certificate};

const USER: &str = "somebody";
const PASSWORD: &str = "correct horse";
/// bcrypt of the password, the only form that the registry takes.
const HASH: &str = "$2b$04$yB.VLH6EL8eQ5tyXpCBgWOksSXreGB0keWRDcz/ijn8B2dEz1hyY2";
const ISSUER: &str = "token server of the tests";

/// Whether the program is there; says so if not.
fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|one| one.join("docker-registry").is_file());
    if !found {
        eprintln!("SKIPPED: docker-registry is not on PATH (Debian's package of that name)");
    }
    found
}

/// A registry that ends with its owner.
struct Registry {
    _process: Child,
    host: String,
}

/// Starts one with TLS and this way to authenticate; the port is its own choice.
async fn start(directory: &Path, tls: Option<&Certificate>, auth: &str) -> Registry {
    let tls = tls.map(|tls| {
        let (certificate, key) = (tls.certificate.display(), tls.key.display());
        format!("tls: {{certificate: {certificate}, key: {key}}}")
    });
    let tls = tls.unwrap_or_default();
    let config = format!(
        "version: 0.1
log: {{level: info, formatter: text}}
storage:
  filesystem: {{rootdirectory: {}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:0
  {tls}
auth:
{auth}
",
        directory.join("data").display(),
    );
    let path = directory.join("config.yml");
    std::fs::write(&path, config).unwrap();
    let mut process = Command::new("docker-registry")
        .arg("serve")
        .arg(&path)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let listening = async {
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find([',', '"', ' ']).unwrap_or(rest.len());
                return rest[..end].to_owned();
            }
            seen.push(line);
        }
        panic!("docker-registry ended: {seen:#?}");
    };
    let host = tokio::time::timeout(Duration::from_secs(30), listening);
    let host = host.await.expect("docker-registry does not listen");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Registry {
        _process: process,
        host,
    }
}

fn server(registry: &Registry, tls: Option<&Certificate>) -> Server {
    let entry = tls.map(|tls| format!("caFile: '{}'", tls.certificate.display()));
    let entry = entry.unwrap_or("plainHttp: true".to_owned());
    Server {
        host: registry.host.clone(),
        config: format!("registries: {{'{}': {{{entry}}}}}", registry.host),
        keyring: keyring(&[(&registry.host, USER, PASSWORD)]),
        is_public: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_with_tls_and_passwords() {
    if !is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tls = certificate(directory.path(), "server");
    let passwords = directory.path().join("htpasswd");
    std::fs::write(&passwords, format!("{USER}:{HASH}\n")).unwrap();
    let auth = format!(
        "  htpasswd: {{realm: tests, path: {}}}",
        passwords.display()
    );
    let registry = start(directory.path(), Some(&tls), &auth).await;
    suite::run(&server(&registry, Some(&tls))).await;

    // A certificate of an authority that nobody named is not believed.
    let stranger = crate::Node::new("registries: {}").await;
    let error = stranger
        .pull(&format!("{}/team/app:v1", registry.host))
        .await;
    let error = format!("{:?}", error.unwrap_err());
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_with_tokens() {
    if !is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let signer = certificate(directory.path(), "signer");
    let pkcs8 = signer.pair.serialize_der();
    let chain = STANDARD.encode(&signer.der);
    let tokens = Fake::serve(move |asked, _| give_token(asked, &pkcs8, &chain)).await;
    let auth = format!(
        "  token: {{realm: 'http://{}/token', service: tests, issuer: '{ISSUER}', rootcertbundle: {}}}",
        tokens.address,
        signer.certificate.display()
    );
    // A token server without TLS is not put up with by who asks a registry that has it.
    let tls = certificate(directory.path(), "server");
    let registry = start(directory.path(), Some(&tls), &auth).await;
    let node = crate::Node::new(&server(&registry, Some(&tls)).config).await;
    let error = node.pull(&format!("{}/team/app:v1", registry.host)).await;
    let error = error.unwrap_err();
    assert!(format!("{error:?}").contains("no https URL"), "{error:?}");
    assert!(tokens.asked("/token").is_empty());
    drop(registry);

    let registry = start(directory.path(), None, &auth).await;
    suite::run(&server(&registry, None)).await;
    assert!(!tokens.asked("/token").is_empty());
}

/// A token for whoever has the password, and for what they ask.
fn give_token(asked: &Asked, pkcs8: &[u8], chain: &str) -> axum::response::Response {
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if asked.header(header::AUTHORIZATION) != Some(&*basic) {
        return status(401, &json!({"details": "no"}));
    }
    let parameters = form_urlencoded::parse(asked.query.as_bytes());
    let scopes = parameters.filter(|(name, _)| name == "scope");
    let access: Vec<_> = scopes
        .map(|(_, scope)| {
            let mut parts = scope.split(':');
            let (kind, name, actions) = (parts.next(), parts.next(), parts.next());
            let actions: Vec<_> = actions.unwrap().split(',').collect();
            json!({"type": kind, "name": name, "actions": actions})
        })
        .collect();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({
        "iss": ISSUER, "sub": USER, "aud": "tests", "exp": now + 300, "nbf": now - 60, "iat": now,
        "jti": "1", "access": access,
    });
    let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [chain]});
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).unwrap();
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    let signature = URL_SAFE_NO_PAD.encode(signature);
    ok(json!({"token": format!("{signed}.{signature}"), "expires_in": 300}).to_string())
}
