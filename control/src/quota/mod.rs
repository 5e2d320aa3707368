//! ResourceQuotas: what objects count for, and whether a quota lets one more in. Pure.
//!
//! 1. `usage` says what an object takes of each countable resource.
//! 2. `scopes` says which objects a quota is about.
//! 3. [`charge`] moves a quota's `status.used` from what the old object took to what the new one takes,
//!    or refuses, in upstream's words.
//!
//! The registry charges quotas in the commit that writes the object, so the sum is exact at every
//! revision; the controller counts anew only when a quota itself changes.

mod scopes;
mod usage;

use serde_json::{Map, Value};
use windlass_api::pod_resources::ResourceList;
use windlass_api::quantity::Quantity;

pub(crate) use usage::{Counted, counted_resources};

/// What becomes of a quota.
#[derive(Debug, PartialEq)]
pub(crate) enum Charge {
    /// It is not concerned.
    Nothing,
    /// It counts what is used by this much.
    Used(ResourceList),
    /// Its `status.used` does not say yet, and is about to: it must not change unnoticed meanwhile.
    Unknown,
}

/// What the write of an object means to `quota`. `enforces` is false for writes that nobody is refused
/// for, such as of a status: they are counted all the same.
///
/// # Errors
/// Why the quota refuses the write.
pub(crate) fn charge(
    quota: &Value,
    old: Option<&Counted<'_>>,
    new: Option<&Counted<'_>>,
    enforces: bool,
) -> Result<Charge, String> {
    let hard = amounts(quota, "/status/hard");
    let of = |counted: Option<&Counted<'_>>| {
        let counted = counted.filter(|counted| scopes::select(quota, counted));
        let mut usage = counted.map(Counted::usage).unwrap_or_default();
        usage.retain(|name, _| hard.contains_key(name));
        usage
    };
    let (before, after) = (of(old), of(new));
    let name = quota.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.unwrap_or_default();
    if enforces
        && old.is_none()
        && !after.is_empty()
        && let Some(missing) = new.and_then(|counted| counted.missing(&hard))
    {
        return Err(format!("failed quota: {name}: must specify {missing}"));
    }
    let mut change = after;
    for (resource, amount) in before {
        *change.entry(resource).or_default() -= amount;
    }
    change.retain(|_, amount| !amount.is_zero());
    if change.is_empty() {
        return Ok(Charge::Nothing);
    }
    let mut used = amounts(quota, "/status/used");
    if change.keys().any(|resource| !used.contains_key(resource)) {
        if enforces && change.values().any(|amount| !amount.is_negative()) {
            let resources: Vec<_> = change.keys().map(String::as_str).collect();
            let resources = resources.join(",");
            return Err(format!(
                "status unknown for quota: {name}, resources: {resources}"
            ));
        }
        return Ok(Charge::Unknown);
    }
    let before = used.clone();
    for (resource, amount) in &change {
        *used.entry(resource.clone()).or_default() += *amount;
    }
    let exceeded = |resource: &&String| {
        let grows = change
            .get(*resource)
            .is_some_and(|amount| !amount.is_negative());
        grows && used.get(*resource) > hard.get(*resource)
    };
    let exceeded: Vec<_> = change.keys().filter(exceeded).collect();
    if enforces && !exceeded.is_empty() {
        let show = |amounts: &ResourceList| shown(&exceeded, amounts);
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            show(&change),
            show(&before),
            show(&hard)
        ));
    }
    Ok(Charge::Used(used))
}

/// What `objects` use of each of a quota's hard resources.
pub(crate) fn total<'a>(quota: &Value, objects: impl Iterator<Item = Counted<'a>>) -> ResourceList {
    let hard = amounts(quota, "/spec/hard");
    let mut used: ResourceList = hard
        .iter()
        .map(|(name, amount)| (name.clone(), Quantity::from_units(0, amount.format())))
        .collect();
    for counted in objects.filter(|counted| scopes::select(quota, counted)) {
        for (name, amount) in counted.usage() {
            if let Some(total) = used.get_mut(&name) {
                *total += amount;
            }
        }
    }
    used
}

