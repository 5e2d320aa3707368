//! The shared informers: one per kind.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim,
    ReplicationController, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::informer::{Cached, Index, Informer, standard_index};
use super::metadata::Metadata;
use super::pod::Pod;

/// Name of the ConfigMap that holds the cluster's certificate authority.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// Label by which an EndpointSlice belongs to a Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Every cache controllers read.
pub struct Informers {
    /// Pods.
    pub pods: Arc<Informer<Pod>>,
    /// ReplicaSets.
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    /// ReplicationControllers.
    pub replication_controllers: Arc<Informer<ReplicationController>>,
    /// Jobs.
    pub jobs: Arc<Informer<Job>>,
    /// CronJobs.
    pub cron_jobs: Arc<Informer<CronJob>>,
    /// StatefulSets.
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    /// PersistentVolumeClaims.
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    /// PersistentVolumes.
    pub volumes: Arc<Informer<PersistentVolume>>,
    /// DaemonSets.
    pub daemon_sets: Arc<Informer<DaemonSet>>,
    /// ControllerRevisions.
    pub controller_revisions: Arc<Informer<ControllerRevision>>,
    /// Deployments.
    pub deployments: Arc<Informer<Deployment>>,
    /// ResourceQuotas.
    pub resource_quotas: Arc<Informer<ResourceQuota>>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Arc<Informer<PodDisruptionBudget>>,
    /// Services.
    pub services: Arc<Informer<Service>>,
    /// Ingresses.
    pub ingresses: Arc<Informer<Ingress>>,
    /// IngressClasses.
    pub ingress_classes: Arc<Informer<IngressClass>>,
    /// EndpointSlices.
    pub endpoint_slices: Arc<Informer<EndpointSlice>>,
    /// Endpoints.
    pub endpoints: Arc<Informer<Endpoints>>,
    /// Nodes, without the list of their images.
    pub nodes: Arc<Informer<Node>>,
    /// Leases of nodes.
    pub node_leases: Arc<Informer<Lease>>,
    /// Namespaces.
    pub namespaces: Arc<Informer<Namespace>>,
    /// The ServiceAccounts named `default`, by metadata only.
    pub default_accounts: Arc<Informer<DefaultAccount>>,
    /// The ConfigMaps that publish the cluster's authority.
    pub root_cas: Arc<Informer<ConfigMap>>,
    /// ClusterRoles.
    pub cluster_roles: Arc<Informer<ClusterRole>>,
    /// CertificateSigningRequests.
    pub signing_requests: Arc<Informer<CertificateSigningRequest>>,
}

impl Informers {
    /// Caches filled through `client`, once started.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        let all = watcher::Config::default;
        let named = |name: &str| all().fields(&format!("metadata.name={name}"));
        Self {
            pods: Informer::new(Api::all(client.clone()), all()),
            replica_sets: Informer::new(Api::all(client.clone()), all()),
            replication_controllers: Informer::new(Api::all(client.clone()), all()),
            jobs: Informer::new(Api::all(client.clone()), all()),
            cron_jobs: Informer::new(Api::all(client.clone()), all()),
            stateful_sets: Informer::new(Api::all(client.clone()), all()),
            claims: Informer::new(Api::all(client.clone()), all()),
            volumes: Informer::new(Api::all(client.clone()), all()),
            daemon_sets: Informer::new(Api::all(client.clone()), all()),
            controller_revisions: Informer::new(Api::all(client.clone()), all()),
            deployments: Informer::new(Api::all(client.clone()), all()),
            resource_quotas: Informer::new(Api::all(client.clone()), all()),
            autoscalers: Informer::new(Api::all(client.clone()), all()),
            disruption_budgets: Informer::new(Api::all(client.clone()), all()),
            services: Informer::new(Api::all(client.clone()), all()),
            ingresses: Informer::new(Api::all(client.clone()), all()),
            ingress_classes: Informer::new(Api::all(client.clone()), all()),
            endpoint_slices: Informer::new(Api::all(client.clone()), all()),
            endpoints: Informer::new(Api::all(client.clone()), all()),
            nodes: Informer::new(Api::all(client.clone()), all()),
            node_leases: Informer::new(Api::namespaced(client.clone(), "kube-node-lease"), all()),
            namespaces: Informer::new(Api::all(client.clone()), all()),
            default_accounts: Informer::new(Api::all(client.clone()), named("default")),
            root_cas: Informer::new(Api::all(client.clone()), named(ROOT_CA)),
            cluster_roles: Informer::new(Api::all(client.clone()), all()),
            signing_requests: Informer::new(Api::all(client.clone()), all()),
        }
    }

    /// Starts filling every cache, as tasks of `tasks`.
    pub fn start(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        tasks.spawn(Arc::clone(&self.pods).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.replica_sets).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.replication_controllers).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.jobs).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.cron_jobs).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.stateful_sets).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.claims).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.volumes).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.daemon_sets).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.controller_revisions).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.deployments).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.resource_quotas).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.autoscalers).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.disruption_budgets).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.services).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.ingresses).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.ingress_classes).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.endpoint_slices).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.endpoints).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.nodes).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.node_leases).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.namespaces).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.default_accounts).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.root_cas).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.cluster_roles).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.signing_requests).run(stop.clone()));
    }
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Informers")
    }
}

/// Kinds that are kept whole but for their managed fields: plans read most of them, and there are few.
macro_rules! whole {
    ($($kind:ty),* $(,)?) => {$(
        impl Cached for $kind {
            type Object = $kind;

            fn project(mut object: $kind) -> Self {
                object.metadata.managed_fields = None;
                object
            }

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
        }
    )*};
}

whole!(
    Job,
    CronJob,
    StatefulSet,
    PersistentVolume,
    PersistentVolumeClaim,
    DaemonSet,
    ControllerRevision,
    ReplicaSet,
    ReplicationController,
    Deployment,
    ResourceQuota,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    Service,
    Ingress,
    IngressClass,
    Endpoints,
    Lease,
    Namespace,
    ConfigMap,
    ClusterRole,
    CertificateSigningRequest,
);

impl Cached for Node {
    type Object = Self;

    fn project(mut node: Self) -> Self {
        node.metadata.managed_fields = None;
        if let Some(status) = &mut node.status {
            status.images = None;
        }
        node
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl Cached for EndpointSlice {
    type Object = Self;

    fn project(mut slice: Self) -> Self {
        slice.metadata.managed_fields = None;
        slice
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        let mut index = standard_index(&self.metadata);
        if let Some(service) = self.metadata.labels().get(SERVICE_NAME) {
            let namespace = self.metadata.namespace().to_owned();
            index.push(Index::Service(namespace, service.clone()));
        }
        index
    }
}

/// A ServiceAccount of which only the metadata is kept.
#[derive(Debug)]
pub struct DefaultAccount {
    metadata: ObjectMeta,
}

impl Cached for DefaultAccount {
    type Object = PartialObjectMeta<ServiceAccount>;

    fn project(mut object: Self::Object) -> Self {
        object.metadata.managed_fields = None;
        Self {
            metadata: object.metadata,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}
