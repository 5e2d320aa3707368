//! Pods tolerate a node that is not ready or unreachable for five minutes, unless they say otherwise.

use serde_json::{Value, json};

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;

const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
const SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates("Pod") {
            return Ok(());
        }
        let spec = meta::member_mut(object, "spec");
        let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
        let Some(tolerations) = tolerations.as_array_mut() else {
            return Ok(());
        };
        for taint in TAINTS {
            if !tolerations
                .iter()
                .any(|toleration| covers(toleration, taint))
            {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": SECONDS,
                }));
            }
        }
        Ok(())
    }
}

fn covers(toleration: &Value, taint: &str) -> bool {
    let text = |field| {
        toleration
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (key, effect) = (text("key"), text("effect"));
    (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
}
