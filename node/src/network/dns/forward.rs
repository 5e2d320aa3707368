//! Names outside of the cluster, asked of the servers that the host itself asks.
//!
//! 1. What the cache knows is answered from it.
//! 2. Whoever asks what is being asked already waits for the same answer. So a ring of servers that ask each other
//!    ends when the first question does, and costs one question.
//! 3. Of the rest so many are asked at once, by tasks of the system runtime; beyond it there is no answer.
//! 4. The servers are asked in the order of `resolv.conf`, the one that answered last first. It is read again now and
//!    then. A server that is this one is left out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::Query;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cache::{Cache, Key};
use super::exchange::{self, AskError, Way};
use super::resolv_conf::{Options, PORT, ResolvConf};
use super::zone::Reply;
use crate::network::egress;

/// How long what was read of the host's configuration is taken for what it says.
const RELOAD: Duration = Duration::from_secs(5);

/// Questions asked at once.
const MAX_FLIGHTS: usize = 512;

/// How long all servers together are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is asked for names outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolvers {
    /// The servers that a file like `/etc/resolv.conf` names.
    File(PathBuf),
    /// These.
    Servers(Vec<SocketAddr>),
}

impl Default for Resolvers {
    fn default() -> Self {
        Self::File("/etc/resolv.conf".into())
    }
}

/// An answer as all who wait for it get it.
type Outcome = Result<Arc<Reply>, Arc<AskError>>;

/// What is known of the host's servers.
struct Upstreams {
    servers: Vec<SocketAddr>,
    options: Options,
}

/// Asks servers outside. Cheap to clone.
#[derive(Clone)]
pub(in crate::network) struct Forwarder(Arc<Shared>);

struct Shared {
    resolvers: Resolvers,
    system: Handle,
    upstreams: Mutex<Option<(Instant, Arc<Upstreams>)>>,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>,
    /// Where this server is asked itself.
    own: Mutex<Vec<SocketAddr>>,
    /// The server that answered last.
    preferred: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Forwarder {
    /// Asks by kernel sockets of `system`.
    pub(super) fn new(resolvers: Resolvers, system: Handle) -> Self {
        Self(Arc::new(Shared {
            resolvers,
            system,
            upstreams: Mutex::default(),
            cache: Mutex::default(),
            flights: Mutex::default(),
            own: Mutex::default(),
            preferred: AtomicUsize::new(0),
        }))
    }

    /// Whoever asks at that address asks this server.
    pub(super) fn is_asked_at(&self, address: SocketAddr) {
        lock(&self.0.own).push(address);
    }

    /// The host's configuration as it is now.
    pub(super) fn host(&self) -> ResolvConf {
        match &self.0.resolvers {
            Resolvers::File(path) => std::fs::read_to_string(path)
                .map(|text| ResolvConf::parse(&text))
                .unwrap_or_default(),
            Resolvers::Servers(_) => ResolvConf::default(),
        }
    }

    /// Asks a question; `ours` are the addresses by which pods ask this server. Cancel-safe: the answer is still
    /// waited for, and kept.
    pub(super) async fn ask(
        &self,
        question: &Query,
        ours: &[IpAddr],
    ) -> Result<Reply, Arc<AskError>> {
        let key = Key::of(question);
        if let Some(known) = lock(&self.0.cache).get(&key, Instant::now()) {
            return Ok(spelled(known, question));
        }
        let mut flight = self.join(key, question, ours)?;
        let landed = flight.wait_for(Option::is_some).await;
        match landed.ok().and_then(|outcome| outcome.clone()) {
            Some(Ok(reply)) => Ok(spelled(Reply::clone(&reply), question)),
            Some(Err(error)) => Err(error),
            // The runtime is ending.
            None => Err(Arc::new(AskError::NoServer)),
        }
    }

    /// Waits with who asks the same, or asks.
    fn join(
        &self,
        key: Key,
        question: &Query,
        ours: &[IpAddr],
    ) -> Result<watch::Receiver<Option<Outcome>>, Arc<AskError>> {
        let mut flights = lock(&self.0.flights);
        if let Some(flight) = flights.get(&key) {
            return Ok(flight.clone());
        }
        if flights.len() >= MAX_FLIGHTS {
            return Err(Arc::new(AskError::Busy));
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver.clone());
        drop(flights);
        let (shared, question, ours) = (self.0.clone(), question.clone(), ours.to_vec());
        self.0.system.spawn(async move {
            let outcome = shared.fetch(&question, &ours).await;
            let outcome = outcome.map(Arc::new).map_err(Arc::new);
            if let Ok(reply) = &outcome {
                lock(&shared.cache).put(key.clone(), reply.clone(), Instant::now());
            }
            lock(&shared.flights).remove(&key);
            sender.send_replace(Some(outcome));
        });
        Ok(receiver)
    }
}

/// The same answer for who spelled the name otherwise.
fn spelled(mut reply: Reply, question: &Query) -> Reply {
    reply.answers = exchange::in_case_of(reply.answers, question);
    reply
}

impl Shared {
    async fn fetch(&self, question: &Query, ours: &[IpAddr]) -> Result<Reply, AskError> {
        let upstreams = self.upstreams().await;
        let others = upstreams.servers.iter().enumerate();
        let mut others: Vec<_> = others
            .filter(|(_, server)| !self.is_own(**server, ours))
            .collect();
        let preferred = self.preferred.load(Ordering::Relaxed);
        others.sort_by_key(|(index, _)| *index != preferred);
        let asking = async {
            let mut failure = AskError::NoServer;
            for _ in 0..upstreams.options.attempts {
                for (index, server) in &others {
                    let limit = upstreams.options.timeout;
                    match exchange::ask(&Way::Host, **server, question, limit).await {
                        Ok(reply) => {
                            self.preferred.store(*index, Ordering::Relaxed);
                            return Ok(reply);
                        }
                        Err(error) => failure = error,
                    }
                }
            }
            Err(failure)
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(others
                .first()
                .map_or(AskError::NoServer, |(_, server)| AskError::Silent(**server))),
        }
    }

    fn is_own(&self, server: SocketAddr, ours: &[IpAddr]) -> bool {
        let is_asked_at = |own: &SocketAddr| {
            own.port() == server.port()
                && (own.ip() == server.ip()
                    || (own.ip().is_unspecified() && egress::is_this_machine(server.ip())))
        };
        ours.contains(&server.ip()) || lock(&self.own).iter().any(is_asked_at)
    }

    async fn upstreams(&self) -> Arc<Upstreams> {
        let known = lock(&self.upstreams).clone();
        if let Some((read, upstreams)) = known
            && read.elapsed() < RELOAD
        {
            return upstreams;
        }
        let upstreams = Arc::new(self.read().await);
        *lock(&self.upstreams) = Some((Instant::now(), upstreams.clone()));
        upstreams
    }

    async fn read(&self) -> Upstreams {
        match &self.resolvers {
            Resolvers::Servers(servers) => Upstreams {
                servers: servers.clone(),
                options: Options::default(),
            },
            Resolvers::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.unwrap_or_else(|error| {
                    let path = path.display();
                    tracing::warn!(%error, %path, "names outside of the cluster cannot be resolved");
                    String::new()
                });
                let read = ResolvConf::parse(&text);
                let servers = read.servers.into_iter();
                Upstreams {
                    servers: servers.map(|ip| SocketAddr::new(ip, PORT)).collect(),
                    options: read.options,
                }
            }
        }
    }
}
