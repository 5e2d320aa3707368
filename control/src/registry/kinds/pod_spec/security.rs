//! Security contexts of pods and containers.
//!
//! Windlass runs no Linux processes; most of these fields have no effect on a wasm container. They are
//! checked as upstream checks them, so that an object that is valid here is valid anywhere.

use std::collections::HashSet;

use windlass_api::names;

use super::super::field::{Errors, Field};
use super::volumes;
use crate::registry::field_error::Problem;

const FS_GROUP_POLICIES: &[&str] = &["Always", "OnRootMismatch"];
const GROUPS_POLICIES: &[&str] = &["Merge", "Strict"];
const SE_LINUX_POLICIES: &[&str] = &["MountOption", "Recursive"];
const PROC_MOUNTS: &[&str] = &["Default", "Unmasked"];
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// Longest name of a kernel parameter, and of an AppArmor profile.
const SYSCTL_MAX: usize = 253;
const PROFILE_MAX: usize = 4095;
const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Largest text of a credential spec, in bytes.
const CREDENTIAL_SPEC_MAX: usize = 64 << 10;

/// All that is wrong with the pod's security context.
pub(super) fn validate_pod(spec: &Field<'_, '_>, errors: &mut Errors) {
    let context = spec.child("securityContext");
    if !context.is_set() {
        return;
    }
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        validate_id(&context.child(id), errors);
    }
    for group in context.child("supplementalGroups").items() {
        validate_id(&group, errors);
    }
    if spec.is_true("shareProcessNamespace") && spec.is_true("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        let share = context.child("shareProcessNamespace");
        errors.push(share.invalid_as(true, detail));
    }
    validate_sysctls(spec, &context.child("sysctls"), errors);
    for (field, supported) in [
        ("fsGroupChangePolicy", FS_GROUP_POLICIES),
        ("supplementalGroupsPolicy", GROUPS_POLICIES),
        ("seLinuxChangePolicy", SE_LINUX_POLICIES),
    ] {
        errors.extend(context.child(field).one_of(supported));
    }
    validate_shared(&context, errors);
}

/// All that is wrong with a container's security context.
pub(super) fn validate_container(context: &Field<'_, '_>, host_users: bool, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    for id in ["runAsUser", "runAsGroup"] {
        validate_id(&context.child(id), errors);
    }
    let proc_mount = context.child("procMount");
    errors.extend(proc_mount.one_of(PROC_MOUNTS));
    if host_users && proc_mount.text() == "Unmasked" {
        errors.push(proc_mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    let escalation = context.child("allowPrivilegeEscalation");
    if escalation.value() == false {
        if context.is_true("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(context.invalid(detail));
        }
        let capabilities = context.child("capabilities");
        if capabilities
            .child("add")
            .texts()
            .any(|added| added == "CAP_SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(context.invalid(detail));
        }
    }
    validate_shared(context, errors);
}

/// What both contexts have.
fn validate_shared(context: &Field<'_, '_>, errors: &mut Errors) {
    validate_seccomp(&context.child("seccompProfile"), errors);
    validate_windows(&context.child("windowsOptions"), errors);
    validate_app_armor(&context.child("appArmorProfile"), errors);
}

fn validate_id(id: &Field<'_, '_>, errors: &mut Errors) {
    errors.extend(id.within(0, i64::from(i32::MAX)));
}

fn validate_sysctls(spec: &Field<'_, '_>, sysctls: &Field<'_, '_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.child("name");
        if let Some(missing) = name.present() {
            errors.push(missing);
        } else if !is_sysctl(name.text()) {
            errors.push(name.invalid(SYSCTL));
        } else {
            errors.extend(name.unique(&mut seen));
        }
        let dotted = name.text().replace('/', ".");
        let of_network = dotted.starts_with("net.");
        let of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."]
            .iter()
            .any(|prefix| dotted.starts_with(prefix));
        if of_network && spec.is_true("hostNetwork") {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        } else if of_ipc && spec.is_true("hostIPC") {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|b| edge(b) || b"-_".contains(b))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(is_segment)
}

fn validate_seccomp(profile: &Field<'_, '_>, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.child("type");
    if kind.text().is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else {
        errors.extend(kind.one_of(PROFILE_TYPES));
    }
    let local = profile.child("localhostProfile");
    match (kind.text() == "Localhost", local.is_set()) {
        (true, true) => volumes::descending(&local, errors),
        (true, false) => {
            errors.push(local.required("must be set when seccomp type is Localhost"));
        }
        (false, true) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(local.invalid_as(profile.value().clone(), detail));
        }
        (false, false) => {}
    }
}

fn validate_app_armor(profile: &Field<'_, '_>, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.child("type"), profile.child("localhostProfile"));
    match kind.text() {
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        "Localhost" => {
            if local.text().trim().is_empty() {
                errors.push(local.required("must be set when AppArmor type is Localhost"));
            } else if local.text().trim() != local.text() {
                errors.push(local.invalid("must not be padded with whitespace"));
            }
            if local.text().len() > PROFILE_MAX {
                errors.push(local.error(Problem::TooLong(PROFILE_MAX)));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.push(local.invalid(detail));
            }
        }
        _ => errors.push(kind.not_supported(PROFILE_TYPES)),
    }
}

fn validate_windows(options: &Field<'_, '_>, errors: &mut Errors) {
    let name = options.child("gmsaCredentialSpecName");
    if name.is_set() {
        errors.extend(name.follows(names::dns1123_subdomain));
    }
    let spec = options.child("gmsaCredentialSpec");
    if spec.is_set() && spec.text().is_empty() {
        errors.push(spec.invalid("gmsaCredentialSpec cannot be an empty string"));
    } else if spec.text().len() > CREDENTIAL_SPEC_MAX {
        errors.push(spec.invalid("gmsaCredentialSpec size must be under 64 KiB"));
    }
    let user = options.child("runAsUserName");
    if user.is_set() {
        let problems = windows_user(user.text()).into_iter();
        errors.extend(problems.map(|problem| user.invalid(problem)));
    }
}

/// What is wrong with `DOMAIN\USER` or `USER`.
fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash"];
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut broken = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            broken.push("runAsUserName's Domain length must be under 256 characters");
        }
        if !is_windows_domain(domain) {
            broken.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        broken.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        broken.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        broken.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        broken.push(
            r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#,
        );
    }
    broken
}

fn is_windows_domain(domain: &str) -> bool {
    let net_bios = (1..=15).contains(&domain.len())
        && !domain.starts_with('.')
        && !domain.contains(|c| r#"\/:*?"<>|"#.contains(c));
    net_bios || names::dns1123_subdomain(&domain.to_lowercase()).is_empty()
}
