//! Validation of a job's spec, for jobs and for templates of jobs.

use std::collections::HashSet;

use serde_json::Value;
use windlass_api::names;

use super::super::field::{Errors, Field};
use super::super::{pod_spec, workload};
use crate::registry::field_error::Problem;

const COMPLETION_MODES: &[&str] = &["NonIndexed", "Indexed"];
const REPLACEMENTS: &[&str] = &["Failed", "TerminatingOrFailed"];
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const CONDITION_STATUSES: &[&str] = &["False", "True", "Unknown"];

const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// From so many completions on, the two numbers below bound a job with limits per index.
const MANY_COMPLETIONS: i64 = 100_000;
const PARALLELISM_OF_MANY: i64 = 10_000;
const FAILED_INDEXES_OF_MANY: i64 = 10_000;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const MANAGED_BY_MAX: usize = 63;
const INDEXES_MAX: usize = 64 << 10;

/// All that is wrong with the job spec at `spec`, but for its selector.
pub(in super::super) fn validate(spec: &Field<'_, '_>, errors: &mut Errors) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    workload::non_negative(spec, &numbers, errors);
    let per_index = spec.child("backoffLimitPerIndex");
    if spec.has("maxFailedIndexes") && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    validate_managed_by(&spec.child("managedBy"), errors);
    let mode = spec.child("completionMode");
    errors.extend(mode.one_of(COMPLETION_MODES));
    match mode.text() {
        "Indexed" => validate_indexed(spec, errors),
        "" | "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                let field = spec.child(field);
                if field.is_set() {
                    errors.push(field.invalid("requires indexed completion mode"));
                }
            }
        }
        _ => {}
    }
    let failure = spec.child("podFailurePolicy");
    if failure.is_set() {
        validate_failure_policy(spec, &failure, errors);
    }
    let success = spec.child("successPolicy");
    if success.is_set() && mode.text() != "Indexed" {
        errors.push(success.invalid("requires indexed completion mode"));
    } else if success.is_set() {
        validate_success_policy(spec, &success, errors);
    }
    let replacement = spec.child("podReplacementPolicy");
    let supported = match failure.is_set() {
        true => REPLACEMENTS.get(..1).unwrap_or_default(),
        false => REPLACEMENTS,
    };
    errors.extend(replacement.one_of(supported));
    let template = spec.child("template");
    pod_spec::validate_template(&template, errors);
    validate_restart_policy(&template, failure.is_set(), errors);
}

/// Pods of a job end.
fn validate_restart_policy(template: &Field<'_, '_>, rules: bool, errors: &mut Errors) {
    let spec = template.child("spec");
    let policy = spec.child("restartPolicy");
    match policy.text() {
        "" | "Always" => {
            errors.push(policy.required(r#"valid values: "OnFailure", "Never""#));
        }
        "OnFailure" if rules => {
            let detail = r#"only "Never" is supported when podFailurePolicy is specified"#;
            errors.push(policy.invalid(detail));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(policy.not_supported(&["OnFailure", "Never"])),
    }
}

/// `domain/path` of the controller that takes care of the job.
fn validate_managed_by(manager: &Field<'_, '_>, errors: &mut Errors) {
    if !manager.is_set() {
        return;
    }
    match manager.text().split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            let problems = names::dns1123_subdomain(domain).into_iter();
            errors.extend(problems.map(|problem| manager.invalid_as(domain, problem)));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:/".contains(c);
            if !path.chars().all(plain) {
                let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
                errors.push(manager.invalid_as(path, detail));
            }
        }
        _ if manager.text().is_empty() => errors.push(manager.required("")),
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(manager.invalid(detail));
        }
    }
    if manager.text().len() > MANAGED_BY_MAX {
        errors.push(manager.error(Problem::TooLong(MANAGED_BY_MAX)));
    }
}

