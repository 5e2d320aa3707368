//! Creating an object.

use rand::seq::IndexedRandom;
use serde_json::Value;
use windlass_api::time::format_seconds;

use super::error::ApiError;
use super::strategy::Endpoint;
use super::{Call, Registry, Written, claim_operations, managers, object_meta as meta, validation};
use crate::admission::Remarks;
use crate::store::{Change, Freshness, Operation, Precondition, Snapshot, StoreError};

/// How often a generated name or an allocated address may turn out to be taken, or a quota changed.
const ATTEMPTS: usize = 64;

/// Upstream's alphabet of generated names: no vowels, no look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest name that still has room for the suffix.
const MAX_PREFIX: usize = 58;

impl Registry {
    /// Creates `object`, decoded and checked, under `call`; the name may come from `generateName`.
    ///
    /// # Errors
    /// Every reason an API server gives for not creating an object.
    pub async fn create(&self, call: &Call<'_>, object: Value) -> Result<Written, ApiError> {
        self.create_managed(call, object, false).await
    }

    /// The same for an object whose field managers are settled already, as server-side apply does.
    pub(super) async fn create_managed(
        &self,
        call: &Call<'_>,
        mut object: Value,
        manages_fields: bool,
    ) -> Result<Written, ApiError> {
        fill_metadata(call, &mut object)?;
        call.served.kind.strategy.set_defaults(&mut object);
        let _turn = self.quota_turn(call).await?;
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.snapshot(Freshness::Latest).await?;
            let (candidate, remarks) =
                self.prepare(call, &snapshot, object.clone(), manages_fields)?;
            let name = meta::name(&candidate);
            let charges =
                self.charge_quotas(call, Endpoint::Main, &snapshot, None, Some(&candidate))?;
            if call.options.dry_run {
                return dry_run(call, &snapshot, &candidate, remarks);
            }
            let put = Operation {
                key: call.key_of(name),
                precondition: Precondition::Absent,
                change: Change::Put(self.encode(call, &candidate)?),
            };
            let mut operations = vec![put];
            operations.extend(claim_operations(call, None, Some(&candidate))?);
            operations.extend(charges);
            match self.store.commit(operations).await {
                Ok(committed) => {
                    let bytes = committed.entries.first().map(|entry| entry.bytes.clone());
                    let bytes = bytes.unwrap_or_default();
                    return Ok(Written {
                        bytes,
                        created: true,
                        remarks,
                    });
                }
                Err(StoreError::PreconditionFailed { key, .. }) if key == call.key_of(name) => {
                    if !generates_name(&object) {
                        return Err(ApiError::AlreadyExists(call.target_of(name)));
                    }
                }
                // Somebody took an address this attempt had chosen, or a part of a quota: choose again.
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(ApiError::NameExhausted(
            call.target_of(meta::text(&object, "generateName")),
        ))
    }

    /// Everything between the client's object and the commit.
    fn prepare(
        &self,
        call: &Call<'_>,
        snapshot: &Snapshot,
        mut object: Value,
        manages_fields: bool,
    ) -> Result<(Value, Remarks), ApiError> {
        let strategy = call.served.kind.strategy;
        if generates_name(&object) {
            let prefix: String = meta::text(&object, "generateName")
                .chars()
                .take(MAX_PREFIX)
                .collect();
            meta::set(&mut object, "name", format!("{prefix}{}", suffix()));
        }
        let mut remarks = self.admit(call, Endpoint::Main, snapshot, None, &mut object)?;
        // After the name is made, which a Job's pods carry, and after admission gave a pod the requests
        // that its class of service follows from.
        strategy.prepare_for_create(&mut object, &call.options.user);
        let taken = |claim: &str| snapshot.get(&super::claim_key(claim)).is_some();
        let mut errors = validation::metadata(call, &object);
        if let Err(more) = strategy.allocate(None, &mut object, &self.pools, &taken) {
            errors.extend(more);
        }
        errors.extend(strategy.validate(&object));
        errors.extend(strategy.validate_create(&object));
        if let Some(form) = call.options.form {
            errors.extend((form.refuses)(&object, None));
        }
        let asked = strategy
            .claims(&object)
            .into_iter()
            .filter(|claim| taken(&claim.what));
        errors.extend(asked.map(|claim| claim.taken));
        if !errors.is_empty() {
            let target = call.target_of(meta::name(&object));
            return Err(ApiError::Invalid { target, errors });
        }
        if !manages_fields {
            managers::record(self.schema, call, Endpoint::Main, None, &mut object);
        }
        remarks.warnings.extend(call.served.kind.warnings(&object));
        Ok((object, remarks))
    }
}

fn dry_run(
    call: &Call<'_>,
    snapshot: &Snapshot,
    object: &Value,
    remarks: Remarks,
) -> Result<Written, ApiError> {
    let name = meta::name(object);
    if snapshot.get(&call.key_of(name)).is_some() {
        return Err(ApiError::AlreadyExists(call.target_of(name)));
    }
    let bytes = serde_json::to_vec(object).map_err(|e| ApiError::Internal(e.to_string()))?;
    Ok(Written {
        bytes: bytes.into(),
        created: true,
        remarks,
    })
}

fn generates_name(object: &Value) -> bool {
    meta::name(object).is_empty() && !meta::text(object, "generateName").is_empty()
}

/// Five characters that make a generated name unique enough to try.
#[must_use]
pub fn suffix() -> String {
    let mut rng = rand::rng();
    (0..5)
        .filter_map(|_| ALPHABET.choose(&mut rng))
        .map(|byte| char::from(*byte))
        .collect()
}

/// What the server alone decides about a new object's metadata.
fn fill_metadata(call: &Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    if !meta::text(object, "resourceVersion").is_empty() {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::BadRequest(text.into()));
    }
    place(call, object)?;
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        meta::remove(object, field);
    }
    meta::set(object, "uid", uuid::Uuid::new_v4().to_string());
    meta::set(
        object,
        "creationTimestamp",
        format_seconds(jiff::Timestamp::now()),
    );
    if call.served.kind.strategy.counts_generations() {
        meta::set(object, "generation", 1);
    } else {
        meta::remove(object, "generation");
    }
    Ok(())
}

/// Puts the object into the namespace and under the name of the path, or says they differ.
pub(super) fn place(call: &Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    let namespace = meta::namespace(object);
    if !call.served.kind.info.namespaced {
        meta::remove(object, "namespace");
    } else if namespace.is_empty() {
        meta::set(object, "namespace", call.namespace);
    } else if namespace != call.namespace {
        let text =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::BadRequest(text.into()));
    }
    let name = meta::name(object);
    if name.is_empty() && !call.name.is_empty() {
        meta::set(object, "name", call.name);
    } else if !call.name.is_empty() && name != call.name {
        let text = format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        );
        return Err(ApiError::BadRequest(text));
    }
    Ok(())
}
