//! Changing an object: the one read-modify-write of the API.
//!
//! PUT, every kind of PATCH, and the subresources that write the object hand in a *change*, a function
//! from the current object to the wanted one. It may run several times: whenever somebody else writes
//! in between and the client did not insist on a resourceVersion, the whole chain starts over from the
//! newer object.

use serde_json::Value;

use super::error::ApiError;
use super::field_error::FieldError;
use super::strategy::Endpoint;
use super::{
    Call, Registry, Written, claim_operations, create, managers, object_meta as meta, parse,
    validation,
};
use crate::admission::Remarks;
use crate::store::{
    Change as StoreChange, Entry, Freshness, Operation, Precondition, Snapshot, StoreError,
};

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Attempts before a change that others keep overtaking gives up.
const ATTEMPTS: usize = 64;

/// A change: the wanted object from the current one; `None` stands for an object that is not there.
pub type ChangeFn<'a> = dyn Fn(Option<&Value>) -> Result<Value, ApiError> + Send + Sync + 'a;

/// How a change is to be carried out.
pub struct Update<'a> {
    /// The part of the object that may change.
    pub endpoint: Endpoint,
    /// The change.
    pub change: &'a ChangeFn<'a>,
    /// Whether the object may be created.
    pub may_create: bool,
    /// Whether the change has already settled who manages which field (server-side apply does).
    pub manages_fields: bool,
}

/// What became of one attempt.
enum Attempt {
    Done(Written),
    Overtaken,
}

impl Registry {
    /// Carries out `update` on the object of `call`.
    ///
    /// # Errors
    /// Every reason an API server gives for not updating an object.
    pub async fn update(&self, call: &Call<'_>, update: &Update<'_>) -> Result<Written, ApiError> {
        let mut turn = match update.endpoint {
            // Who writes a status changes what is used only at the end of a pod's life.
            Endpoint::Status => None,
            _ => self.quota_turn(call).await?,
        };
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.snapshot(Freshness::Latest).await?;
            let Some(entry) = snapshot.get(&call.key()) else {
                if !update.may_create {
                    return Err(ApiError::NotFound(call.target()));
                }
                // Creating takes a turn of its own.
                drop(turn.take());
                match self
                    .create_managed(call, (update.change)(None)?, update.manages_fields)
                    .await
                {
                    // Somebody created it in between: change theirs.
                    Err(ApiError::AlreadyExists(_)) => continue,
                    other => return other,
                }
            };
            if let Attempt::Done(written) = self.attempt(call, update, &snapshot, entry).await? {
                return Ok(written);
            }
        }
        Err(conflict(call, MODIFIED))
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        update: &Update<'_>,
        snapshot: &Snapshot,
        entry: &Entry,
    ) -> Result<Attempt, ApiError> {
        let old = parse(entry)?;
        let mut new = (update.change)(Some(&old))?;
        check_identity(call, entry, &old, &new)?;
        let remarks = self.settle(call, update, snapshot, &old, &mut new)?;
        let done = |bytes| {
            Attempt::Done(Written {
                bytes,
                created: false,
                remarks,
            })
        };
        crate::patch::managed_fields::restore_times(&old, &mut new);
        if new == old {
            return Ok(done(entry.bytes.clone()));
        }
        let finished = super::delete::is_finished(call, &new);
        let left = (!finished).then_some(&new);
        let charges = self.charge_quotas(call, update.endpoint, snapshot, Some(&old), left)?;
        if call.options.dry_run {
            let bytes = serde_json::to_vec(&new).map_err(|e| ApiError::Internal(e.to_string()))?;
            return Ok(done(bytes.into()));
        }
        let mut operations = self.operations(call, entry, &old, left)?;
        operations.extend(charges);
        match self.store.commit(operations).await {
            Ok(committed) => {
                let written = committed.entries.first();
                Ok(done(
                    written.map(|entry| entry.bytes.clone()).unwrap_or_default(),
                ))
            }
            Err(StoreError::PreconditionFailed { .. }) => Ok(Attempt::Overtaken),
            Err(other) => Err(other.into()),
        }
    }

    /// Turns the wanted object into the one to store, and checks it; answers what is to be said of it.
    fn settle(
        &self,
        call: &Call<'_>,
        update: &Update<'_>,
        snapshot: &Snapshot,
        old: &Value,
        new: &mut Value,
    ) -> Result<Remarks, ApiError> {
        let strategy = call.served.kind.strategy;
        let endpoint = update.endpoint;
        create::place(call, new)?;
        for field in SERVER_OWNED {
            meta::copy(old, new, field);
        }
        split(old, new, endpoint, strategy.has_status());
        strategy.set_defaults(new);
        strategy.prepare_for_update(old, new, endpoint);
        // Kubernetes counts what clients ask for, not where the scheduler puts it.
        let counts = strategy.counts_generations() && endpoint != Endpoint::Named("binding");
        if counts && spec_changed(old, new) {
            meta::set(new, "generation", meta::generation(old) + 1);
        }
        let mut remarks = self.admit(call, endpoint, snapshot, Some(old), new)?;
        let taken = |claim: &str| snapshot.get(&super::claim_key(claim)).is_some();
        let mut errors = validation::metadata_update(call, old, new);
        if let Err(more) = strategy.allocate(Some(old), new, &self.pools, &taken) {
            errors.extend(more);
        }
        if endpoint != Endpoint::Status {
            errors.extend(strategy.validate(new));
        }
        errors.extend(strategy.validate_update(old, new, endpoint));
        if let Some(form) = call.options.form {
            errors.extend((form.refuses)(new, Some(old)));
        }
        let held = strategy.claims(old);
        let asked = strategy.claims(new).into_iter();
        let refused = asked.filter(|c| taken(&c.what) && held.iter().all(|h| h.what != c.what));
        errors.extend(refused.map(|claim| claim.taken));
        if !errors.is_empty() {
            return Err(ApiError::Invalid {
                target: call.target(),
                errors,
            });
        }
        if !update.manages_fields {
            managers::record(self.schema, call, endpoint, Some(old), new);
        }
        // Who writes a status follows the object and did not ask for it.
        if endpoint != Endpoint::Status {
            remarks.warnings.extend(call.served.kind.warnings(new));
        }
        Ok(remarks)
    }

    /// The commit of a changed object: a write, or the removal that its last finalizer held up.
    fn operations(
        &self,
        call: &Call<'_>,
        entry: &Entry,
        old: &Value,
        new: Option<&Value>,
    ) -> Result<Vec<Operation>, ApiError> {
        let change = match new {
            Some(new) => StoreChange::Put(self.encode(call, new)?),
            None => StoreChange::Delete,
        };
        let precondition = Precondition::At(entry.revision);
        let mut operations = vec![Operation {
            key: call.key(),
            precondition,
            change,
        }];
        operations.extend(claim_operations(call, Some(old), new)?);
        Ok(operations)
    }
}

