//! The files of the dashboard, as the binary holds them.
//!
//! Assets have the hash of their content in their names and may be kept for good; they are held compressed. The page
//! is made anew for each answer: styles that libraries add at run time need the nonce of its policy.

use std::io::Read;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};

/// What the page says where the nonce goes.
const NONCE: &str = "__CSP_NONCE__";

/// A file: its path, its media type, its content compressed by gzip.
pub type Asset = (&'static str, &'static str, &'static [u8]);

/// The files of a dashboard.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The page that every path leads to that is no file.
    pub page: &'static str,
    /// Everything else.
    pub assets: &'static [Asset],
}

impl Files {
    pub(super) fn answer(&self, request: &Request<Body>) -> Response {
        let path = request.uri().path();
        let asset = self.assets.iter().find(|(name, ..)| *name == path);
        let mut response = match asset {
            Some(asset) => file(asset, request),
            // A file that was there in another version must not be taken for the page.
            None if path.starts_with("/assets/") => missing(),
            None => self.page(),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn page(&self) -> Response {
        let nonce = STANDARD.encode(rand::random::<[u8; 16]>());
        let mut response = Response::new(Body::from(self.page.replace(NONCE, &nonce)));
        let policy = format!(
            "default-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; \
             object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        let headers = response.headers_mut();
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, html);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

fn file((path, media_type, content): &Asset, request: &Request<Body>) -> Response {
    let accepted = request.headers().get(header::ACCEPT_ENCODING);
    let compressed = accepted
        .and_then(|accepted| accepted.to_str().ok())
        .is_some_and(|accepted| {
            accepted
                .split(',')
                .any(|each| each.trim().starts_with("gzip"))
        });
    let mut plain = Vec::new();
    let body = if compressed {
        Body::from(*content)
    } else if GzDecoder::new(*content).read_to_end(&mut plain).is_ok() {
        Body::from(plain)
    } else {
        return missing();
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let kept = if path.starts_with("/assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    response
}

fn missing() -> Response {
    let mut response = Response::new(Body::from("there is no such file\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
