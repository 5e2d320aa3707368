//! What a kind says about itself.
//!
//! The registry does everything that is the same for all kinds and asks the kind's [`Strategy`] for the
//! rest. A strategy is pure: it sees objects and returns objects, errors, texts. Every method has the
//! answer of a plain kind (like ConfigMap) as its default, so a kind's file holds what is special.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::{GroupVersionKind, ResourceInfo, SubresourceInfo};

use super::field_error::FieldError;
use crate::identity::UserInfo;

/// A kind the API serves: a row of the table `KINDS`.
#[derive(Clone)]
pub struct Kind {
    /// What discovery shows.
    pub info: ResourceInfo,
    /// What is special about it.
    pub strategy: &'static dyn Strategy,
    /// How its objects are stored, if as another kind's.
    pub conversion: Option<&'static Conversion>,
    /// Whether its objects are answers, computed and never stored (`server/verbs/computed`).
    pub computed: bool,
}

/// Another form of objects that are stored as a kind of another version or group.
///
/// The two kinds share a strategy and differ in what clients send and see. The functions are pure and
/// lose nothing that the other form can say.
#[derive(Debug)]
pub struct Conversion {
    /// The kind that is stored.
    pub stored: GroupVersionKind,
    /// From this form to the stored one.
    pub to_stored: fn(&Value) -> Value,
    /// From the stored form to this one.
    pub from_stored: fn(&Value) -> Value,
    /// What this form refuses besides what the kind does, in an object created or changed through it;
    /// both in the stored form, the second as it was before.
    pub refuses: fn(&Value, Option<&Value>) -> Vec<FieldError>,
    /// Selectable fields by the name they have in this form, each with the stored form's name.
    pub fields: &'static [(&'static str, &'static str)],
}

/// The part of an object that a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// Another subresource that writes the stored object, such as `approval` or `ephemeralcontainers`.
    Named(&'static str),
}

impl Endpoint {
    /// The subresource's path segment, empty for the object itself.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Named(name) => name,
        }
    }
}

/// A column of the kind's table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub kind: &'static str,
    /// 0 for always, more for wide output only.
    pub priority: i32,
    /// What the column shows.
    pub description: &'static str,
}

impl Column {
    /// A column that is always shown.
    #[must_use]
    pub const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind,
            priority: 0,
            description,
        }
    }

    /// A column for wide output.
    #[must_use]
    pub const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind,
            priority: 1,
            description,
        }
    }
}

/// The column every kind begins with.
pub const NAME: Column = Column::new(
    "Name",
    "string",
    "Name must be unique within a namespace and is set when the object is created.",
);

/// Verbs of a subresource `proxy`, which passes every method on.
pub const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

/// The column most kinds end with.
pub const AGE: Column = Column::new(
    "Age",
    "string",
    "How long ago the object was created, by the server's clock.",
);

/// The second column of kinds without a table of their own.
pub const CREATED_AT: Column = Column::new(
    "Created At",
    "date",
    "When the object was created, by the server's clock.",
);

/// Which rule names of the kind follow.
#[derive(Clone, Copy, Debug)]
pub enum NameRule {
    /// Lower-case letters, digits, `-` and `.`.
    Subdomain,
    /// As a subdomain, without dots.
    Label,
    /// As a label, beginning with a letter.
    Rfc1035Label,
    /// Anything that fits one path segment.
    PathSegment,
    /// A name by a rule of the kind's own.
    Other(fn(&str) -> Vec<String>),
}

/// Something in the cluster that at most one object may hold, such as a cluster IP.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// What is claimed, unique over all kinds: `ip/10.96.0.1`.
    pub what: String,
    /// The error of an object that asks for it by name while another holds it.
    pub taken: FieldError,
}

/// Hooks of one kind. `object` is a decoded, checked JSON object of that kind throughout.
pub trait Strategy: Send + Sync + 'static {
    /// Fills in what upstream fills in. Runs on every object before validation, and is idempotent.
    fn set_defaults(&self, _object: &mut Value) {}

    /// Resets what clients may not set on creation, the status above all.
    fn prepare_for_create(&self, object: &mut Value, _user: &UserInfo) {
        if self.has_status()
            && let Some(object) = object.as_object_mut()
        {
            object.shift_remove("status");
        }
    }

    /// All that is wrong with a new object.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// All that is wrong with an object as a new one only; [`Strategy::validate`] runs besides.
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Resets what clients may not change through `endpoint`, beyond the split of spec and status.
    fn prepare_for_update(&self, _old: &Value, _new: &mut Value, _endpoint: Endpoint) {}

    /// All that is wrong with the change; [`Strategy::validate`] runs besides, except for the status.
    fn validate_update(&self, _old: &Value, _new: &Value, _endpoint: Endpoint) -> Vec<FieldError> {
        Vec::new()
    }

    /// Texts the server tells the client, who may go on.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// What has no effect yet: the server warns of it whenever such an object is created or changed, and
    /// the compatibility page says so. `None` when everything the object says is acted upon.
    fn not_enforced(&self) -> Option<&'static str> {
        None
    }

    /// Whether the kind keeps its status apart from its spec.
    fn has_status(&self) -> bool {
        false
    }

    /// Whether `metadata.generation` counts changes of the spec.
    fn counts_generations(&self) -> bool {
        self.has_status()
    }

    /// Whether an update may create the object.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether an update may leave out the resourceVersion.
    fn updates_unconditionally(&self) -> bool {
        true
    }

    /// The rule of names.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// What field selectors can ask for besides `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of a selectable field; empty when absent.
    fn selectable_field(&self, object: &Value, field: &str) -> String {
        let found = field
            .split('.')
            .try_fold(object, |value, key| value.get(key));
        match found {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// Seconds an object may go on living after its deletion; 0 deletes at once.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> i64 {
        0
    }

    /// Finalizers the kind itself gives new objects, outside `metadata.finalizers`.
    fn blocks_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// Chooses what the object must hold alone and does not name; `taken` tells what is held.
    ///
    /// # Errors
    /// When nothing is left.
    fn allocate(
        &self,
        _old: Option<&Value>,
        _object: &mut Value,
        _pools: &super::Pools,
        _taken: &dyn Fn(&str) -> bool,
    ) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    /// What the object holds alone.
    fn claims(&self, _object: &Value) -> Vec<Claim> {
        Vec::new()
    }

    /// Columns of the kind's table.
    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, CREATED_AT];
        COLUMNS
    }

    /// The object's cells, one per column.
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let metadata = |field| Value::from(super::object_meta::text(object, field));
        vec![metadata("name"), metadata("creationTimestamp")]
    }
}