fn validate_indexed(spec: &Field<'_, '_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.child("completions"), spec.child("parallelism"));
    let failed = spec.child("maxFailedIndexes");
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    let above = |field: &Field<'_, '_>, most: i64| field.integer().is_some_and(|n| n > most);
    if above(&parallelism, PARALLELISM_MAX) {
        let detail = format!(
            "must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"
        );
        errors.push(parallelism.invalid(detail));
    }
    if completions.integer().is_some_and(|all| above(&failed, all)) {
        errors.push(failed.invalid("must be less than or equal to completions"));
    }
    if above(&failed, FAILED_INDEXES_MAX) {
        let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
        errors.push(failed.invalid(detail));
    }
    if !above(&completions, MANY_COMPLETIONS) || !spec.has("backoffLimitPerIndex") {
        return;
    }
    if !failed.is_set() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(failed.required(detail));
    }
    for (field, most) in [
        (parallelism, PARALLELISM_OF_MANY),
        (failed, FAILED_INDEXES_OF_MANY),
    ] {
        if above(&field, most) {
            let detail = format!(
                "must be less than or equal to {most} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
            );
            errors.push(field.invalid(detail));
        }
    }
}

/// `valid values: ["A" "B"]`, as Go prints a list.
fn valid_values(values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", values.join(" "))
}

fn choice(field: &Field<'_, '_>, values: &[&'static str], errors: &mut Errors) {
    if field.text().is_empty() {
        errors.push(field.required(valid_values(values)));
    } else {
        errors.extend(field.one_of(values));
    }
}

fn validate_failure_policy(spec: &Field<'_, '_>, policy: &Field<'_, '_>, errors: &mut Errors) {
    let rules = policy.child("rules");
    errors.extend(rules.at_most(RULES_MAX));
    let template = spec.child("template");
    let pod = template.child("spec");
    let (containers, init) = (pod.child("containers"), pod.child("initContainers"));
    let all = containers.items().chain(init.items());
    let names: HashSet<_> = all.map(|container| container.text_of("name")).collect();
    for rule in rules.items() {
        let action = rule.child("action");
        if action.text() == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        } else {
            choice(&action, ACTIONS, errors);
        }
        let (codes, patterns) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        if codes.is_set() {
            validate_exit_codes(&codes, &names, errors);
        }
        validate_patterns(&patterns, errors);
        let detail = match (codes.is_set(), patterns.len() > 0) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(rule.unfit(detail));
    }
}

fn validate_patterns(patterns: &Field<'_, '_>, errors: &mut Errors) {
    errors.extend(patterns.at_most(PATTERNS_MAX));
    for pattern in patterns.items() {
        errors.extend(pattern.child("type").follows(names::qualified_name));
        choice(&pattern.child("status"), CONDITION_STATUSES, errors);
    }
}

fn validate_exit_codes(codes: &Field<'_, '_>, containers: &HashSet<&str>, errors: &mut Errors) {
    let operator = codes.child("operator");
    choice(&operator, OPERATORS, errors);
    let container = codes.child("containerName");
    if container.is_set() && !containers.contains(container.text()) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(container.invalid(detail));
    }
    let values = codes.child("values");
    if values.len() == 0 {
        errors.push(values.invalid("at least one value is required"));
    }
    errors.extend(values.at_most(EXIT_CODES_MAX));
    let mut seen = HashSet::new();
    for value in values.items() {
        let code = value.integer().unwrap_or_default();
        if operator.text() == "In" && code == 0 {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(value.duplicate());
        }
    }
    let numbers: Vec<_> = values.items().filter_map(|value| value.integer()).collect();
    if !numbers.is_sorted() {
        errors.push(values.invalid("must be ordered"));
    }
}

fn validate_success_policy(spec: &Field<'_, '_>, policy: &Field<'_, '_>, errors: &mut Errors) {
    let rules = policy.child("rules");
    if rules.len() == 0 {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(rules.required(detail));
    }
    errors.extend(rules.at_most(RULES_MAX));
    let completions = spec.integer_of("completions").unwrap_or_default();
    for rule in rules.items() {
        validate_success_rule(&rule, completions, errors);
    }
}

