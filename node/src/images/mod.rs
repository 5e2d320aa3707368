//! From an image reference to its blobs on this node: pull policy, credentials, events and errors.
//!
//! 1. The reference is parsed; a path is answered with what to do instead.
//! 2. By pull policy the image on the node is taken, if the pod may have it, or a registry is asked: the cluster's own
//!    over the API connection, any other as `Registries` says, with what `pull_secrets.rs` reads. One pull per image
//!    runs at a time (`oci::pull`).
//! 3. The configuration tells an image for Linux, the first bytes of a wasm blob a component from a module; that decides
//!    the runtime.
//!
//! Back-off between failed tries belongs to the pod's plan; what nobody uses is removed by `collection.rs`.

mod collection;
mod pull_secrets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Container, ContainerImage};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use windlass_oci::artifact::WasmKind;
use windlass_oci::content_store::ContentStore;
use windlass_oci::credentials::Keyring;
use windlass_oci::digest::Digest;
use windlass_oci::pull::{ImageAccess, Programs, PullError, PulledImage, Puller, StoredImage};
use windlass_oci::reference::{CLUSTER_REGISTRY, Reference};
use windlass_oci::registry::client::{self, BoxError, RegistryClient, Transport};
use windlass_oci::registry::remote::registries::Registries;

use crate::events::{EventType, ObjectEvents};
use crate::runtime::{ImageComponent, ImageKind, LinuxImage, ResolvedImage, StartError};
use crate::status::reason::{ContainerReason, EventReason};
use collection::Uses;
pub(crate) use collection::run as run_collection;
pub use collection::{ImageCollection, InvalidThresholds};
pub use pull_secrets::PullSecrets;

/// Images that the Node's status lists, as kubelet's does.
const MAX_LISTED: usize = 50;

/// The image that a container, or a volume, asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// Name of the container, for events; those about a volume's image are about the pod.
    pub container: Option<String>,
    /// The reference as the pod writes it.
    pub image: String,
    /// `imagePullPolicy`.
    pub pull_policy: Option<String>,
}

impl From<&Container> for ImageRequest {
    fn from(container: &Container) -> Self {
        Self {
            container: Some(container.name.clone()),
            image: container.image.clone().unwrap_or_default(),
            pull_policy: container.image_pull_policy.clone(),
        }
    }
}

/// Images of one node.
pub struct Images {
    puller: Puller,
    /// What was resolved before, by reference; spares `IfNotPresent` the file system.
    resolved: Mutex<HashMap<Reference, Present>>,
    uses: Uses,
    changed: watch::Sender<()>,
}

/// An image that is on the node.
#[derive(Clone)]
struct Present {
    image: Arc<ResolvedImage>,
    access: ImageAccess,
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
    /// Images in `store`, pulled from `registries`, and those of the cluster's registry over the API connection.
    #[must_use]
    pub fn new(client: kube::Client, registries: Registries, store: ContentStore) -> Self {
        Self::with_transport(Arc::new(ApiTransport::new(client)), registries, store)
    }

