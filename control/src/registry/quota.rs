//! Charging ResourceQuotas in the commit that writes an object: what is used is exact at every revision.
//!
//! A commit that charges a quota holds only while the quota is as it was read, so of several writes that
//! want the same quota at once one wins, and the others start over. In a namespace with quotas, writers of
//! specs therefore take turns: waiting costs less than starting over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::error::ApiError;
use super::strategy::Endpoint;
use super::{Call, Registry, object_meta as meta, parse};
use crate::quota::{Charge, Counted, charge, written};
use crate::store::{Change, Freshness, KeyRange, Operation, Precondition, Snapshot};

const QUOTAS: &str = "resourcequotas";

/// Whose turn it is, by namespace.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn wait(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(namespace.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

impl Registry {
    /// Waits for the turn to write in a namespace that has quotas; to be held until the commit.
    pub(super) async fn quota_turn(
        &self,
        call: &Call<'_>,
    ) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
        if call.namespace.is_empty() || call.options.dry_run {
            return Ok(None);
        }
        let snapshot = self.store.snapshot(Freshness::Latest).await?;
        let quotas = KeyRange::namespace("", QUOTAS, call.namespace);
        if snapshot.range(&quotas, None).next().is_none() {
            return Ok(None);
        }
        drop(snapshot);
        Ok(Some(self.turns.wait(call.namespace).await))
    }

    /// The operations that charge the namespace's quotas for what becomes of an object.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] when a quota would be exceeded.
    pub(super) fn charge_quotas(
        &self,
        call: &Call<'_>,
        endpoint: Endpoint,
        snapshot: &Snapshot,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Vec<Operation>, ApiError> {
        if call.namespace.is_empty() {
            return Ok(Vec::new());
        }
        let info = &call.served.kind.info;
        let counted = |object| Counted {
            group: &info.gvk.group,
            resource: &info.plural,
            object,
        };
        let (old, new) = (old.map(counted), new.map(counted));
        let enforces = matches!(endpoint, Endpoint::Main | Endpoint::Named("resize"));
        let quotas = KeyRange::namespace("", QUOTAS, call.namespace);
        let mut operations = Vec::new();
        for entry in snapshot.range(&quotas, None) {
            // A quota that counts quotas is not charged in the commit that writes it.
            if entry.key == call.key() {
                continue;
            }
            let mut quota = parse(entry)?;
            match charge(&quota, old.as_ref(), new.as_ref(), enforces) {
                Ok(Charge::Nothing) => continue,
                Ok(Charge::Used(used)) => {
                    meta::member_mut(&mut quota, "status").insert("used".into(), written(&used));
                }
                // Written as it is, so that its controller counts anew.
                Ok(Charge::Unknown) => {}
                Err(reason) => {
                    let object = new.as_ref().or(old.as_ref());
                    let name = object.map(|of| meta::name(of.object)).unwrap_or_default();
                    return Err(ApiError::Forbidden {
                        target: call.target_of(name),
                        reason,
                        cause: None,
                    });
                }
            }
            let served = self.find("", "v1", QUOTAS).ok_or(ApiError::NoSuchPath)?;
            let of_quota = Call { served, ..*call };
            operations.push(Operation {
                key: entry.key.clone(),
                precondition: Precondition::At(entry.revision),
                change: Change::Put(self.encode(&of_quota, &quota)?),
            });
        }
        Ok(operations)
    }
}
