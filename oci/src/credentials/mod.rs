//! Credentials for registries, as `docker login` and Kubernetes write them down.
//!
//! Two forms: `config.json` (`{"auths": {KEY: {...}}}`, the Secret type `kubernetes.io/dockerconfigjson`) and the older
//! `.dockercfg` (`{KEY: {...}}`, `kubernetes.io/dockercfg`). What a key means is in `matching.rs`.

mod matching;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde::Deserialize;

use matching::Key;

/// Both with and without padding: writers differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Larger files are refused; a Secret has at most a megabyte.
const MAX_FILE: usize = 1 << 20;

/// What proves to a registry who asks. Never shown: its `Debug` names the user only.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credential {
    /// User name, for Basic authentication and for the token server.
    pub username: String,
    /// Password, or a token in its place.
    pub password: String,
    /// A refresh token, which the token server exchanges.
    pub identity_token: Option<String>,
    /// A bearer token, sent as it is.
    pub registry_token: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credential")
            .field("username", &self.username)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Where a credential comes from, which says who may use what was fetched with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This machine's configuration: for everybody here.
    #[default]
    Machine,
    /// A source of this name, such as a Secret: for those who have the source too.
    Source(String),
}

/// Why a file of credentials can't be read. Says nothing of its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not JSON of the right shape.
    #[error("malformed registry credentials: {0}")]
    Malformed(String),
    /// `auth` is not base64 of `USER:PASSWORD`.
    #[error("registry credentials for {0:?}: auth must be base64 of USER:PASSWORD")]
    Auth(String),
    /// The file is too large.
    #[error("registry credentials are larger than {MAX_FILE} bytes")]
    TooLarge,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Entry {
    fn credential(self, key: &str, origin: &Origin) -> Result<Credential, CredentialsError> {
        let mut credential = Credential {
            username: self.username.unwrap_or_default(),
            password: self.password.unwrap_or_default(),
            identity_token: self.identitytoken.filter(|token| !token.is_empty()),
            registry_token: self.registrytoken.filter(|token| !token.is_empty()),
            origin: origin.clone(),
        };
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let wrong = || CredentialsError::Auth(key.to_owned());
            let decoded = BASE64.decode(auth.trim()).map_err(|_| wrong())?;
            let decoded = String::from_utf8(decoded).map_err(|_| wrong())?;
            let (username, password) = decoded.split_once(':').ok_or_else(wrong)?;
            username.clone_into(&mut credential.username);
            // Some writers end the text with a NUL.
            credential.password = password.trim_end_matches('\0').to_owned();
        }
        Ok(credential)
    }

    /// An entry of `config.json` whose password a credential helper keeps is empty.
    fn is_empty(&self) -> bool {
        let fields = [&self.username, &self.password, &self.auth];
        let tokens = [&self.identitytoken, &self.registrytoken];
        let mut all = fields.into_iter().chain(tokens);
        all.all(|field| field.as_ref().is_none_or(String::is_empty))
    }
}

/// Credentials by the registries they are for, in the order they are tried.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: Vec<(Key, Credential)>,
    /// Tried after all of these: the machine's own.
    fallback: Option<Box<Keyring>>,
}

impl Keyring {
    /// Adds what a `config.json` says.
    ///
    /// # Errors
    /// It is malformed; nothing is added then.
    pub fn add_config_json(
        &mut self,
        bytes: &[u8],
        origin: &Origin,
    ) -> Result<(), CredentialsError> {
        let config: ConfigJson = parse(bytes)?;
        self.add(config.auths, origin)
    }

    /// Adds what a `.dockercfg` says.
    ///
    /// # Errors
    /// It is malformed; nothing is added then.
    pub fn add_dockercfg(&mut self, bytes: &[u8], origin: &Origin) -> Result<(), CredentialsError> {
        self.add(parse(bytes)?, origin)
    }

    fn add(
        &mut self,
        entries: BTreeMap<String, Entry>,
        origin: &Origin,
    ) -> Result<(), CredentialsError> {
        let mut added = Vec::new();
        for (key, entry) in entries {
            if entry.is_empty() {
                continue;
            }
            let credential = entry.credential(&key, origin)?;
            added.extend(Key::parse(&key).map(|key| (key, credential)));
        }
        self.entries.extend(added);
        // The more exact key is tried first; of one key, the one that was added first.
        self.entries.sort_by(|(one, _), (other, _)| other.cmp(one));
        Ok(())
    }

    /// Has the credentials of `fallback` tried after these.
    #[must_use]
    pub fn or(mut self, fallback: Self) -> Self {
        self.fallback = Some(Box::new(fallback));
        self
    }

