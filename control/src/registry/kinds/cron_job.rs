//! CronJob.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, pointer};
use super::{count, default, job, label_selector, pod_spec, text, workload};
use crate::cron::Schedule;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::{age, since};

struct CronJob;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("batch", "v1", "CronJob");
    Kind::namespaced(gvk, "cronjobs", &CronJob)
        .short_names(&["cj"])
        .categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Schedule", "string", "When jobs are made."),
    Column::new("Timezone", "string", "The time zone of the schedule."),
    Column::new("Suspend", "boolean", "Whether no jobs are made."),
    Column::new("Active", "integer", "Jobs that run."),
    Column::new("Last Schedule", "string", "When a job was made last."),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    workload::SELECTOR,
];

const CONCURRENCY: &[&str] = &["Allow", "Forbid", "Replace"];

/// Longest name that leaves room for the time in the names of jobs.
const NAME_MAX: usize = 52;

/// Longest part of a time zone's name.
const ZONE_PART_MAX: usize = 14;

impl Strategy for CronJob {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        let job = spec
            .get_mut("jobTemplate")
            .and_then(|template| template.get_mut("spec"))
            .and_then(Value::as_object_mut);
        if let Some(job) = job {
            workload::set_template_defaults(job);
            job::set_pattern_defaults(job);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        validate_schedule(&spec.child("schedule"), &mut errors);
        let numbers = [
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ];
        workload::non_negative(&spec, &numbers, &mut errors);
        errors.extend(spec.child("concurrencyPolicy").choice(CONCURRENCY));
        job::spec::validate_template(&spec.child("jobTemplate"), &mut errors);
        errors
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        let schedule = spec.child("schedule");
        if schedule.text().contains("TZ") {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(schedule.invalid(detail));
        }
        validate_time_zone(&spec.child("timeZone"), &mut errors);
        let name = meta::name(object);
        if name.len() > NAME_MAX {
            let detail = "must be no more than 52 characters";
            errors.push(FieldError::invalid("metadata.name", name, detail));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if endpoint == Endpoint::Status {
            return errors;
        }
        let root = Field::root("", new);
        let spec = root.child("spec");
        let (schedule, zone) = (spec.child("schedule"), spec.child("timeZone"));
        if schedule.text().contains("TZ") {
            let had = text(old, "/spec/schedule").contains("TZ");
            if had && zone.is_set() {
                let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
                errors.push(schedule.invalid(detail));
            } else if !had {
                let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(schedule.invalid(detail));
            }
        }
        if zone.value() != pointer(old, "/spec/timeZone") {
            validate_time_zone(&zone, &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let name = workload::name_warning(object, "Pod names and hostnames");
        let root = Field::root("", object);
        let spec = root.child("spec");
        let job = spec.child("jobTemplate");
        let job = job.child("spec");
        let found = pod_spec::warnings(&job.child("template"));
        let zoned = text(object, "/spec/schedule").contains("TZ").then(|| {
            "spec.schedule: cannot use TZ or CRON_TZ in schedule, use timeZone instead".to_owned()
        });
        name.into_iter().chain(found).chain(zoned).collect()
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let none = |text: &str| -> Value { if text.is_empty() { "<none>" } else { text }.into() };
        let template = "/spec/jobTemplate/spec";
        let [containers, images] =
            workload::container_cells(object, &format!("{template}/template/spec/containers"));
        let last = match text(object, "/status/lastScheduleTime") {
            "" => "<none>".into(),
            last => since(last, now),
        };
        // Upstream's cell is a text, whatever the column says.
        let suspend = pointer(object, "/spec/suspend") == &Value::Bool(true);
        vec![
            meta::name(object).into(),
            text(object, "/spec/schedule").into(),
            none(text(object, "/spec/timeZone")),
            if suspend { "True" } else { "False" }.into(),
            count(object, "/status/active").into(),
            last.into(),
            age(object, now).into(),
            containers,
            images,
            label_selector::shown(pointer(object, &format!("{template}/selector"))),
        ]
    }
}

fn validate_schedule(schedule: &Field<'_, '_>, errors: &mut Errors) {
    if let Some(missing) = schedule.present() {
        errors.push(missing);
    } else if let Err(error) = Schedule::parse(schedule.text()) {
        errors.push(schedule.invalid(error.to_string()));
    }
}

fn validate_time_zone(zone: &Field<'_, '_>, errors: &mut Errors) {
    let name = zone.text();
    if !zone.is_set() {
        return;
    }
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if name.eq_ignore_ascii_case("Local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(zone.invalid(detail));
    } else if !name.split('/').all(is_zone_part) || jiff::tz::TimeZone::get(name).is_err() {
        errors.push(zone.invalid(format!("unknown time zone {name}")));
    }
}

/// A part of a zone's name that cannot lead anywhere in a file system.
fn is_zone_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    (1..=ZONE_PART_MAX).contains(&part.len())
        && part != "."
        && part != ".."
        && !part.starts_with('-')
        && part.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cron_job(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "tick"}, "spec": spec});
        object["spec"]["jobTemplate"] = json!({"spec": {"template": {"spec": {
            "restartPolicy": "OnFailure",
            "containers": [{"name": "a", "image": "a:1"}],
        }}}});
        CronJob.set_defaults(&mut object);
        object
    }

    fn errors(spec: &Value) -> Vec<String> {
        let object = cron_job(spec);
        let mut errors = CronJob.validate(&object);
        errors.extend(CronJob.validate_create(&object));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn schedule_and_zone_are_checked() {
        let good = json!({"schedule": "*/5 * * * *", "timeZone": "Europe/Berlin"});
        assert_eq!(errors(&good), Vec::<String>::new());
        assert_eq!(
            errors(
                &json!({"schedule": "5 * *", "timeZone": "Europe/../etc", "concurrencyPolicy": "Sometimes"})
            ),
            [
                r#"spec.schedule: Invalid value: "5 * *": expected exactly 5 fields, found 3: [5 * *]"#,
                r#"spec.concurrencyPolicy: Unsupported value: "Sometimes": supported values: "Allow", "Forbid", "Replace""#,
                r#"spec.timeZone: Invalid value: "Europe/../etc": unknown time zone Europe/../etc"#,
            ]
        );
    }

    #[test]
    fn a_name_leaves_room_for_the_time() {
        let mut object = cron_job(&json!({"schedule": "@daily"}));
        object["metadata"]["name"] = "a".repeat(53).into();
        let found = CronJob.validate_create(&object);
        assert_eq!(found[0].path, "metadata.name");
    }

    #[test]
    fn the_table_reads_as_kubectl_prints_it() {
        let object = cron_job(&json!({"schedule": "@daily"}));
        let cells = CronJob.cells(&object, Timestamp::UNIX_EPOCH);
        let expected = [
            json!("@daily"),
            json!("<none>"),
            json!("False"),
            json!(0),
            json!("<none>"),
        ];
        assert_eq!(cells[1..6], expected);
    }
}
