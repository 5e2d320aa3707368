//! The downward API: what a container may learn of its own pod, for `env` and for volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use windlass_api::quantity::Quantity;

/// What only the node knows of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeView {
    /// Address of the node.
    pub(crate) host_ip: String,
    /// Address of the pod.
    pub(crate) pod_ip: String,
    /// What `limits.cpu` is without a limit, in thousandths.
    pub(crate) cpu_millis: i64,
    /// What `limits.memory` is without a limit, in bytes.
    pub(crate) memory_bytes: i64,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// The path is not one of those Kubernetes offers.
pub(crate) fn field(pod: &Pod, node: &NodeView, path: &str) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => Ok(node.host_ip.clone()),
        "status.podIP" | "status.podIPs" => Ok(node.pod_ip.clone()),
        _ => subscript(pod, path).ok_or_else(|| format!("unsupported fieldPath: {path}")),
    }
}

/// `metadata.labels['key']` and `metadata.annotations['key']`.
fn subscript(pod: &Pod, path: &str) -> Option<String> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    let map = match map {
        "metadata.labels" => &pod.metadata.labels,
        "metadata.annotations" => &pod.metadata.annotations,
        _ => return None,
    };
    Some(
        map.as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default(),
    )
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef` of `container`.
///
/// # Errors
/// The resource is not one of those Kubernetes offers, or an amount is malformed.
pub(crate) fn resource(
    container: &Container,
    node: &NodeView,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let list = match list {
        "limits" => limits,
        // A request defaults to the limit.
        "requests" => resources
            .and_then(|resources| resources.requests.as_ref())
            .or(limits),
        _ => return Err(unsupported()),
    };
    let is_limit = selector.resource.starts_with("limits.");
    let amount = match list.and_then(|list| list.get(name)) {
        Some(amount) => parse(&amount.0)?,
        None if is_limit && name == "cpu" => Quantity::from_millis(node.cpu_millis),
        None if is_limit && name == "memory" => {
            Quantity::from_units(node.memory_bytes, windlass_api::quantity::Format::Binary)
        }
        None => Quantity::ZERO,
    };
    let divisor = match &selector.divisor {
        Some(divisor) => parse(&divisor.0)?,
        None => Quantity::ZERO,
    };
    Ok(divide(amount, divisor, name).to_string())
}

fn parse(text: &str) -> Result<Quantity, String> {
    text.parse()
        .map_err(|error| format!("invalid quantity {text:?}: {error}"))
}

/// Rounds up, as upstream does; cpu counts in thousandths, everything else in units.
fn divide(amount: Quantity, divisor: Quantity, name: &str) -> i64 {
    let (amount, divisor) = if name == "cpu" {
        (
            amount.millis(),
            if divisor.is_zero() {
                1000
            } else {
                divisor.millis()
            },
        )
    } else {
        (
            amount.units(),
            if divisor.is_zero() {
                1
            } else {
                divisor.units()
            },
        )
    };
    let divisor = divisor.max(1);
    amount / divisor + i64::from(amount % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_the_pod_are_found() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "n", "uid": "u",
                "labels": { "app": "x", "b": "y" }, "annotations": { "a/b": "c" },
            },
            "spec": { "nodeName": "node", "serviceAccountName": "sa", "containers": [] },
        }))
        .unwrap();
        let node = NodeView {
            host_ip: "1.1.1.1".into(),
            pod_ip: "2.2.2.2".into(),
            ..NodeView::default()
        };
        let cases = [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.uid", "u"),
            ("metadata.labels['app']", "x"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['a/b']", "c"),
            ("metadata.labels", "app=\"x\"\nb=\"y\""),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "1.1.1.1"),
            ("status.podIPs", "2.2.2.2"),
        ];
        for (path, want) in cases {
            assert_eq!(field(&pod, &node, path).unwrap(), want, "{path}");
        }
        assert!(field(&pod, &node, "spec.hostname").is_err());
    }

    #[test]
    fn resources_are_divided_rounding_up_and_default_to_the_node() {
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "resources": { "limits": { "cpu": "1500m", "memory": "100Mi" }, "requests": { "cpu": "10m" } },
        }))
        .unwrap();
        let node = NodeView {
            cpu_millis: 4000,
            memory_bytes: 1 << 30,
            ..NodeView::default()
        };
        let value = |resource_name: &str, divisor: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({ "resource": resource_name, "divisor": divisor }))
                    .unwrap();
            resource(&container, &node, &selector)
        };
        assert_eq!(value("limits.cpu", "0").unwrap(), "2");
        assert_eq!(value("limits.cpu", "1m").unwrap(), "1500");
        assert_eq!(value("requests.cpu", "1m").unwrap(), "10");
        assert_eq!(value("limits.memory", "1Mi").unwrap(), "100");
        assert_eq!(value("requests.memory", "1Mi").unwrap(), "0");
        assert!(value("limits.gpu.x", "1").is_ok());
        assert!(value("cpu", "1").is_err());
    }
}
