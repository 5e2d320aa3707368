//! The datagrams of Linux containers: each port that sends is a port of the switch, for as long as it is in use.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use windlass_wasi_shims::net::{NetError, UdpPort};

use super::uplink::Uplink;
use crate::network::pod::Pod;
use crate::network::udp::PodUdpPort;

/// How long a port may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// A port in use.
struct Port {
    pod: Weak<Pod>,
    port: Arc<PodUdpPort>,
    used: Arc<Mutex<Instant>>,
}

type Ports = Arc<Mutex<HashMap<SocketAddr, Port>>>;

/// The ports that Linux containers send from.
pub(super) struct Datagrams {
    ports: Ports,
    uplink: Arc<Uplink>,
}

impl Datagrams {
    pub(super) fn new(uplink: Arc<Uplink>) -> Self {
        Self {
            ports: Ports::default(),
            uplink,
        }
    }

    /// Sends a datagram as the pod's.
    pub(super) fn send(
        &self,
        pod: &Arc<Pod>,
        from: SocketAddr,
        to: SocketAddr,
        data: &[u8],
    ) -> Result<(), NetError> {
        let port = self.port(pod, from)?;
        port.send(to, Bytes::copy_from_slice(data))
    }

    fn port(&self, pod: &Arc<Pod>, own: SocketAddr) -> Result<Arc<PodUdpPort>, NetError> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = ports.get(&own)
            // The address may be another pod's by now.
            && std::ptr::eq(known.pod.as_ptr(), Arc::as_ptr(pod))
        {
            *known.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(known.port.clone());
        }
        let port = Arc::new(pod.bind_udp(own)?);
        let used = Arc::new(Mutex::new(Instant::now()));
        let known = Port {
            pod: Arc::downgrade(pod),
            port: port.clone(),
            used: used.clone(),
        };
        ports.insert(own, known);
        drop(ports);
        let receiving = receive(port.clone(), own, used, self.uplink.clone());
        let all = self.ports.clone();
        let opened = Arc::downgrade(&port);
        tokio::spawn(async move {
            receiving.await;
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            if all
                .get(&own)
                .is_some_and(|known| std::ptr::eq(Arc::as_ptr(&known.port), opened.as_ptr()))
            {
                all.remove(&own);
            }
        });
        Ok(port)
    }
}

/// Takes what comes back to the pod's link, until the port is silent for long or its pod is gone.
async fn receive(
    port: Arc<PodUdpPort>,
    own: SocketAddr,
    used: Arc<Mutex<Instant>>,
    uplink: Arc<Uplink>,
) {
    loop {
        let received = poll_fn(|cx| port.poll_receive(cx));
        match tokio::time::timeout(IDLE, received).await {
            Ok(Ok(datagram)) => uplink.deliver(datagram.from, own, &datagram.data),
            Ok(Err(_)) => return,
            Err(_) => {
                let used = *used.lock().unwrap_or_else(PoisonError::into_inner);
                if used.elapsed() >= IDLE {
                    return;
                }
            }
        }
    }
}
