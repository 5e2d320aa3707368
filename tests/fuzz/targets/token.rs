//! Bearer tokens, and the key sets that they are verified with. Nothing that comes from a stranger is signed with a key
//! that no stranger has, and a key that is read and written is the same key.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use windlass_control::pki::jwt::{Jwt, PublicKey, is_signed};

/// The public half of nobody's key: the generator of P-256.
static KEYS: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    let set = br#"{"keys": [{"kty": "EC", "crv": "P-256",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
        "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;
    PublicKey::set(set).expect("a key set")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = Jwt::parse(text)
    {
        let _ = token.claims::<serde_json::Value>();
        assert!(!is_signed(&token, &KEYS), "{text}");
    }
    for key in PublicKey::set(data).unwrap_or_default() {
        let Some(jwk) = key.to_jwk() else { continue };
        let again = serde_json::json!({"keys": [jwk]}).to_string();
        let again = PublicKey::set(again.as_bytes()).expect("a key set");
        assert_eq!(again.first().and_then(PublicKey::to_jwk), key.to_jwk());
    }
});
