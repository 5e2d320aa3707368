//! Job.
//!
//! A job's selector is made here, from the job's uid, unless the client says that it brings its own; pods
//! carry the uid and the job's name as labels, under an old and a new name each.

pub(super) mod spec;
mod status;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, objects_mut, pointer};
use super::{count, default, integer, items, label_selector, text, workload};
use crate::identity::UserInfo;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::{age, human_duration};

struct Job;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("batch", "v1", "Job");
    Kind::namespaced(gvk, "jobs", &Job).categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", "string", "What the job is doing."),
    Column::new(
        "Completions",
        "string",
        "Pods that succeeded of pods that must.",
    ),
    Column::new(
        "Duration",
        "string",
        "Time from start to end, or until now.",
    ),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    workload::SELECTOR,
];

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

/// Fields of the spec that never change.
const IMMUTABLE: [&str; 6] = [
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
];

impl Strategy for Job {
    fn set_defaults(&self, object: &mut Value) {
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if count(object, "/metadata/labels") == 0
            && let Some(labels) = labels.filter(Value::is_object)
        {
            meta::set(object, "labels", labels);
        }
        let spec = meta::member_mut(object, "spec");
        workload::set_template_defaults(spec);
        set_defaults(spec);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({}));
        }
        generate_selector(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        spec::validate(&spec, &mut errors);
        let selector = spec.child("selector");
        if selector.is_set() {
            label_selector::validate(&selector, &mut errors);
        } else {
            errors.push(selector.required(""));
        }
        workload::validate_match(&spec, &mut errors);
        errors
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        validate_generated(object, &mut errors);
        let completions = integer(object, "/spec/completions");
        if text(object, "/spec/completionMode") == "Indexed" && completions > 0 {
            let name = meta::name(object);
            let last = format!("{name}-{}", completions - 1);
            if !names::dns1123_label(&last).is_empty() {
                let detail = format!("will not able to create pod with invalid DNS label: {last}");
                errors.push(FieldError::invalid("metadata.name", name, detail));
            }
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if endpoint == Endpoint::Status {
            status::validate(old, new, &mut errors);
            return errors;
        }
        let root = Field::root("", new);
        let spec = root.child("spec");
        validate_completions(old, &spec, &mut errors);
        for field in IMMUTABLE {
            let before = pointer(old, "/spec").get(field).unwrap_or(&Value::Null);
            errors.extend(spec.child(field).unchanged(before));
        }
        let before = template_to_keep(old, new);
        errors.extend(spec.child("template").unchanged(&before));
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        workload::warnings(object)
    }

    fn has_status(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_field(&self, object: &Value, _: &str) -> String {
        integer(object, "/status/succeeded").to_string()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [containers, images, selector] = workload::wide_cells(object);
        vec![
            meta::name(object).into(),
            shown_status(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            age(object, now).into(),
            containers,
            images,
            selector,
        ]
    }
}

fn set_defaults(spec: &mut Map<String, Value>) {
    let has =
        |spec: &Map<String, Value>, field: &str| spec.get(field).is_some_and(|v| !v.is_null());
    if !has(spec, "completions") && !has(spec, "parallelism") {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let limit = if has(spec, "backoffLimitPerIndex") {
        i32::MAX
    } else {
        6
    };
    default(spec, "backoffLimit", limit);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let replacement = if has(spec, "podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default(spec, "podReplacementPolicy", replacement);
    set_pattern_defaults(spec);
}

/// A pattern of a pod's condition asks for one that is true.
pub(super) fn set_pattern_defaults(spec: &mut Map<String, Value>) {
    let policy = spec
        .get_mut("podFailurePolicy")
        .and_then(Value::as_object_mut);
    let Some(policy) = policy else { return };
    for rule in objects_mut(policy, "rules") {
        for pattern in objects_mut(rule, "onPodConditions") {
            default(pattern, "status", "True");
        }
    }
}

fn is_manual(object: &Value) -> bool {
    object.pointer("/spec/manualSelector") == Some(&Value::Bool(true))
}

/// Labels that tell a job's pods from all others.
fn generated_labels(object: &Value) -> [(&'static str, &str); 4] {
    let (name, uid) = (meta::name(object), meta::uid(object));
    [
        (OLD_CONTROLLER_UID, uid),
        (OLD_JOB_NAME, name),
        (CONTROLLER_UID, uid),
        (JOB_NAME, name),
    ]
}

/// Makes the selector, and labels the template for it; what the client brings stays and is checked.
fn generate_selector(object: &mut Value) {
    if is_manual(object) {
        return;
    }
    let uid = meta::uid(object).to_owned();
    let labels = generated_labels(object).map(|(label, value)| (label, value.to_owned()));
    let spec = meta::member_mut(object, "spec");
    let mut template = spec.get("template").cloned().unwrap_or_default();
    let mut metadata = template.get("metadata").cloned().unwrap_or_default();
    let on_pods = meta::member_mut(&mut metadata, "labels");
    for (label, value) in labels {
        default(on_pods, label, value);
    }
    *meta::metadata_mut(&mut template) = match metadata {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    };
    spec.insert("template".into(), template);
    let mut selector = spec.get("selector").cloned().unwrap_or_default();
    default(
        meta::member_mut(&mut selector, "matchLabels"),
        CONTROLLER_UID,
        uid,
    );
    spec.insert("selector".into(), selector);
}

/// The selector selects this job's pods, and no others.
fn validate_generated(object: &Value, errors: &mut Errors) {
    let root = Field::root("", object);
    let spec = root.child("spec");
    let selector = spec.child("selector");
    if is_manual(object) || !selector.is_set() {
        return;
    }
    let template = spec.child("template");
    let metadata = template.child("metadata");
    let labels = metadata.child("labels");
    let mut expected = Map::new();
    for (label, value) in generated_labels(object) {
        expected.insert(label.into(), value.into());
        let given = labels.key(label);
        let detail = format!("must be '{value}'");
        if !given.is_set() {
            errors.push(given.required(detail));
        } else if given.text() != value {
            errors.push(given.invalid_as(labels.value().clone(), detail));
        }
    }
    if label_selector::matches(selector.value(), &Value::Object(expected)) == Some(false) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// An indexed job may grow and shrink, all of it at once.
fn validate_completions(old: &Value, spec: &Field<'_, '_>, errors: &mut Errors) {
    let completions = spec.child("completions");
    let changed = completions.unchanged(pointer(old, "/spec/completions"));
    if spec.text_of("completionMode") != "Indexed" {
        errors.extend(changed);
        return;
    }
    let in_tandem = completions.integer() == spec.integer_of("parallelism");
    if changed.is_some() && completions.is_set() && !in_tandem {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(completions.invalid(detail));
    }
}

/// The old template, with what may change of it taken over from the new one: where pods may run, as long as
/// the job is suspended and none has run.
fn template_to_keep(old: &Value, new: &Value) -> Value {
    let mut template = pointer(old, "/spec/template").clone();
    let suspended = old.pointer("/spec/suspend") == Some(&Value::Bool(true));
    if !suspended || !text(old, "/status/startTime").is_empty() {
        return template;
    }
    let wanted = pointer(new, "/spec/template");
    for (holder, field) in [
        ("metadata", "annotations"),
        ("metadata", "labels"),
        ("spec", "nodeSelector"),
        ("spec", "tolerations"),
        ("spec", "schedulingGates"),
    ] {
        let from = pointer(wanted, &format!("/{holder}/{field}"));
        take(meta::member_mut(&mut template, holder), field, from);
    }
    let mut affinity = pointer(&template, "/spec/affinity").clone();
    let nodes = pointer(wanted, "/spec/affinity/nodeAffinity");
    if !affinity.is_object() {
        affinity = json!({});
    }
    if let Some(affinity) = affinity.as_object_mut() {
        take(affinity, "nodeAffinity", nodes);
    }
    let given = pointer(wanted, "/spec/affinity");
    let nothing = affinity == json!({}) && given.is_null();
    let affinity = if nothing { Value::Null } else { affinity };
    take(
        meta::member_mut(&mut template, "spec"),
        "affinity",
        &affinity,
    );
    template
}

fn take(holder: &mut Map<String, Value>, field: &str, value: &Value) {
    if value.is_null() {
        holder.shift_remove(field);
    } else {
        holder.insert(field.into(), value.clone());
    }
}

/// Whether a condition of the job is true.
fn holds(object: &Value, condition: &str) -> bool {
    let mut conditions = items(object, "/status/conditions").iter();
    conditions.any(|c| text(c, "/type") == condition && text(c, "/status") == "True")
}

fn shown_status(object: &Value) -> &'static str {
    if holds(object, "Complete") {
        return "Complete";
    }
    if holds(object, "Failed") {
        return "Failed";
    }
    if meta::is_terminating(object) {
        return "Terminating";
    }
    let states = [
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    let state = states
        .iter()
        .find(|(condition, _)| holds(object, condition));
    state.map_or("Running", |(_, shown)| shown)
}

fn completions(object: &Value) -> String {
    let succeeded = integer(object, "/status/succeeded");
    let wanted = object.pointer("/spec/completions").and_then(Value::as_i64);
    match (wanted, integer(object, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(object: &Value, now: Timestamp) -> String {
    let time = |pointer: &str| text(object, pointer).parse::<Timestamp>().ok();
    let Some(start) = time("/status/startTime") else {
        return String::new();
    };
    let end = time("/status/completionTime").unwrap_or(now);
    human_duration(end.duration_since(start).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Value {
        let mut object = json!({
            "metadata": {"name": "sum", "uid": "u-1"},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "sum", "image": "sum:1"}],
            }}},
        });
        Job.set_defaults(&mut object);
        Job.prepare_for_create(&mut object, &UserInfo::default());
        object
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_job_selects_its_own_pods() {
        let object = job();
        assert_eq!(texts(&Job.validate(&object)), Vec::<String>::new());
        assert_eq!(texts(&Job.validate_create(&object)), Vec::<String>::new());
        let spec = &object["spec"];
        assert_eq!(
            spec["selector"]["matchLabels"],
            json!({CONTROLLER_UID: "u-1"})
        );
        assert_eq!(spec["template"]["metadata"]["labels"][JOB_NAME], "sum");
        assert_eq!(
            (&spec["completions"], &spec["parallelism"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(spec["backoffLimit"], 6);
    }

    #[test]
    fn a_selector_of_ones_own_needs_to_be_said() {
        let mut object = job();
        object["spec"]["template"]["metadata"]["labels"][CONTROLLER_UID] = "other".into();
        let found = Job.validate_create(&object);
        assert_eq!(
            found[0].path,
            format!("spec.template.metadata.labels[{CONTROLLER_UID}]")
        );
    }

    #[test]
    fn pods_of_a_job_end() {
        let mut object = job();
        object["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        assert_eq!(
            texts(&Job.validate(&object)),
            [
                r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#
            ]
        );
    }

    #[test]
    fn a_suspended_job_may_move_and_nothing_else() {
        let mut old = job();
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "a"});
        let found = Job.validate_update(&old, &new, Endpoint::Main);
        assert_eq!(found[0].path, "spec.template");
        old["spec"]["suspend"] = true.into();
        assert_eq!(Job.validate_update(&old, &new, Endpoint::Main), []);
        new["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {}});
        assert_eq!(Job.validate_update(&old, &new, Endpoint::Main), []);
        new["spec"]["template"]["spec"]["hostNetwork"] = true.into();
        assert_eq!(Job.validate_update(&old, &new, Endpoint::Main).len(), 1);
    }

    #[test]
    fn the_table_reads_as_kubectl_prints_it() {
        let object = json!({
            "metadata": {"name": "sum"},
            "spec": {"completions": 3},
            "status": {
                "succeeded": 3, "conditions": [{"type": "Complete", "status": "True"}],
                "startTime": "1970-01-01T00:00:00Z", "completionTime": "1970-01-01T00:01:30Z",
            },
        });
        let cells = Job.cells(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1..4], [json!("Complete"), json!("3/3"), json!("90s")]);
    }
}
