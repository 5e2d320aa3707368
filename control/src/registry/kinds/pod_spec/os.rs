//! The operating system a pod says it is for, and what it therefore may not ask for.

use super::super::field::{Errors, Field};

const SYSTEMS: &[&str] = &["linux", "windows"];
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fields of the spec that exist on Linux only; the first two count when true, the others when there.
const SPEC: [(&str, bool); 4] = [
    ("hostPID", true),
    ("hostIPC", true),
    ("hostUsers", false),
    ("shareProcessNamespace", false),
];

const POD_CONTEXT: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];

const CONTAINER_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// All that is wrong with `os`, and with what does not go with it.
pub(super) fn validate(spec: &Field<'_, '_>, errors: &mut Errors) {
    let os = spec.child("os");
    if !os.is_set() {
        return;
    }
    match os.text_of("name") {
        "" => errors.push(os.child("name").required("cannot be empty")),
        "linux" => validate_linux(spec, errors),
        "windows" => validate_windows(spec, errors),
        name => {
            let name = name.into();
            errors.push(Field::root(&os.path(), &name).not_supported(SYSTEMS));
        }
    }
}

fn validate_linux(spec: &Field<'_, '_>, errors: &mut Errors) {
    let forbid = |holder: &Field<'_, '_>, errors: &mut Errors| {
        let context = holder.child("securityContext");
        if context.has("windowsOptions") {
            errors.push(context.child("windowsOptions").forbidden(NOT_ON_LINUX));
        }
    };
    forbid(spec, errors);
    for list in LISTS {
        for container in spec.child(list).items() {
            forbid(&container, errors);
        }
    }
}

fn validate_windows(spec: &Field<'_, '_>, errors: &mut Errors) {
    for (field, when_true) in SPEC {
        if spec.is_true(field) || (!when_true && spec.has(field)) {
            errors.push(spec.child(field).forbidden(NOT_ON_WINDOWS));
        }
    }
    forbid_all(&spec.child("securityContext"), &POD_CONTEXT, errors);
    for list in LISTS {
        for container in spec.child(list).items() {
            let context = container.child("securityContext");
            forbid_all(&context, &CONTAINER_CONTEXT, errors);
        }
    }
}

fn forbid_all(context: &Field<'_, '_>, fields: &[&str], errors: &mut Errors) {
    for field in fields.iter().filter(|field| context.has(field)) {
        errors.push(context.child(field).forbidden(NOT_ON_WINDOWS));
    }
}

/// Containers that are processes of a Windows host: all or none, and in the host's network.
pub(super) fn validate_host_process(spec: &Field<'_, '_>, errors: &mut Errors) {
    let asked = |holder: &Field<'_, '_>| {
        let context = holder.child("securityContext");
        let options = context.child("windowsOptions");
        options.child("hostProcess").value().as_bool()
    };
    let of_pod = asked(spec);
    let (mut all, mut on_host) = (0, 0);
    for list in LISTS {
        for container in spec.child(list).items() {
            all += 1;
            let own = asked(&container);
            on_host += usize::from(own.or(of_pod) == Some(true));
            if let (Some(of_pod), Some(own)) = (of_pod, own)
                && of_pod != own
            {
                let context = container.child("securityContext");
                let options = context.child("windowsOptions");
                let detail = format!(
                    "pod hostProcess value must be identical if both are specified, was {of_pod}"
                );
                errors.push(options.child("hostProcess").invalid(detail));
            }
        }
    }
    if on_host > 0 && on_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(spec.invalid_as("", detail));
    }
    if on_host > 0 && !spec.is_true("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(spec.child("hostNetwork").invalid_as(false, detail));
    }
}
