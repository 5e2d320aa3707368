//! Taints of nodes and the tolerations of pods.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Nothing new is placed on the node.
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
/// As little as possible is placed on the node.
pub(crate) const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// What does not tolerate it leaves the node.
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// Key of the taint of a node that is not ready.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Whether `toleration` is for `taint`. Source: `ToleratesTaint` of the core API.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        // An empty key stands for all only together with Exists.
        None | Some("" | "Equal") => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

/// The first of `taints` with one of `effects` that nothing in `tolerations` is for.
pub(crate) fn untolerated<'a>(
    taints: &'a [Taint],
    effects: &[&str],
    tolerations: &[Toleration],
) -> Option<&'a Taint> {
    let mut relevant = taints
        .iter()
        .filter(|taint| effects.contains(&&*taint.effect));
    relevant.find(|taint| {
        !tolerations
            .iter()
            .any(|toleration| tolerates(toleration, taint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_toleration_is_for_what_it_names() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "a", "value": "1", "effect": "NoSchedule"}))
                .unwrap();
        let cases: [(Value, bool); 8] = [
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "a", "value": "1"}), true),
            (
                json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"}),
                true,
            ),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "value": "2"}), false),
            (json!({"key": "b", "operator": "Exists"}), false),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (json!({"value": "1"}), false),
        ];
        for (toleration, expected) in cases {
            let toleration_: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&toleration_, &taint), expected, "{toleration}");
        }
    }
}
