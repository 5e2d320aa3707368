//! Encryption at rest: what a key file protects in the data file.
//!
//! A key of the file (the wrapping key) never touches a value. Each process draws a key of its own for each wrapping key
//! it writes with (the data key), stores it with every value, wrapped, and counts its nonces up from zero:
//!
//! ```text
//! 2 | length of the name u8 | name of the wrapping key | nonce | wrapped data key and tag | nonce | value and tag
//! ```
//!
//! Both are AES-GCM with nonces of 12 bytes; the object's key is associated data, so no value can be passed off as
//! another object's. A wrapping key is used once per process, with a random nonce; a data key never twice with one nonce.
//! Deletions say nothing and stay as they are.
//!
//! Source of the configuration: upstream's `EncryptionConfiguration`, providers `aesgcm` and `identity`.
//! Differs from Kubernetes: keys of `aesgcm` wrap data keys, so they need no rotation by number of writes; other
//! providers are refused by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use thiserror::Error;

use super::ObjectKey;
use super::transform::Transform;

/// First byte of a sealed value; plain ones begin with less.
const SEALED: u8 = 2;
/// First byte of a deletion.
const DELETED: u8 = 0;
/// Bytes of a data key.
const DATA_KEY: usize = 32;
const TAG: usize = 16;
/// A wrapped data key with its nonce.
const WRAPPED: usize = NONCE_LEN + DATA_KEY + TAG;

/// What is wrong with a configuration. Never shows a key.
#[derive(Debug, Error)]
pub enum EncryptionError {
    /// It is not what it should be.
    #[error("not an EncryptionConfiguration: {0}")]
    Form(String),
    /// It is of another kind.
    #[error(
        "kind {kind:?} of {api_version:?} is not EncryptionConfiguration of \"apiserver.config.k8s.io/v1\""
    )]
    Kind {
        /// What it says it is.
        kind: String,
        /// Of that version.
        api_version: String,
    },
    /// A provider that there is not.
    #[error("resources[{at}].providers: {name:?} is not supported; there are aesgcm and identity")]
    Provider {
        /// Which entry.
        at: usize,
        /// The provider.
        name: String,
    },
    /// A list that must not be empty.
    #[error("resources[{at}]: {what} must not be empty")]
    Empty {
        /// Which entry.
        at: usize,
        /// The list.
        what: &'static str,
    },
    /// An entry of a list of providers that is not one provider.
    #[error("resources[{at}].providers: each entry names one provider, not {found}")]
    Providers {
        /// Which entry.
        at: usize,
        /// How many it names.
        found: usize,
    },
    /// A key that is none.
    #[error("key {name:?}: {why}")]
    Key {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What is encrypted, and with what. By default nothing is.
#[derive(Clone, Default)]
pub struct Encryption {
    rules: Arc<[Rule]>,
}

/// How values of some resources are written and may be read.
struct Rule {
    resources: Vec<String>,
    /// The first writes.
    providers: Vec<Provider>,
}

enum Provider {
    Keys(Vec<Arc<WrappingKey>>),
    /// Values as they are.
    Identity,
}

struct WrappingKey {
    name: String,
    key: LessSafeKey,
    /// The process' own data key.
    own: Mutex<Option<DataKey>>,
    /// Data keys of other processes, by their wrapped form.
    known: Mutex<HashMap<[u8; WRAPPED], Arc<LessSafeKey>>>,
}

struct DataKey {
    key: LessSafeKey,
    wrapped: [u8; WRAPPED],
    writes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    resources: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRule {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<HashMap<String, Option<FileKeys>>>,
}

#[derive(Deserialize)]
struct FileKeys {
    #[serde(default)]
    keys: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    /// In base64.
    secret: String,
}

impl Encryption {
    /// Reads a file of kind `EncryptionConfiguration` in YAML.
    ///
    /// # Errors
    /// What is wrong with it, or asks for what is not supported.
    pub fn parse(text: &str) -> Result<Self, EncryptionError> {
        let file: File = serde_yaml::from_str(text).map_err(|error| {
            // Only the place: the text around it may be a key.
            let place = error.location();
            EncryptionError::Form(place.map_or_else(
                || "it cannot be read".to_owned(),
                |at| format!("line {}, column {}", at.line(), at.column()),
            ))
        })?;
        if (&*file.kind, &*file.api_version)
            != ("EncryptionConfiguration", "apiserver.config.k8s.io/v1")
        {
            return Err(EncryptionError::Kind {
                kind: file.kind,
                api_version: file.api_version,
            });
        }
        let rules = file.resources.into_iter().enumerate();
        let rules: Result<Vec<Rule>, _> = rules.map(|(at, rule)| Rule::read(at, rule)).collect();
        Ok(Self {
            rules: rules?.into(),
        })
    }

    fn rule(&self, key: &ObjectKey) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.covers(key.resource()))
    }

    /// Whether the stored value is not as it would be written now.
    #[must_use]
    pub fn is_stale(&self, key: &ObjectKey, stored: &[u8]) -> bool {
        let first = self.rule(key).and_then(|rule| rule.providers.first());
        match (first, stored.first()) {
            (_, Some(&DELETED)) => false,
            (Some(Provider::Keys(keys)), Some(&SEALED)) => {
                let name = Sealed::read(stored).map(|sealed| sealed.name);
                name != keys.first().map(|key| key.name.as_bytes())
            }
            (Some(Provider::Keys(_)), _) => true,
            (Some(Provider::Identity) | None, first) => first == Some(&SEALED),
        }
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encryption({} rules)", self.rules.len())
    }
}

