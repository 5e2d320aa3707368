//! `securityContext`, of the pod and of its containers, in CRI's words.
//!
//! What a container says goes before what its pod says. Where neither names a user it is the image's.
//!
//! Source: kubelet's `security_context.go`, `util_linux.go` and `DetermineEffectiveSecurityContext`.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile,
    SecurityContext,
};

use crate::runtime::PodIdentity;
use crate::runtime::containerd::cri::messages::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, ProfileType, SeLinuxOption, SecurityProfile,
    SupplementalGroupsPolicy,
};

/// Paths that containers do not see, unless `procMount` is `Unmasked`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that containers do not write to, unless `procMount` is `Unmasked`.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Whom an image runs as: the part of its `User` before the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::runtime::containerd) enum ImageUser {
    /// By number; root if it says nothing.
    Id(i64),
    /// By a name of its `/etc/passwd`.
    Name(String),
}

impl ImageUser {
    /// Reads `User` of an image's configuration.
    pub(in crate::runtime::containerd) fn of(text: &str) -> Self {
        let user = text.split(':').next().unwrap_or_default();
        match user.parse() {
            Ok(id) => Self::Id(id),
            Err(_) if user.is_empty() => Self::Id(0),
            Err(_) => Self::Name(user.to_owned()),
        }
    }
}

/// Spec: `runAsNonRoot` is checked before the container is made, in kubelet's words.
pub(super) fn verify_non_root(
    pod: &PodIdentity,
    spec: &PodSpec,
    container: &Container,
    image: &ImageUser,
) -> Result<(), String> {
    let (of_pod, own) = contexts(spec, container);
    let wanted = own.run_as_non_root.or(of_pod.run_as_non_root);
    if wanted != Some(true) {
        return Ok(());
    }
    let PodIdentity {
        namespace,
        name,
        uid,
    } = pod;
    let of = format!(
        "(pod: \"{name}_{namespace}({uid})\", container: {})",
        container.name
    );
    match (own.run_as_user.or(of_pod.run_as_user), image) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {of}")),
        (None, ImageUser::Id(0)) => Err(format!(
            "container has runAsNonRoot and image will run as root {of}"
        )),
        (None, ImageUser::Name(name)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {of}"
        )),
        (Some(_), _) | (None, ImageUser::Id(_)) => Ok(()),
    }
}

/// What the pod says and what the container says.
fn contexts(spec: &PodSpec, container: &Container) -> (PodSecurityContext, SecurityContext) {
    (
        spec.security_context.clone().unwrap_or_default(),
        container.security_context.clone().unwrap_or_default(),
    )
}

/// What the sandbox's own process may do, and the namespaces it holds.
pub(super) fn of_sandbox(spec: &PodSpec) -> LinuxSandboxSecurityContext {
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let all = spec.containers.iter();
    let all = all.chain(spec.init_containers.iter().flatten());
    let mut contexts = all.filter_map(|container| container.security_context.as_ref());
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        selinux_options: of_pod.se_linux_options.as_ref().map(selinux),
        run_as_user: of_pod.run_as_user.map(number),
        // Spec: a group without a user is refused.
        run_as_group: of_pod.run_as_user.and(of_pod.run_as_group).map(number),
        readonly_rootfs: false,
        supplemental_groups: groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod),
        privileged: contexts.any(|context| context.privileged == Some(true)),
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
    }
}

/// What a container may do.
pub(super) fn of_container(
    spec: &PodSpec,
    container: &Container,
    image: &ImageUser,
    profiles: &Path,
) -> LinuxContainerSecurityContext {
    let (of_pod, own) = contexts(spec, container);
    let given = own.run_as_user.or(of_pod.run_as_user);
    let (run_as_user, run_as_username) = match (given, image) {
        (Some(id), _) => (Some(id), String::new()),
        (None, ImageUser::Id(id)) => (Some(*id), String::new()),
        (None, ImageUser::Name(name)) => (None, name.clone()),
    };
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| match unmasked {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let seccomp = own
        .seccomp_profile
        .or_else(|| of_pod.seccomp_profile.clone());
    let apparmor = own
        .app_armor_profile
        .or_else(|| of_pod.app_armor_profile.clone());
    let labels = own
        .se_linux_options
        .or_else(|| of_pod.se_linux_options.clone());
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.map(|capabilities| Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
        }),
        privileged: own.privileged.unwrap_or(false),
        namespace_options: Some(namespaces(spec)),
        selinux_options: labels.as_ref().map(selinux),
        run_as_user: run_as_user.map(number),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(number),
        run_as_username,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp_profile(seccomp.as_ref(), profiles)),
        apparmor: apparmor.as_ref().map(apparmor_profile),
    }
}

