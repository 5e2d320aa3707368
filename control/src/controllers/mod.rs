//! Controllers: each makes one thing about the cluster true, as an ordinary client of the API.
//!
//! 1. [`run`] starts one shared informer per kind and one task per row of [`CONTROLLERS`].
//! 2. A controller subscribes to informers; a change becomes a key on its work queue.
//! 3. A worker takes the key, reads the caches, asks its pure `plan` what to do and does it through the
//!    API under the controller's own user. An error puts the key back with growing delay.
//!
//! Invariants: a wake-up carries a key, never data; every field has one writer; nothing polls, timers
//! run only towards a due time. To add a controller: a file, a line in the table, a row in
//! `server/authz/components.rs`.

mod certificates;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod garbage_collector;
mod history;
mod horizontal;
mod ingress;
mod job;
mod load_balancer;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod pod_gc;
mod replica_set;
mod resource_quota;
mod root_ca;
pub mod runtime;
mod service_account;
mod stateful_set;
mod storage_protection;
mod ttl_after_finished;

use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use load_balancer::{AddressRange, AddressRangeError};
use runtime::clock::Clock;
use runtime::informers::Informers;
use runtime::recorder::Recorder;
use runtime::work_queue::WorkQueue;

/// The user that shared informers read as.
pub const INFORMER_USER: &str = "system:kube-controller-manager";

const FIRST_RESTART: Duration = Duration::from_millis(200);
const LAST_RESTART: Duration = Duration::from_secs(30);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Its holder connects to the API.
    Client,
    /// Its holder is connected to.
    Server,
}

/// The cluster's authority: signs certificate requests, and is trusted.
pub trait Signer: Send + Sync {
    /// Signs `request`, a PKCS#10 request in PEM whose subject and names were checked, for `life` at
    /// most; answers the certificate in PEM.
    ///
    /// # Errors
    /// What is wrong with the request, in words for its author.
    fn sign(&self, request: &str, life: Duration, usage: Usage) -> Result<String, String>;

    /// The certificates of all that is trusted, in PEM, published in every namespace.
    fn trusted(&self) -> Arc<str>;

    /// Tells when something else is trusted.
    fn changes(&self) -> watch::Receiver<()>;
}

/// What controllers are told about the cluster.
#[derive(Clone)]
pub struct ControllersConfig {
    /// Network that nodes' pod networks are cut from: address and prefix length.
    pub pod_network: (Ipv4Addr, u8),
    /// Prefix length of a node's pod network.
    pub node_cidr_bits: u8,
    /// Network of Service addresses.
    pub service_network: (Ipv4Addr, u8),
    /// Addresses that load balancers get; the nodes' own if there are none.
    pub load_balancer_pool: Vec<AddressRange>,
    /// Without a sign of life for this long, a node's state is unknown.
    pub node_grace: Duration,
    /// How often an autoscaler looks at what pods use.
    pub autoscaling_period: Duration,
    /// What is done by the time is done by this clock.
    pub clock: Clock,
    /// Signs certificates, and is trusted.
    pub signer: Arc<dyn Signer>,
}

/// What a controller is started with.
#[derive(Clone)]
struct Context {
    client: Client,
    informers: Arc<Informers>,
    recorder: Recorder,
    config: Arc<ControllersConfig>,
    stop: CancellationToken,
}

impl Context {
    /// The time.
    fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// A queue for the controller's keys.
    fn queue<K: Clone + Eq + Hash + Ord>(&self) -> Arc<WorkQueue<K>> {
        Arc::new(WorkQueue::by(self.config.clock.clone()))
    }
}

type Start = fn(Context) -> BoxFuture<'static, ()>;

/// A row of the table.
struct Controller {
    name: &'static str,
    /// Who it acts as; its rights are in `server/authz/components.rs`.
    user: &'static str,
    start: Start,
}

