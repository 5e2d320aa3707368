//! ServiceAccount tokens: JSON Web Tokens signed with ES256.
//!
//! A token names its ServiceAccount and, if asked for, the Pod, Node or Secret it is bound to; each with
//! its uid, so that it dies with them. Whoever verifies a token must look the objects up: this file checks the
//! signature and the times only.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{PkiError, files};

/// Who issues the cluster's tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const HEADER: &str = r#"{"alg":"ES256","typ":"JWT"}"#;

/// Signs and verifies tokens.
pub struct Tokens {
    key: EcdsaKeyPair,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The token's own id, for audits. Empty in tokens made before there was one.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub jti: String,
    /// Issuer.
    pub iss: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
    /// Audiences.
    pub aud: Vec<String>,
    /// Expiry, seconds since 1970.
    pub exp: i64,
    /// Issued at.
    pub iat: i64,
    /// Not valid before.
    pub nbf: i64,
    /// The objects the token stands for.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

/// The objects a token stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Their namespace.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Reference,
    /// The pod the token was made for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<Reference>,
    /// The Node it was made for, or where its Pod runs. The uid is empty when that Node was not there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<Reference>,
    /// The Secret it was made for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret: Option<Reference>,
}

/// An object, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// Why a token is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// It is not one of ours.
    #[error("the token is malformed")]
    Malformed,
    /// Its signature is wrong.
    #[error("the token's signature is invalid")]
    Signature,
    /// It is not valid yet or any more.
    #[error("the token is expired or not valid yet")]
    Expired,
}

impl Tokens {
    /// Reads the key in `directory`, or makes one there.
    ///
    /// # Errors
    /// When the file cannot be read, written or understood.
    pub fn load_or_create(directory: &Path) -> Result<Self, PkiError> {
        let pem = files::read_or_create(&directory.join("sa.key"), || {
            let key = rcgen::KeyPair::generate();
            Ok(key
                .map_err(super::certificate("make the token key"))?
                .serialize_pem())
        })?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| PkiError::Key(format!("the token key is not PEM: {error}")))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_pkcs8_der(),
            &random,
        )
        .map_err(|error| PkiError::Key(format!("the token key cannot be used: {error}")))?;
        Ok(Self { key })
    }

    /// The token that says `claims`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign(&self, claims: &Claims) -> Result<String, PkiError> {
        let failed = |what: String| PkiError::Key(format!("sign a token: {what}"));
        let body = serde_json::to_vec(claims).map_err(|error| failed(error.to_string()))?;
        let message = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(body));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes());
        let signature = signature.map_err(|error| failed(error.to_string()))?;
        Ok(format!("{message}.{}", BASE64.encode(signature)))
    }

    /// What `token` says, if its signature and times are right at `now`.
    ///
    /// # Errors
    /// When they are not.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, body) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |text: &str| BASE64.decode(text).map_err(|_| TokenError::Malformed);
        if decode(header)? != HEADER.as_bytes() {
            return Err(TokenError::Malformed);
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key());
        public
            .verify(message.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims =
            serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)?;
        let now = now.as_second();
        if claims.iss != ISSUER {
            return Err(TokenError::Malformed);
        }
        if now >= claims.exp || now < claims.nbf {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_until_it_expires_and_only_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::load_or_create(dir.path()).unwrap();
        let claims = Claims {
            jti: "a".into(),
            iss: ISSUER.into(),
            sub: "system:serviceaccount:default:web".into(),
            aud: vec![ISSUER.into()],
            exp: 200,
            iat: 100,
            nbf: 100,
            bound: Bound::default(),
        };
        let token = tokens.sign(&claims).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(tokens.verify(&token, at(150)), Ok(claims));
        assert_eq!(tokens.verify(&token, at(200)), Err(TokenError::Expired));
        assert_eq!(tokens.verify(&token, at(99)), Err(TokenError::Expired));
        let other = Tokens::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(other.verify(&token, at(150)), Err(TokenError::Signature));
        for broken in ["", "a.b", "a.b.c", &token[1..]] {
            assert!(tokens.verify(broken, at(150)).is_err(), "{broken}");
        }
    }
}