/// The kernel parameters of the pod's namespaces.
pub(super) fn sysctls(spec: &PodSpec) -> BTreeMap<String, String> {
    let of_pod = spec.security_context.as_ref();
    let list = of_pod.and_then(|of_pod| of_pod.sysctls.as_ref());
    let list = list.into_iter().flatten();
    // Spec: both `kernel.a` and `kernel/a` are written.
    list.map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
        .collect()
}

fn namespaces(spec: &PodSpec) -> NamespaceOption {
    let of = |host: Option<bool>| match host {
        Some(true) => NamespaceMode::Node,
        _ => NamespaceMode::Pod,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: of(spec.host_network).into(),
        pid: pid.into(),
        ipc: of(spec.host_ipc).into(),
        target_id: String::new(),
    }
}

const fn number(value: i64) -> Int64Value {
    Int64Value { value }
}

/// Spec: `fsGroup` is one of the groups of every container.
fn groups(of_pod: &PodSecurityContext) -> Vec<i64> {
    let more = of_pod.supplemental_groups.iter().flatten();
    of_pod.fs_group.iter().chain(more).copied().collect()
}

fn groups_policy(of_pod: &PodSecurityContext) -> i32 {
    match of_pod.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict.into(),
        _ => SupplementalGroupsPolicy::Merge.into(),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    let SELinuxOptions {
        user,
        role,
        type_,
        level,
    } = options.clone();
    SeLinuxOption {
        user: user.unwrap_or_default(),
        role: role.unwrap_or_default(),
        kind: type_.unwrap_or_default(),
        level: level.unwrap_or_default(),
    }
}

/// Spec: without a profile there is none; profiles of the node lie below one directory.
fn seccomp_profile(profile: Option<&SeccompProfile>, profiles: &Path) -> SecurityProfile {
    let kind = profile.map(|profile| profile.type_.as_str());
    let (profile_type, localhost_ref) = match kind {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = profile.and_then(|profile| profile.localhost_profile.as_deref());
            let path = profiles.join(file.unwrap_or_default());
            (ProfileType::Localhost, path.display().to_string())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref,
    }
}

