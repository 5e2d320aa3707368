//! Whether amounts keep within a bound of a LimitRange, in upstream's words.

use serde_json::Value;
use windlass_api::pod_resources::ResourceList;
use windlass_api::quantity::Quantity;

/// An amount that a LimitRange sets for a resource of things of a type.
struct Bound<'a> {
    /// `Pod`, `Container` or `PersistentVolumeClaim`.
    of: &'a str,
    resource: &'a str,
    amount: Quantity,
}

/// What is wrong with a request and a limit, if they break a bound.
type Check = fn(&Bound<'_>, Option<Quantity>, Option<Quantity>) -> Option<String>;

/// The bounds of pods and containers, by the field that sets them.
const OF_PODS: [(&str, Check); 3] = [
    ("min", at_least),
    ("max", at_most),
    ("maxLimitRequestRatio", in_ratio),
];

/// The bounds of claims, which only request.
const OF_CLAIMS: [(&str, Check); 2] = [("min", at_least), ("max", requests_at_most)];

/// The bounds of `limit`, a member of a LimitRange's `spec.limits`, that requests and limits break.
pub(super) fn broken(limit: &Value, requests: &ResourceList, limits: &ResourceList) -> Vec<String> {
    let of = limit.get("type").and_then(Value::as_str);
    let of = of.unwrap_or_default();
    let checks = match of {
        "PersistentVolumeClaim" => OF_CLAIMS.as_slice(),
        _ => OF_PODS.as_slice(),
    };
    let mut found = Vec::new();
    for (field, check) in checks {
        for (resource, amount) in &amounts(limit.get(*field)) {
            let bound = Bound {
                of,
                resource,
                amount: *amount,
            };
            let (request, limit) = (requests.get(resource), limits.get(resource));
            found.extend(check(&bound, request.copied(), limit.copied()));
        }
    }
    found
}

/// A list of amounts; the schema has refused what is none.
pub(super) fn amounts(list: Option<&Value>) -> ResourceList {
    let list = list.and_then(Value::as_object).into_iter().flatten();
    let amounts = list.filter_map(|(resource, amount)| {
        let amount = amount.as_str()?.parse().ok()?;
        Some((resource.clone(), amount))
    });
    amounts.collect()
}

impl Bound<'_> {
    /// `minimum cpu usage per Container is 50m`.
    fn usage(&self, extreme: &str) -> String {
        let Self {
            of,
            resource,
            amount,
        } = self;
        format!("{extreme} {resource} usage per {of} is {amount}")
    }
}

fn at_least(
    bound: &Bound<'_>,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let usage = bound.usage("minimum");
    match (request, limit) {
        (None, _) => Some(format!("{usage}.  No request is specified")),
        (Some(request), _) if request < bound.amount => {
            Some(format!("{usage}, but request is {request}"))
        }
        (_, Some(limit)) if limit < bound.amount => Some(format!("{usage}, but limit is {limit}")),
        _ => None,
    }
}

fn at_most(
    bound: &Bound<'_>,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let usage = bound.usage("maximum");
    match (limit, request) {
        (None, _) => Some(format!("{usage}.  No limit is specified")),
        (Some(limit), _) if limit > bound.amount => Some(format!("{usage}, but limit is {limit}")),
        (_, Some(request)) if request > bound.amount => {
            Some(format!("{usage}, but request is {request}"))
        }
        _ => None,
    }
}

fn requests_at_most(
    bound: &Bound<'_>,
    request: Option<Quantity>,
    _: Option<Quantity>,
) -> Option<String> {
    let usage = bound.usage("maximum");
    match request {
        None => Some(format!("{usage}.  No request is specified")),
        Some(request) if request > bound.amount => {
            Some(format!("{usage}, but request is {request}"))
        }
        Some(_) => None,
    }
}

fn in_ratio(
    bound: &Bound<'_>,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let Bound {
        of,
        resource,
        amount,
    } = bound;
    let most = format!("{resource} max limit to request ratio per {of} is {amount}");
    let some = |amount: Option<Quantity>| amount.filter(|amount| !amount.is_zero());
    let Some(request) = some(request) else {
        return Some(format!(
            "{most}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = some(limit) else {
        return Some(format!("{most}, but no limit is specified or limit is 0"));
    };
    // Upstream compares floating-point numbers.
    let ratio = limit.millis() as f64 / request.millis() as f64;
    (ratio * 1000.0 > amount.millis() as f64)
        .then(|| format!("{most}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn broken_bounds_are_told_in_upstream_s_words() {
        let limit = json!({
            "type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"},
            "maxLimitRequestRatio": {"cpu": "2"},
        });
        let minimum = "minimum cpu usage per Container is 50m";
        let maximum = "maximum cpu usage per Container is 500m";
        let ratio = "cpu max limit to request ratio per Container is 2";
        let cases = [
            (Some("100m"), Some("200m"), vec![]),
            (
                None,
                None,
                vec![
                    format!("{minimum}.  No request is specified"),
                    format!("{maximum}.  No limit is specified"),
                    format!("{ratio}, but no request is specified or request is 0"),
                ],
            ),
            (
                Some("10m"),
                Some("10m"),
                vec![format!("{minimum}, but request is 10m")],
            ),
            (
                Some("300m"),
                Some("600m"),
                vec![format!("{maximum}, but limit is 600m")],
            ),
            (
                Some("100m"),
                Some("250m"),
                vec![format!("{ratio}, but provided ratio is 2.500000")],
            ),
        ];
        for (request, limited, expected) in cases {
            let list = |amount: Option<&str>| match amount {
                Some(amount) => amounts(Some(&json!({"cpu": amount}))),
                None => ResourceList::new(),
            };
            assert_eq!(broken(&limit, &list(request), &list(limited)), expected);
        }
    }

    #[test]
    fn a_claim_has_no_limit() {
        let limit = json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}});
        let requests = |size: &str| amounts(Some(&json!({"storage": size})));
        let none = ResourceList::new();
        assert!(broken(&limit, &requests("1Gi"), &none).is_empty());
        assert_eq!(
            broken(&limit, &requests("2Gi"), &none),
            ["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"]
        );
    }
}
