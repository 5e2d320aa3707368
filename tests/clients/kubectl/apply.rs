//! `kubectl apply` on both sides, and the other ways to change an object.

use super::everyday::APP;
use super::{Kubectl, Program, file, with_each};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_and_names_conflicts() {
    with_each(Program::is_thorough, async |kubectl| {
        let blue = file(kubectl, "blue.yaml", APP);
        let red = file(kubectl, "red.yaml", &APP.replace("blue", "red"));
        let image = APP.replace("web:1", "web:2");
        let image = file(kubectl, "image.yaml", &image);
        kubectl.ok(&format!("apply -f {blue}")).await;
        differences(kubectl, &red, &image).await;
        server_side(kubectl, &blue, &red).await;
        let typo = APP.replace("replicas", "replica");
        let refused = kubectl.fails("apply -f -", &typo).await;
        assert!(
            refused.contains(r#"The request is invalid: patch: Invalid value: "map["#)
                && refused.contains(r#"strict decoding error: unknown field "spec.replica""#),
            "{refused}"
        );
        let dry = kubectl
            .ok(&format!("apply -f {red} --dry-run=server"))
            .await;
        assert!(
            dry.contains("configmap/settings configured (server dry run)"),
            "{dry}"
        );
        let settings = kubectl.ok("get cm settings -o jsonpath={.data}").await;
        assert_eq!(settings, r#"{"colour":"blue"}"#);
    })
    .await;
}

/// Conformance: [sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]
async fn differences(kubectl: &Kubectl, red: &str, image: &str) {
    for (file, expected) in [
        (red, ["-  colour: blue", "+  colour: red"]),
        (
            image,
            [
                "-      - image: registry.windlass.local/default/web:1",
                "+      - image: registry.windlass.local/default/web:2",
            ],
        ),
    ] {
        let output = kubectl.output(&format!("diff -f {file}"), "").await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(expected.iter().all(|line| found.contains(line)), "{found}");
    }
}

async fn server_side(kubectl: &Kubectl, blue: &str, red: &str) {
    kubectl.ok(&format!("apply --server-side -f {blue}")).await;
    let other = format!("apply --server-side --field-manager=other -f {red}");
    let refused = kubectl.fails(&other, "").await;
    assert!(
        refused.contains(r#"Apply failed with 1 conflict: conflict with "kubectl": .data.colour"#),
        "{refused}"
    );
    let forced = kubectl.ok(&format!("{other} --force-conflicts")).await;
    assert!(
        forced.contains("configmap/settings serverside-applied"),
        "{forced}"
    );
    let managers = "get cm settings --show-managed-fields \
        -o jsonpath={.metadata.managedFields[*].manager}";
    let managers = kubectl.ok(managers).await;
    assert!(
        managers.contains("kubectl") && managers.contains("other"),
        "{managers}"
    );
    kubectl
        .ok(&format!("apply --server-side -f {blue} --force-conflicts"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_edits_replaces_and_patches() {
    with_each(Program::is_thorough, async |kubectl| {
        kubectl.ok_with("create -f -", APP).await;
        kubectl.each_prints(PATCHES).await;
        kubectl.each_complains(BAD_PATCHES).await;
        replaced(kubectl).await;
        labelled(kubectl).await;
    })
    .await;
}

/// Changes to the objects of [`APP`], in order.
const PATCHES: &[(&str, &str)] = &[
    ("edit cm settings", "configmap/settings edited"),
    ("get cm settings -o jsonpath={.data.colour}", "edited"),
    (
        r#"patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}'"#,
        "deployment.apps/web patched",
    ),
    (
        "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}:{.spec.template.spec.containers[0].env[0].value}",
        "registry.windlass.local/default/web:1:1",
    ),
    (
        r#"patch cm settings --type=merge -p '{"data":{"colour":null,"size":"9"}}'"#,
        "patched",
    ),
    ("get cm settings -o jsonpath={.data}", r#"{"size":"9"}"#),
    (
        r#"patch cm settings --type=json -p '[{"op":"test","path":"/data/size","value":"9"},{"op":"replace","path":"/data/size","value":"blue"}]'"#,
        "patched",
    ),
    ("get cm settings -o jsonpath={.data}", r#"{"size":"blue"}"#),
    (
        r#"patch cm settings -p '{"data":{"size":"blue"}}'"#,
        "patched (no change)",
    ),
    (
        r#"patch deployment web --subresource=scale --type=merge -p '{"spec":{"replicas":0}}'"#,
        "patched",
    ),
    (
        r#"patch cm settings --dry-run=server -p '{"data":{"size":"1"}}'"#,
        "patched",
    ),
    ("get cm settings -o jsonpath={.data}", r#"{"size":"blue"}"#),
];

const BAD_PATCHES: &[(&str, &str)] = &[
    (
        r#"patch cm settings --type=json -p '[{"op":"test","path":"/data/size","value":"8"}]'"#,
        "testing value /data/size failed",
    ),
    (
        r#"patch deployment web -p '{"spec":{"replicas":-1}}'"#,
        r#"The Deployment "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#,
    ),
    (
        r#"patch deployment web -p '{"spec":{"selector":{"matchLabels":{"app":"x"}}}}'"#,
        "field is immutable",
    ),
    (
        r#"patch cm nothing -p '{}'"#,
        r#"configmaps "nothing" not found"#,
    ),
];

/// A replacement that was read before another one is refused.
async fn replaced(kubectl: &Kubectl) {
    let read = kubectl.ok("get cm settings -o yaml").await;
    let changed = read.replace("blue", "green");
    let done = kubectl.ok_with("replace -f -", &changed).await;
    assert_eq!(done, "configmap/settings replaced\n");
    let stale = kubectl.fails("replace -f -", &read).await;
    let expected = r#"Operation cannot be fulfilled on configmaps "settings": the object has been modified; please apply your changes to the latest version and try again"#;
    assert!(stale.contains(expected), "{stale}");
    let forced = kubectl.ok_with("replace --force -f -", &read).await;
    assert!(
        forced.contains("deleted") && forced.contains("replaced"),
        "{forced}"
    );
}

async fn labelled(kubectl: &Kubectl) {
    let steps = [
        ("label cm settings tier=front", "configmap/settings labeled"),
        ("get cm -L tier", "front"),
        ("label cm settings tier=back --overwrite", "labeled"),
        ("label cm settings tier-", "configmap/settings unlabeled"),
        ("annotate cm settings note=x", "configmap/settings annotate"),
        ("annotate cm settings note-", "configmap/settings annotate"),
        (
            "get cm settings -o jsonpath={.metadata.labels}{.metadata.annotations}",
            "",
        ),
    ];
    kubectl.each_prints(&steps).await;
    kubectl.ok("label cm settings tier=front").await;
    let taken = [("label cm settings tier=back", "already has a value (front)")];
    kubectl.each_complains(&taken).await;
}
