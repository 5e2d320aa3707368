//! Port-forward: which stream or channel is which port.
//!
//! Each connection is a pair: its bytes, and an error in words if there is one. In SPDY the two are
//! streams whose headers say the port and a number that pairs them; in a WebSocket, the i-th port asked
//! for has the channels 2i and 2i+1, and on both the server says the port first.

use super::spdy::Headers;

/// The protocol of an upgrade to SPDY (`X-Stream-Protocol-Version`).
pub const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// The subprotocol of a WebSocket that carries a SPDY session.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Ports of one WebSocket; each takes two of 255 channels.
const MAX_PORTS: usize = 127;

/// Which half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The connection's bytes.
    Data,
    /// What went wrong.
    Error,
}

/// What the headers of a stream say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which half it is.
    pub half: Half,
    /// The pod's port.
    pub port: u16,
    /// What pairs it with its other half; empty from clients that open one pair at a time.
    pub id: String,
}

impl Request {
    /// Reads the headers of a stream.
    ///
    /// # Errors
    /// What is missing or malformed, in upstream's words.
    pub fn parse(headers: &Headers) -> Result<Self, String> {
        let port = match headers.get("port") {
            "" => return Err("\"port\" header is required".into()),
            text => port(text)?,
        };
        let half = match headers.get("streamtype") {
            "data" => Half::Data,
            "error" => Half::Error,
            "" => return Err("\"streamType\" header is required".into()),
            other => return Err(format!("invalid stream type {other:?}")),
        };
        let id = headers.get("requestid").to_owned();
        Ok(Self { half, port, id })
    }

    /// The headers that say the same.
    #[must_use]
    pub fn headers(&self) -> Headers {
        let half = match self.half {
            Half::Data => "data",
            Half::Error => "error",
        };
        let port = self.port.to_string();
        Headers::new(&[
            ("streamtype", half),
            ("port", &port),
            ("requestid", &self.id),
        ])
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port: u16 = text
        .parse()
        .map_err(|error| format!("unable to parse {text:?} as a port: {error}"))?;
    if port == 0 {
        return Err(format!("port {text:?} must be > 0"));
    }
    Ok(port)
}

/// The ports of a query: values may be lists.
///
/// # Errors
/// A value is no port, or there are none or too many.
pub fn ports<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let texts = values
        .flat_map(|value| value.split(','))
        .filter(|text| !text.is_empty());
    let ports = texts.map(port).collect::<Result<Vec<_>, _>>()?;
    match ports.len() {
        0 => Err("query parameter \"port\" is required".into()),
        count if count > MAX_PORTS => Err(format!("at most {MAX_PORTS} ports can be forwarded")),
        _ => Ok(ports),
    }
}

/// What the server says first on both channels of a port.
#[must_use]
pub const fn preface(port: u16) -> [u8; 2] {
    port.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_a_stream_is_for() {
        let request = Request {
            half: Half::Error,
            port: 8080,
            id: "3".into(),
        };
        assert_eq!(Request::parse(&request.headers()), Ok(request));
        for (headers, error) in [
            (&[][..], "\"port\" header is required"),
            (&[("port", "0")], "port \"0\" must be > 0"),
            (&[("port", "80")], "\"streamType\" header is required"),
            (
                &[("port", "80"), ("streamtype", "x")],
                "invalid stream type \"x\"",
            ),
        ] {
            assert_eq!(Request::parse(&Headers::new(headers)), Err(error.into()));
        }
    }

    #[test]
    fn ports_come_in_lists_and_many() {
        assert_eq!(ports(["80,81", "82"].into_iter()), Ok(vec![80, 81, 82]));
        assert!(ports([].into_iter()).is_err());
        assert!(ports(["x"].into_iter()).is_err());
        assert!(ports(["70000"].into_iter()).is_err());
    }

    #[test]
    fn the_preface_is_little_endian() {
        assert_eq!(preface(0x1f90), [0x90, 0x1f]);
    }
}
