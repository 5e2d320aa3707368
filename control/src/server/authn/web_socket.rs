//! Bearer tokens in the subprotocols of a WebSocket: `base64url.bearer.authorization.k8s.io.TOKEN`.
//!
//! The token must be offered beside a real subprotocol, which is the one that is answered with; the token
//! itself is never sent back, nor on to a node.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use thiserror::Error;
use windlass_api::stream::websocket;

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Why subprotocols that should hold a token do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum TokenError {
    #[error("multiple base64.bearer.authorization tokens specified")]
    Several,
    #[error("invalid base64.bearer.authorization token encoding")]
    Encoding,
    #[error("missing additional subprotocol")]
    Alone,
}

/// The token that a request for a WebSocket offers.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<String>, TokenError> {
    if !websocket::is_requested(headers) {
        return Ok(None);
    }
    let mut tokens = websocket::offered(headers).filter_map(|offer| offer.strip_prefix(PREFIX));
    let Some(encoded) = tokens.next() else {
        return Ok(None);
    };
    if tokens.next().is_some() {
        return Err(TokenError::Several);
    }
    let decoded = URL_SAFE_NO_PAD.decode(encoded);
    let decoded = decoded.map_err(|_| TokenError::Encoding)?;
    let token = String::from_utf8(decoded).map_err(|_| TokenError::Encoding)?;
    let mut others = websocket::offered(headers).filter(|offer| !offer.starts_with(PREFIX));
    if !token.is_empty() && others.next().is_none() {
        return Err(TokenError::Alone);
    }
    Ok(Some(token).filter(|token| !token.is_empty()))
}

/// Removes the token from what the request offers.
pub(super) fn forget_token(headers: &mut HeaderMap) {
    if !websocket::offered(headers).any(|offer| offer.starts_with(PREFIX)) {
        return;
    }
    let others: Vec<_> = websocket::offered(headers)
        .filter(|offer| !offer.starts_with(PREFIX))
        .collect();
    let others = HeaderValue::try_from(others.join(", ")).ok();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    // What was read from headers can be written to one.
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(protocols: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_PROTOCOL, protocols),
        ] {
            headers.insert(name, HeaderValue::try_from(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_read_beside_a_real_subprotocol_and_forgotten() {
        let token_of = |protocols: &str| token(&request(&protocols.replace("T.", PREFIX)));
        let found = Ok(Some("a.token".to_owned()));
        assert_eq!(token_of("T.YS50b2tlbg, base64.binary.k8s.io"), found);
        assert_eq!(token_of("base64.binary.k8s.io"), Ok(None));
        assert_eq!(token_of("T.YS50b2tlbg"), Err(TokenError::Alone));
        assert_eq!(token_of("T.YQ, T.Yg, x"), Err(TokenError::Several));
        assert_eq!(token_of("T.!!, x"), Err(TokenError::Encoding));
        let mut headers = request(&format!("{PREFIX}YQ, binary.k8s.io"));
        forget_token(&mut headers);
        let left: Vec<_> = websocket::offered(&headers).collect();
        assert_eq!(left, ["binary.k8s.io"]);
        headers.remove(header::UPGRADE);
        assert_eq!(token(&headers), Ok(None), "not a WebSocket");
    }
}
