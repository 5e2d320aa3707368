//! The pods of a folder: object files, followed as they change.
//!
//! 1. Every `.yaml`, `.yml` and `.json` file directly in the folder is read; each may have several objects.
//! 2. An image that is a relative path of a `.wasm` file is pushed, and replaced by its digest.
//! 3. What is in a file is applied; what was, and is no more, is deleted. A file that can't be understood changes nothing
//!    of what came from it before, and is told as [`LocalEvent::Refused`].
//! 4. The kernel tells of changes: nothing is polled.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use windlass_api::schema::decode_yaml_documents;

use super::{LocalApi, LocalError, LocalEvent, NAMESPACE};
use crate::object_files::{Changes, list, read};

/// A folder whose object files a local API follows.
pub struct Folder {
    api: LocalApi,
    path: PathBuf,
    /// What came from each file: content, and kind, namespace and name of its objects.
    known: BTreeMap<PathBuf, (Vec<u8>, BTreeSet<Name>)>,
}

/// Kind, namespace and name.
type Name = (String, String, String);

impl Folder {
    /// The object files directly in `path`.
    #[must_use]
    pub fn new(api: LocalApi, path: impl Into<PathBuf>) -> Self {
        Self {
            api,
            path: path.into(),
            known: BTreeMap::new(),
        }
    }

    /// Applies what is in the folder, and whatever changes in it, until dropped.
    ///
    /// # Errors
    /// The folder can't be read or watched.
    pub async fn follow(mut self) -> Result<(), LocalError> {
        let path = self.path.display().to_string();
        let failed = |source: io::Error| LocalError::Folder {
            path: path.clone(),
            source,
        };
        let changes = Changes::of(&self.path).map_err(failed)?;
        loop {
            self.read().await.map_err(failed)?;
            changes.next().await;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let files = list(&self.path).await?;
        let gone: Vec<_> = self
            .known
            .keys()
            .filter(|file| !files.contains(*file))
            .cloned()
            .collect();
        for file in files {
            if let Err(message) = self.read_file(&file).await {
                let file = file.display().to_string();
                tracing::warn!(file, message, "an object file is not understood");
                self.api.0.tell(Some(LocalEvent::Refused { file, message }));
            }
        }
        for file in gone {
            let (_, names) = self.known.remove(&file).unwrap_or_default();
            // What moved to another file goes on.
            let elsewhere = self.known.values().flat_map(|(_, names)| names).cloned();
            self.delete(names.difference(&elsewhere.collect()));
        }
        Ok(())
    }

    /// Applies a file whose content is new.
    async fn read_file(&mut self, file: &Path) -> Result<(), String> {
        let Some(content) = read(file).await? else {
            return Ok(());
        };
        let before = self.known.get(file);
        if before.is_some_and(|(before, _)| *before == content) {
            return Ok(());
        }
        let documents = decode_yaml_documents(&content).map_err(|error| error.to_string())?;
        let (mut names, mut objects) = (BTreeSet::new(), Vec::new());
        for document in documents {
            if document.value.is_null() {
                continue;
            }
            let mut object = document.value;
            self.push_images(file, &mut object).await?;
            names.insert(name_of(&object));
            objects.push(object);
        }
        for object in objects {
            self.api.apply(object).map_err(|error| error.to_string())?;
        }
        let before = before.map(|(_, names)| names.clone()).unwrap_or_default();
        self.delete(before.difference(&names));
        self.known.insert(file.to_owned(), (content, names));
        Ok(())
    }

    fn delete<'a>(&self, names: impl Iterator<Item = &'a Name>) {
        for (kind, namespace, name) in names {
            // It may be gone already, which is as well.
            let _found = self.api.delete(kind, namespace, name);
        }
    }

