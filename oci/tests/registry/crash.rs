//! A node that is killed in the middle of a download, and what the next one makes of what it left.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header;
use tokio::process::Command;
use windlass_oci::registry::client::Patience;

use crate::fake::{Fake, Image, ok, start_of, with};
use crate::{Node, component, plain, puller_with, reference};

const DIRECTORY: &str = "WINDLASS_TEST_DIRECTORY";
const REGISTRY: &str = "WINDLASS_TEST_REGISTRY";
/// So many bytes of the layer come; then the registry falls silent.
const SENT: usize = 123_456;

/// Not a test of its own: the process that is killed.
#[tokio::test]
#[ignore = "it is run, and killed, by the test below"]
async fn the_node_that_is_killed() {
    let (Some(directory), Ok(host)) = (std::env::var_os(DIRECTORY), std::env::var(REGISTRY)) else {
        return;
    };
    // It has to wait for the rest until it is killed.
    let patience = Patience::default();
    let config = plain(&[host.parse().unwrap()]);
    let puller = puller_with(&config, directory.as_ref(), patience).await;
    let image = reference(&format!("{host}/a/b:v1"));
    puller.pull(&image, &Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_download_that_was_killed_goes_on_and_is_not_used_before_it_is_whole() {
    let image = Image::wasm(&component());
    let layer = image.layer().to_string();
    let fake = Fake::serve({
        let (image, layer) = (image.clone(), layer.clone());
        move |asked, before| {
            if !asked.is_for(&layer) || before > 0 {
                return image.answer(asked);
            }
            let first = Ok::<_, &str>(image.blobs[0].slice(..SENT));
            let silence = futures::stream::pending::<Result<Bytes, &str>>();
            let body = futures::stream::iter([first]).chain(silence);
            let length = image.blobs[0].len().to_string();
            let response = ok(axum::body::Body::from_stream(body));
            with(response, header::CONTENT_LENGTH, &length)
        }
    })
    .await;
    let config = plain(&[fake.address]);
    let node = Node::new(&config).await;
    let directory = node.directory.path();
    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::the_node_that_is_killed", "--ignored"])
        .env(DIRECTORY, directory)
        .env(REGISTRY, fake.address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let partial = directory.join(format!("partial/{}", layer.replace(':', "-")));
    let has_come = async {
        while std::fs::metadata(&partial).map_or(0, |metadata| metadata.len()) < SENT as u64 {
            tokio::task::yield_now().await;
        }
    };
    let has_come = tokio::time::timeout(Duration::from_secs(30), has_come);
    has_come.await.expect("the first bytes do not come");
    killed.kill().await.unwrap();

    let node = node.restarted(&config).await;
    let name = format!("{}/a/b:v1", fake.address);
    assert!(
        node.puller
            .local(&reference(&name))
            .await
            .unwrap()
            .is_none()
    );
    assert!(node.puller.images().await.unwrap().is_empty());
    let pulled = node.pull(&name).await.unwrap();
    assert_eq!(node.program(&pulled).await, component());
    let starts: Vec<_> = fake.asked(&layer).iter().map(start_of).collect();
    assert_eq!(starts, [None, Some(SENT)]);
    assert_eq!(node.partials(), 0);
}
