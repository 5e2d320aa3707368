//! Tables of Jobs, and a Job that runs to its end with the controller stopped at every step.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::controllers::job::pod::INDEX_FAILURES;
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn job(spec: &Value, status: &Value) -> Job {
    let mut spec = spec.clone();
    spec["template"] = json!({"spec": {"containers": [{"name": "c"}], "restartPolicy": "Never"}});
    let job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": spec, "status": status});
    serde_json::from_value(job).unwrap()
}

/// A pod as its letter says: `r`unning, `s`ucceeded, `f`ailed, `t`erminating; upper case: counted already.
fn pod(name: &str, state: char, index: Option<i32>) -> Pod {
    let finalizers = if state.is_uppercase() {
        json!([])
    } else {
        json!([TRACKING])
    };
    let state = state.to_ascii_lowercase();
    let metadata = json!({
        "name": name, "uid": name, "finalizers": finalizers,
        "annotations": index.map(|index| json!({pod::INDEX: index.to_string()})),
        "deletionTimestamp": (state == 't').then_some("2026-01-01T00:00:00Z"),
    });
    let phase = match state {
        's' => "Succeeded",
        'f' => "Failed",
        _ => "Running",
    };
    Pod {
        metadata: serde_json::from_value(metadata).unwrap(),
        phase: phase.into(),
        ready: state == 'r',
        finished: Some(Timestamp::UNIX_EPOCH),
        ..Pod::default()
    }
}

fn pods(states: &str, indexed: bool) -> Vec<Arc<Pod>> {
    let numbered = states.chars().zip(0..).filter(|(state, _)| *state != '.');
    numbered
        .map(|(state, at)| Arc::new(pod(&format!("p{at}"), state, indexed.then_some(at))))
        .collect()
}

/// `+N` pods made, `-N` deleted, `strip N`, then the conditions that hold.
fn told(plan: &Plan) -> String {
    let mut told = Vec::new();
    for (sign, count) in [
        ("+", plan.create.len()),
        ("-", plan.delete.len()),
        ("strip ", plan.strip.len()),
    ] {
        if count > 0 {
            told.push(format!("{sign}{count}"));
        }
    }
    let conditions = plan
        .status
        .conditions
        .iter()
        .flatten()
        .filter(|of| of.status == "True");
    told.extend(
        conditions.map(|of| format!("{}:{}", of.type_, of.reason.as_deref().unwrap_or_default())),
    );
    told.join(" ")
}

