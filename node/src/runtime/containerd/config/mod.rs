//! What CRI is told of a pod and its containers. Pure: objects in, messages out.
//!
//! | file | part |
//! |---|---|
//! | `security.rs` | users, groups, capabilities, profiles, namespaces |
//! | `resources.rs` | what control groups bound |
//! | `hosts.rs` | `/etc/hosts` |
//!
//! The same pod gives the same sandbox, since `CreateContainer` is told of it again.
//!
//! Source: kubelet's `kuberuntime_sandbox.go` and `kuberuntime_container_linux.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::cri::messages::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxPodSandboxConfig, Mount, MountPropagation, NamespaceMode, PodSandboxConfig,
    PodSandboxMetadata,
};
use crate::runtime::{ContainerSpec, MountPropagation as Propagation, PodIdentity};

pub(super) mod hosts;
pub(super) mod resources;
pub(super) mod security;

/// Labels by which sandboxes and containers are found again; those with kubelet's names, other tools know too.
pub(super) const POD_NAME: &str = "io.kubernetes.pod.name";
/// Namespace of the pod.
pub(super) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// `metadata.uid` of the pod.
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container.
pub(super) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The agent that made it, of those that share a containerd.
pub(super) const AGENT: &str = "dev.windlass.agent";

/// What a sandbox is made from, besides the pod.
#[derive(Clone, Debug, Default)]
pub(super) struct SandboxFacts {
    /// Which agent makes it.
    pub(super) agent: String,
    /// How many sandboxes the pod had before.
    pub(super) attempt: u32,
    /// Directory of the pod's logs.
    pub(super) log_directory: String,
    /// How the pod resolves names; as the host without.
    pub(super) dns: Option<DnsConfig>,
    /// Domain of the cluster, for pods whose host name is their full one.
    pub(super) cluster_domain: String,
}

/// The labels of everything that is of a pod.
pub(super) fn pod_labels(pod: &PodIdentity, agent: &str) -> BTreeMap<String, String> {
    [
        (POD_NAME, pod.name.as_str()),
        (POD_NAMESPACE, &pod.namespace),
        (POD_UID, &pod.uid),
        (AGENT, agent),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The sandbox of a pod.
pub(super) fn sandbox(pod: &Pod, identity: &PodIdentity, facts: &SandboxFacts) -> PodSandboxConfig {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(pod_labels(identity, &facts.agent));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: identity.name.clone(),
            uid: identity.uid.clone(),
            namespace: identity.namespace.clone(),
            attempt: facts.attempt,
        }),
        hostname: host_name(spec, identity, &facts.cluster_domain),
        log_directory: facts.log_directory.clone(),
        dns_config: facts.dns.clone(),
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security::of_sandbox(spec)),
            sysctls: security::sysctls(spec),
            overhead: resources::overhead(spec),
            resources: Some(resources::of_pod(spec)),
        }),
    }
}

/// The host name that a pod's processes see; that of the node is left as it is.
pub(super) fn host_name(spec: &PodSpec, pod: &PodIdentity, domain: &str) -> String {
    if spec.host_network == Some(true) {
        return String::new();
    }
    if let Some(name) = &spec.hostname_override {
        return name.clone();
    }
    let name = spec.hostname.as_ref().unwrap_or(&pod.name);
    // Spec: Linux' own limit; kubelet cuts names of pods there.
    let short: String = name.chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']);
    match (&spec.subdomain, spec.set_hostname_as_fqdn) {
        (Some(subdomain), Some(true)) if !subdomain.is_empty() => {
            format!("{short}.{subdomain}.{}.svc.{domain}", pod.namespace)
        }
        _ => short.to_owned(),
    }
}

/// What a container is made from, besides its specification.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerFacts {
    /// Which agent makes it.
    pub(super) agent: String,
    /// The image's id in containerd.
    pub(super) image: String,
    /// The files it sees, each as it is on the host.
    pub(super) mounts: Vec<Mount>,
    /// The container's log, relative to the pod's directory of logs.
    pub(super) log_path: String,
    /// Memory of the node, in bytes.
    pub(super) node_memory: i64,
    /// Directory of seccomp profiles.
    pub(super) profiles: std::path::PathBuf,
    /// The container whose processes it is to see, by its id.
    pub(super) target: Option<String>,
}

/// The container whose processes an ephemeral container is to see, by name.
pub(super) fn target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    let found = ephemeral.find(|container| container.name == name)?;
    let target = found.target_container_name.as_deref()?;
    // A namespace that all share has the target's processes anyway.
    let shared = spec.share_process_namespace == Some(true) || spec.host_pid == Some(true);
    (!target.is_empty() && !shared).then_some(target)
}

