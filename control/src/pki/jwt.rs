//! JSON Web Tokens: their parts, and the public keys (JWK) that verify them. What a token means is up to whoever
//! verifies it: `service_account.rs` for the cluster's own, `server/authn/oidc` for those of others.
//!
//! A key verifies only signatures of the algorithms that are meant for it, whatever the token's header says, and never
//! a token without signature. Source: RFC 7515, 7517, 7518.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// Longest token that is looked at.
const MAX_LEN: usize = 64 * 1024;

/// Why a token is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// It is none, or not one of this issuer.
    #[error("the token is malformed")]
    Malformed,
    /// Its signature is of none of the keys.
    #[error("the token's signature is invalid")]
    Signature,
    /// It is not valid yet or any more.
    #[error("the token is expired or not valid yet")]
    Expired,
}

/// The parts of a token, its signature not yet verified.
#[derive(Debug)]
pub struct Jwt<'a> {
    header: Header,
    /// What is signed.
    message: &'a str,
    signature: Vec<u8>,
    payload: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions without which the token must not be understood; there are none here.
    #[serde(default)]
    crit: Option<Value>,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_LEN {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |text: &str| BASE64.decode(text).map_err(|_| TokenError::Malformed);
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            header,
            message,
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }

    /// What it claims; of no worth before a key has verified it.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when it does not claim what it has to.
    pub fn claims<'b, C: Deserialize<'b>>(&'b self) -> Result<C, TokenError> {
        serde_json::from_slice(&self.payload).map_err(|_| TokenError::Malformed)
    }

    /// The id of the key it says it is signed with; empty if it does not.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.header.kid
    }
}

/// A public key.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// Its id; empty if it has none.
    pub id: String,
    /// The one algorithm it is for; any of its type if empty.
    algorithm: String,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A key as JSON Web Keys have it.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default, rename = "use")]
    usage: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl PublicKey {
    /// A P-256 key, given as an uncompressed point.
    #[must_use]
    pub fn p256(id: String, point: Vec<u8>) -> Self {
        Self {
            id,
            algorithm: "ES256".into(),
            material: Material::P256(point),
        }
    }

    /// The keys of a JSON Web Key Set that can verify tokens here: those of other types are left out.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when it is none.
    pub fn set(text: &[u8]) -> Result<Vec<Self>, TokenError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| TokenError::Malformed)?;
        let keys = set.keys.into_iter();
        let keys = keys.filter_map(|key| serde_json::from_value(key).ok());
        Ok(keys.filter_map(Self::of_jwk).collect())
    }

    fn of_jwk(jwk: Jwk) -> Option<Self> {
        let decode = |text: &str| BASE64.decode(text).ok().filter(|bytes| !bytes.is_empty());
        let material = match (&*jwk.kty, &*jwk.crv) {
            ("RSA", _) => Material::Rsa {
                modulus: decode(&jwk.n)?,
                exponent: decode(&jwk.e)?,
            },
            ("EC", "P-256") => Material::P256(point(&decode(&jwk.x)?, &decode(&jwk.y)?, 32)?),
            ("EC", "P-384") => Material::P384(point(&decode(&jwk.x)?, &decode(&jwk.y)?, 48)?),
            _ => return None,
        };
        matches!(&*jwk.usage, "" | "sig").then_some(Self {
            id: jwk.kid,
            algorithm: jwk.alg,
            material,
        })
    }

    /// The key as a JSON Web Key; `None` for types that the cluster does not sign with.
    #[must_use]
    pub fn to_jwk(&self) -> Option<Value> {
        let Material::P256(point) = &self.material else {
            return None;
        };
        let (x, y) = point.get(1..)?.split_at_checked(32)?;
        Some(json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }))
    }

    /// Whether the token is signed with this key.
    #[must_use]
    pub fn verifies(&self, token: &Jwt<'_>) -> bool {
        let algorithm = &*token.header.alg;
        if !self.algorithm.is_empty() && self.algorithm != algorithm {
            return false;
        }
        let (message, signature) = (token.message.as_bytes(), &*token.signature);
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, algorithm) => {
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                rsa(algorithm)
                    .is_some_and(|parameters| key.verify(parameters, message, signature).is_ok())
            }
            (Material::P256(point), "ES256") => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            (Material::P384(point), "ES384") => {
                let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// An uncompressed point, of two coordinates as long as the curve has them.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

/// Whether one of `keys` has signed the token. Keys of another id than the token names are not tried.
#[must_use]
pub fn is_signed(token: &Jwt<'_>, keys: &[PublicKey]) -> bool {
    let named = |key: &&PublicKey| {
        token.key_id().is_empty() || key.id.is_empty() || key.id == token.key_id()
    };
    keys.iter().filter(named).any(|key| key.verifies(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7515, appendix A.2: a token signed with RS256, and the key.
    const RSA_KEY: &str = r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    #[test]
    fn a_token_is_signed_with_the_key_that_signed_it_and_by_its_algorithm() {
        let keys = PublicKey::set(RSA_KEY.as_bytes()).unwrap();
        let token = Jwt::parse(RSA_TOKEN).unwrap();
        assert!(is_signed(&token, &keys));
        assert_eq!(token.claims::<Value>().unwrap()["iss"], "joe");
        let (_, rest) = RSA_TOKEN.split_once('.').unwrap();
        let with_header = |header: &str| format!("{}.{rest}", BASE64.encode(header));
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"RS384"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
        ] {
            let token = with_header(header);
            assert!(!is_signed(&Jwt::parse(&token).unwrap(), &keys), "{header}");
        }
        let needs_more = with_header(r#"{"alg":"RS256","crit":["exp"]}"#);
        assert_eq!(Jwt::parse(&needs_more).err(), Some(TokenError::Malformed));
        let (unsigned, _) = RSA_TOKEN.rsplit_once('.').unwrap();
        let unsigned = format!("{unsigned}.");
        assert!(!is_signed(&Jwt::parse(&unsigned).unwrap(), &keys));
        let named = RSA_KEY.replace(r#""kty""#, r#""kid": "other", "kty""#);
        let named = PublicKey::set(named.as_bytes()).unwrap();
        assert!(is_signed(&token, &named), "a token that names no key");
        let for_more = RSA_KEY.replace(r#""kty""#, r#""alg": "PS256", "kty""#);
        let for_more = PublicKey::set(for_more.as_bytes()).unwrap();
        assert!(!is_signed(&token, &for_more), "a key of another algorithm");
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        for text in ["", "a", "a.b", "a.b.c", "e30.e30.", "..", "{}.{}.{}"] {
            assert_eq!(
                Jwt::parse(text).err(),
                Some(TokenError::Malformed),
                "{text}"
            );
        }
        let long = "a".repeat(MAX_LEN + 1);
        assert_eq!(Jwt::parse(&long).err(), Some(TokenError::Malformed));
    }
}
