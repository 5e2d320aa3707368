//! What others need to verify the cluster's ServiceAccount tokens: the issuer's OpenID discovery document and its keys.
//!
//! Differs from Kubernetes: `jwks_uri` is below the issuer's URL, by which pods reach it and which an operator who
//! chose another issuer has to serve anyway; upstream's is an option.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use crate::pki::service_account::Tokens;

const DOCUMENT: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// Answers if it is one of the two paths.
pub(super) fn respond(path: &str, tokens: &Tokens) -> Option<Response> {
    match path {
        DOCUMENT => {
            let issuer = tokens.issuer();
            let document = json!({
                "issuer": issuer,
                "jwks_uri": format!("{}{KEYS}", issuer.trim_end_matches('/')),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            Some(answer(&document, "application/json"))
        }
        KEYS => Some(answer(&tokens.key_set(), "application/jwk-set+json")),
        _ => None,
    }
}

fn answer(document: &Value, media_type: &'static str) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    let cache = HeaderValue::from_static("public, max-age=3600");
    headers.insert(header::CACHE_CONTROL, cache);
    response
}