    /// The credentials for a repository, best first.
    ///
    /// Spec: as kubelet's keyring: keys are globs of host names with a prefix of a path; where none matches an image of
    /// Docker Hub, those of `index.docker.io` count.
    #[must_use]
    pub fn lookup(&self, registry: &str, repository: &str) -> Vec<Credential> {
        let matching = |wanted: &dyn Fn(&Key) -> bool| -> Vec<Credential> {
            let found = self.entries.iter().filter(|(key, _)| wanted(key));
            found.map(|(_, credential)| credential.clone()).collect()
        };
        let mut found = matching(&|key| key.matches(registry, repository));
        if found.is_empty() && registry == "docker.io" {
            found = matching(&Key::is_docker_hub);
        }
        if let Some(fallback) = &self.fallback {
            found.extend(fallback.lookup(registry, repository));
        }
        found
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CredentialsError> {
    if bytes.len() > MAX_FILE {
        return Err(CredentialsError::TooLarge);
    }
    // The error names a place, and a type at most; values it would show are strings of the wrong type.
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        CredentialsError::Malformed(format!("line {line} column {column}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(files: &[&str]) -> Keyring {
        let mut keyring = Keyring::default();
        for file in files {
            let origin = Origin::Source("s".to_owned());
            keyring.add_config_json(file.as_bytes(), &origin).unwrap();
        }
        keyring
    }

    fn users(keyring: &Keyring, registry: &str, repository: &str) -> Vec<String> {
        let found = keyring.lookup(registry, repository).into_iter();
        found.map(|credential| credential.username).collect()
    }

    #[test]
    fn both_forms_and_all_ways_to_say_a_password_are_read() {
        // "dTpwOnc=" is "u:p:w".
        let cases = [
            (r#"{"username":"u","password":"p:w"}"#, "p:w"),
            (r#"{"auth":"dTpwOnc="}"#, "p:w"),
            (r#"{"auth":"dTpwOnc"}"#, "p:w"),
            (
                r#"{"username":"x","password":"y","auth":"dTpwOnc="}"#,
                "p:w",
            ),
        ];
        for (entry, password) in cases {
            let mut both = Keyring::default();
            let new = format!(r#"{{"auths":{{"r.io":{entry}}},"credsStore":"x"}}"#);
            both.add_config_json(new.as_bytes(), &Origin::Machine)
                .unwrap();
            let old = format!(r#"{{"r.io":{entry}}}"#);
            both.add_dockercfg(old.as_bytes(), &Origin::Machine)
                .unwrap();
            let found = both.lookup("r.io", "a");
            assert_eq!(found.len(), 2, "{entry}");
            for credential in found {
                assert_eq!(
                    (&*credential.username, &*credential.password),
                    ("u", password)
                );
            }
        }
    }

    #[test]
    fn errors_and_debug_show_no_password() {
        let mut keyring = Keyring::default();
        for file in [
            r#"{"auths":{"r.io":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"r.io":{"auth":"secret!"}}}"#,
            r#"{"auths":{"r.io":"secret"}}"#,
            r#"{"auths":"secret"}"#,
            "secret",
        ] {
            let error = keyring.add_config_json(file.as_bytes(), &Origin::Machine);
            let error = error.unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let file = r#"{"auths":{"r.io":{"username":"u","password":"secret"}}}"#;
        keyring
            .add_config_json(file.as_bytes(), &Origin::Machine)
            .unwrap();
        assert!(!format!("{keyring:?}").contains("secret"));
    }

    #[test]
    fn several_credentials_are_tried_the_most_exact_first() {
        let first = r#"{"auths":{
            "r.io":{"username":"host","password":"p"},
            "https://r.io/team/":{"username":"team","password":"p"},
            "*.r.io":{"username":"glob","password":"p"},
            "empty.io":{}}}"#;
        let second = r#"{"auths":{"r.io":{"username":"later","password":"p"}}}"#;
        let keyring = keyring(&[first, second]);
        assert_eq!(
            users(&keyring, "r.io", "team/app"),
            ["team", "host", "later"]
        );
        assert_eq!(users(&keyring, "r.io", "other/app"), ["host", "later"]);
        assert_eq!(users(&keyring, "a.r.io", "app"), ["glob"]);
        assert_eq!(users(&keyring, "empty.io", "app"), [""; 0]);
        let machine = r#"{"auths":{"r.io":{"username":"machine","password":"p"}}}"#;
        let mut fallback = Keyring::default();
        fallback
            .add_config_json(machine.as_bytes(), &Origin::Machine)
            .unwrap();
        let both = keyring.or(fallback);
        assert_eq!(users(&both, "r.io", "a"), ["host", "later", "machine"]);
    }

    #[test]
    fn docker_hub_is_known_by_its_old_name() {
        let file = r#"{"auths":{"https://index.docker.io/v1/":{"username":"u","password":"p"}}}"#;
        let keyring = keyring(&[file]);
        assert_eq!(users(&keyring, "docker.io", "library/nginx"), ["u"]);
        assert_eq!(users(&keyring, "quay.io", "library/nginx"), [""; 0]);
    }
}