#[test]
fn pods_are_made_until_enough_have_succeeded() {
    let three = json!({"completions": 3, "parallelism": 2});
    let queue = json!({"parallelism": 2});
    let none = json!({"completions": 0});
    let cases = [
        (
            &none,
            json!({}),
            "",
            "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
        (&three, json!({}), "", "+2"),
        (&three, json!({}), "rr", ""),
        (&three, json!({}), "sr", "+1 strip 1"),
        (&three, json!({"succeeded": 2}), "r", ""),
        (&three, json!({"succeeded": 2}), "rr", "-1"),
        (
            &three,
            json!({"succeeded": 3}),
            "r",
            "-1 SuccessCriteriaMet:CompletionsReached",
        ),
        (
            &three,
            json!({"succeeded": 3}),
            "",
            "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
        (&queue, json!({}), "", "+2"),
        (&queue, json!({}), "sr", "strip 1"),
        (&queue, json!({"succeeded": 1}), "r", ""),
        (
            &queue,
            json!({"succeeded": 2}),
            "",
            "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
        ),
    ];
    for (spec, status, states, expected) in cases {
        let plan = plan(&job(spec, &status), &pods(states, false), true, at(1000));
        assert_eq!(told(&plan), expected, "{spec} {status} {states}");
    }
}

#[test]
fn failures_are_waited_for_and_counted_to_the_limit() {
    let spec = json!({"completions": 1, "parallelism": 1, "backoffLimit": 2});
    let run = |status: Value, states: &str, now: i64| {
        let plan = plan(&job(&spec, &status), &pods(states, false), true, at(now));
        (told(&plan), plan.wake.map(|wake| wake.as_secs()))
    };
    // Ten seconds after the first failure, twenty after the second.
    assert_eq!(run(json!({"failed": 1}), "F", 4), (String::new(), Some(6)));
    assert_eq!(run(json!({"failed": 1}), "F", 10), ("+1".into(), None));
    assert_eq!(
        run(json!({"failed": 2}), "FF", 10),
        (String::new(), Some(10))
    );
    let failed = "strip 1 FailureTarget:BackoffLimitExceeded";
    assert_eq!(run(json!({"failed": 2}), "f", 100), (failed.into(), None));
    let over = "FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded";
    assert_eq!(run(json!({"failed": 3}), "", 100), (over.into(), None));
}

#[test]
fn a_job_that_is_suspended_or_late_has_no_pods() {
    let suspended = json!({"suspend": true});
    let plan_of = |spec: &Value, status: Value, states: &str| {
        plan(&job(spec, &status), &pods(states, false), true, at(1000))
    };
    let first = plan_of(
        &suspended,
        json!({"startTime": "1970-01-01T00:00:00Z"}),
        "r",
    );
    assert_eq!(told(&first), "-1 Suspended:JobSuspended");
    assert_eq!(first.status.start_time, None);
    let condition = json!([{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]);
    let resumed = plan_of(&json!({}), json!({"conditions": condition}), "");
    assert_eq!(told(&resumed), "+1");
    assert_eq!(resumed.status.start_time, Some(Time(at(1000))));
    assert_eq!(resumed.events[0].1, "Resumed");
    let late = json!({"activeDeadlineSeconds": 100});
    let ended = plan_of(&late, json!({"startTime": "1970-01-01T00:00:00Z"}), "r");
    assert_eq!(told(&ended), "-1 FailureTarget:DeadlineExceeded");
    let early = plan_of(&late, json!({"startTime": "1970-01-01T00:15:50Z"}), "r");
    assert_eq!(
        (told(&early), early.wake),
        (String::new(), Some(Duration::from_secs(50)))
    );
}

#[test]
fn indexes_are_made_completed_and_failed_one_by_one() {
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "backoffLimitPerIndex": 0, "backoffLimit": 100});
    let run = |spec: &Value, status: Value, states: &str| {
        let plan = plan(&job(spec, &status), &pods(states, true), true, at(1000));
        let made: Vec<_> = plan
            .create
            .iter()
            .map(|pod| pod.metadata.annotation(pod::INDEX).to_owned())
            .collect();
        (
            made.join(","),
            plan.status.completed_indexes.clone().unwrap_or_default(),
            plan.status.failed_indexes.clone().unwrap_or_default(),
            told(&plan),
        )
    };
    let of = |made: &str, completed: &str, failed: &str, told: &str| {
        (
            made.to_owned(),
            completed.to_owned(),
            failed.to_owned(),
            told.to_owned(),
        )
    };
    assert_eq!(run(&spec, json!({}), ""), of("0,1,2,3", "", "", "+4"));
    assert_eq!(
        run(&spec, json!({}), "s.fr"),
        of("1", "0", "2", "+1 strip 2")
    );
    let ended = "strip 2 FailureTarget:FailedIndexes";
    assert_eq!(
        run(&spec, json!({"completedIndexes": "0,1"}), "..sf"),
        of("", "0-2", "3", ended)
    );
    let mut most = spec.clone();
    most["maxFailedIndexes"] = json!(0);
    let ended = "-1 strip 1 FailureTarget:MaxFailedIndexesExceeded";
    assert_eq!(run(&most, json!({}), "f..r"), of("", "", "0", ended));
    let mut enough = spec.clone();
    enough["successPolicy"] = json!({"rules": [{"succeededIndexes": "1-2", "succeededCount": 1}]});
    let ended = "-1 strip 1 SuccessCriteriaMet:SuccessPolicy";
    assert_eq!(run(&enough, json!({}), "r.s."), of("", "2", "", ended));
    // Two pods of an index: the younger goes.
    let twice: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| Arc::new(pod(name, 'r', Some(0))))
        .collect();
    let plan = plan(
        &job(&spec, &json!({"completedIndexes": "1-3"})),
        &twice,
        true,
        at(1000),
    );
    assert_eq!(told(&plan), "-1");
}

#[test]
fn a_job_that_ended_before_anybody_looked_has_a_start_all_the_same() {
    let one = json!({"completions": 1});
    let first = plan(&job(&one, &json!({})), &pods("s", false), true, at(1000));
    assert_eq!(first.status.start_time, Some(Time(at(1000))));
    let counted = json!({"succeeded": 1});
    let last = plan(&job(&one, &counted), &[], true, at(1001));
    let times = (last.status.start_time, last.status.completion_time);
    assert_eq!(times, (Some(Time(at(1001))), Some(Time(at(1001)))));
}

