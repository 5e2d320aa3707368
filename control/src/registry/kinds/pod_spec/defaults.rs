//! What upstream fills into a pod's spec. Source: `pkg/apis/core/v1/defaults.go`.

use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use windlass_api::pod_resources;

use super::super::default;
use super::super::field::objects_mut;

type Object = Map<String, Value>;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Mode of files in volumes, 0644.
const FILE_MODE: i64 = 420;

/// Fills in what pods and templates have in common.
pub(in super::super) fn set_defaults(spec: &mut Object) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    set_service_account(spec);
    for list in CONTAINER_LISTS {
        for container in objects_mut(spec, list) {
            set_container_defaults(container);
        }
    }
    for volume in objects_mut(spec, "volumes") {
        set_volume_defaults(volume);
    }
}

/// Fills in the rest, which a template leaves to the pods made from it.
pub(in super::super) fn set_pod_defaults(spec: &mut Object) {
    set_defaults(spec);
    default(spec, "enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        for container in objects_mut(spec, list) {
            set_request_defaults(container);
        }
    }
    set_pod_request_defaults(spec);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        set_host_port_defaults(spec);
    }
}

/// The account has two names, an old and a new one, that say the same.
fn set_service_account(spec: &mut Object) {
    let named = |field: &str| {
        let name = spec.get(field).and_then(Value::as_str);
        name.filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let Some(name) = named("serviceAccountName").or_else(|| named("serviceAccount")) else {
        return;
    };
    for field in ["serviceAccountName", "serviceAccount"] {
        spec.insert(field.into(), name.as_str().into());
    }
}

fn set_container_defaults(container: &mut Object) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    let policy = pull_policy(container.get("image"));
    default(container, "imagePullPolicy", policy);
    for port in objects_mut(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for probe in PROBES {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            set_probe_defaults(probe);
        }
    }
    if let Some(lifecycle) = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut)
    {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(hook).and_then(Value::as_object_mut) {
                set_http_defaults(hook);
            }
        }
    }
    for variable in objects_mut(container, "env") {
        if let Some(from) = variable.get_mut("valueFrom").and_then(Value::as_object_mut) {
            set_field_ref_defaults(from);
        }
    }
}

fn set_field_ref_defaults(holder: &mut Object) {
    if let Some(field) = holder.get_mut("fieldRef").and_then(Value::as_object_mut) {
        default(field, "apiVersion", "v1");
    }
}

/// `Always` for an image that stands for whatever is newest.
fn pull_policy(image: Option<&Value>) -> &'static str {
    let image = image.and_then(Value::as_str).unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    if tag == "latest" && !image.contains('@') {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// A limit without a request requests as much.
fn set_request_defaults(holder: &mut Object) {
    let resources = holder.get_mut("resources").and_then(Value::as_object_mut);
    let Some(resources) = resources else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    for (name, limit) in limits {
        if let Some(requests) = requests.as_object_mut() {
            default(requests, &name, limit);
        }
    }
}

/// A limit of the whole pod without a request requests what its containers do, or else as much.
fn set_pod_request_defaults(spec: &mut Object) {
    let resources = spec.get("resources");
    if resources.is_none_or(|resources| resources.get("limits").is_none()) {
        return;
    }
    let mut containers = spec.clone();
    for field in ["resources", "overhead"] {
        containers.shift_remove(field);
    }
    let containers = PodSpec::deserialize(Value::Object(containers)).unwrap_or_default();
    let asked = pod_resources::requests(&containers);
    let resources = spec.get_mut("resources").and_then(Value::as_object_mut);
    if let Some(resources) = resources {
        let limits = resources.get("limits").and_then(Value::as_object).cloned();
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        for name in limits.into_iter().flatten().map(|(name, _)| name) {
            if let (Some(requests), Some(amount)) = (requests.as_object_mut(), asked.get(&name)) {
                default(requests, &name, amount.to_string());
            }
        }
    }
    set_request_defaults(spec);
}

/// In the host's network a container's port is the host's port.
fn set_host_port_defaults(spec: &mut Object) {
    for list in ["initContainers", "containers"] {
        for container in objects_mut(spec, list) {
            for port in objects_mut(container, "ports") {
                let number = port.get("containerPort").cloned().unwrap_or_default();
                if port.get("hostPort").is_none_or(|port| port == 0) {
                    port.insert("hostPort".into(), number);
                }
            }
        }
    }
}

fn set_probe_defaults(probe: &mut Object) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        let unset = probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0;
        if unset {
            probe.insert(field.into(), value.into());
        }
    }
    set_http_defaults(probe);
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        default(grpc, "service", "");
    }
}

fn set_http_defaults(handler: &mut Object) {
    let Some(http) = handler.get_mut("httpGet").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, value) in [("path", "/"), ("scheme", "HTTP")] {
        if http.get(field).is_none_or(|given| given == "") {
            http.insert(field.into(), value.into());
        }
    }
}

/// Members of volume sources that have a value when nobody gives them one.
const SOURCE_DEFAULTS: &[(&str, &[(&str, &str)])] = &[
    ("hostPath", &[("type", "")]),
    ("iscsi", &[("iscsiInterface", "default")]),
    (
        "rbd",
        &[
            ("pool", "rbd"),
            ("user", "admin"),
            ("keyring", "/etc/ceph/keyring"),
        ],
    ),
    (
        "azureDisk",
        &[
            ("cachingMode", "ReadWrite"),
            ("kind", "Shared"),
            ("fsType", "ext4"),
        ],
    ),
    (
        "scaleIO",
        &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")],
    ),
];

fn set_volume_defaults(volume: &mut Object) {
    if volume
        .iter()
        .all(|(key, value)| key == "name" || value.is_null())
    {
        volume.insert("emptyDir".into(), json!({}));
    }
    for (source, members) in SOURCE_DEFAULTS {
        if let Some(source) = volume.get_mut(*source).and_then(Value::as_object_mut) {
            for (member, value) in *members {
                default(source, member, *value);
            }
        }
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).and_then(Value::as_object_mut) {
            default(source, "defaultMode", FILE_MODE);
            set_downward_defaults(source);
        }
    }
    if let Some(disk) = volume.get_mut("azureDisk").and_then(Value::as_object_mut) {
        default(disk, "readOnly", false);
    }
    if let Some(projected) = volume.get_mut("projected").and_then(Value::as_object_mut) {
        set_projected_defaults(projected);
    }
    if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
        let policy = pull_policy(image.get("reference"));
        default(image, "pullPolicy", policy);
    }
    let claim = volume
        .get_mut("ephemeral")
        .and_then(|ephemeral| ephemeral.pointer_mut("/volumeClaimTemplate/spec"))
        .and_then(Value::as_object_mut);
    if let Some(claim) = claim {
        default(claim, "volumeMode", "Filesystem");
    }
}

fn set_downward_defaults(source: &mut Object) {
    for item in objects_mut(source, "items") {
        set_field_ref_defaults(item);
    }
}

fn set_projected_defaults(projected: &mut Object) {
    for source in objects_mut(projected, "sources") {
        let token = source.get_mut("serviceAccountToken");
        if let Some(token) = token.and_then(Value::as_object_mut) {
            default(token, "expirationSeconds", 3600);
        }
        if let Some(downward) = source.get_mut("downwardAPI").and_then(Value::as_object_mut) {
            set_downward_defaults(downward);
        }
    }
}
