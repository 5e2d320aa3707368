//! The registry: objects to records and back, the same for all kinds.
//!
//! A verb arrives here as a [`Call`] (kind, namespace, name, user, options) and a JSON value that the
//! server has decoded and checked. The registry fills in metadata and defaults, asks the kind's
//! [`Strategy`] and the admission plugins, records field managers, encodes once and commits. It knows
//! nothing of HTTP; strategies know nothing of the store.
//!
//! ```text
//! create: metadata → defaults → prepare → admit → allocate → validate → managers → charge quotas →
//!         encode → commit
//! update: read → change → carry metadata, split spec and status → the same steps → commit at the
//!         revision read, or start again
//! delete: preconditions → finalizers and grace → mark, or remove
//! ```

pub mod create;
pub mod delete;
pub mod error;
pub mod field_error;
pub mod kinds;
pub mod list;
pub mod managers;
pub mod object_meta;
mod quota;
pub mod strategy;
pub mod update;
pub mod validation;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::{GroupVersionKind, ResourceInfo};
use windlass_api::schema::{Schema, TypeRef};

use crate::admission::{AdmissionConfiguration, Attributes, Remarks};
use crate::identity::UserInfo;
use crate::rbac::Rbac;
use crate::store::{
    Change, Entry, Freshness, KeyRange, ObjectKey, Operation, Pairs, Precondition, Record,
    Snapshot, Store,
};
use error::{ApiError, Target};
use strategy::{Conversion, Endpoint, Kind};

/// What is handed out from, cluster-wide.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Network of Service addresses.
    pub service_network: (Ipv4Addr, u8),
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            service_network: (Ipv4Addr::new(10, 96, 0, 0), 12),
            node_ports: 30000..=32767,
        }
    }
}

/// A kind with its type in the schema.
#[derive(Debug)]
pub struct Served {
    /// The row of the table.
    pub kind: Kind,
    /// Type of the objects.
    pub ty: TypeRef,
    /// Where in the table the kind is that the objects are stored as; its own place for most.
    stored: usize,
}

impl Served {
    /// Whether objects of the kind are stored under its own name: it is neither computed nor another
    /// version of a kind that is.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !self.kind.computed && self.kind.conversion.is_none()
    }
}

/// Objects of every served kind over a store.
pub struct Registry {
    store: Arc<dyn Store>,
    served: Vec<Served>,
    by_path: HashMap<(String, String, String), usize>,
    schema: &'static Schema,
    pools: Pools,
    turns: quota::Turns,
    rbac: tokio::sync::OnceCell<Rbac>,
    admission: AdmissionConfiguration,
}

/// Who asks, and how the write is to be treated.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The user.
    pub user: UserInfo,
    /// Field manager: what the client names, or the first word of its user agent.
    pub manager: String,
    /// Run everything but the commit.
    pub dry_run: bool,
    /// The form in which the client writes the object, if it is not the stored one.
    pub form: Option<&'static Conversion>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The kind.
    pub served: &'a Served,
    /// Namespace, empty for cluster scope.
    pub namespace: &'a str,
    /// Name, empty when the request names none.
    pub name: &'a str,
    /// The rest.
    pub options: &'a WriteOptions,
}

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as JSON.
    pub bytes: Bytes,
    /// Whether the write created it.
    pub created: bool,
    /// What to tell the client and the audit log.
    pub remarks: Remarks,
}

/// A kind that cannot be served: it is not in the schema, or what it is stored as is not served.
#[derive(Debug, thiserror::Error)]
#[error("kind {0:?} is not in the schema or the table of kinds")]
pub struct NotInSchema(GroupVersionKind);

