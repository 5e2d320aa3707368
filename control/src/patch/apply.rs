//! Server-side apply: a manager states the fields it wants, all of them, every time.
//!
//! 1. The configuration is merged into the object: its leaves win.
//! 2. Fields the manager applied before and no longer states are removed, unless somebody else owns them.
//! 3. Fields that this changes and that others own are conflicts; with `force` they change hands.
//!
//! A field stated with the value it already has is owned together with its other owners.

use jiff::Timestamp;
use serde_json::{Map, Value};
use windlass_api::schema::{Schema, TypeRef};
use windlass_api::time::format_seconds;

use super::compare::{Comparison, Ignored, compare, fields_of};
use super::field_set::FieldSet;
use super::managed_fields::{ManagedOperation, Manager, encode, entries_of, parse, put, take};
use super::typed_merge::{include_parents, merge, remove};

/// Who owns what was there before ownership was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose client-side applies its server-side ones may override.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An apply.
#[derive(Clone, Copy, Debug)]
pub struct ApplyRequest<'a> {
    /// Who applies.
    pub manager: &'a str,
    /// The API version applied through.
    pub api_version: &'a str,
    /// The subresource applied through; empty for the object itself.
    pub subresource: &'a str,
    /// Whether to take fields from others that own them.
    pub force: bool,
    /// The time of the apply.
    pub now: Timestamp,
    /// Fields this endpoint can't change, as names from the root: `status` for the object itself.
    pub ignored: Ignored<'a>,
}

/// Somebody else owns a field that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as messages name it: `"kubectl" with subresource "status" using apps/v1`.
    pub manager: String,
    /// The field: `.spec.replicas`.
    pub path: String,
}

/// Why an apply is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// Others own fields that would change: 409 Conflict, one cause `FieldManagerConflict` each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration states who owns what: 400 BadRequest.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
}

impl Conflict {
    /// The message of this conflict's cause.
    #[must_use]
    pub fn cause(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [Conflict { manager, path }] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut lines = Vec::new();
    for (at, conflict) in conflicts.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| conflicts.get(before));
        if before.is_none_or(|before| before.manager != conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

/// Applies a configuration to an object (`None`: it does not exist yet) and answers the new object with its
/// `managedFields`. The configuration must have been checked against the schema.
///
/// An apply that changes nothing answers an object equal to `live`.
///
/// # Errors
/// [`ApplyError::Conflicts`] unless forced, [`ApplyError::ManagedFieldsGiven`].
pub fn apply(
    schema: &Schema,
    ty: TypeRef,
    live: Option<&Value>,
    config: &Value,
    request: &ApplyRequest<'_>,
) -> Result<Value, ApplyError> {
    if entries_of(config).is_some_and(|entries| !entries.is_empty()) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    let nothing = Value::Object(Map::new());
    let object = Target {
        schema,
        ty,
        live: live.unwrap_or(&nothing),
        request,
    };
    let managers = object.managers(live.is_some());
    object.apply(config, managers)
}

/// What an apply works on.
struct Target<'a> {
    schema: &'a Schema,
    ty: TypeRef,
    live: &'a Value,
    request: &'a ApplyRequest<'a>,
}

impl Target<'_> {
    /// The owners so far. What nobody is known to own belongs to [`BEFORE_FIRST_APPLY`].
    fn managers(&self, exists: bool) -> Vec<Manager> {
        let recorded = entries_of(self.live).cloned().unwrap_or_default();
        if let Some(managers) = parse(recorded).filter(|managers| !managers.is_empty() || !exists) {
            return managers;
        }
        vec![Manager {
            name: BEFORE_FIRST_APPLY.to_owned(),
            operation: ManagedOperation::Update,
            subresource: String::new(),
            api_version: self.request.api_version.to_owned(),
            time: format_seconds(self.request.now),
            fields: fields_of(self.schema, self.ty, self.live, self.request.ignored),
        }]
    }

    fn apply(&self, config: &Value, mut managers: Vec<Manager>) -> Result<Value, ApplyError> {
        let wanted = fields_of(self.schema, self.ty, config, self.request.ignored);
        let own = managers.iter().position(|manager| self.is_own(manager));
        let before = own.map(|own| managers.swap_remove(own));
        let mut object = self.live.clone();
        let recorded = take(&mut object);
        merge(self.schema, self.ty, &mut object, config);
        if let Some(before) = &before {
            self.give_up(&mut object, &before.fields, &wanted, &managers);
        }
        let comparison = compare(
            self.schema,
            self.ty,
            self.live,
            &object,
            self.request.ignored,
        );
        self.settle(&mut managers, &comparison)?;
        let unchanged = comparison.is_same()
            && before.as_ref().is_some_and(|before| {
                before.fields == wanted && before.api_version == self.request.api_version
            });
        if let (true, Some(recorded)) = (unchanged, recorded) {
            put(&mut object, recorded);
            return Ok(object);
        }
        managers.push(self.own_entry(wanted));
        put(&mut object, encode(managers));
        Ok(object)
    }

