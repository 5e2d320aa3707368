//! What an update of a job's status may not do.
//!
//! As upstream, most rules bind only the update that changes what they are about, so that a status written
//! under older rules can go on.

use std::collections::HashSet;

use serde_json::Value;

use super::super::field::{Errors, Field, pointer};
use super::super::{text, workload};
use super::{holds, spec};

/// Terminal conditions, which do not go away.
const TERMINAL: [&str; 3] = ["Failed", "Complete", "FailureTarget"];

/// Conditions that exclude each other, or need each other, and what is said then.
const CONTRADICTIONS: &[(&str, &str, bool, &str)] = &[
    (
        "Complete",
        "Failed",
        true,
        "cannot set Complete=True and Failed=true conditions",
    ),
    (
        "Complete",
        "FailureTarget",
        true,
        "cannot set Complete=True and FailureTarget=true conditions",
    ),
    (
        "Failed",
        "FailureTarget",
        false,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    ),
    (
        "Complete",
        "SuccessCriteriaMet",
        false,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    ),
    (
        "SuccessCriteriaMet",
        "Failed",
        true,
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    ),
    (
        "SuccessCriteriaMet",
        "FailureTarget",
        true,
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    ),
];

/// A change of a job's status.
struct Change<'a> {
    old: &'a Value,
    new: &'a Value,
}

impl Change<'_> {
    /// Whether the update changes this field of the status.
    fn of(&self, field: &str) -> bool {
        let field = format!("/status/{field}");
        self.old.pointer(&field) != self.new.pointer(&field)
    }

    fn of_condition(&self, condition: &str) -> bool {
        holds(self.old, condition) != holds(self.new, condition)
    }

    fn finishes(&self) -> bool {
        is_finished(self.old) != is_finished(self.new)
    }
}

fn is_finished(object: &Value) -> bool {
    holds(object, "Complete") || holds(object, "Failed")
}

/// All that is wrong with the change of the status.
pub(super) fn validate(old: &Value, new: &Value, errors: &mut Errors) {
    let change = Change { old, new };
    let root = Field::root("", new);
    let status = root.child("status");
    let counts = ["active", "succeeded", "failed", "ready", "terminating"];
    workload::non_negative(&status, &counts, errors);
    validate_uncounted(&status.child("uncountedTerminatedPods"), errors);
    validate_conditions(&change, &status.child("conditions"), errors);
    validate_times(&change, &status, errors);
    validate_end(&change, &status, errors);
    validate_indexes(&change, &status, errors);
    validate_counts(&change, &status, errors);
}

fn validate_uncounted(pods: &Field<'_, '_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.child(list).items() {
            if uid.text().is_empty() {
                errors.push(uid.invalid("must not be empty"));
            } else {
                errors.extend(uid.unique(&mut seen));
            }
        }
    }
}

fn validate_conditions(change: &Change<'_>, conditions: &Field<'_, '_>, errors: &mut Errors) {
    for (condition, other, excludes, detail) in CONTRADICTIONS {
        let changed = change.of_condition(condition) || change.of_condition(other);
        let wrong = holds(change.new, condition) && holds(change.new, other) == *excludes;
        if changed && wrong {
            errors.push(conditions.unfit(*detail));
        }
    }
    for condition in TERMINAL {
        if holds(change.old, condition) && !holds(change.new, condition) {
            let detail = format!("cannot disable the terminal {condition}=True condition");
            errors.push(conditions.unfit(detail));
        }
    }
    let met = |object: &Value| holds(object, "SuccessCriteriaMet");
    if met(change.old) && !met(change.new) {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        errors.push(conditions.unfit(detail));
    }
    if holds(change.old, "Complete") && !met(change.old) && met(change.new) {
        let detail =
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.push(conditions.unfit(detail));
    }
}

fn validate_times(change: &Change<'_>, status: &Field<'_, '_>, errors: &mut Errors) {
    let (start, end) = (status.child("startTime"), status.child("completionTime"));
    let complete = holds(change.new, "Complete");
    if change.of_condition("Complete") || change.of("completionTime") {
        if end.is_set() && !complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            errors.push(end.invalid(detail));
        }
        if !end.is_set() && complete {
            errors.push(end.required("completionTime is required for Complete jobs"));
        }
    }
    let moved = change.of("startTime") || change.of("completionTime");
    let (started, ended) = (time(&start), time(&end));
    if moved && started.is_some() && ended.is_some() && ended < started {
        errors.push(end.invalid("completionTime cannot be set before startTime"));
    }
    let before = text(change.old, "/status/completionTime");
    if end.is_set() && !before.is_empty() && change.of("completionTime") {
        errors.push(end.invalid("completionTime cannot be mutated"));
    }
    let suspended = change.new.pointer("/spec/suspend") == Some(&Value::Bool(true));
    let before = text(change.old, "/status/startTime");
    if !before.is_empty() && change.of("startTime") && !suspended {
        errors.push(start.required("startTime cannot be removed for unsuspended job"));
    }
}

fn time(field: &Field<'_, '_>) -> Option<jiff::Timestamp> {
    field.text().parse().ok()
}

