//! What survives `kill -9`: every acknowledged write, and watchers without a gap.
//!
//! Each round starts the server on the same directory, writes from several tasks at once, kills the
//! process in the middle, starts it again and compares what it has with what was acknowledged.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod encryption;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use windlass_tests::PATIENCE;

const ROUNDS: usize = 5;
const WRITERS: usize = 8;
/// Acknowledged writes of a round before the kill.
const WRITES: usize = 120;

struct Server {
    process: Child,
    client: Client,
}

impl Server {
    async fn start(dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_test-server"));
        let mut process = command
            .arg(dir)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap();
        assert!(
            first
                .as_deref()
                .is_some_and(|line| line.starts_with("ready ")),
            "{first:?}"
        );
        let kubeconfig = Kubeconfig::read_from(dir.join("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        Self {
            process,
            client: Client::try_from(config).unwrap(),
        }
    }

    /// SIGKILL, as the kernel's out-of-memory killer would.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }
}

/// Creates objects from several tasks until the server is killed; returns what was acknowledged.
async fn write_until_killed(server: Server, round: usize) -> BTreeSet<String> {
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (api, acknowledged) = (server.config_maps(), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                for n in 0.. {
                    let name = format!("r{round}-w{writer}-{n}");
                    let metadata = ObjectMeta {
                        name: Some(name.clone()),
                        ..ObjectMeta::default()
                    };
                    let object = ConfigMap {
                        metadata,
                        ..ConfigMap::default()
                    };
                    if api.create(&PostParams::default(), &object).await.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().insert(name);
                }
            })
        })
        .collect();
    let enough = async {
        while acknowledged.lock().unwrap().len() < WRITES {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.unwrap();
    server.kill().await;
    futures::future::join_all(writers).await;
    let acknowledged = acknowledged.lock().unwrap();
    acknowledged.clone()
}

/// Names that a watch from `version` reports, up to and including the one called `last`.
async fn watched(server: &Server, version: &str, last: &str) -> BTreeSet<String> {
    let path = format!("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={version}");
    let request = Request::get(path).body(Vec::new()).unwrap();
    let mut lines = server.client.request_stream(request).await.unwrap().lines();
    let mut names = BTreeSet::new();
    while !names.contains(last) {
        let line = tokio::time::timeout(PATIENCE, lines.try_next())
            .await
            .unwrap();
        let event: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        names.insert(
            event["object"]["metadata"]["name"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_and_watchers_resume_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = BTreeSet::new();
    for round in 0..ROUNDS {
        let server = Server::start(dir.path()).await;
        let list = server
            .config_maps()
            .list(&ListParams::default())
            .await
            .unwrap();
        let version = list.metadata.resource_version.unwrap();
        let acknowledged = write_until_killed(server, round).await;
        all.extend(acknowledged.iter().cloned());

        let server = Server::start(dir.path()).await;
        let list = server
            .config_maps()
            .list(&ListParams::default())
            .await
            .unwrap();
        let there: BTreeSet<_> = list
            .items
            .into_iter()
            .filter_map(|o| o.metadata.name)
            .collect();
        let lost: Vec<_> = all.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");

        let last = format!("r{round}-last");
        let metadata = ObjectMeta {
            name: Some(last.clone()),
            ..ObjectMeta::default()
        };
        let object = ConfigMap {
            metadata,
            ..ConfigMap::default()
        };
        server
            .config_maps()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let seen = watched(&server, &version, &last).await;
        let missed: Vec<_> = acknowledged.difference(&seen).collect();
        assert!(
            missed.is_empty(),
            "round {round}: the watch missed {missed:?}"
        );
        all.insert(last);
        server.kill().await;
    }
}

#[tokio::test]
async fn a_second_server_on_a_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Server::start(dir.path()).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_test-server"));
    let second = command.arg(dir.path()).output();
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .unwrap()
        .unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(
        error.contains("is in use by another windlass process"),
        "{error}"
    );
}
