//! Removal of what no manifest needs.
//!
//! 1. A blob that was pushed goes out of its repository when, an hour later, no manifest there is made of it: the push
//!    was given up, or its manifest deleted. A client that asks whether a blob is there has it kept for an hour more.
//! 2. A blob of no repository is removed from the disk.
//! 3. Uploads that nobody goes on with end.
//!
//! Manifests stay until they are deleted, also those without a tag: pods name them by digest.

use std::collections::HashSet;
use std::time::Duration;

use super::error::RegistryError;
use super::{ImageRegistry, Link, Registry};
use crate::content_store::{ContentError, Swept};
use crate::manifest::Descriptor;

/// When what nobody needs is removed.
#[derive(Clone, Copy, Debug)]
pub struct CollectionPolicy {
    /// How often it is looked for.
    pub period: Duration,
    /// How long a blob may wait for its manifest.
    pub grace: Duration,
}

impl Default for CollectionPolicy {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10 * 60),
            grace: Duration::from_secs(60 * 60),
        }
    }
}

impl ImageRegistry {
    /// Removes what nobody needs, from time to time; never ends.
    pub async fn collect_forever(self) {
        let mut ticks = tokio::time::interval(self.0.policy.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.collect().await {
                Ok(swept) if swept.blobs > 0 => {
                    tracing::info!(swept.blobs, swept.bytes, "removed blobs of the registry");
                }
                Ok(_) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "collect blobs of the registry");
                }
            }
        }
    }

    /// Removes what nobody needs.
    ///
    /// # Errors
    /// The content store failed.
    pub async fn collect(&self) -> Result<Swept, ContentError> {
        let registry = &self.0;
        registry.sessions.expire();
        for repository in registry.repositories().await? {
            registry.unlink(&repository).await?;
        }
        let collection = registry.store.collect().await;
        let mut keep = HashSet::new();
        for (name, leaf) in registry.store.all_refs("").await? {
            let found = registry.store.get_ref(&name, &leaf).await?;
            keep.extend(found.map(|link| link.digest));
        }
        collection.sweep(keep, Duration::ZERO).await
    }
}

impl Registry {
    /// Repositories that blobs were pushed to.
    async fn repositories(&self) -> Result<HashSet<String>, ContentError> {
        let links = self.store.all_refs("blobs").await?;
        let names = links.into_iter().filter_map(|(name, _)| {
            let repository = name.strip_prefix("blobs/")?;
            Some(repository.to_owned())
        });
        Ok(names.collect())
    }

    /// Has a repository forget the blobs that have waited too long for a manifest.
    async fn unlink(&self, repository: &str) -> Result<(), ContentError> {
        let name = Link::Blob.name(repository);
        // Nobody puts a manifest between the look at manifests and the removal.
        let _alone = self.gate.write().await;
        let needed = match self.needed_blobs(repository).await {
            Ok(needed) => needed,
            Err(RegistryError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(repository, %error, "read the manifests of a repository");
                return Ok(());
            }
        };
        for leaf in self.store.list_refs(&name).await? {
            let Some(link) = self.store.get_ref(&name, &leaf).await? else {
                continue;
            };
            let age = self.store.ref_age(&name, &leaf).await?;
            if !needed.contains_key(&link.digest) && age >= self.policy.grace {
                self.store.remove_ref(&name, &leaf).await?;
            }
        }
        Ok(())
    }

    /// Whoever asks for a blob is about to put a manifest with it: it waits anew.
    pub(super) async fn keep_alive(
        &self,
        repository: &str,
        descriptor: &Descriptor,
    ) -> Result<(), RegistryError> {
        let (name, leaf) = (Link::Blob.name(repository), super::leaf(&descriptor.digest));
        if self.store.ref_age(&name, &leaf).await? >= self.policy.grace / 2 {
            self.set_link(repository, Link::Blob, descriptor).await?;
        }
        Ok(())
    }
}