/// The amounts at a path of an object; those that are none are left out, which validation rules out.
#[must_use]
pub(crate) fn amounts(object: &Value, pointer: &str) -> ResourceList {
    let members = object.pointer(pointer).and_then(Value::as_object);
    let amount = |(name, amount): (&String, &Value)| {
        let amount = match amount {
            Value::String(text) => text.parse().ok()?,
            other => other.to_string().parse().ok()?,
        };
        Some((name.clone(), amount))
    };
    members.into_iter().flatten().filter_map(amount).collect()
}

/// Amounts as an object writes them.
#[must_use]
pub(crate) fn written(amounts: &ResourceList) -> Value {
    let entry = |(name, amount): (&String, &Quantity)| (name.clone(), amount.to_string().into());
    amounts.iter().map(entry).collect::<Map<_, _>>().into()
}

/// `cpu=1,pods=2`.
fn shown(names: &[&String], amounts: &ResourceList) -> String {
    let amount = |name: &&String| {
        let amount = amounts.get(*name).copied().unwrap_or_default();
        format!("{name}={amount}")
    };
    names.iter().map(amount).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::json;

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn counted<'a>(resource: &'a str, object: &'a Value) -> Counted<'a> {
        Counted {
            group: "",
            resource,
            object,
        }
    }

    fn used(charge: Result<Charge, String>) -> Value {
        match charge {
            Ok(Charge::Used(used)) => written(&used),
            Ok(Charge::Nothing) => json!("nothing"),
            Ok(Charge::Unknown) => json!("unknown"),
            Err(refusal) => refusal.into(),
        }
    }

    #[test]
    fn a_quota_is_charged_for_the_difference_and_refuses_what_is_too_much() {
        let hard = json!({"pods": "2", "requests.cpu": "1"});
        let quota = quota(hard, json!({"pods": "1", "requests.cpu": "600m"}));
        let (small, large, ended) = (pod("400m"), pod("500m"), {
            let mut pod = pod("600m");
            pod["status"] = json!({"phase": "Succeeded"});
            pod
        });
        let (small, large) = (counted("pods", &small), counted("pods", &large));
        let created = |pod| used(charge(&quota, None, Some(pod), true));
        assert_eq!(created(&small), json!({"pods": "2", "requests.cpu": "1"}));
        let refusal = "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1";
        assert_eq!(created(&large), refusal);
        let running = pod("600m");
        let running = counted("pods", &running);
        let ended = counted("pods", &ended);
        let after = json!({"pods": "0", "requests.cpu": "0"});
        assert_eq!(
            used(charge(&quota, Some(&running), Some(&ended), false)),
            after
        );
        assert_eq!(used(charge(&quota, Some(&running), None, true)), after);
        let nothing = used(charge(&quota, Some(&running), Some(&running), true));
        assert_eq!(nothing, "nothing");
    }

    #[test]
    fn a_quota_that_is_not_counted_yet_lets_nothing_in_and_notices_what_leaves() {
        let quota = quota(json!({"pods": "2"}), json!({}));
        let pod = pod("1");
        let pod = counted("pods", &pod);
        let refusal = "status unknown for quota: q, resources: pods";
        assert_eq!(used(charge(&quota, None, Some(&pod), true)), refusal);
        assert_eq!(used(charge(&quota, Some(&pod), None, true)), "unknown");
    }

    #[test]
    fn a_pod_must_say_what_a_quota_counts() {
        let hard = json!({"limits.memory": "1Gi", "requests.cpu": "1", "pods": "9"});
        let quota = quota(
            hard,
            json!({"limits.memory": "0", "requests.cpu": "0", "pods": "0"}),
        );
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"memory": "1"}}}]}});
        let refusal = charge(&quota, None, Some(&counted("pods", &pod)), true).unwrap_err();
        let expected = "failed quota: q: must specify limits.memory for: a; requests.cpu for: a,b";
        assert_eq!(refusal, expected);
    }

    #[test]
    fn everything_is_counted_when_a_quota_is_new() {
        let hard = json!({"configmaps": "3", "count/configmaps": "3", "services.nodeports": "1"});
        let quota = quota(hard, json!({}));
        let (map, service) = (
            json!({}),
            json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}),
        );
        let objects = [
            counted("configmaps", &map),
            counted("configmaps", &map),
            counted("services", &service),
        ];
        let expected =
            json!({"configmaps": "2", "count/configmaps": "2", "services.nodeports": "2"});
        assert_eq!(written(&total(&quota, objects.into_iter())), expected);
    }
}
