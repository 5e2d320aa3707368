//! Volumes made of files in memory: configMap, secret, downwardAPI and projected.
//!
//! All four are lists of projections. [`render`] turns them into a tree, purely, from the objects they
//! name; a task renders again when an object, the pod or a token changes, and replaces the tree at once.
//!
//! Invariant: a mounted tree is always whole. An update that can't be rendered (the ConfigMap was deleted)
//! leaves the files as they were.
//!
//! Differs from Kubernetes: files in memory have no mode, so `defaultMode` and `mode` have no effect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SelectAll;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, Pod,
    Secret, SecretProjection, ServiceAccount, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;
use windlass_wasi_shims::fs::{MemoryNode, MemoryTree};

use super::{Mounted, VolumeContext, VolumeType};
use crate::downward;
use crate::objects::{Known, Watch};
use crate::runtime::MountSource;
use crate::tasks::OwnedTask;

const FIRST_VALUE: Duration = Duration::from_secs(10);
const TOKEN_RETRY: Duration = Duration::from_secs(30);
const TOKEN_SECONDS: i64 = 3600;

pub(super) struct ConfigMapVolume;
pub(super) struct SecretVolume;
pub(super) struct DownwardApiVolume;
pub(super) struct ProjectedVolume;

#[async_trait]
impl VolumeType for ConfigMapVolume {
    fn claims(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let source = volume.config_map.clone().unwrap_or_default();
        let (items, name, optional) = (source.items, source.name, source.optional);
        let config_map = Some(ConfigMapProjection {
            items,
            name,
            optional,
        });
        set_up(
            context,
            vec![VolumeProjection {
                config_map,
                ..VolumeProjection::default()
            }],
        )
        .await
    }
}

#[async_trait]
impl VolumeType for SecretVolume {
    fn claims(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let source = volume.secret.clone().unwrap_or_default();
        let name = source.secret_name.unwrap_or_default();
        let (items, optional) = (source.items, source.optional);
        let secret = Some(SecretProjection {
            items,
            name,
            optional,
        });
        set_up(
            context,
            vec![VolumeProjection {
                secret,
                ..VolumeProjection::default()
            }],
        )
        .await
    }
}

#[async_trait]
impl VolumeType for DownwardApiVolume {
    fn claims(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let items = volume.downward_api.clone().and_then(|source| source.items);
        let downward_api = Some(DownwardAPIProjection { items });
        set_up(
            context,
            vec![VolumeProjection {
                downward_api,
                ..VolumeProjection::default()
            }],
        )
        .await
    }
}

#[async_trait]
impl VolumeType for ProjectedVolume {
    fn claims(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let sources = volume
            .projected
            .as_ref()
            .and_then(|source| source.sources.clone());
        set_up(context, sources.unwrap_or_default()).await
    }
}

/// What the projections of one volume are rendered from.
#[derive(Default)]
struct Inputs {
    config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    secrets: BTreeMap<String, Option<Arc<Secret>>>,
    /// By path.
    tokens: BTreeMap<String, String>,
}

/// The watches behind one volume.
struct Subscriptions {
    config_maps: BTreeMap<String, Arc<Watch<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Watch<Secret>>>,
}

impl Subscriptions {
    fn new(context: &VolumeContext, projections: &[VolumeProjection]) -> Self {
        let pod = context.pod.borrow();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let objects = &context.objects;
        let config_maps = projections
            .iter()
            .filter_map(|source| source.config_map.as_ref());
        let secrets = projections
            .iter()
            .filter_map(|source| source.secret.as_ref());
        Self {
            config_maps: config_maps
                .map(|map| {
                    (
                        map.name.clone(),
                        objects.config_maps.subscribe(namespace, &map.name),
                    )
                })
                .collect(),
            secrets: secrets
                .map(|secret| {
                    (
                        secret.name.clone(),
                        objects.secrets.subscribe(namespace, &secret.name),
                    )
                })
                .collect(),
        }
    }

    /// Waits until every object is known and takes them.
    async fn read(&self, inputs: &mut Inputs) -> Result<(), String> {
        for (name, watch) in &self.config_maps {
            inputs
                .config_maps
                .insert(name.clone(), first(watch, "configmap", name).await?);
        }
        for (name, watch) in &self.secrets {
            inputs
                .secrets
                .insert(name.clone(), first(watch, "secret", name).await?);
        }
        Ok(())
    }

    /// One item per change of any object.
    fn changes(&self) -> SelectAll<futures::stream::BoxStream<'static, ()>> {
        let mut all = SelectAll::new();
        for watch in self.config_maps.values() {
            all.push(WatchStream::from_changes(watch.changes()).map(drop).boxed());
        }
        for watch in self.secrets.values() {
            all.push(WatchStream::from_changes(watch.changes()).map(drop).boxed());
        }
        all
    }
}

