//! Deleting an object: at once, or by marking it until its finalizers and its grace period are done.
//!
//! Invariant: an object with finalizers is never removed by a DELETE, only by the update that takes
//! the last finalizer away (`update.rs` asks [`is_finished`]).

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use windlass_api::time::format_seconds;

use super::error::ApiError;
use super::strategy::Endpoint;
use super::{Call, Registry, claim_operations, object_meta as meta, parse, update};
use crate::store::{Change, Entry, Freshness, Operation, Precondition, Snapshot, StoreError};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The body of a DELETE.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// Seconds the object may go on living; the kind's default if absent.
    pub grace_period_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<String>,
    /// The old form of `Orphan` and `Background`.
    pub orphan_dependents: Option<bool>,
    /// What the object must be.
    pub preconditions: Option<Preconditions>,
    /// `["All"]` for a dry run.
    pub dry_run: Vec<String>,
}

/// What the object must be for its deletion to go on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its resourceVersion.
    pub resource_version: Option<String>,
}

/// What a deletion left behind.
#[derive(Debug)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Value),
    /// The object is marked; its current bytes.
    Marked(bytes::Bytes),
}

enum Next {
    Remove,
    Mark(Value),
    /// It is marked already and the request asks for nothing sooner.
    Nothing,
}

impl Registry {
    /// Deletes the object of `call`.
    ///
    /// # Errors
    /// Every reason an API server gives for not deleting an object.
    pub async fn delete(
        &self,
        call: &Call<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        validate(call, options)?;
        loop {
            let snapshot = self.store.snapshot(Freshness::Latest).await?;
            let entry = call.find(&snapshot)?;
            match self.delete_once(call, options, &snapshot, entry).await {
                // Overtaken by a write: look again. Every round means somebody else made progress.
                Err(Overtaken::ByWrite) => {}
                Err(Overtaken::Not(error)) => return Err(error),
                Ok(deleted) => return Ok(deleted),
            }
        }
    }

    async fn delete_once(
        &self,
        call: &Call<'_>,
        options: &DeleteOptions,
        snapshot: &Snapshot,
        entry: &Entry,
    ) -> Result<Deleted, Overtaken> {
        let object = parse(entry)?;
        check_preconditions(call, options, &object)?;
        self.admit(
            call,
            Endpoint::Main,
            snapshot,
            Some(&object),
            &mut Value::Null,
        )?;
        let next = next(call, options, &object);
        let change = match &next {
            Next::Nothing => return Ok(Deleted::Marked(entry.bytes.clone())),
            Next::Mark(marked) => Change::Put(self.encode(call, marked)?),
            Next::Remove => Change::Delete,
        };
        if call.options.dry_run {
            return Ok(Deleted::Gone(object));
        }
        let removes = matches!(next, Next::Remove);
        let precondition = Precondition::At(entry.revision);
        let mut operations = vec![Operation {
            key: call.key(),
            precondition,
            change,
        }];
        if removes {
            operations.extend(claim_operations(call, Some(&object), None)?);
            let endpoint = Endpoint::Main;
            let charges = self.charge_quotas(call, endpoint, snapshot, Some(&object), None)?;
            operations.extend(charges);
        }
        match self.store.commit(operations).await {
            Ok(_) if removes => Ok(Deleted::Gone(object)),
            Ok(committed) => {
                let written = committed.entries.first();
                Ok(Deleted::Marked(
                    written.map(|entry| entry.bytes.clone()).unwrap_or_default(),
                ))
            }
            Err(StoreError::PreconditionFailed { .. }) => Err(Overtaken::ByWrite),
            Err(other) => Err(Overtaken::Not(other.into())),
        }
    }
}

enum Overtaken {
    ByWrite,
    Not(ApiError),
}

impl From<ApiError> for Overtaken {
    fn from(error: ApiError) -> Self {
        Self::Not(error)
    }
}

/// Whether nothing holds a marked object back any more.
pub(super) fn is_finished(call: &Call<'_>, object: &Value) -> bool {
    let grace = meta::get(object, "deletionGracePeriodSeconds").and_then(Value::as_i64);
    meta::is_terminating(object)
        && meta::finalizers(object).is_empty()
        && grace.unwrap_or(0) == 0
        && !call.served.kind.strategy.blocks_deletion(object)
}

