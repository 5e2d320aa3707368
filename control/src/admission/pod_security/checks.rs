//! What each level keeps pods from. Source: the Pod Security Standards.
//!
//! Differs from Kubernetes: for versions before v1.19 seccomp and before v1.30 AppArmor were told by annotations, which
//! nothing here reads; their fields count for every version.

use std::collections::BTreeSet;

use serde_json::Value;

use super::policy::{Level, Policy};

/// What is wrong with a pod: what is forbidden, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) what: String,
    pub(super) wherein: String,
}

/// A pod's spec, as the checks look at it, for the checks of a version of Kubernetes.
struct Subject<'a> {
    spec: &'a Value,
    containers: Vec<Container<'a>>,
    minor: u32,
}

struct Container<'a> {
    name: &'a str,
    body: &'a Value,
}

struct Check {
    level: Level,
    /// The first minor version that has it.
    since: u32,
    /// The minor version from which on a check of [`Level::Restricted`] says the same and more.
    until_restricted: Option<u32>,
    find: fn(&Subject<'_>) -> Option<Violation>,
}

const fn baseline(find: fn(&Subject<'_>) -> Option<Violation>) -> Check {
    Check {
        level: Level::Baseline,
        since: 0,
        until_restricted: None,
        find,
    }
}

const fn restricted(since: u32, find: fn(&Subject<'_>) -> Option<Violation>) -> Check {
    Check {
        level: Level::Restricted,
        since,
        until_restricted: None,
        find,
    }
}

/// Every check, in the order in which violations are told.
const CHECKS: &[Check] = &[
    baseline(app_armor_profile),
    Check {
        until_restricted: Some(22),
        ..baseline(added_capabilities)
    },
    baseline(host_namespaces),
    baseline(host_path_volumes),
    baseline(host_ports),
    Check {
        since: 34,
        ..baseline(probe_hosts)
    },
    baseline(privileged),
    baseline(proc_mount),
    baseline(se_linux_options),
    Check {
        until_restricted: Some(19),
        ..baseline(seccomp_profile)
    },
    baseline(sysctls),
    baseline(windows_host_process),
    restricted(8, privilege_escalation),
    restricted(22, kept_capabilities),
    restricted(0, volume_types),
    restricted(0, run_as_non_root),
    restricted(23, run_as_root),
    restricted(19, missing_seccomp_profile),
];

/// Capabilities that containers have anyway.
const USUAL_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls that stay within the pod, with the minor version that let them through.
const SAFE_SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Types of SELinux labels that containers may have, with the minor version that let them through.
const CONTAINER_TYPES: [(&str, u32); 5] = [
    ("", 0),
    ("container_t", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_engine_t", 31),
];

/// Types of volumes that hold nothing of the node.
const HARMLESS_VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Everything about a pod's spec that breaks a policy.
pub(super) fn violations(policy: &Policy, spec: &Value) -> Vec<Violation> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let containers = lists.iter().flat_map(|list| elements(spec, list));
    let subject = Subject {
        spec,
        containers: containers
            .map(|body| Container {
                name: text(body, "/name"),
                body,
            })
            .collect(),
        minor: policy.minor(),
    };
    let applies = |check: &&Check| {
        let overridden = policy.level == Level::Restricted
            && check.until_restricted.is_some_and(|at| subject.minor >= at);
        check.level <= policy.level && check.since <= subject.minor && !overridden
    };
    let checks = CHECKS.iter().filter(applies);
    checks.filter_map(|check| (check.find)(&subject)).collect()
}

impl<'a> Subject<'a> {
    /// The pod and its containers, by how they are called.
    fn setters(&self) -> impl Iterator<Item = (Setter<'a>, &'a Value)> {
        let pod = std::iter::once((Setter::Pod, self.spec));
        pod.chain(
            self.containers
                .iter()
                .map(|of| (Setter::Container(of.name), of.body)),
        )
    }

    /// What the containers are called in which something holds.
    fn containers_with(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        let found = self.containers.iter().filter(|of| holds(of.body));
        found.map(|of| of.name).collect()
    }

    /// From v1.25 on what only Linux knows is not asked of pods for Windows.
    fn is_for_windows(&self) -> bool {
        self.minor >= 25 && text(self.spec, "/os/name") == "windows"
    }
}

/// Who sets something.
#[derive(Clone, Copy)]
enum Setter<'a> {
    Pod,
    Container(&'a str),
}

/// `pod and containers "a", "b"`; `pod` alone, or the containers alone.
fn called(setters: &[Setter<'_>]) -> String {
    let mut parts = Vec::new();
    if setters.iter().any(|of| matches!(of, Setter::Pod)) {
        parts.push("pod".to_owned());
    }
    let names: Vec<_> = setters
        .iter()
        .filter_map(|of| match of {
            Setter::Container(name) => Some(*name),
            Setter::Pod => None,
        })
        .collect();
    if !names.is_empty() {
        parts.push(containers(&names));
    }
    parts.join(" and ")
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

fn plural(word: &str, count: usize) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{word}{end}")
}

fn violation(what: impl Into<String>, wherein: impl Into<String>) -> Violation {
    Violation {
        what: what.into(),
        wherein: wherein.into(),
    }
}

fn elements<'a>(object: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let list = object.get(list).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

fn is_true(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(true))
}

fn is_false(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(false))
}

fn app_armor_profile(pod: &Subject<'_>) -> Option<Violation> {
    let (mut setters, mut profiles) = (Vec::new(), BTreeSet::new());
    for (setter, body) in pod.setters() {
        let profile = text(body, "/securityContext/appArmorProfile/type");
        if !matches!(profile, "" | "RuntimeDefault" | "Localhost") {
            setters.push(setter);
            profiles.insert(profile);
        }
    }
    let profiles: Vec<_> = profiles.into_iter().collect();
    (!setters.is_empty()).then(|| {
        violation(
            plural("forbidden AppArmor profile", profiles.len()),
            format!(
                "{} must not set AppArmor profile type to {}",
                called(&setters),
                quoted(&profiles)
            ),
        )
    })
}

/// Capabilities beyond `allowed` that containers add, and which containers do.
fn capabilities_beyond<'a>(pod: &Subject<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, String)> {
    let (mut names, mut added) = (Vec::new(), BTreeSet::new());
    for container in &pod.containers {
        let capabilities = container.body.pointer("/securityContext/capabilities");
        let all = capabilities.into_iter().flat_map(|of| elements(of, "add"));
        let beyond = all.filter_map(Value::as_str);
        let beyond: Vec<_> = beyond.filter(|of| !allowed.contains(of)).collect();
        if !beyond.is_empty() {
            names.push(container.name);
            added.extend(beyond);
        }
    }
    let added: Vec<_> = added.into_iter().collect();
    (!names.is_empty()).then(|| (names, quoted(&added)))
}

fn added_capabilities(pod: &Subject<'_>) -> Option<Violation> {
    let (names, added) = capabilities_beyond(pod, &USUAL_CAPABILITIES)?;
    let wherein = format!(
        "{} must not include {added} in securityContext.capabilities.add",
        containers(&names)
    );
    Some(violation("non-default capabilities", wherein))
}

fn host_namespaces(pod: &Subject<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec.get(*field) == Some(&Value::Bool(true)))
        .map(|field| format!("{field}=true"));
    let shared: Vec<_> = shared.collect();
    (!shared.is_empty()).then(|| violation("host namespaces", shared.join(", ")))
}

