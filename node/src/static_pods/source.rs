//! The folder of static pods, followed as it changes.
//!
//! A file that can't be understood changes nothing of what came from it before; it is told in the log and as an event of
//! the Node, and the others go on.
//!
//! Differs from Kubernetes: kubelet ends the pod of a file that turned bad, and reads files of every name.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{PodName, StaticPods, manifest, name_of};
use crate::events::{EventType, ObjectEvents};
use crate::object_files::{self, Changes};
use crate::status::reason::EventReason;

/// A folder that was read once.
pub(crate) struct Source {
    folder: PathBuf,
    node: String,
    events: ObjectEvents,
    changes: Changes,
    files: BTreeMap<PathBuf, File>,
    pods: watch::Sender<StaticPods>,
}

/// What is known of a file.
#[derive(Default)]
struct File {
    /// Nothing if it can't be read.
    content: Option<Vec<u8>>,
    /// The pods of the newest content that was understood.
    pods: Vec<Arc<Pod>>,
    /// Why the content is not understood.
    invalid: Option<String>,
    /// What was told last to be wrong.
    told: Option<String>,
}

impl Source {
    /// Reads the files of a folder, for this node. What is wrong with one is told as an event.
    ///
    /// # Errors
    /// The folder can't be read or watched.
    pub(crate) async fn open(
        folder: PathBuf,
        node: String,
        events: ObjectEvents,
    ) -> io::Result<Self> {
        let mut source = Self {
            changes: Changes::of(&folder)?,
            folder,
            node,
            events,
            files: BTreeMap::new(),
            pods: watch::Sender::default(),
        };
        source.read().await?;
        Ok(source)
    }

    /// The pods that the files ask for, now and as that changes.
    pub(crate) fn pods(&self) -> watch::Receiver<StaticPods> {
        self.pods.subscribe()
    }

    /// Follows the folder until dropped.
    pub(crate) async fn follow(mut self) {
        loop {
            self.changes.next().await;
            if let Err(error) = self.read().await {
                // What ran goes on: a folder that is gone for a moment ends nothing.
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "static pods can't be read");
            }
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let listed = object_files::list(&self.folder).await?;
        self.files.retain(|path, _| listed.contains(path));
        for path in listed {
            let content = object_files::read(&path).await;
            let file = self.files.entry(path.clone()).or_default();
            file.take(&path, content, &self.node);
        }
        let (pods, mut taken) = distinct(&self.files);
        for (path, file) in &mut self.files {
            let error = file.invalid.clone().or_else(|| taken.remove(path));
            if error == file.told {
                continue;
            }
            if let Some(message) = &error {
                let path = path.display();
                tracing::warn!(%path, message, "a static pod is not understood");
                let text = format!("Could not process manifest file {path}: {message}");
                self.events
                    .record(EventType::Warning, EventReason::InvalidStaticPod, text);
            }
            file.told = error;
        }
        self.pods.send_if_modified(|before| {
            let changed = !before.keys().eq(pods.keys());
            if changed {
                *before = Arc::new(pods);
            }
            changed
        });
        Ok(())
    }
}

impl File {
    /// Takes the content of the file if it is new.
    fn take(&mut self, path: &Path, content: Result<Option<Vec<u8>>, String>, node: &str) {
        let read = match content {
            Ok(None) => return,
            // It is as right or wrong as it was.
            Ok(content) if self.content == content => return,
            Ok(Some(content)) => {
                let pods = manifest::read(path, &content, node);
                self.content = Some(content);
                pods
            }
            Err(error) => {
                self.content = None;
                Err(error)
            }
        };
        match read {
            Ok(pods) => {
                self.pods = pods.into_iter().map(Arc::new).collect();
                self.invalid = None;
            }
            Err(error) => self.invalid = Some(error),
        }
    }
}

/// All pods by uid, each name once: the first file that has one keeps it. And what is wrong with the others.
fn distinct(
    files: &BTreeMap<PathBuf, File>,
) -> (BTreeMap<String, Arc<Pod>>, BTreeMap<PathBuf, String>) {
    let (mut pods, mut taken) = (BTreeMap::new(), BTreeMap::new());
    let mut owners = BTreeMap::<PodName, &PathBuf>::new();
    for (path, file) in files {
        for pod in &file.pods {
            let name = name_of(pod);
            if let Some(owner) = owners.get(&name) {
                let ((namespace, name), owner) = (name, owner.display());
                let error = format!("pod {namespace}/{name} is in {owner}");
                taken.insert(path.clone(), error);
                continue;
            }
            owners.insert(name, path);
            pods.insert(pod.metadata.uid.clone().unwrap_or_default(), pod.clone());
        }
    }
    (pods, taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventRecorder;
    use std::time::Duration;

    fn pod(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  \
             - {{name: a, image: {image}}}\n"
        )
    }

    async fn open(folder: &Path) -> Source {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        let client = kube::Client::new(service, "default");
        let events = EventRecorder::start(&client, "n").for_node("n");
        Source::open(folder.to_owned(), "n".to_owned(), events)
            .await
            .unwrap()
    }

    fn names(pods: &StaticPods) -> Vec<String> {
        let mut names: Vec<_> = pods.values().map(|pod| name_of(pod).1).collect();
        names.sort();
        names
    }

    async fn until(pods: &mut watch::Receiver<StaticPods>, expected: &[&str]) {
        let last = pods.clone();
        let found = pods.wait_for(|pods| names(pods) == expected);
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        assert!(found.is_ok(), "{expected:?}: {:?}", names(&last.borrow()));
    }

    #[tokio::test]
    async fn a_bad_file_is_told_and_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            // As editors and tools do it: whole or not at all.
            let path = directory.path().join(format!(".{name}"));
            std::fs::write(&path, text).unwrap();
            std::fs::rename(path, directory.path().join(name)).unwrap();
        };
        write("a.yaml", pod("a", "i"));
        write("b.yaml", "kind: Nothing".to_owned());
        write("c.yaml", pod("a", "other"));
        let mut source = open(directory.path()).await;
        let mut pods = source.pods();
        assert_eq!(names(&pods.borrow_and_update()), ["a-n"]);
        let error = |source: &Source, name: &str| {
            let file = &source.files[&directory.path().join(name)];
            file.told.clone().unwrap_or_default()
        };
        assert!(error(&source, "b.yaml").contains("a static pod is a Pod of v1"));
        assert!(error(&source, "c.yaml").starts_with("pod default/a-n is in "));
        assert_eq!(error(&source, "a.yaml"), "");

        // What is wrong now, and was right before, goes on.
        write("a.yaml", "kind: [".to_owned());
        source.read().await.unwrap();
        assert_ne!(error(&source, "a.yaml"), "");
        assert!(!pods.has_changed().unwrap());

        // A name that is free again is the other file's.
        std::fs::remove_file(directory.path().join("a.yaml")).unwrap();
        source.read().await.unwrap();
        let image = |pods: &StaticPods| {
            let pod = pods.values().next().unwrap();
            pod.spec.as_ref().unwrap().containers[0].image.clone()
        };
        assert_eq!(image(&pods.borrow_and_update()).as_deref(), Some("other"));
        assert_eq!(error(&source, "c.yaml"), "");

        let following = tokio::spawn(source.follow());
        write("b.yaml", pod("b", "i"));
        until(&mut pods, &["a-n", "b-n"]).await;
        std::fs::remove_file(directory.path().join("c.yaml")).unwrap();
        until(&mut pods, &["b-n"]).await;
        following.abort();
    }
}
