//! CSIDriver: what a storage driver needs of the cluster.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::default;
use crate::registry::kinds::field_path::Field;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct CsiDriver;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "CSIDriver");
    Kind::cluster(gvk, "csidrivers", &CsiDriver)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("AttachRequired", "boolean", "Whether volumes are attached."),
    Column::new(
        "PodInfoOnMount",
        "boolean",
        "Whether it is told of the pod.",
    ),
    Column::new(
        "StorageCapacity",
        "boolean",
        "Whether it reports its capacity.",
    ),
    Column::new(
        "TokenRequests",
        "string",
        "Audiences of tokens it is given.",
    ),
    Column::new(
        "RequiresRepublish",
        "boolean",
        "Whether volumes are published again and again.",
    ),
    Column::new("Modes", "string", "Kinds of volumes it makes."),
    AGE,
];

const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: &[&str] = &["Persistent", "Ephemeral"];

/// Least seconds between updates of what a node can hold.
const MIN_UPDATE_PERIOD: i64 = 10;
/// Least and most seconds a token lives.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

impl Strategy for CsiDriver {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default(spec, "attachRequired", true);
        default(spec, "podInfoOnMount", false);
        default(spec, "storageCapacity", false);
        default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default(spec, "requiresRepublish", false);
        default(spec, "seLinuxMount", false);
        if spec
            .get("volumeLifecycleModes")
            .is_none_or(|m| *m == json!([]))
        {
            spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = Vec::new();
        errors.extend(spec.at("fsGroupPolicy").one_of(FS_GROUP_POLICIES));
        errors.extend(token_requests(&spec.at("tokenRequests")));
        let modes = spec.at("volumeLifecycleModes");
        for mode in modes.items() {
            // Upstream names the list, not the element.
            let mode = Field::new(modes.path(), mode.value());
            errors.extend(mode.one_of(LIFECYCLE_MODES));
        }
        let period = spec.at("nodeAllocatableUpdatePeriodSeconds");
        if period.is_set() && period.integer() < MIN_UPDATE_PERIOD {
            errors.push(period.invalid("must be greater than or equal to 10 seconds"));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old).at("spec"), Field::root(new).at("spec"));
        // The misspelt path is upstream's.
        let attach = new.at("attachRequired");
        let attach = Field::new("spec.attachedRequired", attach.value());
        let mut errors = Vec::new();
        errors.extend(attach.unchanged(&old.at("attachRequired")));
        let modes = new.at("volumeLifecycleModes");
        errors.extend(modes.unchanged(&old.at("volumeLifecycleModes")));
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("CSIDriver is stored but Windlass calls no CSI drivers yet")
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = Field::root(object).at("spec");
        let flag = |field: &str| Value::from(spec.at(field).is_true());
        let requests = spec.at("tokenRequests");
        let audiences: Vec<_> = requests
            .items()
            .iter()
            .map(|request| request.at("audience").text())
            .collect();
        let audiences = match requests.is_set() {
            true => audiences.join(","),
            false => "<unset>".into(),
        };
        let modes = spec.at("volumeLifecycleModes").texts();
        let modes = match modes.as_slice() {
            [] => "<none>".into(),
            modes => modes.join(","),
        };
        vec![
            meta::name(object).into(),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            audiences.into(),
            flag("requiresRepublish"),
            modes.into(),
            age(object, now).into(),
        ]
    }
}

fn token_requests(requests: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut audiences = Vec::new();
    for request in requests.items() {
        let (audience, expiration) = (request.at("audience"), request.at("expirationSeconds"));
        if audiences.contains(&audience.text()) {
            errors.push(FieldError::duplicate(audience.path(), audience.text()));
            continue;
        }
        audiences.push(audience.text());
        if expiration.is_set() && expiration.integer() < TOKEN_SECONDS.0 {
            errors.push(expiration.invalid("may not specify a duration less than 10 minutes"));
        }
        if expiration.integer() > TOKEN_SECONDS.1 {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(expiration.invalid(detail));
        }
    }
    errors
}
