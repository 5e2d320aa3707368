//! From an image reference to a wasm blob on this node: pull policy, events and errors.
//!
//! 1. The reference is parsed; a path is answered with what to do instead.
//! 2. By pull policy the image on the node is taken, or the cluster's registry is asked over the API
//!    connection. One pull per image runs at a time (`oci::pull`).
//! 3. The blob's first bytes tell component from module, which decides the runtime.
//!
//! Back-off between failed tries belongs to the pod's plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Container;
use tokio::io::AsyncReadExt;
use windlass_oci::artifact::WasmKind;
use windlass_oci::content_store::ContentStore;
use windlass_oci::manifest::Descriptor;
use windlass_oci::pull::{PullError, PulledImage, Puller};
use windlass_oci::reference::Reference;
use windlass_oci::registry::client::{self, BoxError, RegistryClient, Transport};

use crate::events::{EventType, ObjectEvents};
use crate::runtime::{ImageKind, ResolvedImage, StartError};
use crate::status::reason::{ContainerReason, EventReason};

/// The image a container asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// Name of the container, for events.
    pub container: String,
    /// The reference as the pod writes it.
    pub image: String,
    /// `imagePullPolicy`.
    pub pull_policy: Option<String>,
}

impl From<&Container> for ImageRequest {
    fn from(container: &Container) -> Self {
        Self {
            container: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            pull_policy: container.image_pull_policy.clone(),
        }
    }
}

/// Images of one node.
pub struct Images {
    puller: Puller,
    /// What was resolved before, by reference; spares `IfNotPresent` the file system.
    resolved: Mutex<HashMap<Reference, Arc<ResolvedImage>>>,
}

/// Sends registry requests over the agent's API connection, whose server also serves `/v2/`.
#[derive(Clone)]
pub struct ApiTransport(kube::Client);

impl ApiTransport {
    /// A transport over this client.
    #[must_use]
    pub const fn new(client: kube::Client) -> Self {
        Self(client)
    }
}