/// The object under the names of its kind.
fn named(mut object: Value, gvk: &GroupVersionKind) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert("kind".into(), gvk.kind.as_ref().into());
        members.insert("apiVersion".into(), gvk.api_version().as_ref().into());
    }
    object
}

const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn texts(texts: &[&'static str]) -> std::borrow::Cow<'static, [std::borrow::Cow<'static, str>]> {
    texts
        .iter()
        .map(|text| (*text).into())
        .collect::<Vec<_>>()
        .into()
}

impl Kind {
    /// A namespaced kind with all verbs and no subresources.
    #[must_use]
    pub fn namespaced(
        gvk: GroupVersionKind,
        plural: &'static str,
        strategy: &'static dyn Strategy,
    ) -> Self {
        let singular = gvk.kind.to_lowercase().into();
        let info = ResourceInfo {
            gvk,
            plural: plural.into(),
            singular,
            namespaced: true,
            verbs: texts(ALL_VERBS),
            short_names: texts(&[]),
            categories: texts(&[]),
            subresources: Vec::new().into(),
        };
        let kind = Self {
            info,
            strategy,
            conversion: None,
            computed: false,
        };
        if strategy.has_status() {
            let gvk = kind.info.gvk.clone();
            kind.subresource("status", gvk, &["get", "patch", "update"])
        } else {
            kind
        }
    }

    /// The same, cluster-scoped.
    #[must_use]
    pub fn cluster(
        gvk: GroupVersionKind,
        plural: &'static str,
        strategy: &'static dyn Strategy,
    ) -> Self {
        let mut kind = Self::namespaced(gvk, plural, strategy);
        kind.info.namespaced = false;
        kind
    }

    /// Served in a form of its own, stored in another.
    #[must_use]
    pub const fn stored_as(mut self, conversion: &'static Conversion) -> Self {
        self.conversion = Some(conversion);
        self
    }

    /// Computed on request and never stored, with these verbs.
    #[must_use]
    pub fn computed(mut self, verbs: &[&'static str]) -> Self {
        self.computed = true;
        self.verbs(verbs)
    }

    /// With short names.
    #[must_use]
    pub fn short_names(mut self, names: &[&'static str]) -> Self {
        self.info.short_names = texts(names);
        self
    }

    /// With categories.
    #[must_use]
    pub fn categories(mut self, names: &[&'static str]) -> Self {
        self.info.categories = texts(names);
        self
    }

    /// With only these verbs.
    #[must_use]
    pub fn verbs(mut self, verbs: &[&'static str]) -> Self {
        self.info.verbs = texts(verbs);
        self
    }

    /// With a subresource.
    #[must_use]
    pub fn subresource(
        mut self,
        name: &'static str,
        gvk: GroupVersionKind,
        verbs: &[&'static str],
    ) -> Self {
        let subresource = SubresourceInfo {
            name: name.into(),
            gvk,
            verbs: texts(verbs),
        };
        let all = self.info.subresources.to_mut();
        all.push(subresource);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// What the server tells the client that created or changed `object`.
    #[must_use]
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        let inert = self.strategy.not_enforced().map(str::to_owned);
        let own = self.strategy.warnings(object);
        inert.into_iter().chain(own).collect()
    }

    /// The name under which `field` is kept if objects can be selected by it.
    #[must_use]
    pub fn selects<'a>(&self, field: &'a str) -> Option<&'a str> {
        let of_metadata =
            field == "metadata.name" || (field == "metadata.namespace" && self.info.namespaced);
        if of_metadata {
            return Some(field);
        }
        match self.conversion {
            Some(conversion) => {
                let found = conversion.fields.iter().find(|(own, _)| *own == field);
                found.map(|(_, stored)| *stored)
            }
            None => {
                let own = self.strategy.selectable_fields();
                own.contains(&field).then_some(field)
            }
        }
    }

    /// An object of this kind in the form in which it is stored.
    #[must_use]
    pub fn to_stored(&self, object: Value) -> Value {
        match self.conversion {
            Some(conversion) => named((conversion.to_stored)(&object), &conversion.stored),
            None => object,
        }
    }

    /// A stored object in the form of this kind.
    #[must_use]
    pub fn from_stored(&self, object: Value) -> Value {
        match self.conversion {
            Some(conversion) => named((conversion.from_stored)(&object), &self.info.gvk),
            None => object,
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({})", self.info.gvk.kind)
    }
}
