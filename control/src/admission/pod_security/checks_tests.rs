//! A pod for each check, and what is said of it in upstream's words.

use serde_json::{Value, json};

use super::*;

fn policy(level: Level, version: &str) -> Policy {
    let mut policy = Policy::latest(level);
    policy.set_version(version).unwrap();
    policy
}

fn found(level: Level, version: &str, spec: &Value) -> Vec<String> {
    let all = violations(&policy(level, version), spec);
    all.iter()
        .map(|of| format!("{} ({})", of.what, of.wherein))
        .collect()
}

/// A spec of containers `a`, with that security context and these fields, and `b`.
fn with(context: &Value, fields: &Value) -> Value {
    let mut a = json!({"name": "a", "securityContext": context});
    json_patch::merge(&mut a, fields);
    json!({"containers": [a], "initContainers": [{"name": "b"}]})
}

fn of_pod(context: &Value) -> Value {
    json!({"containers": [{"name": "a"}], "securityContext": context})
}

#[test]
fn baseline_keeps_pods_from_what_is_known_to_give_them_the_node() {
    let none = json!({});
    let cases = [
        (with(&none, &none), ""),
        (
            of_pod(&json!({"appArmorProfile": {"type": "Unconfined"}})),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            with(
                &json!({"capabilities": {"add": ["SYS_TIME", "CHOWN", "NET_ADMIN"]}}),
                &none,
            ),
            r#"non-default capabilities (container "a" must not include "NET_ADMIN", "SYS_TIME" in securityContext.capabilities.add)"#,
        ),
        (
            json!({"hostNetwork": true, "hostPID": false, "hostIPC": true, "containers": []}),
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            json!({"containers": [], "volumes": [{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "hostPath": {"path": "/"}}]}),
            r#"hostPath volumes (volumes "x", "y")"#,
        ),
        (
            with(
                &none,
                &json!({"ports": [{"hostPort": 80}, {"hostPort": 0}, {"hostPort": 9}]}),
            ),
            r#"hostPort (container "a" uses hostPorts 9, 80)"#,
        ),
        (
            with(
                &none,
                &json!({"livenessProbe": {"httpGet": {"host": "::1"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "h"}}}}),
            ),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle hosts "::1", "h")"#,
        ),
        (
            with(&json!({"privileged": true}), &none),
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            with(&json!({"procMount": "Unmasked"}), &none),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            with(
                &json!({"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}}),
                &none,
            ),
            r#"seLinuxOptions (container "a" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)"#,
        ),
        (
            of_pod(&json!({"seLinuxOptions": {"type": "container_t"}})),
            "",
        ),
        (
            of_pod(&json!({"seccompProfile": {"type": "Unconfined"}})),
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            of_pod(&json!({"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]})),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            of_pod(&json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"containers": [], "ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}]}),
            r#"privileged (container "e" must not set securityContext.privileged=true)"#,
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(found(Level::Baseline, "latest", &spec).join("; "), expected);
        assert!(found(Level::Privileged, "latest", &spec).is_empty());
    }
}

#[test]
fn restricted_wants_everything_said() {
    let careful = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "x", "emptyDir": {}}, {"name": "y", "secret": {}}],
    });
    assert!(found(Level::Restricted, "latest", &careful).is_empty());
    let careless = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(
        found(Level::Restricted, "latest", &careless),
        [
            r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false)"#,
            r#"unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"])"#,
            r#"runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true)"#,
            r#"seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ]
    );
    let change = |patch: &Value| {
        let mut spec = careful.clone();
        json_patch::merge(&mut spec, patch);
        found(Level::Restricted, "latest", &spec).join("; ")
    };
    let container = |context: &Value| {
        let mut context_of_all =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        json_patch::merge(&mut context_of_all, context);
        json!({"containers": [{"name": "a", "securityContext": context_of_all}]})
    };
    for (patch, expected) in [
        (
            container(&json!({"capabilities": {"add": ["CHOWN"]}})),
            r#"unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
        ),
        (
            json!({"volumes": [{"name": "x", "nfs": {}}, {"name": "y", "hostPath": {}}, {"name": "z", "nfs": {}}]}),
            r#"hostPath volumes (volume "y"); restricted volume types (volumes "x", "y", "z" use restricted volume types "hostPath", "nfs")"#,
        ),
        (
            json!({"securityContext": {"runAsNonRoot": false}}),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            container(&json!({"runAsNonRoot": false})),
            r#"runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)"#,
        ),
        (
            json!({"securityContext": {"runAsUser": 0}}),
            "runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            container(&json!({"seccompProfile": {"type": "Unconfined"}})),
            r#"seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        // The pod's word is not needed where each container has its own.
        (
            json!({"securityContext": {"runAsNonRoot": false}, "containers": container(&json!({"runAsNonRoot": true}))["containers"]}),
            "",
        ),
    ] {
        assert_eq!(change(&patch), expected, "{patch}");
    }
}

#[test]
fn versions_have_the_checks_of_their_time() {
    let probe = with(
        &json!({}),
        &json!({"livenessProbe": {"httpGet": {"host": "h"}}}),
    );
    assert_eq!(found(Level::Baseline, "v1.33", &probe).len(), 0);
    assert_eq!(found(Level::Baseline, "v1.34", &probe).len(), 1);
    let sysctl = of_pod(&json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}));
    assert_eq!(found(Level::Baseline, "v1.31", &sysctl).len(), 1);
    assert_eq!(found(Level::Baseline, "v1.32", &sysctl).len(), 0);
    let adds = with(&json!({"capabilities": {"add": ["SYS_TIME"]}}), &json!({}));
    let told = |version: &str| found(Level::Restricted, version, &adds);
    assert!(told("v1.21")[0].starts_with("non-default capabilities"));
    assert!(!told("v1.22").iter().any(|of| of.starts_with("non-default")));
    assert_eq!(told("v1.7").len(), 2, "capabilities and root");
    let windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
    assert_eq!(found(Level::Restricted, "v1.24", &windows).len(), 3);
    assert_eq!(found(Level::Restricted, "v1.25", &windows).len(), 0);
}
