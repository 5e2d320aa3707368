//! Registries that lie, hang, break off or are busy: what the client makes of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, header};
use rustls::RootCertStore;
use serde_json::json;
use windlass_oci::credentials::Keyring;
use windlass_oci::digest::Digest;
use windlass_oci::push::push_wasm;
use windlass_oci::registry::remote::config::RegistryConfig;
use windlass_oci::registry::remote::registries::Registries;

use crate::fake::{Fake, Image, broken, hanging, ok, start_of, status, with};
use crate::{IMPATIENT, Node, component, plain, reference};

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_ended() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve({
        let (image, layer) = (image.clone(), layer.clone());
        move |asked, before| {
            if asked.is_for(&layer) && before == 0 {
                return broken(&image.blobs[0], 100_000);
            }
            image.answer(asked)
        }
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let pulled = node
        .pull(&format!("{}/a/b:v1", fake.address))
        .await
        .unwrap();
    assert_eq!(node.program(&pulled).await, component());
    let asked = fake.asked(&layer);
    assert_eq!(asked.len(), 2);
    let start = start_of(&asked[1]).unwrap();
    assert!(start > 0 && start <= 100_000, "{start}");
    assert_eq!(node.partials(), 0);
}

#[tokio::test]
async fn what_a_process_that_was_killed_had_is_not_fetched_again() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve({
        let image = image.clone();
        move |asked, _| image.answer(asked)
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    // As a process that ended in the middle left it.
    let partial = format!("partial/{}", layer.replace(':', "-"));
    std::fs::write(
        node.directory.path().join(&partial),
        &component()[..123_456],
    )
    .unwrap();
    let node = node.restarted(&plain(&[fake.address])).await;
    let pulled = node
        .pull(&format!("{}/a/b:v1", fake.address))
        .await
        .unwrap();
    assert_eq!(node.program(&pulled).await, component());
    let starts: Vec<_> = fake.asked(&layer).iter().map(start_of).collect();
    assert_eq!(starts, [Some(123_456)]);
}

#[tokio::test]
async fn a_spoilt_partial_blob_is_never_used() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve({
        let image = image.clone();
        move |asked, _| image.answer(asked)
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let partial = node
        .directory
        .path()
        .join(format!("partial/{}", layer.replace(':', "-")));
    std::fs::write(&partial, vec![9; 1000]).unwrap();
    let image = format!("{}/a/b:v1", fake.address);
    let error = node.pull(&image).await.unwrap_err().to_string();
    assert!(error.contains("has digest"), "{error}");
    assert!(!partial.exists());
    // As long as the whole, it is seen at once.
    std::fs::write(&partial, vec![9; component().len()]).unwrap();
    let pulled = node.pull(&image).await.unwrap();
    assert_eq!(node.program(&pulled).await, component());
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_for_the_whole() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve({
        let (image, layer) = (image.clone(), layer.clone());
        move |asked, before| match before {
            0 if asked.is_for(&layer) => broken(&image.blobs[0], 70_000),
            _ if asked.is_for(&layer) => ok(image.blobs[0].clone()),
            _ => image.answer(asked),
        }
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let pulled = node
        .pull(&format!("{}/a/b:v1", fake.address))
        .await
        .unwrap();
    assert_eq!(node.program(&pulled).await, component());
}

#[tokio::test]
async fn blobs_that_are_not_what_was_announced_are_refused() {
    let shorter = Bytes::from(component()[..1000].to_vec());
    let other = Bytes::from(vec![1; component().len()]);
    let longer = Bytes::from([component(), vec![7]].concat());
    for (bytes, want) in [
        (other, "content has digest"),
        (longer, "larger than the 300000 bytes"),
        (shorter, "of 300000 bytes"),
    ] {
        let image = Image::wasm(&component());
        let layer = image.layer().to_string();
        let fake = Fake::serve(move |asked, _| match start_of(asked) {
            _ if !asked.is_for(&layer) => image.answer(asked),
            // Nothing follows what was sent.
            Some(start) => with(
                status(206, &json!("")),
                header::CONTENT_RANGE,
                &format!("bytes {}-{}/300000", start + 1, start + 2),
            ),
            None => ok(bytes.clone()),
        })
        .await;
        let node = Node::new(&plain(&[fake.address])).await;
        let image = format!("{}/a/b:v1", fake.address);
        let error = node.pull(&image).await.unwrap_err().to_string();
        assert!(error.contains(want), "{want}: {error}");
        assert!(
            node.puller
                .local(&image.parse().unwrap())
                .await
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test]
async fn manifests_that_are_not_what_was_asked_for_are_refused() {
    let image = Image::wasm(&component());
    let fake = Fake::serve(move |asked, _| {
        if asked.is_for("/endless/manifests/") {
            let chunks = futures::stream::repeat_with(|| Ok::<_, &str>(Bytes::from(vec![b' '; 65_536])));
            return ok(axum::body::Body::from_stream(chunks));
        }
        if asked.is_for("/text/manifests/") {
            return ok("not a manifest");
        }
        if asked.is_for("/huge/manifests/") {
            let digest = Digest::sha256(b"");
            let layer = json!({"mediaType": "application/wasm", "digest": digest, "size": 1_u64 << 60});
            let config = json!({"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest, "size": 0});
            let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
            return ok(manifest.to_string());
        }
        image.answer(asked)
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let pinned = Digest::sha256(b"something else");
    for (image, want) in [
        (format!("a/b@{pinned}"), "manifest has digest"),
        ("a/endless:v1".to_owned(), "larger than 4194304 bytes"),
        ("a/text:v1".to_owned(), "malformed manifest"),
        ("a/huge:v1".to_owned(), "more than 2147483648"),
    ] {
        let image = format!("{}/{image}", fake.address);
        let error = node.pull(&image).await.unwrap_err().to_string();
        assert!(error.contains(want), "{image}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve({
        let layer = layer.clone();
        move |asked, _| {
            if asked.is_for(&layer) || asked.is_for("/hangs/manifests/") {
                return hanging();
            }
            image.answer(asked)
        }
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let began = Instant::now();
    for (name, want) in [("a/b", &*layer), ("a/hangs", "a/hangs:v1")] {
        let image = format!("{}/{name}:v1", fake.address);
        let error = node.pull(&image).await.unwrap_err().to_string();
        assert!(
            error.contains(want) && error.contains("no answer"),
            "{error}"
        );
    }
    assert_eq!(fake.asked(&layer).len(), 3);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_wants_to_be() {
    let image = Image::wasm(&component());
    let fake = Fake::serve(move |asked, before| {
        let busy = status(
            429,
            &json!({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}),
        );
        if asked.is_for("/later/") {
            return with(busy, header::RETRY_AFTER, "3600");
        }
        match before {
            0 => with(busy, header::RETRY_AFTER, "0"),
            1 => status(503, &json!({})),
            _ => image.answer(asked),
        }
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let pulled = node
        .pull(&format!("{}/a/b:v1", fake.address))
        .await
        .unwrap();
    assert_eq!(node.program(&pulled).await, component());
    let error = node.pull(&format!("{}/a/later:v1", fake.address)).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("429") && error.contains("slow down"),
        "{error}"
    );
    assert_eq!(fake.asked("/later/").len(), 1);
}

#[tokio::test]
async fn a_dead_mirror_costs_one_look_and_the_registry_itself_is_asked() {
    let image = Image::wasm(&component());
    let fake = Fake::serve(move |asked, _| image.answer(asked)).await;
    let broken = Fake::serve(|_, _| status(500, &json!({}))).await;
    let host = fake.address;
    let config = format!(
        "registries: {{'{host}': {{plainHttp: true, mirrors: ['{}', '127.0.0.1:1']}}, \
         '{}': {{plainHttp: true}}, '127.0.0.1:1': {{plainHttp: true}}}}",
        broken.address, broken.address
    );
    let node = Node::new(&config).await;
    let pulled = node.pull(&format!("{host}/a/b:v1")).await.unwrap();
    assert_eq!(node.program(&pulled).await, component());
    assert!(!broken.asked("/v2/a/b/manifests/v1").is_empty());
    let missing = node
        .pull("127.0.0.1:1/a/b:v1")
        .await
        .unwrap_err()
        .to_string();
    assert!(missing.contains("registry not reached"), "{missing}");
}

#[tokio::test]
async fn concurrent_pulls_download_each_blob_once() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve(move |asked, _| image.answer(asked)).await;
    let node = Node::new(&plain(&[fake.address])).await;
    let names: Vec<_> = (0..8)
        .map(|at| format!("{}/a/b{}:v1", fake.address, at % 2))
        .collect();
    let pulls = names.iter().map(|name| node.pull(name));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(fake.asked(&layer).len(), 1);
}

#[tokio::test]
async fn a_push_is_tried_again_until_the_registry_takes_it() {
    let fake = Fake::serve(|asked, before| {
        if before == 0 && !asked.is_for("/session") {
            return status(503, &json!({}));
        }
        match asked.method {
            Method::HEAD => status(404, &json!({})),
            Method::POST => with(status(202, &json!({})), header::LOCATION, "/session?x=1"),
            _ => status(201, &json!({})),
        }
    })
    .await;
    let node = Node::new(&plain(&[fake.address])).await;
    let tag = reference(&format!("{}/a/b:v1", fake.address));
    let config = RegistryConfig::parse(&plain(&[fake.address]), node.directory.path()).unwrap();
    let registries = Registries::new(config, RootCertStore::empty()).unwrap();
    let client = registries
        .with_patience(IMPATIENT)
        .pusher(&tag, &Keyring::default());
    push_wasm(&client.unwrap(), &tag, component().into())
        .await
        .unwrap();
    let ended = fake.asked("/session");
    assert_eq!(ended.len(), 2);
    assert!(
        ended
            .iter()
            .all(|asked| asked.query.starts_with("x=1&digest=sha256:"))
    );
    assert_eq!(fake.asked("/manifests/v1").len(), 2);
}
