//! `tcpSocket`: succeeds when a connection is accepted.

use std::net::SocketAddr;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Probe;

use super::{Outcome, Prober, Target};

pub(super) struct TcpSocket;

#[async_trait]
impl Prober for TcpSocket {
    fn claims(&self, probe: &Probe) -> bool {
        probe.tcp_socket.is_some()
    }

    async fn probe(&self, target: &Target, probe: &Probe) -> Outcome {
        let Some(action) = &probe.tcp_socket else {
            return Outcome::Failure("no tcpSocket action".to_owned());
        };
        let address = match address_of(target, action.host.as_deref(), &action.port) {
            Ok(address) => address,
            Err(message) => return Outcome::Failure(message),
        };
        match target.network.connect(address).await {
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::Failure(format!("dial tcp {address}: connect: {error}")),
        }
    }
}

/// The address a probe names: the pod's own unless it says another.
pub(super) fn address_of(
    target: &Target,
    host: Option<&str>,
    port: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString,
) -> Result<SocketAddr, String> {
    let ip = match host.filter(|host| !host.is_empty()) {
        Some(host) => host
            .parse()
            .map_err(|_| format!("host {host:?} is not an IP address"))?,
        None => target.pod_ip,
    };
    Ok(SocketAddr::new(ip, target.port(port)?))
}