/// A job that has ended has nothing going on.
fn validate_end(change: &Change<'_>, status: &Field<'_, '_>, errors: &mut Errors) {
    if !is_finished(change.new) {
        return;
    }
    let concerns = |field: &str| change.finishes() || change.of(field);
    for name in ["active", "terminating"] {
        let field = status.child(name);
        if concerns(name) && field.integer().unwrap_or_default() > 0 {
            errors.push(field.invalid(format!("{name}>0 is invalid for finished job")));
        }
    }
    if concerns("startTime") && !status.has("startTime") {
        let start = status.child("startTime");
        errors.push(start.required("startTime is required for finished job"));
    }
    let uncounted = status.child("uncountedTerminatedPods");
    let pods = uncounted.child("failed").len() + uncounted.child("succeeded").len();
    if concerns("uncountedTerminatedPods") && pods > 0 {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        errors.push(uncounted.invalid(detail));
    }
}

fn validate_indexes(change: &Change<'_>, status: &Field<'_, '_>, errors: &mut Errors) {
    let (completed, failed) = (
        status.child("completedIndexes"),
        status.child("failedIndexes"),
    );
    let completions = pointer(change.new, "/spec/completions").as_i64();
    let per_index = !pointer(change.new, "/spec/backoffLimitPerIndex").is_null();
    let indexed = text(change.new, "/spec/completionMode") == "Indexed";
    for field in [completed, failed] {
        let name = field.path();
        let name = name.trim_start_matches("status.");
        if let (true, Some(completions)) = (change.of(name), completions)
            && let Err(error) = spec::count_indexes(field.text(), completions)
        {
            errors.push(field.invalid(format!("error parsing {name}: {error}")));
        }
    }
    if change.of("completedIndexes") && !completed.text().is_empty() && !indexed {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(completed.invalid(detail));
    }
    if change.of("failedIndexes") && failed.is_set() && !per_index {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(failed.invalid(detail));
    }
    let concerns = change.of("failedIndexes") || change.of("completedIndexes");
    let sets = completions.and_then(|completions| {
        let of = |field: &Field<'_, '_>| spec::intervals(field.text(), completions).ok();
        Some((of(&completed)?, of(&failed)?))
    });
    if let (true, Some((completed, failed_at))) = (concerns, sets)
        && let Some(index) = overlap(&completed, &failed_at)
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(failed.invalid(detail));
    }
}

/// The first index in both.
fn overlap(a: &[(i64, i64)], b: &[(i64, i64)]) -> Option<i64> {
    a.iter().find_map(|(first, last)| {
        let mut others = b
            .iter()
            .filter(|(start, end)| first <= end && start <= last);
        others.next().map(|(start, _)| *first.max(start))
    })
}

fn validate_counts(change: &Change<'_>, status: &Field<'_, '_>, errors: &mut Errors) {
    let number = |field: &str| status.integer_of(field).unwrap_or_default();
    if (change.of("ready") || change.of("active")) && number("ready") > number("active") {
        let ready = status.child("ready");
        errors.push(ready.invalid("cannot set more ready pods than active"));
    }
    let indexed = text(change.new, "/spec/completionMode") == "Indexed";
    for name in ["failed", "succeeded"] {
        let before = pointer(change.old, "/status").get(name);
        let before = before.and_then(Value::as_i64).unwrap_or_default();
        // An indexed job that shrinks counts fewer successes.
        if number(name) < before && !(name == "succeeded" && indexed) {
            let detail = format!("cannot decrease the {name} counter");
            errors.push(status.child(name).invalid_as(number(name), detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(old: Value, new: Value) -> Vec<String> {
        let job = |status: Value| json!({"spec": {"completions": 3}, "status": status});
        let mut errors = Errors::new();
        validate(&job(old), &job(new), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_job_ends_in_order() {
        let start = "2026-01-01T00:00:00Z";
        let conditions = json!([
            {"type": "SuccessCriteriaMet", "status": "True"},
            {"type": "Complete", "status": "True"},
        ]);
        let before = json!({"startTime": start, "active": 1});
        let after = json!({
            "startTime": start, "completionTime": "2026-01-01T00:00:09Z",
            "succeeded": 1, "conditions": conditions,
        });
        assert_eq!(errors(before.clone(), after.clone()), Vec::<String>::new());
        let mut hasty = after;
        hasty["active"] = 1.into();
        hasty
            .as_object_mut()
            .unwrap()
            .shift_remove("completionTime");
        assert_eq!(
            errors(before, hasty),
            [
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
            ]
        );
    }

    #[test]
    fn what_has_happened_is_not_taken_back() {
        let failed = json!([
            {"type": "FailureTarget", "status": "True"},
            {"type": "Failed", "status": "True"},
        ]);
        assert_eq!(
            errors(
                json!({"startTime": "2026-01-01T00:00:00Z", "failed": 2, "conditions": failed}),
                json!({"startTime": "2026-01-01T00:00:00Z", "failed": 1}),
            ),
            [
                "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
                "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
            ]
        );
    }
}
