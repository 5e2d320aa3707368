//! Our own registry: the suite, and the distribution API request by request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;
use windlass_oci::content_store::ContentStore;
use windlass_oci::credentials::Keyring;
use windlass_oci::digest::Digest;
use windlass_oci::registry::server::{
    Access, Authorize, CollectionPolicy, Denied, ImageRegistry, Limits,
};

use crate::fake::Image;
use crate::suite::{self, Server};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Nobody pulls from `secret/`.
struct AllButSecrets;

#[async_trait::async_trait]
impl Authorize for AllButSecrets {
    async fn authorize(
        &self,
        _: &http::Extensions,
        repository: &str,
        access: Access,
    ) -> Result<(), Denied> {
        match access {
            Access::Pull if repository.starts_with("secret/") => Err(Denied::Unauthenticated),
            _ => Ok(()),
        }
    }
}

/// A registry that is called without a connection.
struct World {
    _directory: tempfile::TempDir,
    registry: ImageRegistry,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl World {
    async fn new() -> Self {
        Self::with_grace(Duration::ZERO).await
    }

    async fn with_grace(grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ContentStore::open(directory.path()).await.unwrap();
        let limits = Limits {
            blob: 1 << 20,
            manifest: 64 << 10,
        };
        let policy = CollectionPolicy {
            grace,
            ..CollectionPolicy::default()
        };
        Self {
            _directory: directory,
            registry: ImageRegistry::new(store, Arc::new(AllButSecrets), limits, policy),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.registry.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: axum::body::to_bytes(body, 1 << 30).await.unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    async fn status(&self, method: Method, path: &str) -> u16 {
        self.call(method, path, &[], "").await.status
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let pushed = self.call(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(pushed.status, 201);
        digest
    }

    async fn push(&self, repository: &str, tag: &str, image: &Image) -> Answer {
        for blob in &image.blobs {
            self.push_blob(repository, blob).await;
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let kind = [("content-type", MANIFEST)];
        self.call(Method::PUT, &path, &kind, image.manifest.clone())
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_registry_keeps_its_promises() {
    let world = World::new().await;
    let routes = world.registry.router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    suite::run(&Server {
        config: format!("registries: {{'{host}': {{plainHttp: true}}}}"),
        host,
        keyring: Keyring::default(),
        is_public: true,
    })
    .await;
    serving.abort();
}

#[tokio::test]
async fn a_blob_is_uploaded_in_chunks_that_are_in_order() {
    let world = World::new().await;
    let begun = world
        .call(Method::POST, "/v2/a/b/blobs/uploads/", &[], "")
        .await;
    assert_eq!((begun.status, begun.header("range")), (202, "0-0"));
    let location = begun.header("location").to_owned();
    let chunk = async |range: &str, body: &str| {
        let headers = [("content-range", range)];
        world
            .call(Method::PATCH, &location, &headers, body.to_owned())
            .await
    };
    let first = chunk("0-4", "hello").await;
    assert_eq!((first.status, first.header("range")), (202, "0-4"));
    let ahead = chunk("9-10", "!!").await;
    assert_eq!((ahead.status, ahead.header("range")), (416, "0-4"));
    let where_it_is = world.get(&location).await;
    assert_eq!(
        (where_it_is.status, where_it_is.header("range")),
        (204, "0-4")
    );
    assert_eq!(chunk("5-10", " world").await.status, 202);
    let digest = Digest::sha256(b"hello world!");
    let end = format!(
        "{location}?digest={}",
        digest.to_string().replace(':', "%3A")
    );
    let done = world
        .call(Method::PUT, &end, &[("content-range", "11-11")], "!")
        .await;
    assert_eq!(done.status, 201);
    assert_eq!(done.header("docker-content-digest"), digest.to_string());
    assert_eq!(
        world.get(done.header("location")).await.body,
        "hello world!"
    );
    assert_eq!(world.get(&location).await.code(), "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn an_upload_whose_connection_broke_goes_on() {
    let world = World::new().await;
    let begun = world
        .call(Method::POST, "/v2/a/b/blobs/uploads/", &[], "")
        .await;
    let location = begun.header("location").to_owned();
    let chunks = [Ok(Bytes::from_static(b"hello")), Err("broken")];
    let body = Body::from_stream(futures::stream::iter(chunks));
    let broken = world.call(Method::PATCH, &location, &[], body).await;
    assert_eq!(
        (broken.status, broken.code()),
        (400, "BLOB_UPLOAD_INVALID".to_owned())
    );
    // A request that was dropped in its middle.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, &str>>(1);
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let dropped = world.call(Method::PATCH, &location, &[], Body::from_stream(stream));
    let sent = async {
        sender
            .send(Ok(Bytes::from_static(b" world")))
            .await
            .unwrap();
        sender.send(Ok(Bytes::new())).await.unwrap();
        let busy = world.get(&location).await;
        assert_eq!(
            (busy.status, busy.code()),
            (409, "BLOB_UPLOAD_INVALID".to_owned())
        );
    };
    tokio::select! {
        _ = dropped => panic!("the body has no end"),
        () = sent => {}
    }
    assert_eq!(world.get(&location).await.header("range"), "0-10");
    let end = format!("{location}?digest={}", Digest::sha256(b"hello world"));
    assert_eq!(world.status(Method::PUT, &end).await, 201);
}

#[tokio::test]
async fn uploads_that_are_wrong_too_large_or_given_up_leave_nothing() {
    let world = World::new().await;
    let begin = async || {
        let begun = world
            .call(Method::POST, "/v2/a/b/blobs/uploads/", &[], "")
            .await;
        begun.header("location").to_owned()
    };
    let wrong = format!("{}?digest={}", begin().await, Digest::sha256(b"other"));
    let wrong = world.call(Method::PUT, &wrong, &[], "hello").await;
    assert_eq!(
        (wrong.status, wrong.code()),
        (400, "DIGEST_INVALID".to_owned())
    );
    let large = begin().await;
    let half = vec![0; 600 << 10];
    assert_eq!(
        world
            .call(Method::PATCH, &large, &[], half.clone())
            .await
            .status,
        202
    );
    let too_large = world.call(Method::PATCH, &large, &[], half).await;
    assert_eq!(
        (too_large.status, too_large.code()),
        (413, "SIZE_INVALID".to_owned())
    );
    assert_eq!(world.status(Method::GET, &large).await, 404);
    let given_up = begin().await;
    assert_eq!(world.status(Method::DELETE, &given_up).await, 204);
    assert_eq!(world.status(Method::GET, &given_up).await, 404);
    let other = begin().await.replace("/a/b/", "/a/c/");
    assert_eq!(world.status(Method::GET, &other).await, 404);
    let mut last = 0;
    for _ in 0..300 {
        last = world.status(Method::POST, "/v2/a/b/blobs/uploads/").await;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn blobs_are_read_in_part() {
    let world = World::new().await;
    let digest = world.push_blob("a/b", b"0123456789").await;
    let path = format!("/v2/a/b/blobs/{digest}");
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
    ] {
        let part = world
            .call(Method::GET, &path, &[("range", range)], "")
            .await;
        assert_eq!(
            (part.status, &*part.body),
            (status, body.as_bytes()),
            "{range}"
        );
        assert_eq!(part.header("content-range"), content_range);
        assert_eq!(part.header("content-length"), body.len().to_string());
    }
    let outside = world
        .call(Method::GET, &path, &[("range", "bytes=10-")], "")
        .await;
    assert_eq!(
        (outside.status, outside.header("content-range")),
        (416, "bytes */10")
    );
    let head = world.call(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn a_blob_is_mounted_by_who_may_pull_it() {
    let world = World::new().await;
    let digest = world.push_blob("a/b", b"shared").await;
    world.push_blob("secret/x", b"hidden").await;
    let mount = async |digest: &Digest, from: &str| {
        let path = format!("/v2/a/c/blobs/uploads/?mount={digest}&from={from}");
        world.status(Method::POST, &path).await
    };
    assert_eq!(mount(&digest, "a/b").await, 201);
    assert_eq!(
        world.get(&format!("/v2/a/c/blobs/{digest}")).await.body,
        "shared"
    );
    for (digest, from) in [
        (Digest::sha256(b"none"), "a/b"),
        (Digest::sha256(b"hidden"), "secret/x"),
        (digest, "../../etc"),
    ] {
        assert_eq!(mount(&digest, from).await, 202, "{from}");
    }
}

#[tokio::test]
async fn manifests_tags_and_blobs_are_deleted() {
    let world = World::new().await;
    let image = Image::wasm(b"\0asm\x0d\0\x01\0");
    let pushed = world.push("a/b", "v1", &image).await;
    assert_eq!(pushed.status, 201);
    world.push("a/b", "v2", &image).await;
    let manifest = pushed.header("location").to_owned();
    assert_eq!(
        world.status(Method::DELETE, "/v2/a/b/manifests/v1").await,
        202
    );
    assert_eq!(
        world.get("/v2/a/b/manifests/v1").await.code(),
        "MANIFEST_UNKNOWN"
    );
    assert_eq!(world.status(Method::GET, &manifest).await, 200);
    let blob = format!("/v2/a/b/blobs/{}", image.layer());
    let needed = world.call(Method::DELETE, &blob, &[], "").await;
    assert_eq!(
        (needed.status, needed.code()),
        (405, "UNSUPPORTED".to_owned())
    );
    assert_eq!(world.status(Method::DELETE, &manifest).await, 202);
    assert_eq!(world.status(Method::GET, "/v2/a/b/manifests/v2").await, 404);
    assert_eq!(world.status(Method::DELETE, &blob).await, 202);
    assert_eq!(world.get(&blob).await.code(), "BLOB_UNKNOWN");
    assert_eq!(world.status(Method::DELETE, &blob).await, 404);
    assert_eq!(world.get("/v2/a/b/tags/list").await.code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn tags_come_in_pages() {
    let world = World::new().await;
    let image = Image::wasm(b"\0asm\x0d\0\x01\0");
    for tag in ["v3", "v1", "v2", "latest"] {
        world.push("a/b", tag, &image).await;
    }
    let first = world.get("/v2/a/b/tags/list?n=3").await;
    assert_eq!(
        first.json(),
        json!({"name": "a/b", "tags": ["latest", "v1", "v2"]})
    );
    let link = first.header("link");
    assert_eq!(link, "</v2/a/b/tags/list?n=3&last=v2>; rel=\"next\"");
    let rest = world.get("/v2/a/b/tags/list?n=3&last=v2").await;
    assert_eq!(rest.json()["tags"], json!(["v3"]));
    assert_eq!(rest.header("link"), "");
    assert_eq!(
        world.get("/v2/a/b/tags/list?n=0").await.json()["tags"],
        json!([])
    );
}

#[tokio::test]
async fn what_refers_to_a_manifest_is_listed() {
    let world = World::new().await;
    let image = Image::wasm(b"\0asm\x0d\0\x01\0");
    let subject = Digest::sha256(&image.manifest);
    let referrers = format!("/v2/a/b/referrers/{subject}");
    assert_eq!(world.get(&referrers).await.json()["manifests"], json!([]));
    // A signature may come before what it signs.
    let put = async |kind: &str| {
        let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["artifactType"] = kind.into();
        manifest["annotations"] = json!({"kind": kind});
        manifest["subject"] = json!({
            "mediaType": MANIFEST, "digest": subject, "size": image.manifest.len(),
        });
        let signature = Image {
            manifest: manifest.to_string().into(),
            blobs: image.blobs.clone(),
        };
        let digest = Digest::sha256(&signature.manifest);
        let pushed = world.push("a/b", &digest.to_string(), &signature).await;
        assert_eq!(
            (pushed.status, pushed.header("oci-subject")),
            (201, &*subject.to_string())
        );
        digest
    };
    let signature = put("application/signature").await;
    put("application/sbom").await;
    let all = world.get(&referrers).await;
    assert_eq!(
        all.header("content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = format!("{referrers}?artifactType=application%2Fsignature");
    let filtered = world.get(&filtered).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let listed = &filtered.json()["manifests"];
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["digest"], signature.to_string());
    assert_eq!(listed[0]["annotations"]["kind"], "application/signature");
    let delete = format!("/v2/a/b/manifests/{signature}");
    assert_eq!(world.status(Method::DELETE, &delete).await, 202);
    assert_eq!(
        world.get(&referrers).await.json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn what_is_malformed_is_refused_in_the_specifications_words() {
    let world = World::new().await;
    let image = Image::wasm(b"\0asm\x0d\0\x01\0");
    world.push("a/b", "v1", &image).await;
    let other = Digest::sha256(b"other");
    let manifest = String::from_utf8(image.manifest.to_vec()).unwrap();
    let cases: &[(Method, &str, &str, &str)] = &[
        (Method::GET, "/v2/flat/manifests/v1", "", "NAME_INVALID"),
        (
            Method::GET,
            "/v2/../../etc/passwd/manifests/v1",
            "",
            "NAME_INVALID",
        ),
        (Method::GET, "/v2/a/%2e%2e/manifests/v1", "", "NAME_INVALID"),
        (Method::GET, "/v2/A/b/manifests/v1", "", "NAME_INVALID"),
        (Method::GET, "/v2/a/b/manifests/..", "", "MANIFEST_UNKNOWN"),
        (
            Method::GET,
            "/v2/a/b/blobs/sha256:..%2f..",
            "",
            "DIGEST_INVALID",
        ),
        (Method::GET, "/v2/a/b/blobs/md5:00", "", "DIGEST_INVALID"),
        (
            Method::PUT,
            "/v2/a/b/manifests/.bad",
            &manifest,
            "MANIFEST_INVALID",
        ),
        (Method::PUT, "/v2/a/b/manifests/v2", "{", "MANIFEST_INVALID"),
        (
            Method::PUT,
            "/v2/a/c/manifests/v2",
            &manifest,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        (Method::POST, "/v2/a/b/manifests/v1", "", "UNSUPPORTED"),
        (Method::GET, "/v2/a/b/else/x", "", "UNSUPPORTED"),
        (
            Method::POST,
            "/v2/a/b/blobs/uploads/?digest=x",
            "",
            "DIGEST_INVALID",
        ),
        (Method::GET, "/v2/a/b/referrers/x", "", "DIGEST_INVALID"),
        (Method::GET, "/v2/secret/b/tags/list", "", "UNAUTHORIZED"),
    ];
    for (method, path, body, want) in cases {
        let answer = world
            .call(method.clone(), path, &[], (*body).to_owned())
            .await;
        assert_eq!(answer.code(), *want, "{method} {path}");
        assert!(answer.status >= 400);
    }
    let lying = format!("/v2/a/b/manifests/{other}");
    let kind = [("content-type", MANIFEST)];
    let lying = world
        .call(Method::PUT, &lying, &kind, manifest.clone())
        .await;
    assert_eq!(lying.code(), "DIGEST_INVALID");
    let index = [("content-type", "application/vnd.oci.image.index.v1+json")];
    let mixed = world
        .call(Method::PUT, "/v2/a/b/manifests/v3", &index, manifest)
        .await;
    assert_eq!(mixed.code(), "MANIFEST_INVALID");
    let large = " ".repeat(65 << 10);
    let large = world
        .call(Method::PUT, "/v2/a/b/manifests/v3", &kind, large)
        .await;
    assert_eq!(
        (large.status, large.code()),
        (413, "SIZE_INVALID".to_owned())
    );
    let unknown = world.get("/v2/secret/b/tags/list").await;
    let challenge = unknown.headers.get(header::WWW_AUTHENTICATE).unwrap();
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED.as_u16());
    assert_eq!(challenge, "Basic realm=\"windlass\"");
}

#[tokio::test]
async fn blobs_that_no_manifest_needs_go_and_the_others_stay() {
    let world = World::new().await;
    let image = Image::wasm(b"\0asm\x0d\0\x01\0");
    let manifest = world
        .push("a/b", "v1", &image)
        .await
        .header("location")
        .to_owned();
    let orphan = world.push_blob("a/b", b"of a push that was given up").await;
    let layer = format!("/v2/a/b/blobs/{}", image.layer());
    assert_eq!(world.registry.collect().await.unwrap().blobs, 1);
    assert_eq!(world.status(Method::GET, &layer).await, 200);
    assert_eq!(
        world
            .status(Method::GET, &format!("/v2/a/b/blobs/{orphan}"))
            .await,
        404
    );
    assert_eq!(world.status(Method::DELETE, &manifest).await, 202);
    // The manifest, its configuration and its layer.
    assert_eq!(world.registry.collect().await.unwrap().blobs, 3);
    assert_eq!(world.status(Method::GET, &layer).await, 404);
}

#[tokio::test]
async fn a_blob_waits_for_its_manifest() {
    let world = World::with_grace(Duration::from_secs(3600)).await;
    let blob = world.push_blob("a/b", b"young").await;
    assert_eq!(world.registry.collect().await.unwrap().blobs, 0);
    assert_eq!(
        world
            .status(Method::HEAD, &format!("/v2/a/b/blobs/{blob}"))
            .await,
        200
    );
}