impl Registry {
    /// Serves `kinds` from `store`.
    ///
    /// # Errors
    /// When a kind has no type in the schema.
    pub fn new(
        store: Arc<dyn Store>,
        kinds: impl IntoIterator<Item = Kind>,
        pools: Pools,
        admission: AdmissionConfiguration,
    ) -> Result<Self, NotInSchema> {
        let schema = Schema::builtin();
        let mut served: Vec<Served> = Vec::new();
        let mut by_path = HashMap::new();
        for kind in kinds {
            let ResourceInfo { gvk, plural, .. } = &kind.info;
            let ty = schema.kind(gvk).ok_or_else(|| NotInSchema(gvk.clone()))?;
            let path = (
                gvk.group.to_string(),
                gvk.version.to_string(),
                plural.to_string(),
            );
            let stored = served.len();
            by_path.insert(path, stored);
            served.push(Served { kind, ty, stored });
        }
        find_stored(&mut served)?;
        Ok(Self {
            store,
            served,
            by_path,
            schema,
            pools,
            turns: quota::Turns::default(),
            rbac: tokio::sync::OnceCell::new(),
            admission,
        })
    }

    /// Every served kind, in the order of the table.
    #[must_use]
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// The kind behind a path.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Served> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.served.get(*self.by_path.get(&path)?)
    }

    /// The kind as which objects of `served` are stored; `served` itself for most.
    #[must_use]
    pub fn stored<'a>(&'a self, served: &'a Served) -> &'a Served {
        self.served.get(served.stored).unwrap_or(served)
    }

    /// The schema of all kinds.
    #[must_use]
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Who may do what by the roles and bindings that are stored.
    ///
    /// # Errors
    /// What the store says.
    pub async fn rbac(&self) -> Result<&Rbac, ApiError> {
        let open = || Rbac::open(&*self.store);
        Ok(self.rbac.get_or_try_init(open).await?)
    }

    /// One object.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], or what the store says.
    pub async fn get(&self, call: &Call<'_>) -> Result<Arc<Entry>, ApiError> {
        let snapshot = self.store.snapshot(Freshness::Latest).await?;
        call.find(&snapshot).map(Arc::clone)
    }

    fn admit(
        &self,
        call: &Call<'_>,
        endpoint: Endpoint,
        snapshot: &Snapshot,
        old: Option<&Value>,
        object: &mut Value,
    ) -> Result<Remarks, ApiError> {
        let attributes = Attributes {
            call,
            endpoint,
            snapshot,
            old,
            rbac: self.rbac.get(),
            configuration: &self.admission,
        };
        for plugin in self.admission.plugins() {
            plugin.admit(&attributes, object)?;
        }
        let mut remarks = Remarks::default();
        for plugin in self.admission.plugins() {
            plugin.remark(&attributes, object, &mut remarks);
        }
        Ok(remarks)
    }

    fn encode(&self, call: &Call<'_>, object: &Value) -> Result<Record, ApiError> {
        let kind = &call.served.kind;
        let own = kind.strategy.selectable_fields().iter();
        let fields = own.map(|field| (*field, kind.strategy.selectable_field(object, field)));
        let meta = [
            ("metadata.name", object_meta::name(object).to_owned()),
            (
                "metadata.namespace",
                object_meta::namespace(object).to_owned(),
            ),
        ];
        let fields: Pairs = fields.chain(meta).collect();
        Record::encode(object, fields).map_err(|error| ApiError::Internal(error.to_string()))
    }
}

