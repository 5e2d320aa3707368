//! `wasi:sockets/ip-name-lookup`.

use std::net::IpAddr;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::bindings::wasi::sockets::ip_name_lookup::{Host, HostResolveAddressStream};
use super::bindings::wasi::sockets::network::{ErrorCode, IpAddress};
use super::{Network, NetworkView, SocketResult, address};
use crate::net::{NetError, NetFuture, VirtualNetwork};

/// The longest name DNS knows, and a trailing dot.
const MAX_NAME: usize = 254;

/// The addresses of a name, as they are asked for.
pub struct ResolveAddressStream(Lookup);

enum Lookup {
    Asked(NetFuture<Vec<IpAddr>>),
    Answered(std::vec::IntoIter<IpAddr>),
    Failed(NetError),
}

impl ResolveAddressStream {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Lookup::Asked(question) = &mut self.0 {
            self.0 = match std::task::ready!(question.as_mut().poll(cx)) {
                Ok(addresses) => Lookup::Answered(addresses.into_iter()),
                Err(error) => Lookup::Failed(error),
            };
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for ResolveAddressStream {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_answer(cx)).await;
    }
}

impl Host for NetworkView<'_> {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        let lookup = look_up(self.network, &name).ok_or(ErrorCode::InvalidArgument)?;
        let lookup = Lookup::Asked(lookup);
        Ok(self.table.push(ResolveAddressStream(lookup))?)
    }
}

/// Asks for the addresses of a name; an address is its own. Nothing if it is neither.
pub(super) fn look_up(network: &dyn VirtualNetwork, name: &str) -> Option<NetFuture<Vec<IpAddr>>> {
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(address) => Some(Box::pin(std::future::ready(Ok(vec![address])))),
        Err(_) => is_name(name).then(|| network.resolve(name)),
    }
}

/// Whether the text can be a domain name. Underscores are none of the standard's letters, and in use.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed);
    let name = text.strip_suffix('.').unwrap_or(text);
    text.len() <= MAX_NAME && name.split('.').all(label)
}

impl HostResolveAddressStream for NetworkView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let stream = self.table.get_mut(&stream)?;
        if stream
            .poll_answer(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            return Err(ErrorCode::WouldBlock.into());
        }
        match &mut stream.0 {
            Lookup::Asked(_) => Err(ErrorCode::WouldBlock.into()),
            Lookup::Answered(addresses) => Ok(addresses.next().map(address::ip_to_wit)),
            Lookup::Failed(error) => Err((*error).into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_told_from_other_text() {
        for (text, want) in [
            ("web", true),
            ("web.shop.svc.cluster.local.", true),
            ("_http._tcp.web", true),
            ("", false),
            (".", false),
            ("a..b", false),
            ("http://web", false),
            ("web:80", false),
            ("w b", false),
            ("münchen.de", false),
        ] {
            assert_eq!(is_name(text), want, "{text:?}");
        }
        assert!(!is_name(&"a".repeat(64)));
        assert!(!is_name(&"a.".repeat(130)));
    }
}
