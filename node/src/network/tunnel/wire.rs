//! What agents say to each other: the call, and why it was refused.

use std::io;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, StatusCode};
use windlass_wasi_shims::net::NetError;

use crate::network::policy::PodIdentity;

/// The path of the daemon endpoint that takes calls.
pub(crate) const PATH: &str = "/tunnel";

/// The protocol that a call upgrades to: the bytes of the pods, and nothing else.
pub(crate) const PROTOCOL: &str = "windlass-tunnel";

/// The header of an answer that says why there is no connection.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("windlass-tunnel-error");

/// The path at which an agent tells who of its pods has an address.
pub(crate) const POD_PATH: &str = "/tunnel/pod";

/// The header of a call that says which pod it is for.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("windlass-caller");

/// A connection to a pod asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The client: a pod, the node itself, or somebody outside, on whose behalf the agent calls.
    pub from: SocketAddr,
    /// The pod to connect to.
    pub to: SocketAddr,
    /// Who the client is, if it is a pod.
    pub caller: Option<PodIdentity>,
}

/// Path and query of the question who has the address.
pub(crate) fn pod_uri(ip: IpAddr) -> String {
    format!("{POD_PATH}?ip={ip}")
}

/// The address of such a question.
pub(crate) fn asked_pod(query: &str) -> Option<IpAddr> {
    let (_, ip) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ip")?;
    ip.parse().ok()
}

impl Call {
    /// Path and query of the request.
    pub(crate) fn uri(&self) -> String {
        // Addresses need no escapes in a query.
        format!("{PATH}?from={}&to={}", self.from, self.to)
    }

    /// The value of the header that says who calls.
    pub(crate) fn caller_header(&self) -> Option<String> {
        // Names and labels are ASCII, as headers have to be.
        self.caller
            .as_ref()
            .and_then(|caller| serde_json::to_string(caller).ok())
    }

    /// Reads the query of a request, and the header that says who calls.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub(crate) fn parse(query: &str, caller: Option<&[u8]>) -> Result<Self, String> {
        let address = |wanted: &str| {
            let (_, text) = form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == wanted)
                .ok_or_else(|| format!("{wanted}: missing"))?;
            text.parse()
                .map_err(|_| format!("{wanted}: {text:?} is not an address with a port"))
        };
        let caller = caller.map(serde_json::from_slice).transpose();
        Ok(Self {
            from: address("from")?,
            to: address("to")?,
            caller: caller.map_err(|error| format!("{CALLER}: {error}"))?,
        })
    }
}

/// Each error of a connection: as a status, as the header's word, and as the caller's kernel would
/// put it.
const REFUSALS: &[(NetError, StatusCode, &str, io::ErrorKind)] = &[
    (
        NetError::ConnectionRefused,
        StatusCode::BAD_GATEWAY,
        "connection-refused",
        io::ErrorKind::ConnectionRefused,
    ),
    (
        NetError::ConnectionReset,
        StatusCode::BAD_GATEWAY,
        "connection-reset",
        io::ErrorKind::ConnectionReset,
    ),
    (
        NetError::Timeout,
        StatusCode::GATEWAY_TIMEOUT,
        "timed-out",
        io::ErrorKind::TimedOut,
    ),
    (
        NetError::AccessDenied,
        StatusCode::FORBIDDEN,
        "access-denied",
        io::ErrorKind::PermissionDenied,
    ),
    (
        NetError::RemoteUnreachable,
        UNREACHABLE.0,
        UNREACHABLE.1,
        UNREACHABLE.2,
    ),
];

/// What every other error is to the caller.
const UNREACHABLE: (StatusCode, &str, io::ErrorKind) = (
    StatusCode::NOT_FOUND,
    "unreachable",
    io::ErrorKind::HostUnreachable,
);

/// How an error is answered: status, and the word of [`ERROR`].
pub(crate) fn refusal(error: NetError) -> (StatusCode, &'static str) {
    REFUSALS
        .iter()
        .find(|(of, ..)| *of == error)
        .map_or((UNREACHABLE.0, UNREACHABLE.1), |(_, status, word, _)| {
            (*status, *word)
        })
}

/// What a refusal's word means to the caller.
pub(crate) fn error_kind(word: &str) -> io::ErrorKind {
    REFUSALS
        .iter()
        .find(|(_, _, of, _)| *of == word)
        .map_or(UNREACHABLE.2, |(.., kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let call = Call {
            from: "10.1.0.2:40000".parse().unwrap(),
            to: "[fd00::2]:80".parse().unwrap(),
            caller: Some(PodIdentity {
                namespace: "a".to_owned(),
                name: "client".to_owned(),
                labels: [("role".to_owned(), "web".to_owned())].into(),
                ports: Vec::new(),
            }),
        };
        let uri: http::Uri = call.uri().parse().unwrap();
        assert_eq!(uri.path(), PATH);
        let caller = call.caller_header();
        let read = Call::parse(uri.query().unwrap(), caller.as_deref().map(str::as_bytes));
        assert_eq!(read, Ok(call));
    }

    #[test]
    fn a_malformed_call_is_refused_by_name() {
        for (query, want) in [
            ("", "from: missing"),
            ("from=10.1.0.2:1", "to: missing"),
            (
                "from=10.1.0.2&to=10.1.0.3:1",
                "from: \"10.1.0.2\" is not an address with a port",
            ),
            (
                "from=10.1.0.2:1&to=web:80",
                "to: \"web:80\" is not an address with a port",
            ),
        ] {
            assert_eq!(Call::parse(query, None).unwrap_err(), want, "{query}");
        }
    }

    #[test]
    fn errors_survive_the_way() {
        for (error, _, _, kind) in REFUSALS {
            assert_eq!(error_kind(refusal(*error).1), *kind, "{error}");
        }
        let (status, word) = refusal(NetError::TooManySockets);
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(error_kind(word), io::ErrorKind::HostUnreachable);
        assert_eq!(error_kind("anything"), io::ErrorKind::HostUnreachable);
    }
}
