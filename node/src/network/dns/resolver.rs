//! Names as guests resolve them through WASI: what the C library's resolver does in a container, done by the host.
//!
//! 1. What the pod knows by itself is answered.
//! 2. The full names are tried in order; one that does not exist, or has no addresses, leads to the next.
//! 3. For each the servers are asked in order, for both families at once; one that fails leads to the next.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use windlass_api::grants::Egress;
use windlass_wasi_shims::net::NetError;

use super::exchange::{self, Way};
use super::pod_names::Server;
use super::zone::Reply;
use super::{Asker, PORT};
use crate::network::pod::Pod;

/// How long a guest waits for a name, whatever servers and domains there are to try.
const PATIENCE: Duration = Duration::from_secs(30);

impl Pod {
    /// The addresses of a name; never none.
    pub(in crate::network) async fn resolve(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Vec<IpAddr>, NetError> {
        let known = self.names.known(name);
        if !known.is_empty() {
            return Ok(known);
        }
        let search = tokio::time::timeout(PATIENCE, self.search(name)).await;
        search.unwrap_or(Err(NetError::TemporaryResolverFailure))
    }

    async fn search(self: &Arc<Self>, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let mut failure = NetError::NameUnresolvable;
        for candidate in self.names.candidates(name) {
            let Ok(mut candidate) = Name::from_ascii(&candidate) else {
                continue;
            };
            candidate.set_fqdn(true);
            match self.addresses(&candidate).await {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => return Ok(addresses),
                // Another form of the name may be answered; if none is, this is why.
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The addresses of a full name; none if it has none.
    async fn addresses(self: &Arc<Self>, name: &Name) -> Result<Vec<IpAddr>, NetError> {
        let (v4, v6) = tokio::join!(
            self.ask(Query::query(name.clone(), RecordType::A)),
            self.ask(Query::query(name.clone(), RecordType::AAAA)),
        );
        let addresses: Vec<_> = v4.addresses().chain(v6.addresses()).collect();
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        for code in [v4.code, v6.code] {
            match code {
                ResponseCode::NoError | ResponseCode::NXDomain => {}
                // Without the grant there are no names outside.
                ResponseCode::Refused if self.granted != Egress::All => {
                    return Err(NetError::NameUnresolvable);
                }
                ResponseCode::Refused => return Err(NetError::AccessDenied),
                _ => return Err(NetError::TemporaryResolverFailure),
            }
        }
        Ok(addresses)
    }

    async fn ask(self: &Arc<Self>, question: Query) -> Reply {
        let mut last = Reply::code(ResponseCode::ServFail);
        let asker = Asker::Pod(self.clone());
        for server in &self.names.servers {
            last = match server {
                Server::Cluster => self.core.answer(&asker, &question).await,
                Server::Host => self.core.outside(&asker, Vec::new(), &question).await,
                Server::Address(ip) if self.core.services.load().dns_addresses().contains(ip) => {
                    self.core.answer(&asker, &question).await
                }
                Server::Address(ip) => self.ask_own(*ip, &question).await,
            };
            if matches!(last.code, ResponseCode::NoError | ResponseCode::NXDomain) {
                break;
            }
        }
        last
    }

    /// Asks a server of the pod's own choice, as a program in the pod would.
    async fn ask_own(self: &Arc<Self>, server: IpAddr, question: &Query) -> Reply {
        let (server, options) = (SocketAddr::new(server, PORT), &self.names.options);
        let way = Way::Pod(self.clone());
        for _ in 0..options.attempts {
            match exchange::ask(&way, server, question, options.timeout).await {
                Ok(reply) => return reply,
                Err(error) => {
                    tracing::debug!(name = %question.name(), %error, "a pod's own DNS server is of no use");
                    if let Some(code) = error.refusal() {
                        return Reply::code(code);
                    }
                }
            }
        }
        Reply::code(ResponseCode::ServFail)
    }
}
