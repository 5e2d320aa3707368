//! The cluster's DNS.
//!
//! ```text
//!   wasi:sockets, wasi:http of a pod ── resolver.rs ─────────┐  pod_names.rs: search domains, /etc/hosts, servers
//!   a packet to Service kube-dns     ── udp.rs, connect.rs ──┤  message.rs:   bytes to questions and back
//!   a packet to `--dns-listen`       ── server.rs ───────────┤
//!                                                            ▼
//!                                  Core::answer ── zone.rs: names of the cluster, pure
//!                                       │
//!                                       └ outside, if whoever asks may ─ forward.rs ─ cache.rs
//!                                                                           └ exchange.rs: servers of the host
//! ```
//!
//! 1. Every node answers for itself, from its service table: Service `kube-system/kube-dns` has an address and no pods.
//! 2. Names of the cluster resolve whoever asks. A name outside can carry a message to whoever answers for it, so a pod
//!    needs the grant of egress to everywhere for it, and policies that let it ([`Pod::may_look_up`]); and the machine
//!    itself is answered, but no stranger: this is no resolver for the world.
//! 3. What a pod is told of a name outside is remembered for rules by name, whichever way it asked. What a server of the
//!    pod's own choice says is not: it could name any address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod cache;
mod exchange;
mod forward;
mod message;
mod pod_names;
mod resolv_conf;
mod resolver;
mod server;
mod zone;

pub use forward::Resolvers;
pub use pod_names::{PodDns, PodResolvConf};
pub use server::DnsListener;

pub(super) use pod_names::{PodNames, Whose};
pub(super) use resolv_conf::PORT;
pub(super) use server::serve_stream;
pub(super) use zone::Reply;

use forward::Forwarder;
use message::{Carrier, Parsed, Request};
use zone::{Known, Zone};

use super::pod::Pod;
use super::{Core, NetworkConfig};

/// Questions about names outside that one pod may wait for.
const MAX_WAITING_OF_POD: usize = 64;

/// The same for all others.
const MAX_WAITING: usize = 1024;

/// The DNS of one node.
pub(super) struct Dns {
    zone: Zone,
    forwarder: Forwarder,
    /// Whose turn it is among several addresses.
    turn: AtomicUsize,
    waiting: Arc<Semaphore>,
}

/// Who asks.
#[derive(Clone)]
pub(super) enum Asker {
    Pod(Arc<Pod>),
    /// This machine.
    Machine,
    Stranger,
}

impl Dns {
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn new(config: &NetworkConfig) -> Self {
        let system = tokio::runtime::Handle::current();
        Self {
            zone: Zone::new(&config.cluster_domain, config.cluster_cidr),
            forwarder: Forwarder::new(config.resolvers.clone(), system),
            turn: AtomicUsize::new(0),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// How a pod resolves names.
    pub(super) fn names(&self, whose: &Whose<'_>, dns: &PodDns) -> PodNames {
        PodNames::new(whose, dns, self.zone.domain(), &self.forwarder.host())
    }

    /// What a pod's `resolv.conf` says, if it is not the host's.
    #[cfg(feature = "containerd")]
    pub(super) fn resolv_conf(
        &self,
        names: &PodNames,
        cluster: Option<std::net::IpAddr>,
    ) -> Option<PodResolvConf> {
        names.resolv_conf(cluster, &self.forwarder.host().servers)
    }

    /// What bounds the questions of one pod.
    pub(super) fn waiting_of_pod() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_WAITING_OF_POD))
    }

    /// Lets several addresses take turns at being the first.
    fn turn(&self, answers: &mut [Record]) {
        let first = answers.iter().position(|it| it.data.ip_addr().is_some());
        if let Some(addresses) = first.and_then(|first| answers.get_mut(first..))
            && addresses.len() > 1
        {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            addresses.rotate_left(turn % addresses.len());
        }
    }
}

/// What has become of some bytes.
pub(super) enum Begun {
    /// They ask for no answer.
    Nothing,
    Answer(Vec<u8>),
    /// A name outside belongs to the answer.
    Outside(Pending),
}

/// A question that others have to be asked for.
pub(super) struct Pending {
    request: Request,
    so_far: Vec<Record>,
    question: Query,
    carrier: Carrier,
}

impl Pending {
    /// Asks them. Cancel-safe.
    pub(super) async fn finish(self, core: &Core, asker: &Asker) -> Vec<u8> {
        let reply = core.outside(asker, self.so_far, &self.question).await;
        self.request.answer(reply, self.carrier)
    }