fn validate(call: &Call<'_>, options: &DeleteOptions) -> Result<(), ApiError> {
    const POLICIES: [&str; 3] = ["Background", "Foreground", "Orphan"];
    let policy = options.propagation_policy.as_deref();
    if policy.is_some() && options.orphan_dependents.is_some() {
        let text = "orphanDependents and deletionPropagation cannot be both set";
        return Err(ApiError::BadRequest(text.into()));
    }
    if let Some(policy) = policy
        && !POLICIES.contains(&policy)
    {
        let error = super::field_error::FieldError::not_supported(
            "propagationPolicy",
            policy,
            &["Foreground", "Background", "Orphan", "nil"],
        );
        let mut target = call.target();
        target.kind = "DeleteOptions".into();
        return Err(ApiError::Invalid {
            target,
            errors: vec![error],
        });
    }
    Ok(())
}

fn check_preconditions(
    call: &Call<'_>,
    options: &DeleteOptions,
    object: &Value,
) -> Result<(), ApiError> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let checks = [
        ("UID", preconditions.uid.as_deref(), meta::uid(object)),
        (
            "ResourceVersion",
            preconditions.resource_version.as_deref(),
            meta::text(object, "resourceVersion"),
        ),
    ];
    for (what, asked, found) in checks {
        if let Some(asked) = asked
            && asked != found
        {
            let reason = format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
            );
            return Err(update::conflict(call, &reason));
        }
    }
    Ok(())
}

fn next(call: &Call<'_>, options: &DeleteOptions, object: &Value) -> Next {
    let strategy = call.served.kind.strategy;
    let grace = strategy
        .grace_period(object, options.grace_period_seconds)
        .max(0);
    let mut marked = object.clone();
    set_propagation(options, &mut marked);
    let blocked = !meta::finalizers(&marked).is_empty() || strategy.blocks_deletion(&marked);
    if !blocked && grace == 0 {
        return Next::Remove;
    }
    let now = Timestamp::now();
    if !meta::is_terminating(object) {
        mark(&mut marked, now, grace);
        strategy.prepare_for_update(object, &mut marked, Endpoint::Named("deletion"));
    } else if shortens(object, now, grace) {
        // The start of the deletion stays; only its end comes closer.
        meta::set(
            &mut marked,
            "deletionTimestamp",
            format_seconds(
                now.saturating_add(SignedDuration::from_secs(grace))
                    .unwrap_or(now),
            ),
        );
        meta::set(&mut marked, "deletionGracePeriodSeconds", grace);
    }
    if marked == *object {
        Next::Nothing
    } else {
        Next::Mark(marked)
    }
}

fn mark(object: &mut Value, now: Timestamp, grace: i64) {
    let end = now
        .saturating_add(SignedDuration::from_secs(grace))
        .unwrap_or(now);
    meta::set(object, "deletionTimestamp", format_seconds(end));
    meta::set(object, "deletionGracePeriodSeconds", grace);
    let generation = meta::generation(object);
    if generation > 0 {
        meta::set(object, "generation", generation + 1);
    }
}

fn shortens(object: &Value, now: Timestamp, grace: i64) -> bool {
    let granted = meta::get(object, "deletionGracePeriodSeconds").and_then(Value::as_i64);
    let end = meta::text(object, "deletionTimestamp").parse::<Timestamp>();
    grace < granted.unwrap_or(0)
        && end.is_ok_and(|end| now.duration_since(end).as_secs() + grace < 0 || grace == 0)
}

/// Finalizers stand for how dependents are treated; the garbage collector takes them away.
fn set_propagation(options: &DeleteOptions, object: &mut Value) {
    let policy = options.propagation_policy.as_deref();
    let orphans = options.orphan_dependents;
    let (orphan, foreground) = match (policy, orphans) {
        (Some("Orphan"), _) | (None, Some(true)) => (true, false),
        (Some("Foreground"), _) => (false, true),
        (Some(_), _) | (None, Some(false)) => (false, false),
        (None, None) => return,
    };
    for (finalizer, wanted) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        if wanted {
            meta::add_finalizer(object, finalizer);
        } else {
            meta::remove_finalizer(object, finalizer);
        }
    }
}