/// Metadata that no client changes.
const SERVER_OWNED: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "resourceVersion",
];

/// An error if the client means another object, or another revision of it, than there is.
///
/// A change that started from the current object carries its revision along and passes; one that names
/// a revision fails here when it is overtaken, on its next attempt.
fn check_identity(
    call: &Call<'_>,
    entry: &Entry,
    old: &Value,
    new: &Value,
) -> Result<(), ApiError> {
    let (asked, found) = (meta::uid(new), meta::uid(old));
    if !asked.is_empty() && asked != found {
        let reason = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        return Err(conflict(call, &reason));
    }
    let version = meta::text(new, "resourceVersion");
    let names_none = version.is_empty() || version == "0";
    if names_none && !call.served.kind.strategy.updates_unconditionally() {
        let detail = "must be specified for an update";
        let error = FieldError::invalid("metadata.resourceVersion", 0, detail);
        return Err(ApiError::Invalid {
            target: call.target(),
            errors: vec![error],
        });
    }
    if names_none || version.parse() == Ok(entry.revision.0) {
        return Ok(());
    }
    Err(conflict(call, MODIFIED))
}

pub(crate) fn conflict(call: &Call<'_>, reason: &str) -> ApiError {
    ApiError::Conflict {
        target: call.target(),
        reason: reason.to_owned(),
    }
}

/// Keeps the part of the object that the endpoint does not write.
fn split(old: &Value, new: &mut Value, endpoint: Endpoint, has_status: bool) {
    match endpoint {
        Endpoint::Main if has_status => meta::copy_member(old, new, "status"),
        Endpoint::Main => {}
        Endpoint::Status => {
            let status = new.get("status").cloned();
            let metadata = new.get("metadata").cloned();
            *new = old.clone();
            for (field, value) in [("metadata", metadata), ("status", status)] {
                if let (Some(value), Some(object)) = (value, new.as_object_mut()) {
                    object.insert(field.to_owned(), value);
                }
            }
        }
        // A named subresource says itself, in prepare_for_update, what it keeps.
        Endpoint::Named(_) => {}
    }
}

/// Whether anything but metadata and status differs.
fn spec_changed(old: &Value, new: &Value) -> bool {
    if old.get("spec").is_some() {
        return old.get("spec") != new.get("spec");
    }
    !counted(old).eq(counted(new))
}

/// The members whose changes `metadata.generation` counts.
fn counted(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let members = object.as_object().into_iter().flatten();
    members.filter(|(key, _)| *key != "metadata" && *key != "status")
}