    /// Relative paths of components become images.
    async fn push_images(&self, file: &Path, object: &mut Value) -> Result<(), String> {
        for list in ["/spec/initContainers", "/spec/containers"] {
            let containers = object.pointer_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let Some(image) = container.get("image").and_then(Value::as_str) else {
                    continue;
                };
                if !image.starts_with("./") && !image.starts_with("../") {
                    continue;
                }
                let path = file.parent().unwrap_or(file).join(image);
                let wasm = tokio::fs::read(&path).await;
                let wasm = wasm.map_err(|error| format!("image {image:?}: {error}"))?;
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let name = name.to_lowercase().replace('_', "-");
                let pushed = self.api.push(&name, wasm.into()).await;
                let pushed = pushed.map_err(|error| error.to_string())?;
                container["image"] = pushed.into();
            }
        }
        Ok(())
    }
}

fn name_of(object: &Value) -> Name {
    let text = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let namespace = text("/metadata/namespace").unwrap_or_else(|| NAMESPACE.to_owned());
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    (
        kind.unwrap_or_default(),
        namespace,
        name.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::LocalConfig;
    use super::*;

    async fn api(directory: &Path) -> LocalApi {
        let config = LocalConfig {
            node_name: "here".to_owned(),
            pod_cidr: "10.64.0.0/24".to_owned(),
        };
        LocalApi::open(config, &directory.join("images"))
            .await
            .unwrap()
    }

    /// Waits until the pods are these.
    async fn until(api: &LocalApi, names: &[&str]) {
        let mut newest = api.0.objects.newest();
        let found = newest.wait_for(|_| {
            let pods = api.pods();
            let live = pods
                .iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let found: Vec<_> = live
                .filter_map(|pod| pod.metadata.name.as_deref())
                .collect();
            found == names
        });
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), found).await;
        assert!(found.is_ok(), "{names:?}: {:?}", api.pods());
    }

    fn pod(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  \
             - {{name: a, image: {image}}}\n"
        )
    }

    #[tokio::test]
    async fn a_folder_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let api = api(dir.path()).await;
        let folder = dir.path().join("pods");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("app.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
        std::fs::write(folder.join("a.yaml"), pod("a", "./app.wasm")).unwrap();
        std::fs::write(folder.join("ignored.txt"), "not an object").unwrap();
        let mut events = api.events();
        let following = tokio::spawn(Folder::new(api.clone(), &folder).follow());
        until(&api, &["a"]).await;
        let spec = api.pods().remove(0).spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("here"));
        let image = spec.containers[0].image.clone().unwrap();
        let begin = "registry.windlass.local/default/app@sha256:";
        assert!(image.starts_with(begin), "{image}");

        let two = [pod("b", "i"), pod("c", "i")].join("---\n");
        std::fs::write(folder.join("b.yaml"), two).unwrap();
        until(&api, &["a", "b", "c"]).await;
        std::fs::write(folder.join("b.yaml"), pod("c", "i")).unwrap();
        until(&api, &["a", "c"]).await;
        std::fs::write(folder.join("a.yaml"), "kind: [").unwrap();
        let refused = loop {
            if let LocalEvent::Refused { file, message } = events.recv().await.unwrap() {
                break (file, message);
            }
        };
        assert!(refused.0.ends_with("a.yaml"), "{refused:?}");
        until(&api, &["a", "c"]).await;
        std::fs::remove_file(folder.join("a.yaml")).unwrap();
        until(&api, &["c"]).await;
        following.abort();
    }

    #[tokio::test]
    async fn what_cannot_run_is_refused_with_the_field() {
        let dir = tempfile::tempdir().unwrap();
        let api = api(dir.path()).await;
        let read = |text: &str| {
            decode_yaml_documents(text.as_bytes())
                .unwrap()
                .remove(0)
                .value
        };
        for (text, wanted) in [
            (
                "{apiVersion: v1, kind: Service, metadata: {name: a}}",
                "takes Pods, ConfigMaps and Secrets",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {}}",
                "metadata.name: Required value",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {container: []}}",
                "unknown field \"spec.container\"",
            ),
        ] {
            let error = api.apply(read(text)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
