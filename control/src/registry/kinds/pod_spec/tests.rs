//! Tables of specs and what is said about them.

use serde_json::{Value, json};

use super::*;

/// The texts of what is wrong with a pod's spec, defaults filled in.
fn errors(spec: &Value) -> Vec<String> {
    let mut spec = spec.clone();
    set_pod_defaults(spec.as_object_mut().unwrap());
    let mut errors = Errors::new();
    validate(&Field::root("spec", &spec), Owner::Pod("p"), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

/// The same for a spec whose only container has these members besides.
fn container_errors(members: &Value) -> Vec<String> {
    let mut container = json!({"name": "a", "image": "a:1"});
    let map = container.as_object_mut().unwrap();
    for (key, value) in members.as_object().unwrap() {
        map.insert(key.clone(), value.clone());
    }
    errors(&json!({"containers": [container]}))
}

#[test]
fn every_broken_field_is_reported_with_its_path() {
    let spec = json!({
        "restartPolicy": "Sometimes",
        "containers": [
            {"name": "A", "image": ""},
            {"name": "b", "image": "b", "volumeMounts": [{"name": "nope", "mountPath": "/x"}]},
            {"name": "b", "image": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
        ],
    });
    let found = errors(&spec);
    for expected in [
        "spec.containers[0].image: Required value",
        r#"spec.containers[1].volumeMounts[0].name: Not found: "nope""#,
        r#"spec.containers[2].name: Duplicate value: "b""#,
        r#"spec.containers[2].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
    ] {
        assert!(
            found.iter().any(|text| text == expected),
            "{expected} not in {found:#?}"
        );
    }
}

#[test]
fn a_container_is_refused_for_each_broken_rule() {
    let cases = [
        (
            json!({"ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 70000, "name": "web"}]}),
            vec![
                r#"spec.containers[0].ports[1].name: Duplicate value: "web""#,
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"ports": [{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]}),
            vec![r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//8""#],
        ),
        (
            json!({"livenessProbe": {"exec": {"command": ["a"]}, "grpc": {"port": 1}, "successThreshold": 2}}),
            vec![
                "spec.containers[0].livenessProbe.grpc: Forbidden: may not specify more than 1 handler type",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
            vec![
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]}),
            vec![
                r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs""#,
            ],
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]}),
            vec![],
        ),
        (
            json!({"envFrom": [{}]}),
            vec![
                r#"spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
            ],
        ),
        (
            json!({"resources": {"limits": {"example.com/gpu": "1500m", "hugepages-2Mi": "3Mi"}}}),
            vec![
                r#"spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "1500m": must be an integer"#,
                r#"spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi"#,
                r#"spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "1500m": must be an integer"#,
                r#"spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi"#,
                "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
            ],
        ),
        (
            json!({"securityContext": {"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}}),
            vec![
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        ),
        (
            json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}]}),
            vec![
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            ],
        ),
        (
            json!({"image": " a"}),
            vec![
                r#"spec.containers[0].image: Invalid value: " a": must not have leading or trailing whitespace"#,
            ],
        ),
    ];
    for (members, expected) in cases {
        assert_eq!(container_errors(&members), expected, "{members}");
    }
}

#[test]
fn a_spec_is_refused_for_each_broken_rule() {
    let cases = [
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]}),
            vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"volumes": [{"name": "v", "configMap": {"items": [{"key": "k", "path": "../x"}]}}]}),
            vec![
                "spec.volumes[0].configMap.name: Required value",
                r#"spec.volumes[0].configMap.items[0].path: Invalid value: "../x": must not contain '..'"#,
            ],
        ),
        (
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}}]}),
            vec![
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            ],
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "In"}]},
            ]}}}}),
            vec![
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ],
        ),
        (
            json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 200, "podAffinityTerm": {"topologyKey": "zone"}},
            ]}}}),
            vec![
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 200: must be in the range 1-100",
            ],
        ),
        (
            json!({"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            ]}),
            vec![
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                r#"spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}""#,
            ],
        ),
        (
            json!({"tolerations": [{"operator": "Exists", "value": "x"}, {"key": "k", "tolerationSeconds": 1}]}),
            vec![
                r#"spec.tolerations[0].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'"#,
                r#"spec.tolerations[1].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set"#,
            ],
        ),
        (
            json!({"dnsPolicy": "None"}),
            vec![
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ],
        ),
        (
            json!({"hostAliases": [{"ip": "x", "hostnames": ["a b"]}], "hostUsers": false, "hostPID": true}),
            vec![
                "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
                r#"spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                r#"spec.hostAliases[0].hostnames[0]: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            ],
        ),
        (
            json!({"os": {"name": "windows"}, "hostIPC": true}),
            vec!["spec.hostIPC: Forbidden: cannot be set for a windows pod"],
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]}),
            vec![
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
        (
            json!({"ephemeralContainers": [{"name": "a", "image": "d", "ports": [{"containerPort": 1}], "targetContainerName": "x"}]}),
            vec![
                r#"spec.ephemeralContainers[0].name: Duplicate value: "a""#,
                r#"spec.ephemeralContainers[0].targetContainerName: Not found: "x""#,
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ],
        ),
        (
            json!({"schedulingGates": [{"name": "a"}, {"name": "a"}], "activeDeadlineSeconds": 0}),
            vec![
                r#"spec.schedulingGates[1]: Duplicate value: "a""#,
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ],
        ),
        (
            json!({"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": "2"}}}]}),
            vec![
                r#"spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2"#,
            ],
        ),
    ];
    for (members, expected) in cases {
        let mut spec = json!({"containers": [{"name": "a", "image": "a:1"}]});
        for (key, value) in members.as_object().unwrap() {
            spec[key] = value.clone();
        }
        assert_eq!(errors(&spec), expected, "{members}");
    }
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("localhost:5000/web", "Always"),
        ("web:1", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
    ] {
        let mut spec = json!({"containers": [{"image": image}]});
        set_defaults(spec.as_object_mut().unwrap());
        assert_eq!(spec["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn a_pod_gets_what_its_template_leaves_open() {
    let spec = json!({
        "hostNetwork": true,
        "serviceAccount": "old",
        "containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}],
        "volumes": [{"name": "v"}, {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
    });
    let (mut template, mut pod) = (spec.clone(), spec);
    set_defaults(template.as_object_mut().unwrap());
    set_pod_defaults(pod.as_object_mut().unwrap());
    assert_eq!(template["serviceAccountName"], "old");
    assert_eq!(template["volumes"][0]["emptyDir"], json!({}));
    let token = "/volumes/1/projected/sources/0/serviceAccountToken/expirationSeconds";
    assert_eq!(template.pointer(token), Some(&json!(3600)));
    let container = |spec: &Value| spec["containers"][0].clone();
    assert!(container(&template)["ports"][0].get("hostPort").is_none());
    assert!(container(&template)["resources"].get("requests").is_none());
    assert_eq!(container(&pod)["ports"][0]["hostPort"], 80);
    assert_eq!(container(&pod)["resources"]["requests"]["cpu"], "1");
    let mut twice = pod.clone();
    set_pod_defaults(twice.as_object_mut().unwrap());
    assert_eq!(twice, pod);
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let pod = json!({"metadata": {}, "spec": {
        "nodeSelector": {"beta.kubernetes.io/os": "linux"},
        "terminationGracePeriodSeconds": -1,
        "containers": [{
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}],
            "resources": {"requests": {"memory": "1m"}},
        }],
    }});
    assert_eq!(
        warnings(&Field::root("", &pod)),
        [
            r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
            r#"spec.containers[0].resources.requests[memory]: fractional byte value "1m" is invalid, must be an integer"#,
            r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#,
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ]
    );
}