    fn is_own(&self, manager: &Manager) -> bool {
        manager.operation == ManagedOperation::Apply
            && manager.name == self.request.manager
            && manager.subresource == self.request.subresource
    }

    fn own_entry(&self, fields: FieldSet) -> Manager {
        Manager {
            name: self.request.manager.to_owned(),
            operation: ManagedOperation::Apply,
            subresource: self.request.subresource.to_owned(),
            api_version: self.request.api_version.to_owned(),
            time: format_seconds(self.request.now),
            fields,
        }
    }

    /// Removes what the manager applied before, wants no more, and nobody else owns.
    fn give_up(
        &self,
        object: &mut Value,
        before: &FieldSet,
        wanted: &FieldSet,
        others: &[Manager],
    ) {
        if before.is_subset(wanted) {
            return;
        }
        let mut given_up = before.clone();
        include_parents(self.schema, self.ty, &mut given_up.0);
        let mut owned = wanted.clone();
        for other in others {
            owned.union(&other.fields);
        }
        include_parents(self.schema, self.ty, &mut owned.0);
        given_up.subtract(&owned);
        remove(self.schema, self.ty, object, &given_up.0);
    }

    /// Takes changed fields from the other owners, or reports them as conflicts.
    fn settle(&self, others: &mut [Manager], comparison: &Comparison) -> Result<(), ApplyError> {
        let mut changed = comparison.modified.clone();
        changed.union(&comparison.added);
        if !self.request.force {
            let conflicts = self.conflicts(others, &changed);
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
        }
        for other in others {
            other.fields.subtract(&changed);
            other.fields.subtract(&comparison.removed);
        }
        Ok(())
    }

    fn conflicts(&self, others: &[Manager], changed: &FieldSet) -> Vec<Conflict> {
        let mut contested = changed.clone();
        if self.request.manager == KUBECTL {
            contested.subtract(&self.last_applied());
        }
        let mut conflicts = Vec::new();
        for other in others {
            let paths = other.fields.intersection(&contested);
            let named = |path| Conflict {
                manager: described(other),
                path,
            };
            conflicts.extend(paths.into_iter().map(named));
        }
        conflicts.sort_by(|a, b| (&a.manager, &a.path).cmp(&(&b.manager, &b.path)));
        conflicts
    }

    /// What kubectl applied on the client's side: its own, whoever holds it now, so that a user can go
    /// over to server-side apply without conflicts.
    fn last_applied(&self) -> FieldSet {
        let annotations = self
            .live
            .get("metadata")
            .and_then(|metadata| metadata.get("annotations"));
        let config = annotations.and_then(|annotations| annotations.get(LAST_APPLIED));
        let config = config
            .and_then(Value::as_str)
            .and_then(|text| serde_json::from_str(text).ok());
        let fields = |config: Value| fields_of(self.schema, self.ty, &config, self.request.ignored);
        config.map(fields).unwrap_or_default()
    }
}