impl Rule {
    fn read(at: usize, rule: FileRule) -> Result<Self, EncryptionError> {
        let empty = |what| EncryptionError::Empty { at, what };
        // Which of two would write is not for a map to say.
        if let Some(entry) = rule.providers.iter().find(|entry| entry.len() != 1) {
            let found = entry.len();
            return Err(EncryptionError::Providers { at, found });
        }
        let mut providers = Vec::new();
        for (name, body) in rule.providers.into_iter().flatten() {
            providers.push(match &*name {
                "identity" => Provider::Identity,
                "aesgcm" => {
                    let keys = body.map(|body| body.keys).unwrap_or_default();
                    if keys.is_empty() {
                        return Err(empty("aesgcm.keys"));
                    }
                    let keys: Result<Vec<_>, _> = keys.iter().map(WrappingKey::read).collect();
                    Provider::Keys(keys?)
                }
                _ => return Err(EncryptionError::Provider { at, name }),
            });
        }
        if providers.is_empty() {
            return Err(empty("providers"));
        }
        if rule.resources.is_empty() {
            return Err(empty("resources"));
        }
        Ok(Self {
            resources: rule.resources,
            providers,
        })
    }

    /// Whether it is about a resource, such as `secrets` or `apps/deployments`.
    fn covers(&self, resource: &str) -> bool {
        let (group, plural) = resource.split_once('/').unwrap_or(("", resource));
        self.resources.iter().any(|own| {
            let (of, own_group) = own.split_once('.').unwrap_or((own, ""));
            (of == "*" || of == plural) && (own == "*.*" || own_group == group)
        })
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<WrappingKey>> {
        let keys = self.providers.iter().filter_map(|provider| match provider {
            Provider::Keys(keys) => Some(keys),
            Provider::Identity => None,
        });
        keys.flatten()
    }

    fn reads_plain(&self) -> bool {
        let mut providers = self.providers.iter();
        providers.any(|provider| matches!(provider, Provider::Identity))
    }
}

impl WrappingKey {
    fn read(key: &FileKey) -> Result<Arc<Self>, EncryptionError> {
        let wrong = |why| EncryptionError::Key {
            name: key.name.clone(),
            why,
        };
        if key.name.is_empty() || key.name.len() > usize::from(u8::MAX) {
            return Err(wrong("a name has 1 to 255 bytes"));
        }
        let secret = base64::engine::general_purpose::STANDARD.decode(key.secret.trim());
        let secret = secret.map_err(|_| wrong("the secret is not base64"))?;
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return Err(wrong("the secret must have 16 or 32 bytes")),
        };
        let bound = UnboundKey::new(algorithm, &secret).map_err(|_| wrong("it cannot be used"))?;
        Ok(Arc::new(Self {
            name: key.name.clone(),
            key: LessSafeKey::new(bound),
            own: Mutex::new(None),
            known: Mutex::default(),
        }))
    }