/// Every controller.
const CONTROLLERS: &[Controller] = &[
    Controller {
        name: "deployment-controller",
        user: "system:serviceaccount:kube-system:deployment-controller",
        start: deployment::start,
    },
    Controller {
        name: "replicaset-controller",
        user: "system:serviceaccount:kube-system:replicaset-controller",
        start: replica_set::start,
    },
    Controller {
        name: "replication-controller",
        user: "system:serviceaccount:kube-system:replication-controller",
        start: replica_set::start_replication,
    },
    Controller {
        name: "statefulset-controller",
        user: "system:serviceaccount:kube-system:statefulset-controller",
        start: stateful_set::start,
    },
    Controller {
        name: "daemon-set-controller",
        user: "system:serviceaccount:kube-system:daemon-set-controller",
        start: daemon_set::start,
    },
    Controller {
        name: "job-controller",
        user: "system:serviceaccount:kube-system:job-controller",
        start: job::start,
    },
    Controller {
        name: "horizontal-pod-autoscaler",
        user: "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        start: horizontal::start,
    },
    Controller {
        name: "cronjob-controller",
        user: "system:serviceaccount:kube-system:cronjob-controller",
        start: cron_job::start,
    },
    Controller {
        name: "ttl-after-finished-controller",
        user: "system:serviceaccount:kube-system:ttl-after-finished-controller",
        start: ttl_after_finished::start,
    },
    Controller {
        name: "resourcequota-controller",
        user: "system:serviceaccount:kube-system:resourcequota-controller",
        start: resource_quota::start,
    },
    Controller {
        name: "disruption-controller",
        user: "system:serviceaccount:kube-system:disruption-controller",
        start: disruption::start,
    },
    Controller {
        name: "endpointslice-controller",
        user: "system:serviceaccount:kube-system:endpointslice-controller",
        start: endpoint_slice::start,
    },
    Controller {
        name: "endpointslicemirroring-controller",
        user: "system:serviceaccount:kube-system:endpointslicemirroring-controller",
        start: endpoint_slice::start_mirroring,
    },
    Controller {
        name: "service-lb-controller",
        user: "system:serviceaccount:kube-system:service-controller",
        start: load_balancer::start,
    },
    Controller {
        name: "ingress-controller",
        user: "system:serviceaccount:kube-system:ingress-controller",
        start: ingress::start,
    },
    Controller {
        name: "service-account-controller",
        user: "system:serviceaccount:kube-system:service-account-controller",
        start: service_account::start,
    },
    Controller {
        name: "root-ca-cert-publisher",
        user: "system:serviceaccount:kube-system:root-ca-cert-publisher",
        start: root_ca::start,
    },
    Controller {
        name: "node-ipam-controller",
        user: "system:serviceaccount:kube-system:node-controller",
        start: node_ipam::start,
    },
    Controller {
        name: "node-lifecycle-controller",
        user: "system:serviceaccount:kube-system:node-controller",
        start: node_lifecycle::start,
    },
    Controller {
        name: "taint-eviction-controller",
        user: "system:serviceaccount:kube-system:node-controller",
        start: node_lifecycle::start_eviction,
    },
    Controller {
        name: "pod-garbage-collector",
        user: "system:serviceaccount:kube-system:node-controller",
        start: pod_gc::start,
    },
    Controller {
        name: "ttl-controller",
        user: "system:serviceaccount:kube-system:ttl-controller",
        start: node_ttl::start,
    },
    Controller {
        name: "certificate-controller",
        user: "system:serviceaccount:kube-system:certificate-controller",
        start: certificates::start,
    },
    Controller {
        name: "clusterrole-aggregation-controller",
        user: "system:serviceaccount:kube-system:clusterrole-aggregation-controller",
        start: cluster_role_aggregation::start,
    },
    Controller {
        name: "persistentvolumeclaim-protection-controller",
        user: "system:serviceaccount:kube-system:pvc-protection-controller",
        start: storage_protection::start_claims,
    },
    Controller {
        name: "persistentvolume-protection-controller",
        user: "system:serviceaccount:kube-system:pv-protection-controller",
        start: storage_protection::start_volumes,
    },
    Controller {
        name: "garbage-collector-controller",
        user: "system:serviceaccount:kube-system:generic-garbage-collector",
        start: garbage_collector::start,
    },
    Controller {
        name: "namespace-controller",
        user: "system:serviceaccount:kube-system:namespace-controller",
        start: namespace::start,
    },
];

/// Runs all controllers until `stop`. `clients` gives a client that acts as the user of that name.
pub async fn run(
    clients: impl Fn(&str) -> Client,
    config: ControllersConfig,
    stop: CancellationToken,
) {
    let informers = Arc::new(Informers::new(&clients(INFORMER_USER)));
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    informers.start(&mut tasks, &stop);
    tasks.spawn(config.clock.clone().follow_machine(stop.clone()));
    for controller in CONTROLLERS {
        let client = clients(controller.user);
        let recorder = Recorder::start(client.clone(), controller.name, &mut tasks, stop.clone());
        let context = Context {
            client,
            informers: Arc::clone(&informers),
            recorder,
            config: Arc::clone(&config),
            stop: stop.clone(),
        };
        let start = move || (controller.start)(context.clone());
        tasks.spawn(supervise(controller.name, start, stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the controllers failed");
        }
    }
}

/// Runs a part, again and again should it fail: everything it needs it reads anew.
pub(crate) async fn supervise(
    name: &'static str,
    start: impl Fn() -> BoxFuture<'static, ()>,
    stop: CancellationToken,
) {
    let mut delay = FIRST_RESTART;
    while !stop.is_cancelled() {
        let mut task = JoinSet::new();
        let (until, work) = (stop.clone(), start());
        task.spawn(async move { until.run_until_cancelled(work).await });
        let Some(Err(error)) = task.join_next().await else {
            return;
        };
        tracing::error!(name, %error, ?delay, "failed; it is started again");
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
        delay = (delay * 2).min(LAST_RESTART);
    }
}