    /// There are too many of these.
    pub(super) fn refuse(&self, core: &Core) -> Vec<u8> {
        let reply = core.counted(&self.question, Reply::code(ResponseCode::ServFail));
        self.request.answer(reply, self.carrier)
    }
}

impl Asker {
    /// Room for one more question to others.
    pub(super) fn permit(&self, core: &Core) -> Option<OwnedSemaphorePermit> {
        let of = match self {
            Self::Pod(pod) => &pod.lookups,
            Self::Machine | Self::Stranger => &core.dns.waiting,
        };
        of.clone().try_acquire_owned().ok()
    }

    async fn may_ask(&self, core: &Core, name: &Name) -> Result<(), ResponseCode> {
        match self {
            Self::Machine => Ok(()),
            Self::Stranger => Err(ResponseCode::Refused),
            Self::Pod(pod) => {
                let known = core.policies.known().await;
                known.map_err(|_| ResponseCode::ServFail)?;
                let may = pod.may_look_up(&name.to_ascii());
                if may {
                    Ok(())
                } else {
                    Err(ResponseCode::Refused)
                }
            }
        }
    }
}

impl Core {
    fn look_up(&self, question: &Query) -> Known {
        let table = self.services.load();
        let zone = &self.dns.zone;
        let mut known = zone.look_up(&table, question.name(), question.query_type());
        if let Known::Reply(reply) = &mut known {
            self.dns.turn(&mut reply.answers);
        }
        known
    }

    /// Answers a question. Cancel-safe.
    pub(super) async fn answer(&self, asker: &Asker, question: &Query) -> Reply {
        let (so_far, next) = match self.look_up(question) {
            Known::Reply(reply) => return self.counted(question, reply),
            Known::Leads(records, next) => (records, next),
            Known::Outside => (Vec::new(), question.name().clone()),
        };
        let mut question = question.clone();
        question.set_name(next);
        self.outside(asker, so_far, &question).await
    }

    /// Answers what `bytes` ask as far as the cluster knows.
    pub(super) fn begin_answer(&self, bytes: &[u8], carrier: Carrier) -> Begun {
        let request = match message::parse(bytes) {
            Parsed::Question(request) => request,
            Parsed::Refusal(answer) => return Begun::Answer(answer),
            Parsed::Noise => return Begun::Nothing,
        };
        let mut question = request.question.clone();
        let so_far = match self.look_up(&question) {
            Known::Reply(reply) => {
                let reply = self.counted(&question, reply);
                return Begun::Answer(request.answer(reply, carrier));
            }
            Known::Outside => Vec::new(),
            Known::Leads(records, next) => {
                question.set_name(next);
                records
            }
        };
        Begun::Outside(Pending {
            request,
            so_far,
            question,
            carrier,
        })
    }

    /// The same for a datagram.
    pub(super) fn begin_datagram(&self, bytes: &[u8]) -> Begun {
        self.begin_answer(bytes, Carrier::Datagram)
    }

    /// Counts an answer.
    fn counted(&self, question: &Query, reply: Reply) -> Reply {
        self.dns_counts.count(question.query_type(), reply.code);
        reply
    }

    /// Asks servers outside, if whoever asks may know.
    async fn outside(&self, asker: &Asker, so_far: Vec<Record>, question: &Query) -> Reply {
        let reply = self.ask_outside(asker, so_far, question).await;
        self.counted(question, reply)
    }

    async fn ask_outside(&self, asker: &Asker, mut so_far: Vec<Record>, question: &Query) -> Reply {
        if let Err(code) = asker.may_ask(self, question.name()).await {
            return Reply::code(code);
        }
        let ours = self.services.load().dns_addresses().to_vec();
        match self.dns.forwarder.ask(question, &ours).await {
            Ok(reply) => {
                if let Asker::Pod(pod) = asker {
                    let addresses: Vec<_> = reply.addresses().collect();
                    pod.known.remember(&question.name().to_ascii(), &addresses);
                }
                so_far.extend(reply.answers);
                Reply {
                    answers: so_far,
                    authoritative: false,
                    ..reply
                }
            }
            Err(error) => {
                tracing::debug!(name = %question.name(), %error, "a name outside is not resolved");
                Reply::code(ResponseCode::ServFail)
            }
        }
    }
}

#[cfg(test)]
mod tests;
