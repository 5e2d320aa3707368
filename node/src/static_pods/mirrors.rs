//! The mirrors of static pods: what the API shows of pods that it did not ask for.
//!
//! 1. The pods' dispatcher says what runs from files and which mirrors the API has: a [`View`].
//! 2. [`plan`] compares the two; whoever keeps the mirrors carries it out, and looks again when the view changes.
//! 3. What fails is tried again, with growing delay: a pod that the API refuses runs all the same.
//!
//! Invariant: a mirror of something else than runs is never left alone, and never changed: it is deleted and made anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;

use super::{MIRROR, PodName, annotation, name_of};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What runs from files, and what the API has of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The static pods that have a worker, those that end among them.
    pub(crate) running: BTreeMap<PodName, Running>,
    /// The mirrors in the API; nothing before they were listed.
    pub(crate) mirrors: Option<BTreeMap<PodName, Arc<Pod>>>,
}

/// A static pod that has a worker.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) pod: Arc<Pod>,
    pub(crate) ending: bool,
}

impl View {
    /// The uid of the mirror of a pod that runs, if the API has it.
    pub(crate) fn mirror_of(&self, name: &PodName) -> Option<&str> {
        let running = self.running.get(name)?;
        let mirror = self.mirrors.as_ref()?.get(name)?;
        let stands_for = stands_for(mirror, &running.pod);
        mirror.metadata.uid.as_deref().filter(|_| stands_for)
    }
}

/// Whether the mirror is that of this pod, and stays.
fn stands_for(mirror: &Pod, pod: &Pod) -> bool {
    let deleted = mirror.metadata.deletion_timestamp.is_some();
    !deleted && annotation(mirror, MIRROR) == pod.metadata.uid.as_deref()
}

/// What is to be done to mirrors.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    Create(Arc<Pod>),
    /// The mirror, which stands for nothing.
    Delete(Arc<Pod>),
}

fn plan(view: &View) -> Vec<Action> {
    let Some(mirrors) = &view.mirrors else {
        return Vec::new();
    };
    let wrong = mirrors.iter().filter(|(name, mirror)| {
        let running = view.running.get(*name);
        !running.is_some_and(|running| stands_for(mirror, &running.pod))
    });
    // One that is wrong is replaced once the API tells that it is gone.
    let missing = view
        .running
        .iter()
        .filter(|(name, running)| !running.ending && !mirrors.contains_key(*name));
    wrong
        .map(|(_, mirror)| Action::Delete(mirror.clone()))
        .chain(missing.map(|(_, running)| Action::Create(running.pod.clone())))
        .collect()
}