#[async_trait]
impl Transport for ApiTransport {
    async fn send(
        &self,
        request: Request<client::Body>,
    ) -> Result<Response<client::Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = kube::client::Body::from(body.collect().await?.to_bytes());
        let response = self.0.send(Request::from_parts(parts, body)).await?;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    fn of(written: Option<&str>, reference: &Reference) -> Self {
        match written {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if reference.is_latest() => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

impl Images {
    /// Images in `store`, pulled over the API connection.
    #[must_use]
    pub fn new(client: kube::Client, store: ContentStore) -> Self {
        Self::with_transport(Arc::new(ApiTransport::new(client)), store)
    }

    /// Images in `store`, pulled over any transport to the cluster's registry.
    #[must_use]
    pub fn with_transport(transport: Arc<dyn Transport>, store: ContentStore) -> Self {
        let puller = Puller::new(RegistryClient::new(transport), store);
        Self {
            puller,
            resolved: Mutex::default(),
        }
    }

    /// Brings a container's image to this node.
    ///
    /// # Errors
    /// With the container's waiting reason; the events are recorded.
    pub async fn resolve(
        &self,
        request: &ImageRequest,
        events: &ObjectEvents,
    ) -> Result<Arc<ResolvedImage>, StartError> {
        let ImageRequest {
            container: name,
            image,
            pull_policy,
        } = request;
        let reference = match parse(image) {
            Ok(reference) => reference,
            Err(error) => {
                let text = format!(
                    "Failed to apply default image tag {image:?}: {}",
                    error.message
                );
                events.container(name, EventType::Warning, EventReason::InspectFailed, text);
                return Err(error);
            }
        };
        let policy = PullPolicy::of(pull_policy.as_deref(), &reference);
        let present = match policy {
            PullPolicy::Always => None,
            _ => self.find(image, &reference).await?,
        };
        if let Some(found) = present {
            let text = format!("Container image {image:?} already present on machine");
            events.container(name, EventType::Normal, EventReason::Pulled, text);
            return Ok(found);
        }
        if policy == PullPolicy::Never {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            let reason = ContainerReason::ErrImageNeverPull;
            events.container(
                name,
                EventType::Warning,
                EventReason::Failed,
                format!("Error: {reason}"),
            );
            return Err(StartError { reason, message });
        }
        self.pull(image, &reference, name, events).await
    }

    async fn pull(
        &self,
        image: &str,
        reference: &Reference,
        container: &str,
        events: &ObjectEvents,
    ) -> Result<Arc<ResolvedImage>, StartError> {
        let began = Instant::now();
        let text = format!("Pulling image {image:?}");
        events.container(container, EventType::Normal, EventReason::Pulling, text);
        let pulled = match self.try_pull(image, reference).await {
            Ok(pulled) => pulled,
            Err(message) => {
                let text = format!("Failed to pull image {image:?}: {message}");
                events.container(container, EventType::Warning, EventReason::Failed, text);
                let reason = ContainerReason::ErrImagePull;
                let text = format!("Error: {reason}");
                events.container(container, EventType::Warning, EventReason::Failed, text);
                return Err(StartError { reason, message });
            }
        };
        let (resolved, size) = pulled;
        let took = began.elapsed().as_millis();
        let text = format!(
            "Successfully pulled image {image:?} in {took}ms ({took}ms including waiting). \
             Image size: {size} bytes."
        );
        events.container(container, EventType::Normal, EventReason::Pulled, text);
        Ok(resolved)
    }

    async fn try_pull(
        &self,
        image: &str,
        reference: &Reference,
    ) -> Result<(Arc<ResolvedImage>, u64), String> {
        if !reference.is_cluster_registry() {
            return Err(format!(
                "registries other than the cluster's own are not supported yet: {}",
                reference.registry()
            ));
        }
        let pulled = self
            .puller
            .pull(reference)
            .await
            .map_err(|error| describe(&error))?;
        let size = pulled.manifest.layers.iter().map(|layer| layer.size).sum();
        let resolved = self
            .describe_image(image, &pulled)
            .await
            .map_err(|error| error.message)?;
        Ok((self.remember(reference, resolved), size))
    }

    async fn find(
        &self,
        image: &str,
        reference: &Reference,
    ) -> Result<Option<Arc<ResolvedImage>>, StartError> {
        if let Some(found) = self.lock().get(reference) {
            return Ok(Some(found.clone()));
        }
        match self.puller.local(reference).await {
            Ok(Some(pulled)) => {
                let resolved = self.describe_image(image, &pulled).await?;
                Ok(Some(self.remember(reference, resolved)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(StartError {
                reason: ContainerReason::ErrImagePull,
                message: describe(&error),
            }),
        }
    }

    async fn describe_image(
        &self,
        image: &str,
        pulled: &PulledImage,
    ) -> Result<ResolvedImage, StartError> {
        let config = pulled.config.clone();
        let split = |text: String| {
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            (name.to_owned(), value.to_owned())
        };
        let (blob, kind) = match pulled.manifest.wasm_layer() {
            Some(layer) => (layer, self.wasm_kind(image, layer).await?),
            None => (&pulled.manifest.config, ImageKind::Linux),
        };
        Ok(ResolvedImage {
            reference: image.to_owned(),
            digest: pulled.digest.clone(),
            blob_digest: blob.digest.clone(),
            blob: self.puller.store().path(&blob.digest),
            kind,
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config
                .env
                .unwrap_or_default()
                .into_iter()
                .map(split)
                .collect(),
        })
    }

    async fn wasm_kind(&self, image: &str, layer: &Descriptor) -> Result<ImageKind, StartError> {
        let unreadable = |error: String| {
            StartError::create(format!("image {image:?}: read {}: {error}", layer.digest))
        };
        let file = self.puller.store().open_blob(&layer.digest).await;
        let file = file.map_err(|error| unreadable(error.to_string()))?;
        let mut preamble = Vec::with_capacity(8);
        let read = file.take(8).read_to_end(&mut preamble).await;
        read.map_err(|error| unreadable(error.to_string()))?;
        match WasmKind::of(&preamble) {
            Some(WasmKind::Component) => Ok(ImageKind::Component),
            Some(WasmKind::CoreModule) => Ok(ImageKind::CoreModule),
            None => Err(StartError::create(format!(
                "image {image:?} is not a WebAssembly component or module"
            ))),
        }
    }

    fn remember(&self, reference: &Reference, resolved: ResolvedImage) -> Arc<ResolvedImage> {
        let resolved = Arc::new(resolved);
        self.lock().insert(reference.clone(), resolved.clone());
        resolved
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Reference, Arc<ResolvedImage>>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(image: &str) -> Result<Reference, StartError> {
    image.parse().map_err(
        |error: windlass_oci::reference::ReferenceError| StartError {
            reason: ContainerReason::InvalidImageName,
            message: format!("couldn't parse image name {image:?}: {error}"),
        },
    )
}

/// An error with its causes, since the message is all a reader of the pod's status gets.
fn describe(error: &PullError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