fn host_path_volumes(pod: &Subject<'_>) -> Option<Violation> {
    let paths = elements(pod.spec, "volumes").filter(|of| of.get("hostPath").is_some());
    let names: Vec<_> = paths.map(|of| text(of, "/name")).collect();
    (!names.is_empty()).then(|| {
        let wherein = format!("{} {}", plural("volume", names.len()), quoted(&names));
        violation("hostPath volumes", wherein)
    })
}

fn host_ports(pod: &Subject<'_>) -> Option<Violation> {
    let (mut names, mut ports) = (Vec::new(), BTreeSet::new());
    for container in &pod.containers {
        let taken = elements(container.body, "ports");
        let taken = taken.filter_map(|of| of.get("hostPort").and_then(Value::as_i64));
        let taken: Vec<_> = taken.filter(|port| *port != 0).collect();
        if !taken.is_empty() {
            names.push(container.name);
            ports.extend(taken);
        }
    }
    let numbers: Vec<_> = ports.iter().map(i64::to_string).collect();
    (!names.is_empty()).then(|| {
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("hostPort", numbers.len());
        let wherein = format!(
            "{} {verb} {what} {}",
            containers(&names),
            numbers.join(", ")
        );
        violation("hostPort", wherein)
    })
}

fn probe_hosts(pod: &Subject<'_>) -> Option<Violation> {
    const HANDLERS: [&str; 5] = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let (mut names, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in &pod.containers {
        for handler in HANDLERS {
            for kind in ["httpGet", "tcpSocket"] {
                let host = text(container.body, &format!("{handler}/{kind}/host"));
                if !host.is_empty() {
                    names.insert(container.name);
                    hosts.insert(host);
                }
            }
        }
    }
    let names: Vec<_> = names.into_iter().collect();
    let hosts: Vec<_> = hosts.into_iter().collect();
    (!names.is_empty()).then(|| {
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("probe or lifecycle host", hosts.len());
        let wherein = format!("{} {verb} {what} {}", containers(&names), quoted(&hosts));
        violation("probe or lifecycle host", wherein)
    })
}

fn privileged(pod: &Subject<'_>) -> Option<Violation> {
    let names = pod.containers_with(|of| is_true(of, "/securityContext/privileged"));
    (!names.is_empty()).then(|| {
        let names = containers(&names);
        violation(
            "privileged",
            format!("{names} must not set securityContext.privileged=true"),
        )
    })
}

fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    let is_open = |of: &Value| !matches!(text(of, "/securityContext/procMount"), "" | "Default");
    let names = pod.containers_with(is_open);
    (!names.is_empty()).then(|| {
        let names = containers(&names);
        let wherein = format!("{names} must not set securityContext.procMount to \"Unmasked\"");
        violation("procMount", wherein)
    })
}

