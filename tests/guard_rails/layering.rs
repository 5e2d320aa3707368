//! The direction of imports between the crates, as ARCHITECTURE.md draws it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::root;

/// Each crate of ours, and the crates of ours that it may depend on.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "windlass",
        &[
            "windlass-control",
            "windlass-node",
            "windlass-oci",
            "windlass-api",
        ],
    ),
    ("windlass-control", &["windlass-api", "windlass-oci"]),
    (
        "windlass-node",
        &["windlass-api", "windlass-oci", "windlass-wasi-shims"],
    ),
    ("embed", &["windlass-node", "windlass-wasi-shims"]),
    ("windlass-api", &[]),
    ("windlass-oci", &[]),
    ("windlass-wasi-shims", &[]),
];

/// Crates of ours that know no Kubernetes type.
const WITHOUT_KUBERNETES: &[&str] = &["windlass-oci", "windlass-wasi-shims"];

/// The crates that choose the version of the Kubernetes types; for others it is a dev-dependency.
const CHOOSE_VERSION: &[&str] = &["embed", "windlass", "windlass-tests"];

/// Crates of which no part of the tree may depend, and what stands in their place.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-rs", "ring"),
    ("chrono", "jiff"),
    ("native-tls", "rustls"),
    ("openssl-sys", "rustls"),
];

/// The workspace as cargo sees it, without going online.
fn packages() -> BTreeMap<String, Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata.get("packages").and_then(Value::as_array).unwrap();
    packages
        .iter()
        .map(|package| {
            (
                package["name"].as_str().unwrap().to_owned(),
                package.clone(),
            )
        })
        .collect()
}

fn dependencies(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().unwrap().iter()
}

fn names(package: &Value) -> BTreeSet<&str> {
    dependencies(package)
        .map(|dependency| dependency["name"].as_str().unwrap())
        .collect()
}

#[test]
fn every_crate_imports_only_what_stands_below_it() {
    let packages = packages();
    for (package, allowed) in MAY_IMPORT {
        let names = names(&packages[*package]);
        let ours = names.iter().filter(|name| packages.contains_key(**name));
        for dependency in ours {
            assert!(
                allowed.contains(dependency),
                "{package} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn every_crate_has_its_place() {
    let packages = packages();
    let known: BTreeSet<_> = MAY_IMPORT
        .iter()
        .map(|(name, _)| *name)
        .chain(["windlass-tests"])
        .collect();
    let there: BTreeSet<_> = packages.keys().map(String::as_str).collect();
    assert_eq!(
        there, known,
        "a new crate needs a row in MAY_IMPORT and in ARCHITECTURE.md"
    );
}

#[test]
fn images_and_wasi_know_no_kubernetes_types() {
    let packages = packages();
    for package in WITHOUT_KUBERNETES {
        for name in names(&packages[*package]) {
            let is_kubernetes =
                name.starts_with("k8s-") || name == "kube" || name.starts_with("kube-");
            assert!(!is_kubernetes, "{package} must not depend on {name}");
        }
    }
}

#[test]
fn only_the_binary_and_the_tests_choose_the_kubernetes_version() {
    for (name, package) in packages() {
        let chooses = dependencies(&package).any(|dependency| {
            let features = dependency["features"].as_array().unwrap();
            dependency["name"] == "k8s-openapi"
                && dependency["kind"].is_null()
                && features
                    .iter()
                    .any(|feature| feature.as_str().unwrap().starts_with("v1_"))
        });
        let may = CHOOSE_VERSION.contains(&name.as_str());
        assert!(
            may || !chooses,
            "{name} is a library: its user chooses the version of k8s-openapi"
        );
    }
}

#[test]
fn banned_crates_are_nowhere_in_the_tree() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for (name, instead) in BANNED {
        let line = format!("name = \"{name}\"");
        assert!(
            !lock.lines().any(|found| found == line),
            "{name} is in the tree; {instead} does its work"
        );
    }
}