/// Keeps the mirrors of what runs, once the Node they belong to is `registered`, until dropped.
pub(crate) async fn keep(
    client: kube::Client,
    node: String,
    mut registered: watch::Receiver<bool>,
    mut view: watch::Receiver<View>,
) {
    // The other ends go only when the agent does, and then this future is dropped with it.
    if registered.wait_for(|registered| *registered).await.is_err() {
        return;
    }
    let mut retry = FIRST_RETRY;
    loop {
        let actions = plan(&view.borrow_and_update());
        let mut failed = false;
        for action in actions {
            if let Err(error) = carry_out(&client, &node, &action).await {
                let (Action::Create(pod) | Action::Delete(pod)) = &action;
                let (namespace, name) = name_of(pod);
                tracing::warn!(namespace, name, %error, "a mirror pod is not as it should be, will retry");
                failed = true;
            }
        }
        let again = async {
            match failed {
                true => tokio::time::sleep(retry).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = view.changed() => if changed.is_err() {
                return;
            },
            () = again => {}
        }
        retry = match failed {
            true => (retry * 2).min(LAST_RETRY),
            false => FIRST_RETRY,
        };
    }
}

async fn carry_out(client: &kube::Client, node: &str, action: &Action) -> Result<(), kube::Error> {
    let (Action::Create(pod) | Action::Delete(pod)) = action;
    let (namespace, name) = name_of(pod);
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match action {
        Action::Create(pod) => {
            let nodes: Api<Node> = Api::all(client.clone());
            let node = nodes.get(node).await?;
            let mirror = mirror(pod, &node);
            api.create(&PostParams::default(), &mirror).await.map(drop)
        }
        Action::Delete(mirror) => {
            let uid = mirror.metadata.uid.clone();
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid,
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api.delete(&name, &parameters).await {
                // Somebody else removed it, or it is another one by now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                deleted => deleted.map(drop),
            }
        }
    }
}

/// The mirror of a static pod.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let metadata = &mut mirror.metadata;
    let uid = metadata.uid.take().unwrap_or_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR.to_owned(), uid);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, metadata: &Value) -> Arc<Pod> {
        let mut metadata = metadata.clone();
        metadata["name"] = name.into();
        metadata["namespace"] = "ns".into();
        Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap())
    }

    fn view(running: &[(&str, &str, bool)], mirrors: Option<&[Arc<Pod>]>) -> View {
        let running = running.iter().map(|(name, uid, ending)| {
            let pod = pod(name, &json!({ "uid": uid }));
            let ending = *ending;
            (name_of(&pod), Running { pod, ending })
        });
        View {
            running: running.collect(),
            mirrors: mirrors.map(|mirrors| {
                let named = mirrors
                    .iter()
                    .map(|mirror| (name_of(mirror), mirror.clone()));
                named.collect()
            }),
        }
    }

    fn of(hash: &str) -> Value {
        json!({ "uid": "m", "annotations": { MIRROR: hash } })
    }

    #[test]
    fn each_pod_that_runs_has_the_mirror_that_stands_for_it() {
        let mirror = |hash: &str| pod("a", &of(hash));
        let deleted = {
            let mut metadata = of("1");
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod("a", &metadata)
        };
        let runs = [("a", "1", false)];
        let create = Action::Create(pod("a", &json!({ "uid": "1" })));
        let delete = |mirror: &Arc<Pod>| Action::Delete(mirror.clone());
        for (what, view, expected) in [
            ("nothing is known of the API", view(&runs, None), vec![]),
            ("no mirror yet", view(&runs, Some(&[])), vec![create]),
            ("all is well", view(&runs, Some(&[mirror("1")])), vec![]),
            (
                "it was deleted",
                view(&runs, Some(std::slice::from_ref(&deleted))),
                vec![delete(&deleted)],
            ),
            (
                "it stands for another",
                view(&runs, Some(&[mirror("2")])),
                vec![delete(&mirror("2"))],
            ),
            (
                "nothing runs",
                view(&[], Some(&[mirror("1")])),
                vec![delete(&mirror("1"))],
            ),
            (
                "it ends, and is shown until then",
                view(&[("a", "1", true)], Some(&[mirror("1")])),
                vec![],
            ),
            (
                "it ends, and is not shown anew",
                view(&[("a", "1", true)], Some(&[])),
                vec![],
            ),
        ] {
            assert_eq!(plan(&view), expected, "{what}");
        }
    }

    #[test]
    fn a_status_goes_to_the_mirror_that_stays() {
        let name = ("ns".to_owned(), "a".to_owned());
        let runs = [("a", "1", false)];
        let found = |hash: &str| {
            let view = view(&runs, Some(&[pod("a", &of(hash))]));
            view.mirror_of(&name).map(str::to_owned)
        };
        assert_eq!(found("1").as_deref(), Some("m"));
        assert_eq!(found("2"), None);
    }

    #[test]
    fn a_mirror_belongs_to_its_node() {
        let node = json!({ "metadata": { "name": "n", "uid": "of-node" } });
        let node: Node = serde_json::from_value(node).unwrap();
        let mirror = mirror(&pod("a", &json!({ "uid": "1" })), &node);
        assert_eq!(mirror.metadata.uid, None);
        assert_eq!(annotation(&mirror, MIRROR), Some("1"));
        let owner = mirror.metadata.owner_references.unwrap().remove(0);
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str()),
            ("Node", "of-node")
        );
        assert_eq!(owner.controller, Some(true));
    }
}