fn se_linux_options(pod: &Subject<'_>) -> Option<Violation> {
    let (mut setters, mut types) = (Vec::new(), BTreeSet::new());
    let (mut sets_user, mut sets_role) = (false, false);
    for (setter, body) in pod.setters() {
        let option = |name: &str| text(body, &format!("/securityContext/seLinuxOptions/{name}"));
        let kind = option("type");
        let is_known = |(known, since): &(&str, u32)| *known == kind && *since <= pod.minor;
        let forbidden = !CONTAINER_TYPES.iter().any(is_known);
        let (user, role) = (!option("user").is_empty(), !option("role").is_empty());
        if forbidden {
            types.insert(kind);
        }
        if forbidden || user || role {
            setters.push(setter);
        }
        sets_user |= user;
        sets_role |= role;
    }
    if setters.is_empty() {
        return None;
    }
    let mut wrong = Vec::new();
    if !types.is_empty() {
        let types: Vec<_> = types.into_iter().collect();
        wrong.push(format!(
            "{} {}",
            plural("type", types.len()),
            quoted(&types)
        ));
    }
    for (is_set, field) in [(sets_user, "user"), (sets_role, "role")] {
        if is_set {
            wrong.push(format!("{field} may not be set"));
        }
    }
    let wherein = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        called(&setters),
        wrong.join("; ")
    );
    Some(violation("seLinuxOptions", wherein))
}

fn seccomp_type(body: &Value) -> &str {
    text(body, "/securityContext/seccompProfile/type")
}

fn is_confined(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

/// Who names a profile that does not confine.
fn unconfined(pod: &Subject<'_>) -> Option<Violation> {
    let (mut setters, mut profiles) = (Vec::new(), BTreeSet::new());
    for (setter, body) in pod.setters() {
        let profile = seccomp_type(body);
        if !profile.is_empty() && !is_confined(profile) {
            setters.push(setter);
            profiles.insert(profile);
        }
    }
    let profiles: Vec<_> = profiles.into_iter().collect();
    (!setters.is_empty()).then(|| {
        let wherein = format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            called(&setters),
            quoted(&profiles)
        );
        violation("seccompProfile", wherein)
    })
}

fn seccomp_profile(pod: &Subject<'_>) -> Option<Violation> {
    unconfined(pod)
}

fn missing_seccomp_profile(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_for_windows() {
        return None;
    }
    if let Some(found) = unconfined(pod) {
        return Some(found);
    }
    if is_confined(seccomp_type(pod.spec)) {
        return None;
    }
    let names = pod.containers_with(|of| seccomp_type(of).is_empty());
    (!names.is_empty()).then(|| {
        let wherein = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&names)
        );
        violation("seccompProfile", wherein)
    })
}

fn sysctls(pod: &Subject<'_>) -> Option<Violation> {
    let context = pod.spec.get("securityContext");
    let set = context.into_iter().flat_map(|of| elements(of, "sysctls"));
    let names = set.map(|of| text(of, "/name"));
    let is_safe = |name: &&str| {
        let known = |(known, since): &(&str, u32)| known == name && *since <= pod.minor;
        SAFE_SYSCTLS.iter().any(known)
    };
    let names: Vec<_> = names.filter(|name| !is_safe(name)).collect();
    (!names.is_empty()).then(|| violation("forbidden sysctls", names.join(", ")))
}