    /// Images in `store`, pulled from `registries`, and those of the cluster's registry over any transport.
    #[must_use]
    pub fn with_transport(
        transport: Arc<dyn Transport>,
        registries: Registries,
        store: ContentStore,
    ) -> Self {
        let cluster = RegistryClient::new(transport, CLUSTER_REGISTRY);
        let registries = registries.with_client(CLUSTER_REGISTRY, cluster);
        Self {
            puller: Puller::new(registries, store),
            resolved: Mutex::default(),
            uses: Uses::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Changes when there are other images than before.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The images of the Node's status: the largest, largest first.
    pub(crate) async fn list(&self) -> Vec<ContainerImage> {
        match self.puller.images().await {
            Ok(images) => listed(images),
            Err(error) => {
                tracing::warn!(error = describe(&error), "list images");
                Vec::new()
            }
        }
    }

    /// Brings a container's image to this node.
    ///
    /// # Errors
    /// With the container's waiting reason; the events are recorded.
    pub async fn resolve(
        &self,
        request: &ImageRequest,
        secrets: &PullSecrets,
        events: &ObjectEvents,
    ) -> Result<Arc<ResolvedImage>, StartError> {
        let ImageRequest {
            container,
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
                record(
                    events,
                    container.as_deref(),
                    EventType::Warning,
                    EventReason::InspectFailed,
                    text,
                );
                return Err(error);
            }
        };
        let pull = Pull {
            images: self,
            image,
            reference: &reference,
            container: container.as_deref(),
            secrets,
            events,
        };
        let resolved = pull.by_policy(PullPolicy::of(pull_policy.as_deref(), &reference));
        let resolved = resolved.await?;
        self.uses.note(&resolved.digest);
        Ok(resolved)
    }

    async fn find(
        &self,
        image: &str,
        reference: &Reference,
    ) -> Result<Option<Present>, StartError> {
        if let Some(found) = self.lock().get(reference) {
            return Ok(Some(found.clone()));
        }
        match self.puller.local(reference).await {
            Ok(Some(pulled)) => {
                let resolved = self.describe_image(image, &pulled).await?;
                Ok(Some(self.remember(reference, resolved, pulled.access)))
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
        let (blob, kind) = match &pulled.programs {
            Some(Programs { main, .. }) => (main, self.wasm_kind(image, main).await?),
            None => (&pulled.manifest.config.digest, ImageKind::Linux),
        };
        let store = self.puller.store();
        let components = pulled.programs.iter().flat_map(|found| &found.components);
        let components = components.map(|component| ImageComponent {
            name: component.name.clone(),
            digest: component.digest.clone(),
            blob: store.path(&component.digest),
        });
        Ok(ResolvedImage {
            reference: image.to_owned(),
            digest: pulled.digest.clone(),
            blob_digest: blob.clone(),
            blob: store.path(blob),
            lease: pulled.lease.clone(),
            kind,
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config
                .env
                .unwrap_or_default()
                .into_iter()
                .map(split)
                .collect(),
            working_dir: config.working_dir.filter(|path| !path.is_empty()),
            components: components.collect(),
            linux: (kind == ImageKind::Linux).then(|| LinuxImage {
                descriptor: pulled.descriptor.clone(),
                manifest: pulled.manifest.clone(),
                store: store.clone(),
                user: config.user.unwrap_or_default(),
            }),
        })
    }

    async fn wasm_kind(&self, image: &str, program: &Digest) -> Result<ImageKind, StartError> {
        let unreadable =
            |error: String| StartError::create(format!("image {image:?}: read {program}: {error}"));
        let file = self.puller.store().open_blob(program).await;
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

    fn remember(
        &self,
        reference: &Reference,
        resolved: ResolvedImage,
        access: ImageAccess,
    ) -> Present {
        let present = Present {
            image: Arc::new(resolved),
            access,
        };
        self.lock().insert(reference.clone(), present.clone());
        present
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Reference, Present>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image on its way here.
struct Pull<'a> {
    images: &'a Images,
    image: &'a str,
    reference: &'a Reference,
    container: Option<&'a str>,
    secrets: &'a PullSecrets,
    events: &'a ObjectEvents,
}

impl Pull<'_> {
    async fn by_policy(&self, policy: PullPolicy) -> Result<Arc<ResolvedImage>, StartError> {
        let Self {
            images,
            image,
            reference,
            ..
        } = self;
        let present = match policy {
            PullPolicy::Always => None,
            _ => images.find(image, reference).await?,
        };
        let mut keyring = None;
        let mut is_withheld = false;
        if let Some(found) = present {
            if self.is_accessible(&found, &mut keyring).await? {
                let text = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                self.event(EventType::Normal, EventReason::Pulled, text);
                return Ok(found.image);
            }
            is_withheld = true;
        }
        if policy == PullPolicy::Never {
            return Err(self.never(is_withheld));
        }
        self.pull(keyring).await
    }

    /// Whether the pod may have what is here: what was pulled with a Secret is for the pods that name it too.
    async fn is_accessible(
        &self,
        present: &Present,
        keyring: &mut Option<Keyring>,
    ) -> Result<bool, StartError> {
        if present.access == ImageAccess::Everybody {
            return Ok(true);
        }
        let own = self.keyring().await?;
        let puller = &self.images.puller;
        let may_use = puller.may_use(&present.access, self.reference, &own);
        let may_use = may_use.map_err(|error| pull_error(describe(&error)))?;
        *keyring = Some(own);
        Ok(may_use)
    }

    async fn keyring(&self) -> Result<Keyring, StartError> {
        // The cluster's registry knows the node.
        if self.reference.is_cluster_registry() {
            return Ok(Keyring::default());
        }
        let keyring = self.secrets.keyring(self.events).await;
        keyring.map_err(|message| self.failed(message))
    }

    fn never(&self, is_withheld: bool) -> StartError {
        let image = self.image;
        let message = if is_withheld {
            format!(
                "Container image {image:?} is present, but was pulled with credentials that the pod does not have, \
                 and is not to be pulled with pull policy of Never"
            )
        } else {
            format!("Container image {image:?} is not present with pull policy of Never")
        };
        let reason = ContainerReason::ErrImageNeverPull;
        self.event(
            EventType::Warning,
            EventReason::Failed,
            format!("Error: {reason}"),
        );
        StartError { reason, message }
    }

    async fn pull(&self, keyring: Option<Keyring>) -> Result<Arc<ResolvedImage>, StartError> {
        let began = Instant::now();
        let image = self.image;
        let text = format!("Pulling image {image:?}");
        self.event(EventType::Normal, EventReason::Pulling, text);
        let keyring = match keyring {
            Some(keyring) => keyring,
            None => self.keyring().await?,
        };
        let pulled = self.images.puller.pull(self.reference, &keyring).await;
        let pulled = pulled.map_err(|error| self.failed(describe(&error)))?;
        if pulled.fetched > 0 {
            self.images.changed.send_replace(());
        }
        let resolved = self.images.describe_image(image, &pulled).await;
        let resolved = resolved.map_err(|error| self.failed(error.message))?;
        let size: u64 = pulled.manifest.layers.iter().map(|layer| layer.size).sum();
        let took = began.elapsed().as_millis();
        let text = format!(
            "Successfully pulled image {image:?} in {took}ms ({took}ms including waiting). \
             Image size: {size} bytes."
        );
        self.event(EventType::Normal, EventReason::Pulled, text);
        let present = self
            .images
            .remember(self.reference, resolved, pulled.access);
        Ok(present.image)
    }

    fn failed(&self, message: String) -> StartError {
        let text = format!("Failed to pull image {:?}: {message}", self.image);
        self.event(EventType::Warning, EventReason::Failed, text);
        let error = pull_error(message);
        let text = format!("Error: {}", error.reason);
        self.event(EventType::Warning, EventReason::Failed, text);
        error
    }

    fn event(&self, kind: EventType, reason: EventReason, text: String) {
        record(self.events, self.container, kind, reason, text);
    }
}

/// Tells what happened to the image of a container, or of a volume.
fn record(
    events: &ObjectEvents,
    container: Option<&str>,
    kind: EventType,
    reason: EventReason,
    text: String,
) {
    match container {
        Some(container) => events.container(container, kind, reason, text),
        None => events.record(kind, reason, text),
    }
}

const fn pull_error(message: String) -> StartError {
    StartError {
        reason: ContainerReason::ErrImagePull,
        message,
    }
}

/// Spec: of each image its names by digest, then those by tag.
fn listed(mut images: Vec<StoredImage>) -> Vec<ContainerImage> {
    images.sort_by(|one, other| (other.size, &one.digest).cmp(&(one.size, &other.digest)));
    let describe = |image: StoredImage| {
        let by_digest = image.references.iter();
        let by_digest = by_digest.map(|name| name.with_digest(image.digest.clone()));
        let by_tag = image
            .references
            .iter()
            .filter(|name| name.digest().is_none());
        let names: Vec<_> = by_digest.chain(by_tag.cloned()).collect();
        let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        ContainerImage {
            names: Some(names),
            size_bytes: i64::try_from(image.size).ok(),
        }
    };
    images.into_iter().take(MAX_LISTED).map(describe).collect()
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