/// A container of a pod.
///
/// # Errors
/// The pod asks for what its image does not have, in words for the user.
pub(super) fn container(
    spec: &ContainerSpec,
    facts: ContainerFacts,
) -> Result<ContainerConfig, String> {
    let (pod, container) = (&spec.objects.pod, &spec.objects.container);
    let empty = PodSpec::default();
    let pod_spec = pod.spec.as_ref().unwrap_or(&empty);
    let image_user = spec.image.linux.as_ref().map(|linux| linux.user.as_str());
    let user = security::ImageUser::of(image_user.unwrap_or_default());
    security::verify_non_root(&spec.pod, pod_spec, container, &user)?;
    let mut security = security::of_container(pod_spec, container, &user, &facts.profiles);
    if let (Some(target), Some(namespaces)) = (facts.target, &mut security.namespace_options) {
        namespaces.set_pid(NamespaceMode::Target);
        namespaces.target_id = target;
    }
    let mut labels = pod_labels(&spec.pod, &facts.agent);
    labels.insert(CONTAINER_NAME.to_owned(), spec.name.clone());
    let envs = spec.env.iter().map(|(key, value)| KeyValue {
        key: key.clone(),
        value: value.clone(),
    });
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: spec.name.clone(),
            attempt: spec.attempt,
        }),
        image: Some(ImageSpec {
            image: facts.image,
            user_specified_image: spec.image.reference.clone(),
        }),
        command: spec.args.clone(),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: envs.collect(),
        mounts: facts.mounts,
        labels,
        annotations: BTreeMap::new(),
        log_path: facts.log_path,
        stdin: spec.stdin,
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: spec.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::of_container(
                pod_spec,
                container,
                facts.node_memory,
            )),
            security_context: Some(security),
        }),
    })
}

/// CRI's word for how mounts get around.
pub(super) const fn propagation(of: Propagation) -> MountPropagation {
    match of {
        Propagation::None => MountPropagation::Private,
        Propagation::HostToContainer => MountPropagation::HostToContainer,
        Propagation::Bidirectional => MountPropagation::Bidirectional,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity() -> PodIdentity {
        PodIdentity {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
        }
    }

    #[test]
    fn a_pod_is_named_as_it_says() {
        let long = "x".repeat(62) + "-y";
        for (spec, wanted) in [
            (json!({}), "p"),
            (json!({ "hostname": "h" }), "h"),
            (json!({ "hostname": "h", "subdomain": "s" }), "h"),
            (
                json!({ "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true }),
                "h.s.ns.svc.cluster.local",
            ),
            (json!({ "hostname": long }), &*"x".repeat(62)),
            (json!({ "hostNetwork": true, "hostname": "h" }), ""),
            (json!({ "hostnameOverride": "other.name" }), "other.name"),
        ] {
            let mut whole = json!({ "containers": [] });
            whole
                .as_object_mut()
                .unwrap()
                .extend(spec.as_object().unwrap().clone());
            let spec: PodSpec = serde_json::from_value(whole).unwrap();
            assert_eq!(host_name(&spec, &identity(), "cluster.local"), wanted);
        }
    }

    #[test]
    fn an_ephemeral_container_names_the_one_whose_processes_it_sees() {
        for (more, wanted) in [
            (json!({}), Some("a")),
            (json!({ "shareProcessNamespace": true }), None),
        ] {
            let mut spec = json!({ "containers": [], "ephemeralContainers": [
                { "name": "e", "targetContainerName": "a" }, { "name": "f" },
            ] });
            let fields = spec.as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
            assert_eq!(target(&pod, "e"), wanted);
            assert_eq!(target(&pod, "f"), None);
            assert_eq!(target(&pod, "a"), None);
        }
    }

    #[test]
    fn a_sandbox_carries_the_pods_labels_and_cannot_be_taken_for_another_pods() {
        let labels = json!({ "app": "a", POD_UID: "another" });
        let pod: Value = json!({
            "metadata": { "labels": labels, "annotations": { "k": "v" } },
            "spec": { "containers": [], "securityContext": { "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] } },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let facts = SandboxFacts {
            agent: "agent".to_owned(),
            attempt: 2,
            log_directory: "/logs".to_owned(),
            ..SandboxFacts::default()
        };
        let config = sandbox(&pod, &identity(), &facts);
        assert_eq!(config.labels["app"], "a");
        assert_eq!(config.labels[POD_UID], "u");
        assert_eq!(config.labels[AGENT], "agent");
        assert_eq!(config.annotations["k"], "v");
        assert_eq!(config.metadata.as_ref().unwrap().attempt, 2);
        assert_eq!(config.log_directory, "/logs");
        assert_eq!(config.linux.unwrap().sysctls["kernel.shm_rmid_forced"], "1");
    }
}