fn windows_host_process(pod: &Subject<'_>) -> Option<Violation> {
    let sets = |(setter, body): (_, &Value)| {
        is_true(body, "/securityContext/windowsOptions/hostProcess").then_some(setter)
    };
    let setters: Vec<_> = pod.setters().filter_map(sets).collect();
    (!setters.is_empty()).then(|| {
        let wherein = format!(
            "{} must not set securityContext.windowsOptions.hostProcess=true",
            called(&setters)
        );
        violation("hostProcess", wherein)
    })
}

fn privilege_escalation(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_for_windows() {
        return None;
    }
    let field = "/securityContext/allowPrivilegeEscalation";
    let names = pod.containers_with(|of| !is_false(of, field));
    (!names.is_empty()).then(|| {
        let names = containers(&names);
        let wherein = format!("{names} must set securityContext.allowPrivilegeEscalation=false");
        violation("allowPrivilegeEscalation != false", wherein)
    })
}

fn kept_capabilities(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_for_windows() {
        return None;
    }
    let drops_all = |of: &Value| {
        let capabilities = of.pointer("/securityContext/capabilities");
        let mut dropped = capabilities.into_iter().flat_map(|of| elements(of, "drop"));
        dropped.any(|of| of == "ALL")
    };
    let keeping = pod.containers_with(|of| !drops_all(of));
    let mut wrong = Vec::new();
    if !keeping.is_empty() {
        let names = containers(&keeping);
        wrong.push(format!(
            "{names} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if let Some((names, added)) = capabilities_beyond(pod, &["NET_BIND_SERVICE"]) {
        let names = containers(&names);
        wrong.push(format!(
            "{names} must not include {added} in securityContext.capabilities.add"
        ));
    }
    (!wrong.is_empty()).then(|| violation("unrestricted capabilities", wrong.join("; ")))
}

fn volume_types(pod: &Subject<'_>) -> Option<Violation> {
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for volume in elements(pod.spec, "volumes") {
        let fields = volume.as_object().into_iter().flatten();
        let mut sources = fields
            .map(|(field, _)| field.as_str())
            .filter(|of| *of != "name");
        if let Some(kind) = sources.find(|kind| !HARMLESS_VOLUMES.contains(kind)) {
            names.push(text(volume, "/name"));
            types.insert(kind);
        }
    }
    let types: Vec<_> = types.into_iter().collect();
    (!names.is_empty()).then(|| {
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let wherein = format!(
            "{} {} {verb} {} {}",
            plural("volume", names.len()),
            quoted(&names),
            plural("restricted volume type", types.len()),
            quoted(&types)
        );
        violation("restricted volume types", wherein)
    })
}

fn run_as_non_root(pod: &Subject<'_>) -> Option<Violation> {
    const FIELD: &str = "/securityContext/runAsNonRoot";
    let denies = |(setter, body): (_, &Value)| is_false(body, FIELD).then_some(setter);
    let denying: Vec<_> = pod.setters().filter_map(denies).collect();
    let of_pod = pod.spec.pointer(FIELD);
    // What every container says itself counts, whatever the pod says.
    let silent = pod.containers_with(|of| of.pointer(FIELD).is_none());
    let denied: Vec<_> = denying
        .into_iter()
        .filter(|setter| matches!(setter, Setter::Container(_)) || !silent.is_empty())
        .collect();
    let wherein = if !denied.is_empty() {
        let setters = called(&denied);
        format!("{setters} must not set securityContext.runAsNonRoot=false")
    } else if of_pod.is_none() && !silent.is_empty() {
        let names = containers(&silent);
        format!("pod or {names} must set securityContext.runAsNonRoot=true")
    } else {
        return None;
    };
    Some(violation("runAsNonRoot != true", wherein))
}

fn run_as_root(pod: &Subject<'_>) -> Option<Violation> {
    let is_root = |(setter, body): (_, &Value)| {
        let user = body.pointer("/securityContext/runAsUser");
        (user.and_then(Value::as_i64) == Some(0)).then_some(setter)
    };
    let setters: Vec<_> = pod.setters().filter_map(is_root).collect();
    (!setters.is_empty()).then(|| {
        violation(
            "runAsUser=0",
            format!("{} must not set runAsUser=0", called(&setters)),
        )
    })
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