fn validate_success_rule(rule: &Field<'_, '_>, completions: i64, errors: &mut Errors) {
    let (count, indexes) = (rule.child("succeededCount"), rule.child("succeededIndexes"));
    if !count.is_set() && !indexes.is_set() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(rule.required(detail));
    }
    let mut total = 0;
    if indexes.text().len() > INDEXES_MAX {
        errors.push(indexes.error(Problem::TooLong(INDEXES_MAX)));
    }
    match count_indexes(indexes.text(), completions) {
        Ok(count) => total = count,
        Err(error) => {
            let detail = format!("error parsing succeededIndexes: {error}");
            errors.push(indexes.invalid(detail));
        }
    }
    errors.extend(count.non_negative());
    let wanted = count.integer().unwrap_or_default();
    if wanted > completions {
        let detail = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        errors.push(count.invalid(detail));
    }
    if indexes.is_set() && wanted > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(count.invalid(detail));
    }
}

/// How many indexes `0,3-5` has.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    Ok(intervals(text, completions)?
        .into_iter()
        .map(|(first, last)| last - first + 1)
        .sum())
}

/// The intervals of `0,3-5`, which must be in order and below `completions`.
pub(super) fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = parse_interval(interval, completions)?;
        if let Some((_, previous)) = found.last()
            && *previous >= first
        {
            return Err(format!(
                "non-increasing order, previous: {previous}, current: {first}"
            ));
        }
        found.push((first, last));
    }
    Ok(found)
}

fn parse_interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<_> = text.split('-').collect();
    let index = |part: &str| match part.parse::<i64>() {
        Ok(index) if index >= completions => Err(format!("too large index: {part:?}")),
        Ok(index) => Ok(index),
        Err(_) => Err(format!(
            "cannot convert string to integer for index: {part:?}"
        )),
    };
    match parts.as_slice() {
        [only] => {
            let only = index(only)?;
            Ok((only, only))
        }
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last {
                return Err(format!(
                    "non-increasing order, previous: {first}, current: {last}"
                ));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

/// The selector of a job that is still to be made is made with it.
pub(in super::super) fn validate_template(template: &Field<'_, '_>, errors: &mut Errors) {
    let spec = template.child("spec");
    validate(&spec, errors);
    let selector = spec.child("selector");
    if selector.is_set() {
        errors.push(selector.invalid("`selector` will be auto-generated"));
    }
    let manual = spec.child("manualSelector");
    if manual.value() == &Value::Bool(true) {
        errors.push(manual.not_supported(&["nil", "false"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(members: &Value) -> Vec<String> {
        let mut spec = json!({"template": {"spec": {
            "restartPolicy": "Never", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "a", "image": "a", "imagePullPolicy": "Always",
                "terminationMessagePolicy": "File",
            }],
        }}});
        for (key, value) in members.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let mut errors = Errors::new();
        validate(&Field::root("spec", &spec), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_spec_is_refused_for_each_broken_rule() {
        let cases = [
            (json!({}), vec![]),
            (
                json!({"completionMode": "Indexed"}),
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                json!({"maxFailedIndexes": 1}),
                vec![
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                    "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
                ],
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "Stop"}]}, "podReplacementPolicy": "TerminatingOrFailed"}),
                vec![
                    r#"spec.podFailurePolicy.rules[0].action: Unsupported value: "Stop": supported values: "Count", "FailIndex", "FailJob", "Ignore""#,
                    "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                    r#"spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed""#,
                ],
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 0, 2]}}]}}),
                vec![
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered",
                ],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "0-2,7"}]}}),
                vec![
                    r#"spec.successPolicy.rules[0].succeededIndexes: Invalid value: "0-2,7": error parsing succeededIndexes: too large index: "7""#,
                ],
            ),
            (
                json!({"managedBy": "me"}),
                vec![
                    r#"spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")"#,
                ],
            ),
        ];
        for (members, expected) in cases {
            assert_eq!(errors(&members), expected, "{members}");
        }
    }

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count_indexes("", 5), Ok(0));
        assert_eq!(count_indexes("0,2-4", 5), Ok(4));
        assert!(count_indexes("3,1", 5).is_err());
        assert!(count_indexes("1-2-3", 5).is_err());
    }
}