async fn first<K>(watch: &Watch<K>, kind: &str, name: &str) -> Result<Option<Arc<K>>, String> {
    let mut changes = watch.changes();
    let known = tokio::time::timeout(
        FIRST_VALUE,
        changes.wait_for(|known: &Known<K>| known.is_some()),
    );
    match known.await {
        Ok(Ok(known)) => Ok(known.clone().flatten()),
        _ => Err(format!(
            "failed to sync {kind} {name:?}: timed out waiting for the API server"
        )),
    }
}

async fn set_up(
    context: &Arc<VolumeContext>,
    projections: Vec<VolumeProjection>,
) -> Result<Mounted, String> {
    let subscriptions = Subscriptions::new(context, &projections);
    let mut inputs = Inputs::default();
    subscriptions.read(&mut inputs).await?;
    let refresh = request_tokens(context, &projections, &mut inputs).await?;
    let pod = context.pod.borrow().clone();
    let tree = Arc::new(MemoryTree::new(render(
        &projections,
        &pod,
        context,
        &inputs,
    )?));
    let updater = Updater {
        context: context.clone(),
        projections,
        subscriptions,
        inputs,
        tree: tree.clone(),
        refresh,
    };
    let updater = Some(OwnedTask::spawn(updater.run()));
    Ok(Mounted {
        source: MountSource::Memory(tree),
        read_only: false,
        _updater: updater,
        _image: None,
    })
}

/// Keeps one volume's tree current.
struct Updater {
    context: Arc<VolumeContext>,
    projections: Vec<VolumeProjection>,
    subscriptions: Subscriptions,
    inputs: Inputs,
    tree: Arc<MemoryTree>,
    refresh: Option<Instant>,
}

impl Updater {
    async fn run(mut self) {
        let mut objects = self.subscriptions.changes();
        let mut pod = self.context.pod.clone();
        loop {
            let refresh = self.refresh;
            let token_due = async {
                match refresh {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = objects.next() => {}
                changed = pod.changed() => if changed.is_err() { return },
                () = token_due => self.refresh_tokens().await,
            }
            if let Err(message) = self.update().await {
                tracing::warn!(message, "a volume is left as it was");
            }
        }
    }

    async fn refresh_tokens(&mut self) {
        match request_tokens(&self.context, &self.projections, &mut self.inputs).await {
            Ok(refresh) => self.refresh = refresh,
            Err(message) => {
                tracing::warn!(message, "a ServiceAccount token is not renewed, will retry");
                self.refresh = Some(Instant::now() + TOKEN_RETRY);
            }
        }
    }

    async fn update(&mut self) -> Result<(), String> {
        self.subscriptions.read(&mut self.inputs).await?;
        let pod = self.context.pod.borrow().clone();
        self.tree.replace(render(
            &self.projections,
            &pod,
            &self.context,
            &self.inputs,
        )?);
        Ok(())
    }
}

/// Requests the tokens of a volume and says when to do so again: at 80 % of the shortest life.
async fn request_tokens(
    context: &VolumeContext,
    projections: &[VolumeProjection],
    inputs: &mut Inputs,
) -> Result<Option<Instant>, String> {
    let mut refresh: Option<Instant> = None;
    for source in projections
        .iter()
        .filter_map(|source| source.service_account_token.as_ref())
    {
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let token = request_token(context, source, seconds).await?;
        inputs.tokens.insert(source.path.clone(), token);
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).mul_f64(0.8);
        let at = Instant::now() + life;
        refresh = Some(refresh.map_or(at, |other| other.min(at)));
    }
    Ok(refresh)
}

async fn request_token(
    context: &VolumeContext,
    source: &ServiceAccountTokenProjection,
    seconds: i64,
) -> Result<String, String> {
    let pod = context.pod.borrow().clone();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref());
    let account = account.unwrap_or("default");
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().cloned().collect(),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), namespace);
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await;
    let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
    let token = answer
        .status
        .map(|status| status.token)
        .filter(|token| !token.is_empty());
    token.ok_or_else(|| "failed to fetch token: the API server answered without one".to_owned())
}

