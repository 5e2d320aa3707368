//! ServiceAccount tokens: JSON Web Tokens signed with ES256.
//!
//! A token names its ServiceAccount and, if asked for, the Pod, Node or Secret it is bound to; each with
//! its uid, so that it dies with them. Whoever verifies a token must look the objects up: this file checks the
//! signature, the issuer and the times only.
//!
//! `sa.key` holds the keys, in PEM: the first signs, all of them verify. So a new key is put in front of the old one,
//! which goes once its last token has expired. [`Tokens`] takes another file over while it is in use.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::jwt::{Jwt, PublicKey, TokenError, is_signed};
use super::{PkiError, files};

/// Who issues the cluster's tokens unless the operator says otherwise.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The file of the keys.
pub(super) const KEY_FILE: &str = "sa.key";

/// Signs and verifies tokens.
pub struct Tokens {
    issuers: Vec<String>,
    keys: ArcSwap<Keys>,
}

/// The keys of one file.
struct Keys {
    signer: EcdsaKeyPair,
    header: String,
    public: Vec<PublicKey>,
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

impl Tokens {
    /// Reads the keys in `directory`, or makes one there. Tokens are issued by the first of `issuers`, by [`ISSUER`]
    /// without one, and accepted from all of them.
    ///
    /// # Errors
    /// When the file cannot be read, written or understood.
    pub fn load_or_create(directory: &Path, issuers: &[String]) -> Result<Self, PkiError> {
        let pem = files::read_or_create(&directory.join(KEY_FILE), new_key)?;
        let issuers = match issuers {
            [] => vec![ISSUER.to_owned()],
            issuers => issuers.to_vec(),
        };
        let keys = ArcSwap::from_pointee(Keys::parse(&pem)?);
        Ok(Self { issuers, keys })
    }

    /// Takes over what the file says now. On an error everything stays as it was.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn reload(&self, directory: &Path) -> Result<(), PkiError> {
        let pem = files::read(&directory.join(KEY_FILE))?;
        self.keys.store(Arc::new(Keys::parse(&pem)?));
        Ok(())
    }

    /// Who issues tokens, and whom a token is for that says nothing.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or(ISSUER, String::as_str)
    }

    /// Whose tokens are accepted.
    #[must_use]
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// The token that says `claims`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign(&self, claims: &Claims) -> Result<String, PkiError> {
        let failed = |what: String| PkiError::Key(format!("sign a token: {what}"));
        let body = serde_json::to_vec(claims).map_err(|error| failed(error.to_string()))?;
        let keys = self.keys.load();
        let message = format!("{}.{}", BASE64.encode(&keys.header), BASE64.encode(body));
        let signature = keys.signer.sign(&SystemRandom::new(), message.as_bytes());
        let signature = signature.map_err(|error| failed(error.to_string()))?;
        Ok(format!("{message}.{}", BASE64.encode(signature)))
    }

    /// What `token` says, if its signature, issuer and times are right at `now`.
    ///
    /// # Errors
    /// When they are not.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let token = Jwt::parse(token)?;
        if !is_signed(&token, &self.keys.load().public) {
            return Err(TokenError::Signature);
        }
        let claims: Claims = token.claims()?;
        let now = now.as_second();
        if !self.issuers.contains(&claims.iss) {
            return Err(TokenError::Malformed);
        }
        if now >= claims.exp || now < claims.nbf {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    /// The JSON Web Key Set by which others verify the cluster's tokens.
    #[must_use]
    pub fn key_set(&self) -> Value {
        let keys = self.keys.load();
        let keys = keys.public.iter().filter_map(PublicKey::to_jwk);
        json!({"keys": keys.collect::<Vec<_>>()})
    }
}

/// A new key, in PEM.
pub(super) fn new_key() -> Result<String, PkiError> {
    let key = rcgen::KeyPair::generate().map_err(super::certificate("make the token key"))?;
    Ok(key.serialize_pem())
}

/// The ids of the keys in a file, in its order.
pub(super) fn key_ids(pem: &str) -> Result<Vec<String>, PkiError> {
    let keys = Keys::parse(pem)?;
    Ok(keys.public.into_iter().map(|key| key.id).collect())
}

impl Keys {
    fn parse(pem: &str) -> Result<Self, PkiError> {
        let mut signers = Vec::new();
        for der in PrivatePkcs8KeyDer::pem_slice_iter(pem.as_bytes()) {
            let der =
                der.map_err(|error| PkiError::Key(format!("{KEY_FILE} is not PEM: {error}")))?;
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let random = SystemRandom::new();
            let key = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &random);
            signers.push(key.map_err(|error| {
                PkiError::Key(format!(
                    "{KEY_FILE} holds a key that is not one of P-256 in PKCS#8: {error}"
                ))
            })?);
        }
        let public: Vec<PublicKey> = signers
            .iter()
            .map(|key| {
                let point = key.public_key().as_ref().to_vec();
                PublicKey::p256(key_id(&point), point)
            })
            .collect();
        let signer = signers.into_iter().next();
        let signer =
            signer.ok_or_else(|| PkiError::Key(format!("{KEY_FILE} holds no key in PKCS#8")))?;
        let id = public.first().map_or("", |key| &key.id);
        let header = json!({"alg": "ES256", "kid": id, "typ": "JWT"}).to_string();
        Ok(Self {
            signer,
            header,
            public,
        })
    }
}

/// The id of a key, of its public half alone.
fn key_id(point: &[u8]) -> String {
    BASE64.encode(Sha256::digest(point))
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
        let tokens = Tokens::load_or_create(dir.path(), &[]).unwrap();
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
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Tokens::load_or_create(elsewhere.path(), &[]).unwrap();
        assert_eq!(other.verify(&token, at(150)), Err(TokenError::Signature));
        let renamed = Tokens::load_or_create(dir.path(), &["https://other".into()]).unwrap();
        assert_eq!(renamed.verify(&token, at(150)), Err(TokenError::Malformed));
        for broken in ["", "a.b", "a.b.c", &token[1..]] {
            assert!(tokens.verify(broken, at(150)).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_that_no_longer_signs_verifies_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::load_or_create(dir.path(), &[]).unwrap();
        let claims = Claims {
            jti: String::new(),
            iss: ISSUER.into(),
            sub: String::new(),
            aud: Vec::new(),
            exp: 200,
            iat: 100,
            nbf: 100,
            bound: Bound::default(),
        };
        let at = Timestamp::from_second(150).unwrap();
        let old = tokens.sign(&claims).unwrap();
        let file = dir.path().join(KEY_FILE);
        let (first, second) = (std::fs::read_to_string(&file).unwrap(), new_key().unwrap());
        files::write(&file, &format!("{second}{first}")).unwrap();
        tokens.reload(dir.path()).unwrap();
        let new = tokens.sign(&claims).unwrap();
        assert!(tokens.verify(&old, at).is_ok() && tokens.verify(&new, at).is_ok());
        assert_eq!(tokens.key_set()["keys"].as_array().unwrap().len(), 2);
        files::write(&file, &second).unwrap();
        tokens.reload(dir.path()).unwrap();
        assert_eq!(tokens.verify(&old, at), Err(TokenError::Signature));
        assert!(tokens.verify(&new, at).is_ok());
        files::write(&file, "no key").unwrap();
        assert!(tokens.reload(dir.path()).is_err());
        assert!(tokens.verify(&new, at).is_ok(), "the old keys stay");
        let set = serde_json::to_vec(&tokens.key_set()).unwrap();
        let keys = PublicKey::set(&set).unwrap();
        assert!(is_signed(&Jwt::parse(&new).unwrap(), &keys));
    }
}
