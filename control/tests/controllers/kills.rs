//! A control plane that is killed after each of its writes, one after the other: what it had begun is ended by the
//! next one, and nothing is made twice.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::pending;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::client::Body;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Notify;

use crate::cluster::{Cluster, create, eventually, merge};
use crate::faults::{change, workload};

/// More writes than any of the changes here takes.
const NEVER: usize = usize::MAX;

/// Lets some more writes of controllers and schedulers happen and then answers none of them anything.
struct Fuse {
    left: AtomicUsize,
    blown: Notify,
}

impl Fuse {
    fn set(&self, writes: usize) {
        self.left.store(writes, Ordering::SeqCst);
    }

    async fn pass(
        &self,
        client: Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, kube::Error> {
        let counts = request.method() != Method::GET && !request.uri().path().ends_with("/events");
        let less = |left| match left {
            NEVER => Some(NEVER),
            0 => None,
            left => Some(left - usize::from(counts)),
        };
        let order = Ordering::SeqCst;
        let Ok(left) = self.left.fetch_update(order, order, less) else {
            return pending().await;
        };
        let response = client.send(request).await;
        if counts && left == 1 {
            self.blown.notify_one();
            return pending().await;
        }
        response
    }
}

/// Has an object named `web` made and changed, and kills the control plane one write later each time, until the
/// change is done before that. `done` waits until it is.
async fn kill_after_each_write<K>(
    begin: impl AsyncFn(&Cluster),
    change: impl AsyncFn(&Cluster),
    done: impl AsyncFn(&Cluster),
) where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send,
    K: 'static,
    K::DynamicType: Default + Clone + Eq + Hash,
{
    let fuse = Arc::new(Fuse {
        left: AtomicUsize::new(NEVER),
        blown: Notify::new(),
    });
    let through = Arc::clone(&fuse);
    let handle = move |client, request| {
        let fuse = Arc::clone(&through);
        async move { fuse.pass(client, request).await }
    };
    let mut cluster = Cluster::start_through(|config| config.in_memory = false, handle).await;
    cluster.node("n1").await;
    for writes in 1.. {
        begin(&cluster).await;
        fuse.set(writes);
        change(&cluster).await;
        let ended = tokio::select! {
            () = fuse.blown.notified() => false,
            () = done(&cluster) => true,
        };
        fuse.set(NEVER);
        if ended {
            assert!(writes > 5, "the change takes several writes");
            break;
        }
        cluster.restart().await;
        done(&cluster).await;
        let (api, params) = (cluster.api::<K>(), DeleteParams::foreground());
        api.delete("web", &params).await.unwrap();
        eventually(&api, BTreeMap::is_empty).await;
    }
    cluster.stop().await;
}

/// Waits until these are all the pods there are, and all have the image.
async fn pods_are(cluster: &Cluster, count: usize, image: &str) {
    let has = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image);
    eventually(&cluster.api::<Pod>(), |all| {
        all.len() == count && all.values().all(has)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_ended_by_the_next_control_plane() {
    let available = async |cluster: &Cluster| {
        eventually(&cluster.api::<Deployment>(), |all| {
            let status = all.get("web").and_then(|web| web.status.as_ref());
            status.is_some_and(|status| {
                status.observed_generation == all["web"].metadata.generation
                    && (status.replicas, status.updated_replicas) == (Some(2), Some(2))
                    && status.available_replicas == Some(2)
            })
        })
        .await;
    };
    kill_after_each_write::<Deployment>(
        async |cluster| {
            create(
                &cluster.api::<Deployment>(),
                workload("a", &json!({"replicas": 2})),
            )
            .await;
            available(cluster).await;
        },
        async |cluster| {
            merge(&cluster.api::<Deployment>(), "web", change("b")).await;
        },
        async |cluster| {
            available(cluster).await;
            pods_are(cluster, 2, "b").await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_replaced_by_the_next_control_plane() {
    let current = async |cluster: &Cluster, image: &str| {
        pods_are(cluster, 2, image).await;
        eventually(&cluster.api::<StatefulSet>(), |all| {
            let status = all.get("web").and_then(|web| web.status.as_ref());
            status.is_some_and(|status| {
                status.observed_generation == all["web"].metadata.generation
                    && status.ready_replicas == Some(2)
                    && status.current_revision == status.update_revision
            })
        })
        .await;
    };
    kill_after_each_write::<StatefulSet>(
        async |cluster| {
            let more = json!({"replicas": 2, "serviceName": "web"});
            create(&cluster.api::<StatefulSet>(), workload("a", &more)).await;
            current(cluster, "a").await;
        },
        async |cluster| {
            merge(&cluster.api::<StatefulSet>(), "web", change("b")).await;
        },
        async |cluster| current(cluster, "b").await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_replaced_by_the_next_control_plane() {
    let current = async |cluster: &Cluster, image: &str| {
        pods_are(cluster, 1, image).await;
        eventually(&cluster.api::<DaemonSet>(), |all| {
            let status = all.get("web").and_then(|web| web.status.as_ref());
            status.is_some_and(|status| {
                status.observed_generation == all["web"].metadata.generation
                    && status.number_available == Some(1)
                    && status.updated_number_scheduled == Some(1)
            })
        })
        .await;
    };
    kill_after_each_write::<DaemonSet>(
        async |cluster| {
            create(&cluster.api::<DaemonSet>(), workload("a", &json!({}))).await;
            current(cluster, "a").await;
        },
        async |cluster| {
            merge(&cluster.api::<DaemonSet>(), "web", change("b")).await;
        },
        async |cluster| current(cluster, "b").await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_counted_once_by_the_next_control_plane() {
    kill_after_each_write::<Job>(
        async |_| {},
        async |cluster| {
            let job = json!({"metadata": {"name": "web"}, "spec": {
                "completions": 2, "parallelism": 2, "completionMode": "Indexed",
                "template": {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "i"}]}}}});
            create(&cluster.api::<Job>(), job).await;
        },
        async |cluster| {
            let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
            for index in ["0", "1"] {
                let runs = |pod: &Pod| {
                    let labels = pod.metadata.labels.as_ref();
                    let own =
                        labels.and_then(|of| of.get("batch.kubernetes.io/job-completion-index"));
                    let phase = pod
                        .status
                        .as_ref()
                        .and_then(|status| status.phase.as_deref());
                    own.is_some_and(|own| own == index)
                        && ["Running", "Succeeded"].iter().any(|of| Some(*of) == phase)
                };
                let all = eventually(&pods, |all| all.values().any(runs)).await;
                let name = all.iter().find(|(_, pod)| runs(pod)).unwrap().0;
                let status = json!({"status": {"phase": "Succeeded"}});
                let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
                pods.patch_status(name, &params, &patch).await.unwrap();
            }
            let all = eventually(&jobs, |all| {
                let status = all.get("web").and_then(|web| web.status.as_ref());
                let conditions = status.and_then(|status| status.conditions.as_ref());
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|of| of.type_ == "Complete" && of.status == "True")
            })
            .await;
            let status = all["web"].status.as_ref().unwrap();
            assert_eq!((status.succeeded, status.failed), (Some(2), None));
            assert_eq!(status.completed_indexes.as_deref(), Some("0,1"));
            let all = eventually(&pods, |all| {
                let mut held = all
                    .values()
                    .flat_map(|pod| pod.metadata.finalizers.iter().flatten());
                held.next().is_none()
            })
            .await;
            assert_eq!(all.len(), 2, "one pod an index: {:?}", all.keys());
        },
    )
    .await;
}
