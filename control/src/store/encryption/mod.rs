//! Encryption at rest: what is protected in the data file, and by which keys.
//!
//! A wrapping key never touches a value: it wraps the keys that do (`wrapping.rs`). It is in the configuration itself
//! (provider `aesgcm`), or in a key management service that a plugin on this machine speaks to (`kms`, `kms.rs`).
//! Deletions say nothing and stay as they are.
//!
//! Source of the configuration: upstream's `EncryptionConfiguration`, providers `aesgcm`, `kms` of version `v2`, and
//! `identity`.
//! Differs from Kubernetes: keys of `aesgcm` wrap data keys, so they need no rotation by number of writes; other
//! providers are refused by name.

mod kms;
mod wrapping;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use jiff::SignedDuration;
use ring::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use serde::Deserialize;
use thiserror::Error;

use super::ObjectKey;
use super::transform::Transform;
use crate::file_kind::{self, WrongKind};
use kms::Kms;
use wrapping::{SEALED, Sealed, WrappingKey};

/// First byte of a deletion.
const DELETED: u8 = 0;
/// How long a plugin may take unless the configuration says otherwise.
const KMS_TIME_LIMIT: Duration = Duration::from_secs(3);

/// What is wrong with a configuration. Never shows a key.
#[derive(Debug, Error)]
pub enum EncryptionError {
    /// It is not what it should be.
    #[error("not an EncryptionConfiguration: {0}")]
    Form(String),
    /// It is of another kind.
    #[error(transparent)]
    Kind(#[from] WrongKind),
    /// A provider that there is not.
    #[error(
        "resources[{at}].providers: {name:?} is not supported; there are aesgcm, kms and identity"
    )]
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
    /// A plugin that cannot be spoken to as the configuration says.
    #[error("resources[{at}].providers: kms {name:?}: {why}")]
    Kms {
        /// Which entry.
        at: usize,
        /// The plugin's name.
        name: String,
        /// What is wrong.
        why: &'static str,
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
    providers: Vec<HashMap<String, Option<FileProvider>>>,
}

/// What a provider is given: keys, or the way to a plugin.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProvider {
    #[serde(default)]
    keys: Vec<FileKey>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    endpoint: String,
    timeout: Option<SignedDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    /// In base64.
    secret: String,
}

impl FileProvider {
    fn leads_to_plugin(&self) -> bool {
        let texts = [&self.api_version, &self.name, &self.endpoint];
        self.timeout.is_some() || texts.iter().any(|text| !text.is_empty())
    }
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
        let kind = (&*file.kind, &*file.api_version);
        let versions = &["apiserver.config.k8s.io/v1"];
        file_kind::check("the file", kind, "EncryptionConfiguration", versions)?;
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
            (Some(Provider::Keys(keys)), Some(first)) if SEALED.contains(first) => {
                let sealed = Sealed::read(stored);
                let writer = keys.first();
                !sealed
                    .zip(writer)
                    .is_some_and(|(sealed, key)| key.would_write(&sealed))
            }
            (Some(Provider::Keys(_)), _) => true,
            (Some(Provider::Identity) | None, first) => {
                first.is_some_and(|first| SEALED.contains(first))
            }
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
                    let body = body.unwrap_or_default();
                    if body.leads_to_plugin() {
                        let text = format!("resources[{at}]: aesgcm has keys and nothing else");
                        return Err(EncryptionError::Form(text));
                    }
                    let keys = body.keys;
                    if keys.is_empty() {
                        return Err(empty("aesgcm.keys"));
                    }
                    let keys: Result<Vec<_>, _> = keys.iter().map(read_key).collect();
                    Provider::Keys(keys?)
                }
                "kms" => {
                    let plugin = read_kms(&body.unwrap_or_default());
                    let wrong = |(name, why)| EncryptionError::Kms { at, name, why };
                    Provider::Keys(vec![plugin.map_err(wrong)?])
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

fn read_key(key: &FileKey) -> Result<Arc<WrappingKey>, EncryptionError> {
    let wrong = |why| EncryptionError::Key {
        name: key.name.clone(),
        why,
    };
    wrapping::check_name(&key.name).map_err(wrong)?;
    let secret = base64::engine::general_purpose::STANDARD.decode(key.secret.trim());
    let secret = secret.map_err(|_| wrong("the secret is not base64"))?;
    let algorithm = match secret.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        _ => return Err(wrong("the secret must have 16 or 32 bytes")),
    };
    let bound = UnboundKey::new(algorithm, &secret).map_err(|_| wrong("it cannot be used"))?;
    Ok(Arc::new(WrappingKey::local(
        &key.name,
        LessSafeKey::new(bound),
    )))
}

/// A plugin, or its name and what is wrong with it.
fn read_kms(plugin: &FileProvider) -> Result<Arc<WrappingKey>, (String, &'static str)> {
    let wrong = |why| (plugin.name.clone(), why);
    wrapping::check_name(&plugin.name).map_err(wrong)?;
    if !plugin.keys.is_empty() {
        return Err(wrong("its keys are with the service, not in this file"));
    }
    if plugin.api_version != "v2" {
        return Err(wrong(
            "apiVersion must be \"v2\"; version 1 is deprecated and not supported",
        ));
    }
    let path = plugin.endpoint.strip_prefix("unix://");
    let path = path.filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| wrong("endpoint must be unix:///PATH"))?;
    let limit = plugin
        .timeout
        .map_or(Ok(KMS_TIME_LIMIT), Duration::try_from);
    let limit = limit.ok().filter(|limit| !limit.is_zero());
    let limit = limit.ok_or_else(|| wrong("timeout must be positive"))?;
    let kms = Kms::new(plugin.name.clone(), PathBuf::from(path), limit);
    Ok(Arc::new(WrappingKey::kms(&plugin.name, kms)))
}

impl Transform for Encryption {
    fn seal(&self, key: &ObjectKey, value: Vec<u8>) -> Result<Vec<u8>, String> {
        let first = self.rule(key).and_then(|rule| rule.providers.first());
        let Some(Provider::Keys(keys)) = first.filter(|_| value.first() != Some(&DELETED)) else {
            return Ok(value);
        };
        let first = keys.first().ok_or("there is no key to encrypt with")?;
        first.seal(key, value)
    }

    fn open(&self, key: &ObjectKey, stored: Vec<u8>) -> Result<Vec<u8>, String> {
        let rule = self.rule(key);
        match stored.first() {
            Some(first) if SEALED.contains(first) => {}
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
        let known = keys.filter(|key| key.name().as_bytes() == sealed.name);
        let mut why = "which the encryption configuration does not have".to_owned();
        for wrapping in known {
            match wrapping.open(key, &sealed) {
                Ok(value) => return Ok(value),
                Err(error) => why = error,
            }
        }
        Err(format!("value {key} is encrypted with key {name:?}, {why}"))
    }
}

#[cfg(test)]
mod tests;
