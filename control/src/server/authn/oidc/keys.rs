//! The keys of an issuer, fetched where its discovery document says.
//!
//! Keys are fetched when a token names one that is not known, and anew once they are an hour old. However many tokens
//! come with keys that nobody knows, the issuer is asked at most every ten seconds, by one request at a time. While it
//! cannot be reached the known keys count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::outbound::Outbound;
use crate::pki::jwt::{Jwt, PublicKey, is_signed};

/// The issuer is asked no more often than this.
const SHORTEST: Duration = Duration::from_secs(10);
/// Keys are asked for again when they are this old.
const OLDEST: Duration = Duration::from_secs(3600);

/// The keys of one issuer.
pub(super) struct RemoteKeys {
    issuer: String,
    discovery: String,
    client: Outbound,
    known: ArcSwap<Known>,
    /// When the issuer was asked last; held while it is asked.
    asked: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    keys: Vec<PublicKey>,
    since: Option<Instant>,
}

/// What is read of the discovery document.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl RemoteKeys {
    pub(super) fn new(issuer: String, discovery: String, client: Outbound) -> Self {
        Self {
            issuer,
            discovery,
            client,
            known: ArcSwap::default(),
            asked: Mutex::default(),
        }
    }

    /// Whether the issuer has signed the token.
    pub(super) async fn have_signed(&self, token: &Jwt<'_>) -> bool {
        let known = self.known.load_full();
        let is_old = known.since.is_none_or(|since| since.elapsed() > OLDEST);
        if !is_old && is_signed(token, &known.keys) {
            return true;
        }
        self.refresh().await;
        is_signed(token, &self.known.load().keys)
    }

    /// Asks for the keys unless that was done just now.
    pub(super) async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < SHORTEST) {
            return;
        }
        let answer = self.fetch().await;
        *asked = Some(Instant::now());
        match answer {
            Ok(keys) => {
                let since = *asked;
                self.known.store(Arc::new(Known { keys, since }));
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, error, "fetch the issuer's keys");
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let document = self.client.get(&self.discovery).await?;
        let document: Discovery = serde_json::from_slice(&document)
            .map_err(|error| format!("{}: {error}", self.discovery))?;
        if document.issuer != self.issuer {
            return Err(format!(
                "{} is the document of the issuer {:?}",
                self.discovery, document.issuer
            ));
        }
        if !document.jwks_uri.starts_with("https://") {
            return Err(format!("jwks_uri {:?} is not https", document.jwks_uri));
        }
        let set = self.client.get(&document.jwks_uri).await?;
        PublicKey::set(&set).map_err(|_| format!("{} is no key set", document.jwks_uri))
    }
}