    /// A new data key, wrapped.
    fn data_key(&self) -> Option<DataKey> {
        let random = SystemRandom::new();
        let (mut secret, mut nonce) = ([0; DATA_KEY], [0; NONCE_LEN]);
        random.fill(&mut secret).ok()?;
        random.fill(&mut nonce).ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).ok()?);
        let unique = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(self.name.as_bytes());
        let tag = self
            .key
            .seal_in_place_separate_tag(unique, aad, &mut secret);
        let mut wrapped = nonce.to_vec();
        wrapped.extend_from_slice(&secret);
        wrapped.extend_from_slice(tag.ok()?.as_ref());
        Some(DataKey {
            key,
            wrapped: wrapped.try_into().ok()?,
            writes: 0,
        })
    }

    /// The sealed form of a value; `None` if the system gives no randomness.
    fn seal(&self, key: &ObjectKey, mut value: Vec<u8>) -> Option<Vec<u8>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_none() {
            *own = self.data_key();
        }
        let data = own.as_mut()?;
        let mut nonce = [0; NONCE_LEN];
        let (_, counter) = nonce.split_at_mut(NONCE_LEN - 8);
        counter.copy_from_slice(&data.writes.to_be_bytes());
        data.writes += 1;
        let unique = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(key.as_str().as_bytes());
        data.key
            .seal_in_place_append_tag(unique, aad, &mut value)
            .ok()?;
        let mut sealed =
            Vec::with_capacity(2 + self.name.len() + WRAPPED + nonce.len() + value.len());
        sealed.extend([SEALED, u8::try_from(self.name.len()).ok()?]);
        sealed.extend_from_slice(self.name.as_bytes());
        sealed.extend_from_slice(&data.wrapped);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&value);
        Some(sealed)
    }

    fn open(&self, key: &ObjectKey, sealed: &Sealed<'_>) -> Option<Vec<u8>> {
        let data = self.unwrap(sealed.wrapped)?;
        let mut value = sealed.value.to_vec();
        let aad = Aad::from(key.as_str().as_bytes());
        let nonce = Nonce::assume_unique_for_key(*sealed.nonce);
        let length = data.open_in_place(nonce, aad, &mut value).ok()?.len();
        value.truncate(length);
        Some(value)
    }

    fn unwrap(&self, wrapped: &[u8; WRAPPED]) -> Option<Arc<LessSafeKey>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(wrapped) {
            return Some(Arc::clone(key));
        }
        let (nonce, rest) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut secret = rest.to_vec();
        let aad = Aad::from(self.name.as_bytes());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret = self.key.open_in_place(nonce, aad, &mut secret).ok()?;
        let key = Arc::new(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, secret).ok()?,
        ));
        known.insert(*wrapped, Arc::clone(&key));
        Some(key)
    }
}

/// The parts of a sealed value.
struct Sealed<'a> {
    name: &'a [u8],
    wrapped: &'a [u8; WRAPPED],
    nonce: &'a [u8; NONCE_LEN],
    value: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn read(stored: &'a [u8]) -> Option<Self> {
        let (head, rest) = stored.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(head[1]))?;
        let (wrapped, rest) = rest.split_first_chunk::<WRAPPED>()?;
        let (nonce, value) = rest.split_first_chunk::<NONCE_LEN>()?;
        (head[0] == SEALED).then_some(Self {
            name,
            wrapped,
            nonce,
            value,
        })
    }
}

impl Transform for Encryption {
    fn seal(&self, key: &ObjectKey, value: Vec<u8>) -> Result<Vec<u8>, String> {
        let first = self.rule(key).and_then(|rule| rule.providers.first());
        let Some(Provider::Keys(keys)) = first.filter(|_| value.first() != Some(&DELETED)) else {
            return Ok(value);
        };
        let sealed = keys.first().and_then(|first| first.seal(key, value));
        sealed.ok_or_else(|| "the value cannot be encrypted: no randomness".to_owned())
    }

    fn open(&self, key: &ObjectKey, stored: Vec<u8>) -> Result<Vec<u8>, String> {
        let rule = self.rule(key);
        match stored.first() {
            Some(&SEALED) => {}
            Some(&DELETED) => return Ok(stored),
            _ if rule.is_none_or(Rule::reads_plain) => return Ok(stored),
            _ => {
                return Err(format!(
                    "value {key} is not encrypted, and provider identity is not among those that may read it"
                ));
            }
        }
        let sealed = Sealed::read(&stored).ok_or_else(|| format!("value {key} is cut off"))?;
        let name = String::from_utf8_lossy(sealed.name);
        // A resource that is no longer to be encrypted is read by the keys of every rule.
        let keys = self.rules.iter().flat_map(Rule::keys);
        let mut known = keys
            .filter(|key| key.name.as_bytes() == sealed.name)
            .peekable();
        if known.peek().is_none() {
            return Err(format!(
                "value {key} is encrypted with key {name:?}, which the encryption configuration does not have"
            ));
        }
        let opened = known.find_map(|wrapping| wrapping.open(key, &sealed));
        opened.ok_or_else(|| {
            format!(
                "value {key} cannot be decrypted with key {name:?}: another key, or the value was changed"
            )
        })
    }
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