#[test]
fn failures_of_an_index_outlive_the_pod_that_failed() {
    let spec = json!({"completions": 1, "parallelism": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 2});
    let after = |failures: i32, state: char| {
        let mut pod = pod(&format!("p{failures}{state}"), state, Some(0));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX_FAILURES.into(), failures.to_string());
        Arc::new(pod)
    };
    let run = |spec: &Value, pods: &[Arc<Pod>], now: i64| {
        let plan = plan(&job(spec, &json!({})), pods, true, at(now));
        let made = plan.create.first();
        let made = made.map(|pod| pod.metadata.annotation(INDEX_FAILURES).to_owned());
        (told(&plan), made)
    };
    let failed = after(0, 'f');
    // While it is waited for its replacement, and until that is seen, the failed pod stays.
    assert_eq!(
        run(&spec, std::slice::from_ref(&failed), 5),
        (String::new(), None)
    );
    let next = ("+1".to_owned(), Some("1".to_owned()));
    assert_eq!(run(&spec, std::slice::from_ref(&failed), 1000), next);
    let seen = [failed, after(1, 'r')];
    assert_eq!(run(&spec, &seen, 1000), ("strip 1".into(), None));
    // The last failure fails the index, and with it everything is over.
    let ended = ("strip 1 FailureTarget:FailedIndexes".to_owned(), None);
    assert_eq!(run(&spec, &[after(2, 'f')], 1000), ended);
    // A failure that is ignored carries on those before it.
    let mut lenient = spec.clone();
    lenient["podFailurePolicy"] = json!({"rules": [{"action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
    let mut ignored = Pod::clone(&after(1, 'f'));
    ignored.conditions = vec![("DisruptionTarget".into(), "True".into())];
    let ignored = Arc::new(ignored);
    let next = ("+1".to_owned(), Some("1".to_owned()));
    assert_eq!(run(&lenient, std::slice::from_ref(&ignored), 1000), next);
    let seen = [ignored, after(1, 'r')];
    assert_eq!(run(&lenient, &seen, 1000), ("strip 1".into(), None));
    // Too late for another pod, nothing is held back.
    let mut late = spec;
    late["activeDeadlineSeconds"] = json!(10);
    let late = job(&late, &json!({"startTime": "1970-01-01T00:00:00Z"}));
    let plan = plan(&late, &[after(0, 'f')], true, at(1000));
    assert_eq!(told(&plan), "strip 1 FailureTarget:DeadlineExceeded");
}

/// Whatever is cut off, each of the pods is counted once in the end.
#[test]
fn no_result_is_lost_or_counted_twice_when_the_controller_stops_between_writes() {
    let spec = json!({"completions": 4, "parallelism": 4, "backoffLimit": 10});
    for cut in 0..40 {
        let mut status = json!({});
        let mut all = pods("ssfs", false);
        let mut writes = 0;
        for _ in 0..20 {
            let job = job(&spec, &status);
            let plan = plan(&job, &all, false, at(1000));
            // Each write may be the last before the controller starts anew from what is stored.
            writes += 1;
            if writes == cut {
                continue;
            }
            status = serde_json::to_value(&plan.status).unwrap();
            for pod in plan.strip {
                writes += 1;
                if writes == cut {
                    break;
                }
                let stripped = Pod {
                    metadata: {
                        let mut metadata = pod.metadata.clone();
                        metadata.finalizers = None;
                        metadata
                    },
                    ..Pod::clone(&pod)
                };
                all.retain(|other| other.metadata.uid() != pod.metadata.uid());
                // Every other pod is deleted as soon as it may be.
                if writes % 2 == 0 {
                    all.push(Arc::new(stripped));
                }
            }
        }
        assert_eq!(
            (&status["succeeded"], &status["failed"]),
            (&json!(3), &json!(1)),
            "cut at {cut}"
        );
        assert_eq!(
            status["uncountedTerminatedPods"],
            json!({"succeeded": [], "failed": []})
        );
    }
}

#[test]
fn a_finished_job_only_lets_its_pods_go() {
    let condition = json!([{"type": "Complete", "status": "True"}]);
    let plan = plan(
        &job(
            &json!({"completions": 9}),
            &json!({"conditions": condition}),
        ),
        &pods("srS", false),
        true,
        at(0),
    );
    assert_eq!(told(&plan), "strip 2 Complete:");
}