/// Renders projections in order; a later file replaces an earlier one of the same path.
fn render(
    projections: &[VolumeProjection],
    pod: &Pod,
    context: &VolumeContext,
    inputs: &Inputs,
) -> Result<MemoryNode, String> {
    let mut files = BTreeMap::new();
    for source in projections {
        if let Some(source) = &source.config_map {
            let found = inputs
                .config_maps
                .get(&source.name)
                .and_then(Option::as_ref);
            let data = found.map(|map| config_map_data(map));
            add_object(
                &mut files,
                &Object {
                    kind: "configmap",
                    name: &source.name,
                    items: source.items.as_deref(),
                    optional: source.optional.unwrap_or(false),
                },
                data,
            )?;
        }
        if let Some(source) = &source.secret {
            let found = inputs.secrets.get(&source.name).and_then(Option::as_ref);
            let data = found.map(|secret| secret_data(secret));
            add_object(
                &mut files,
                &Object {
                    kind: "secret",
                    name: &source.name,
                    items: source.items.as_deref(),
                    optional: source.optional.unwrap_or(false),
                },
                data,
            )?;
        }
        if let Some(source) = &source.downward_api {
            for file in source.items.iter().flatten() {
                files.insert(file.path.clone(), downward_file(pod, context, file)?);
            }
        }
        if let Some(source) = &source.service_account_token {
            let token = inputs.tokens.get(&source.path).cloned().unwrap_or_default();
            files.insert(source.path.clone(), Bytes::from(token));
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            return Err(
                "projected sources clusterTrustBundle and podCertificate are not supported yet"
                    .to_owned(),
            );
        }
    }
    MemoryNode::from_files(files).map_err(|error| error.to_string())
}

/// How an object is projected.
struct Object<'a> {
    kind: &'static str,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: bool,
}

type Data = BTreeMap<String, Bytes>;

fn config_map_data(map: &ConfigMap) -> Data {
    let text = map.data.iter().flatten();
    let text = text.map(|(key, value)| (key.clone(), Bytes::from(value.clone())));
    let binary = map.binary_data.iter().flatten();
    let binary = binary.map(|(key, value)| (key.clone(), Bytes::from(value.0.clone())));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> Data {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), Bytes::from(value.0.clone())))
        .collect()
}

fn add_object(files: &mut Data, object: &Object<'_>, data: Option<Data>) -> Result<(), String> {
    let Some(mut data) = data else {
        if object.optional {
            return Ok(());
        }
        return Err(format!("{} {:?} not found", object.kind, object.name));
    };
    let Some(items) = object.items.filter(|items| !items.is_empty()) else {
        files.extend(data);
        return Ok(());
    };
    for item in items {
        match data.get_mut(&item.key) {
            Some(value) => {
                files.insert(item.path.clone(), value.clone());
            }
            None if object.optional => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {}",
                    key_kind(object.kind),
                    item.key
                ));
            }
        }
    }
    Ok(())
}

fn key_kind(kind: &str) -> &str {
    if kind == "configmap" { "config" } else { kind }
}

fn downward_file(
    pod: &Pod,
    context: &VolumeContext,
    file: &DownwardAPIVolumeFile,
) -> Result<Bytes, String> {
    if let Some(field) = &file.field_ref {
        return downward::field(pod, &context.node, &field.field_path).map(Bytes::from);
    }
    let Some(selector) = &file.resource_field_ref else {
        return Err(format!("downwardAPI file {} names no source", file.path));
    };
    let name = selector.container_name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let container = spec.and_then(|spec| spec.containers.iter().find(|found| found.name == name));
    let container = container.ok_or_else(|| format!("container {name:?} not found in pod"))?;
    downward::resource(container, &context.node, selector).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object<'a>(items: Option<&'a [KeyToPath]>, optional: bool) -> Object<'a> {
        Object {
            kind: "configmap",
            name: "cm",
            items,
            optional,
        }
    }

    fn data() -> Option<Data> {
        let map: ConfigMap = serde_json::from_value(json!({
            "data": { "a": "1", "b": "2" }, "binaryData": { "c": "/w==" },
        }))
        .unwrap();
        Some(config_map_data(&map))
    }

    #[test]
    fn every_key_is_a_file_unless_items_choose() {
        let mut files = Data::new();
        add_object(&mut files, &object(None, false), data()).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(files["c"], Bytes::from_static(b"\xff"));
        let items = [KeyToPath {
            key: "a".into(),
            path: "dir/x".into(),
            mode: None,
        }];
        let mut files = Data::new();
        add_object(&mut files, &object(Some(&items), false), data()).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["dir/x"]);
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        let items = [KeyToPath {
            key: "z".into(),
            path: "z".into(),
            mode: None,
        }];
        let mut files = Data::new();
        let missing_key = add_object(&mut files, &object(Some(&items), false), data());
        assert_eq!(
            missing_key.unwrap_err(),
            "references non-existent config key: z"
        );
        let missing = add_object(&mut files, &object(None, false), None);
        assert_eq!(missing.unwrap_err(), "configmap \"cm\" not found");
        add_object(&mut files, &object(Some(&items), true), data()).unwrap();
        add_object(&mut files, &object(None, true), None).unwrap();
        assert!(files.is_empty());
    }
}