/// An owner as conflict messages name it.
fn described(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", manager.subresource));
    }
    if manager.operation == ManagedOperation::Update {
        text.push_str(&format!(" using {}", manager.api_version));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::managed_fields::{UpdateRequest, record_update};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use windlass_api::resource::GroupVersionKind;

    struct Cluster {
        schema: &'static Schema,
        ty: TypeRef,
        live: Option<Value>,
        second: i64,
    }

    impl Cluster {
        fn new() -> Self {
            let schema = Schema::builtin();
            let ty = schema
                .kind(&GroupVersionKind::of("apps", "v1", "Deployment"))
                .expect("is built in");
            Self {
                schema,
                ty,
                live: None,
                second: 0,
            }
        }

        fn now(&mut self) -> Timestamp {
            self.second += 1;
            Timestamp::from_second(self.second).expect("is a time")
        }

        fn apply(
            &mut self,
            manager: &str,
            force: bool,
            config: &Value,
        ) -> Result<Value, ApplyError> {
            let request = ApplyRequest {
                manager,
                api_version: "apps/v1",
                subresource: "",
                force,
                now: self.now(),
                ignored: &[&["status"]],
            };
            let object = apply(self.schema, self.ty, self.live.as_ref(), config, &request)?;
            self.live = Some(object.clone());
            Ok(object)
        }

        fn update(&mut self, manager: &str, new: Value) {
            let mut new = new;
            let request = UpdateRequest {
                manager,
                api_version: "apps/v1",
                subresource: "",
                now: self.now(),
                ignored: &[&["status"]],
            };
            record_update(self.schema, self.ty, self.live.as_ref(), &mut new, &request);
            self.live = Some(new);
        }

        fn owned_by(&self, name: &str) -> Option<Value> {
            let entries = entries_of(self.live.as_ref()?)?;
            Some(entries.iter().find(|entry| entry["manager"] == name)?["fieldsV1"].clone())
        }
    }

    fn spec(spec: &Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec})
    }

    fn containers(containers: &Value) -> Value {
        spec(&json!({"template": {"spec": {"containers": containers}}}))
    }

    #[test]
    fn applied_fields_are_owned_and_removed_when_no_longer_stated() {
        let mut cluster = Cluster::new();
        let config = spec(&json!({"replicas": 1, "paused": true}));
        let object = cluster.apply("a", false, &config).expect("applies");
        assert_eq!(
            cluster.owned_by("a"),
            Some(json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}))
        );
        assert_eq!(object["spec"], json!({"replicas": 1, "paused": true}));
        let object = cluster
            .apply("a", false, &spec(&json!({"replicas": 1})))
            .expect("applies");
        assert_eq!(object["spec"], json!({"replicas": 1}));
    }

    #[test]
    fn an_apply_that_changes_nothing_answers_the_same_object() {
        let mut cluster = Cluster::new();
        let config =
            containers(&json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]));
        let first = cluster.apply("a", false, &config).expect("applies");
        let second = cluster.apply("a", false, &config).expect("applies");
        assert_eq!(first, second);
    }

    #[test]
    fn changing_anothers_field_is_a_conflict_unless_forced() {
        let mut cluster = Cluster::new();
        cluster.update(
            "kubectl-client-side-apply",
            spec(&json!({"replicas": 1, "paused": true})),
        );
        let config = spec(&json!({"replicas": 2}));
        let error = cluster.apply("b", false, &config).expect_err("conflicts");
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
        );
        let config2 = spec(&json!({"replicas": 2, "paused": false}));
        let error = cluster.apply("b", false, &config2).expect_err("conflicts");
        assert_eq!(
            error.to_string(),
            "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
        );
        cluster.apply("b", true, &config).expect("is forced");
        assert_eq!(
            cluster.owned_by("kubectl-client-side-apply"),
            Some(json!({"f:spec": {"f:paused": {}}}))
        );
        assert_eq!(
            cluster.owned_by("b"),
            Some(json!({"f:spec": {"f:replicas": {}}}))
        );
    }

    #[test]
    fn a_shared_value_is_co_owned_and_outlives_one_owner() {
        let mut cluster = Cluster::new();
        cluster
            .apply("a", false, &spec(&json!({"replicas": 1, "paused": true})))
            .expect("applies");
        cluster
            .apply("b", false, &spec(&json!({"replicas": 1})))
            .expect("is no conflict");
        let object = cluster
            .apply("a", false, &spec(&json!({"paused": true})))
            .expect("applies");
        assert_eq!(object["spec"], json!({"replicas": 1, "paused": true}));
        let error = cluster
            .apply("a", false, &spec(&json!({"replicas": 3})))
            .expect_err("conflicts");
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"b\": .spec.replicas"
        );
    }

    #[test]
    fn items_of_keyed_lists_come_and_go_with_their_owner() {
        let mut cluster = Cluster::new();
        cluster
            .apply(
                "a",
                false,
                &containers(&json!([{"name": "one", "image": "i"}, {"name": "two", "image": "i"}])),
            )
            .expect("applies");
        cluster
            .apply(
                "b",
                false,
                &containers(&json!([{"name": "side", "image": "s"}])),
            )
            .expect("applies");
        let object = cluster
            .apply(
                "a",
                false,
                &containers(&json!([{"name": "two", "image": "j"}])),
            )
            .expect("applies");
        let names: Vec<_> = object["spec"]["template"]["spec"]["containers"]
            .as_array()
            .expect("is a list")
            .iter()
            .map(|c| (c["name"].clone(), c["image"].clone()))
            .collect();
        assert_eq!(
            names,
            [(json!("two"), json!("j")), (json!("side"), json!("s"))]
        );
    }

    #[test]
    fn defaults_inside_a_removed_item_go_with_it() {
        let mut cluster = Cluster::new();
        cluster
            .apply(
                "a",
                false,
                &containers(&json!([{"name": "one"}, {"name": "two"}])),
            )
            .expect("applies");
        let mut live = cluster.live.clone().expect("is there");
        live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        cluster.live = Some(live);
        let object = cluster
            .apply("a", false, &containers(&json!([{"name": "two"}])))
            .expect("applies");
        assert_eq!(
            object["spec"]["template"]["spec"]["containers"],
            json!([{"name": "two"}])
        );
    }

    #[test]
    fn list_keys_are_defaulted_before_items_are_paired() {
        let mut cluster = Cluster::new();
        cluster
            .apply(
                "a",
                false,
                &containers(
                    &json!([{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]),
                ),
            )
            .expect("applies");
        let object = cluster
            .apply(
                "a",
                false,
                &containers(
                    &json!([{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]),
                ),
            )
            .expect("applies");
        let ports = &object["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(ports.as_array().map(Vec::len), Some(1), "{ports}");
        assert_eq!(ports[0]["name"], "http");
    }

    #[test]
    fn what_was_there_before_tracking_has_an_owner_too() {
        let mut cluster = Cluster::new();
        cluster.live = Some(spec(&json!({"replicas": 1})));
        let error = cluster
            .apply("a", false, &spec(&json!({"replicas": 2})))
            .expect_err("conflicts");
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
        );
    }

    #[test]
    fn kubectl_may_go_from_client_side_to_server_side_apply() {
        let mut cluster = Cluster::new();
        let mut object = spec(&json!({"replicas": 1}));
        object["metadata"]["annotations"] =
            json!({LAST_APPLIED: spec(&json!({"replicas": 1})).to_string()});
        cluster.update("kubectl-client-side-apply", object);
        let object = cluster
            .apply("kubectl", false, &spec(&json!({"replicas": 2})))
            .expect("applies");
        assert_eq!(object["spec"]["replicas"], 2);
    }

    #[test]
    fn status_is_not_owned_through_the_main_endpoint_and_entries_may_not_be_given() {
        let mut cluster = Cluster::new();
        let mut config = spec(&json!({"replicas": 1}));
        config["status"] = json!({"replicas": 5});
        cluster.apply("a", false, &config).expect("applies");
        assert_eq!(
            cluster.owned_by("a"),
            Some(json!({"f:spec": {"f:replicas": {}}}))
        );
        config["metadata"]["managedFields"] = json!([{"manager": "x"}]);
        assert_eq!(
            cluster.apply("a", false, &config),
            Err(ApplyError::ManagedFieldsGiven)
        );
    }

    /// A configuration without empty keyed lists: nobody can own those.
    fn pod_spec() -> impl Strategy<Value = Value> {
        let ports = prop::collection::btree_set(80..83_u16, 1..3);
        let container = (prop::option::of("[xy]"), prop::option::of(ports));
        let containers = prop::collection::btree_map("[abc]", container, 1..4);
        (containers, prop::option::of(0..3)).prop_map(|(containers, replicas)| {
            let mut items = Vec::new();
            for (name, (image, ports)) in containers {
                let mut item = json!({ "name": name });
                if let Some(image) = image {
                    item["image"] = json!(image);
                }
                if let Some(ports) = ports {
                    let ports = ports.iter().map(|port| json!({ "containerPort": port }));
                    item["ports"] = ports.collect();
                }
                items.push(item);
            }
            let mut object = containers_of(&items);
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            object
        })
    }

    fn containers_of(items: &[Value]) -> Value {
        containers(&Value::from(items.to_vec()))
    }

    proptest! {
        /// Whatever one manager applies in a row, the object ends up as its last configuration says.
        #[test]
        fn a_sole_applier_gets_what_it_stated_last(configs in prop::collection::vec(pod_spec(), 1..5)) {
            let mut cluster = Cluster::new();
            let mut object = Value::Null;
            for config in &configs {
                object = cluster.apply("a", false, config).expect("nobody else owns anything");
            }
            let last = configs.last().expect("is not empty");
            let fields = |object: &Value| fields_of(cluster.schema, cluster.ty, object, &[]);
            prop_assert_eq!(fields(&object), fields(last));
            prop_assert_eq!(cluster.apply("a", false, last).expect("applies"), object);
        }

        #[test]
        fn forced_appliers_take_turns_without_losing_entries(
            one in pod_spec(), two in pod_spec(), three in pod_spec()
        ) {
            let mut cluster = Cluster::new();
            for (manager, config) in [("a", &one), ("b", &two), ("a", &three)] {
                cluster.apply(manager, true, config).expect("is forced");
            }
            let object = cluster.live.clone().expect("is there");
            let stated = fields_of(cluster.schema, cluster.ty, &three, &[]);
            let has = fields_of(cluster.schema, cluster.ty, &object, &[]);
            prop_assert!(stated.is_subset(&has), "{:?}", object);
        }
    }
}