fn apparmor_profile(profile: &AppArmorProfile) -> SecurityProfile {
    let profile_type = match profile.type_.as_str() {
        "Localhost" => ProfileType::Localhost,
        "Unconfined" => ProfileType::Unconfined,
        _ => ProfileType::RuntimeDefault,
    };
    SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(of_pod: &Value, own: &Value) -> (PodSpec, Container) {
        let container = json!({ "name": "c", "securityContext": own });
        let mut spec = json!({ "containers": [container] });
        spec.as_object_mut()
            .unwrap()
            .extend(of_pod.as_object().unwrap().clone());
        (
            serde_json::from_value(spec).unwrap(),
            serde_json::from_value(container).unwrap(),
        )
    }

    fn of(of_pod: &Value, own: &Value, image: &str) -> LinuxContainerSecurityContext {
        let (spec, container) = pod(of_pod, own);
        of_container(
            &spec,
            &container,
            &ImageUser::of(image),
            Path::new("/seccomp"),
        )
    }

    #[test]
    fn the_user_is_the_containers_or_the_pods_or_the_images() {
        for (of_pod, own, image, user, name) in [
            (json!({}), json!({}), "", Some(0), ""),
            (json!({}), json!({}), "1000:2000", Some(1000), ""),
            (json!({}), json!({}), "nobody:users", None, "nobody"),
            (json!({ "runAsUser": 5 }), json!({}), "nobody", Some(5), ""),
            (
                json!({ "runAsUser": 5 }),
                json!({ "runAsUser": 6 }),
                "7",
                Some(6),
                "",
            ),
        ] {
            let found = of(&json!({ "securityContext": of_pod }), &own, image);
            assert_eq!(found.run_as_user.map(|user| user.value), user, "{image}");
            assert_eq!(found.run_as_username, name);
        }
    }

    #[test]
    fn non_root_is_checked_in_kubelets_words() {
        let identity = PodIdentity {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
        };
        for (of_pod, own, image, wanted) in [
            (json!({}), json!({}), "0", ""),
            (json!({ "runAsNonRoot": true }), json!({}), "1", ""),
            (
                json!({ "runAsNonRoot": true }),
                json!({ "runAsNonRoot": false }),
                "0",
                "",
            ),
            (
                json!({ "runAsNonRoot": true }),
                json!({}),
                "",
                "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)",
            ),
            (
                json!({}),
                json!({ "runAsNonRoot": true }),
                "me",
                "container has runAsNonRoot and image has non-numeric user (me), cannot verify user is non-root (pod: \"p_ns(u)\", container: c)",
            ),
            (
                json!({ "runAsNonRoot": true, "runAsUser": 3 }),
                json!({ "runAsUser": 0 }),
                "1",
                "container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: c)",
            ),
        ] {
            let (spec, container) = pod(&json!({ "securityContext": of_pod }), &own);
            let found = verify_non_root(&identity, &spec, &container, &ImageUser::of(image));
            assert_eq!(found.err().unwrap_or_default(), wanted);
        }
    }

    #[test]
    fn namespaces_are_the_pods_the_nodes_or_the_containers_own() {
        use NamespaceMode::{Container, Node, Pod};
        for (spec, network, pid, ipc) in [
            (json!({}), Pod, Container, Pod),
            (
                json!({ "hostNetwork": true, "hostIPC": true }),
                Node,
                Container,
                Node,
            ),
            (json!({ "shareProcessNamespace": true }), Pod, Pod, Pod),
            (json!({ "hostPID": true }), Pod, Node, Pod),
        ] {
            let (spec, _) = pod(&spec, &json!({}));
            let found = namespaces(&spec);
            assert_eq!(found.network(), network);
            assert_eq!(found.pid(), pid);
            assert_eq!(found.ipc(), ipc);
        }
    }

    #[test]
    fn groups_capabilities_and_restrictions_are_passed_on() {
        let of_pod = json!({ "securityContext": {
            "fsGroup": 7, "supplementalGroups": [8, 9], "supplementalGroupsPolicy": "Strict", "runAsGroup": 3,
        } });
        let own = json!({
            "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "procMount": "Unmasked",
        });
        let found = of(&of_pod, &own, "");
        assert_eq!(found.supplemental_groups, [7, 8, 9]);
        assert_eq!(
            found.supplemental_groups_policy(),
            SupplementalGroupsPolicy::Strict
        );
        assert_eq!(found.run_as_group.unwrap().value, 3);
        let capabilities = found.capabilities.unwrap();
        assert_eq!(capabilities.add_capabilities, ["NET_ADMIN"]);
        assert_eq!(capabilities.drop_capabilities, ["ALL"]);
        assert!(found.readonly_rootfs && found.no_new_privs && !found.privileged);
        assert!(found.masked_paths.is_empty() && found.readonly_paths.is_empty());
        let plain = of(&json!({}), &json!({ "privileged": true }), "");
        assert!(plain.privileged && !plain.no_new_privs && !plain.readonly_rootfs);
        assert_eq!(plain.masked_paths, MASKED);
        assert_eq!(plain.readonly_paths, READ_ONLY);
    }

    #[test]
    fn profiles_of_seccomp_come_from_the_container_then_the_pod() {
        let local = json!({ "type": "Localhost", "localhostProfile": "a/b.json" });
        for (of_pod, own, kind, file) in [
            (json!({}), json!({}), ProfileType::Unconfined, ""),
            (
                json!({ "type": "RuntimeDefault" }),
                json!({}),
                ProfileType::RuntimeDefault,
                "",
            ),
            (
                json!({ "type": "RuntimeDefault" }),
                json!({ "type": "Unconfined" }),
                ProfileType::Unconfined,
                "",
            ),
            (
                json!({}),
                local,
                ProfileType::Localhost,
                "/seccomp/a/b.json",
            ),
        ] {
            let context = |profile: &Value| match profile.as_object().unwrap().is_empty() {
                true => json!({}),
                false => json!({ "seccompProfile": profile }),
            };
            let found = of(
                &json!({ "securityContext": context(&of_pod) }),
                &context(&own),
                "",
            );
            let found = found.seccomp.unwrap();
            assert_eq!(found.profile_type(), kind);
            assert_eq!(found.localhost_ref, file);
        }
    }

    #[test]
    fn the_sandbox_knows_of_privileged_containers_and_needs_a_user_for_a_group() {
        let (spec, _) = pod(
            &json!({ "securityContext": { "runAsGroup": 3 } }),
            &json!({ "privileged": true }),
        );
        let found = of_sandbox(&spec);
        assert!(found.privileged);
        assert_eq!(found.run_as_group, None);
        let (spec, _) = pod(
            &json!({ "securityContext": { "runAsUser": 2, "runAsGroup": 3 } }),
            &json!({}),
        );
        assert_eq!(of_sandbox(&spec).run_as_group.unwrap().value, 3);
        assert!(!of_sandbox(&spec).privileged);
    }
}
