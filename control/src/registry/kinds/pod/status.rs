//! What an update of a pod's status may not do.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;
use windlass_api::names;

use super::super::field::{Errors, Field, pointer};
use super::super::{items, text};

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const ENDED: &str = "may not be transitioned to non-terminated state";
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// All that is wrong with the change of the status.
pub(super) fn validate(old: &Value, new: &Value, errors: &mut Errors) {
    let root = Field::root("", new);
    let status = root.child("status");
    // Upstream calls the list by a name it does not have.
    let conditions = Field::root("metadata.conditions", status.child("conditions").value());
    for condition in conditions.items() {
        let kind = condition.text_of("type");
        if !SYSTEM_CONDITIONS.contains(&kind) {
            let problems = names::qualified_name(kind).into_iter();
            let named = condition.child("Type");
            errors.extend(problems.map(|problem| named.invalid_as(kind, problem)));
        }
    }
    let nominated = status.child("nominatedNodeName");
    if nominated.text() != text(old, "/status/nominatedNodeName") {
        errors.extend(nominated.follows_if_set(names::dns1123_subdomain));
    }
    let class = status.child("qosClass");
    errors.extend(class.unchanged(pointer(old, "/status/qosClass")));
    let policy = text(old, "/spec/restartPolicy");
    for (list, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        // Nobody restarts an ephemeral container.
        ("ephemeralContainerStatuses", "Never"),
    ] {
        validate_transitions(old, &status, list, policy, errors);
    }
    validate_claims(&root, errors);
    validate_addresses(&status.child("podIPs"), errors);
    validate_host_addresses(&status, errors);
}

/// A container that ended for good stays ended.
fn validate_transitions(
    old: &Value,
    status: &Field<'_, '_>,
    list: &str,
    policy: &str,
    errors: &mut Errors,
) {
    if policy == "Always" {
        return;
    }
    let statuses = status.child(list);
    for (index, before) in items(old, &format!("/status/{list}")).iter().enumerate() {
        let name = text(before, "/name");
        let Some(ended) = before.pointer("/state/terminated") else {
            continue;
        };
        let failed = ended.get("exitCode").and_then(Value::as_i64) != Some(0);
        if (failed && policy == "OnFailure") || restarts_itself(old, list, name) {
            continue;
        }
        let revived = statuses
            .items()
            .any(|after| after.text_of("name") == name && !after.child("state").has("terminated"));
        if revived {
            let container = statuses.index(index);
            errors.push(container.child("state").forbidden(ENDED));
        }
    }
}

/// Whether the container has a policy of its own that restarts it.
fn restarts_itself(pod: &Value, list: &str, name: &str) -> bool {
    let specs = match list {
        "containerStatuses" => "/spec/containers",
        "initContainerStatuses" => "/spec/initContainers",
        _ => return false,
    };
    let mut named = items(pod, specs)
        .iter()
        .filter(|spec| text(spec, "/name") == name);
    named.any(|spec| {
        let rules = !items(spec, "/restartPolicyRules").is_empty();
        rules || ["Always", "OnFailure"].contains(&text(spec, "/restartPolicy"))
    })
}

fn validate_claims(root: &Field<'_, '_>, errors: &mut Errors) {
    let (spec, status) = (root.child("spec"), root.child("status"));
    let claims = spec.child("resourceClaims");
    let mut seen = HashSet::new();
    for claim in status.child("resourceClaimStatuses").items() {
        let name = claim.child("name");
        let known = claims
            .items()
            .any(|claim| claim.text_of("name") == name.text());
        if !known {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(name.invalid(detail));
        }
        errors.extend(name.unique(&mut seen));
        let object = claim.child("resourceClaimName");
        errors.extend(object.follows_if_set(names::dns1123_subdomain));
    }
}

/// Addresses are addresses, each once, at most one of each family.
fn validate_addresses(list: &Field<'_, '_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let (mut v4, mut v6) = (0, 0);
    for entry in list.items() {
        let text = entry.text_of("ip");
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => v4 += 1,
            Ok(IpAddr::V6(_)) => v6 += 1,
            Err(_) => errors.push(entry.invalid_as(text, ADDRESS)),
        }
        if !seen.insert(text) {
            errors.push(entry.duplicate());
        }
    }
    if v4 > 1 || v6 > 1 {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(list.invalid(detail));
    }
}

fn validate_host_addresses(status: &Field<'_, '_>, errors: &mut Errors) {
    let list = status.child("hostIPs");
    if list.len() == 0 {
        return;
    }
    let first = list.index(0);
    let ip = first.child("ip");
    if ip.text() != status.text_of("hostIP") {
        errors.push(ip.invalid("must be equal to `hostIP`"));
    }
    validate_addresses(&list, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_ended_for_good_stays_ended() {
        let pod = |state: Value| {
            json!({
                "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "a"}]},
                "status": {"qosClass": "BestEffort", "containerStatuses": [{"name": "a", "state": state}]},
            })
        };
        let running = pod(json!({"running": {}}));
        for (exit_code, errors) in [(0, 1), (1, 0)] {
            let mut found = Errors::new();
            let ended = pod(json!({"terminated": {"exitCode": exit_code}}));
            validate(&ended, &running, &mut found);
            assert_eq!(found.len(), errors, "{found:?}");
        }
    }

    #[test]
    fn addresses_are_checked_and_the_class_of_service_stays() {
        let old = json!({"spec": {}, "status": {"qosClass": "Burstable"}});
        let new = json!({"spec": {}, "status": {
            "qosClass": "BestEffort",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "x"}],
        }});
        let mut errors = Errors::new();
        validate(&old, &new, &mut errors);
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            ["status.qosClass", "status.podIPs[2]", "status.podIPs"]
        );
    }
}