/// Settles for every kind that is served in another form where the stored one is.
fn find_stored(served: &mut [Served]) -> Result<(), NotInSchema> {
    for at in 0..served.len() {
        let Some(conversion) = served.get(at).and_then(|served| served.kind.conversion) else {
            continue;
        };
        let stored = served
            .iter()
            .position(|served| served.kind.info.gvk == conversion.stored)
            .ok_or_else(|| NotInSchema(conversion.stored.clone()))?;
        if let Some(served) = served.get_mut(at) {
            served.stored = stored;
        }
    }
    Ok(())
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> {
    /// Where the object lives.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        self.key_of(self.name)
    }

    /// Where an object of this kind and namespace called `name` lives.
    #[must_use]
    pub fn key_of(&self, name: &str) -> ObjectKey {
        let info = &self.served.kind.info;
        ObjectKey::new(&info.gvk.group, &info.plural, self.namespace, name)
    }

    /// All objects of the kind, in the namespace if there is one.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        let info = &self.served.kind.info;
        if self.namespace.is_empty() {
            KeyRange::resource(&info.gvk.group, &info.plural)
        } else {
            KeyRange::namespace(&info.gvk.group, &info.plural, self.namespace)
        }
    }

    /// What errors say the request was about.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target_of(self.name)
    }

    pub(crate) fn target_of(&self, name: &str) -> Target {
        let info = &self.served.kind.info;
        Target {
            group: info.gvk.group.to_string(),
            resource: info.plural.to_string(),
            kind: info.gvk.kind.to_string(),
            name: name.to_owned(),
        }
    }

    fn find<'s>(&self, snapshot: &'s Snapshot) -> Result<&'s Arc<Entry>, ApiError> {
        snapshot
            .get(&self.key())
            .ok_or_else(|| ApiError::NotFound(self.target()))
    }
}

/// The object an entry holds.
///
/// # Errors
/// When stored bytes are not JSON, which only a damaged data file brings about.
pub fn parse(entry: &Entry) -> Result<Value, ApiError> {
    serde_json::from_slice(&entry.bytes)
        .map_err(|error| ApiError::Internal(format!("stored object {}: {error}", entry.key)))
}

/// The operations that move claims from what `old` holds to what `new` holds.
fn claim_operations(
    call: &Call<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<Vec<Operation>, ApiError> {
    let strategy = call.served.kind.strategy;
    let held = old
        .map(|object| strategy.claims(object))
        .unwrap_or_default();
    let wanted = new
        .map(|object| strategy.claims(object))
        .unwrap_or_default();
    let released = held
        .iter()
        .filter(|claim| wanted.iter().all(|w| w.what != claim.what));
    let taken = wanted
        .iter()
        .filter(|claim| held.iter().all(|h| h.what != claim.what));
    let mut operations: Vec<_> = released
        .map(|claim| Operation {
            key: claim_key(&claim.what),
            precondition: Precondition::Any,
            change: Change::Delete,
        })
        .collect();
    for claim in taken {
        let holder = new.unwrap_or(&Value::Null);
        operations.push(Operation {
            key: claim_key(&claim.what),
            precondition: Precondition::Absent,
            change: Change::Put(claim_record(call, holder)?),
        });
    }
    Ok(operations)
}

/// Claims live beside objects, under a resource that no path reaches.
fn claim_key(what: &str) -> ObjectKey {
    ObjectKey::new(
        "internal.windlass.dev",
        "claims",
        "",
        &what.replace('/', ":"),
    )
}

fn claim_record(call: &Call<'_>, holder: &Value) -> Result<Record, ApiError> {
    let key = call.key_of(object_meta::name(holder));
    let claim = serde_json::json!({"metadata": {}, "holder": key.as_str()});
    Record::encode(&claim, Pairs::default()).map_err(|error| ApiError::Internal(error.to_string()))
}

/// How long ago an object was created, as tables show it.
#[must_use]
pub fn age(object: &Value, now: Timestamp) -> String {
    since(object_meta::text(object, "creationTimestamp"), now)
}

/// How long ago the time `then` was, as tables show it.
#[must_use]
pub fn since(then: &str, now: Timestamp) -> String {
    match then.parse::<Timestamp>() {
        Ok(then) => human_duration(now.duration_since(then).as_secs()),
        Err(_) => "<unknown>".into(),
    }
}

/// A duration in at most two units, as kubectl prints it.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |large: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        i64::MIN..=-1 => "<invalid>".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        let cases = [
            (-1, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (700, "11m"),
            (10_900, "3h1m"),
            (40_000, "11h"),
            (180_000, "2d2h"),
            (1_000_000, "11d"),
            (100_000_000, "3y62d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
