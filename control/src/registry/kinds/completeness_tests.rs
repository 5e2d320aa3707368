//! The table of kinds against what upstream serves: `resources.tsv` has the generally available resources
//! of v1.35, one a row; subresources are written `name:Kind:verbs`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::schema::Schema;

use super::KINDS;
use crate::registry::strategy::Kind;

const RESOURCES: &str = include_str!("resources.tsv");

/// What upstream serves and the table of kinds does not have yet.
const NOT_SERVED: &[&str] = &[
    "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "apiextensions.k8s.io/v1/customresourcedefinitions",
    "apiextensions.k8s.io/v1/customresourcedefinitions/status",
    "apiregistration.k8s.io/v1/apiservices",
    "apiregistration.k8s.io/v1/apiservices/status",
];

/// Path of a resource or subresource, and what discovery says of it.
type Facts = BTreeMap<String, String>;

fn of_upstream() -> Facts {
    let mut facts = Facts::new();
    for row in RESOURCES.lines().skip(1) {
        let columns: Vec<_> = row.split('\t').collect();
        let [group, version, kind, plural, rest @ .., subresources] = columns.as_slice() else {
            panic!("{row}")
        };
        let path = format!("{group}/{version}/{plural}");
        for subresource in subresources.split_whitespace() {
            let (name, shape) = subresource.split_once(':').unwrap();
            facts.insert(format!("{path}/{name}"), shape.to_owned());
        }
        facts.insert(path, format!("{kind} {}", rest.join(" ")));
    }
    facts
}

fn of_windlass() -> Facts {
    let mut facts = Facts::new();
    for kind in KINDS.iter().map(|kind| kind()) {
        let info = &kind.info;
        let gvk = &info.gvk;
        let path = format!("{}/{}/{}", gvk.group, gvk.version, info.plural);
        for subresource in &*info.subresources {
            let shape = format!("{}:{}", subresource.gvk.kind, subresource.verbs.join(","));
            facts.insert(format!("{path}/{}", subresource.name), shape);
        }
        let shape = format!(
            "{} {} {} {} {} {}",
            gvk.kind,
            info.singular,
            info.short_names.join(","),
            info.namespaced,
            info.verbs.join(","),
            info.categories.join(",")
        );
        facts.insert(path, shape);
    }
    facts
}

#[test]
fn discovery_says_what_upstreams_says() {
    let (upstream, windlass) = (of_upstream(), of_windlass());
    let ours = format!("{}/", windlass_api::node_info::GROUP);
    for (path, shape) in windlass.iter().filter(|(path, _)| !path.starts_with(&ours)) {
        assert_eq!(Some(shape), upstream.get(path), "{path}");
    }
    let missing: BTreeSet<_> = upstream
        .keys()
        .filter(|path| !windlass.contains_key(*path))
        .map(String::as_str)
        .collect();
    assert_eq!(missing, NOT_SERVED.iter().copied().collect());
}

/// The least object of a kind: names, and the objects that hold everything else.
fn minimal(kind: &Kind) -> Value {
    json!({
        "apiVersion": kind.info.gvk.api_version(), "kind": kind.info.gvk.kind,
        "metadata": {"name": "x", "creationTimestamp": "1970-01-01T00:00:00Z"},
    })
}

#[test]
fn every_kind_has_a_type_and_a_cell_for_each_column() {
    for kind in KINDS.iter().map(|kind| kind()) {
        assert!(Schema::builtin().kind(&kind.info.gvk).is_some(), "{kind:?}");
        let object = minimal(&kind);
        let cells = kind.strategy.cells(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells.len(), kind.strategy.columns().len(), "{kind:?}");
    }
}

#[test]
fn defaulting_twice_changes_nothing() {
    for kind in KINDS.iter().map(|kind| kind()) {
        let mut once = minimal(&kind);
        kind.strategy.set_defaults(&mut once);
        let mut twice = once.clone();
        kind.strategy.set_defaults(&mut twice);
        assert_eq!(once, twice, "{kind:?}");
    }
}

#[test]
fn what_is_not_enforced_names_its_kind() {
    for kind in KINDS.iter().map(|kind| kind()) {
        if let Some(text) = kind.strategy.not_enforced() {
            let name = &*kind.info.gvk.kind;
            assert_eq!(text.split(' ').next(), Some(name));
            assert_eq!(
                kind.warnings(&minimal(&kind)).first().map(String::as_str),
                Some(text)
            );
        }
    }
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
const BEGIN: &str = "<!-- kinds: made from the table of kinds -->\n";
const END: &str = "<!-- kinds: end -->\n";

/// The part of the compatibility page that the table of kinds writes: what is served, and what of it has
/// no effect yet.
fn page_of_kinds() -> String {
    let mut rows =
        String::from("| group and version | kind | subresources | effect |\n|---|---|---|---|\n");
    for kind in KINDS.iter().map(|kind| kind()) {
        let info = &kind.info;
        let names: Vec<_> = info.subresources.iter().map(|sub| &*sub.name).collect();
        let name = &*info.gvk.kind;
        let effect = match (kind.computed, kind.strategy.not_enforced()) {
            (true, _) => "computed, not stored".to_owned(),
            // The text begins with the kind, which the row has said.
            (_, Some(text)) => text
                .trim_start_matches(name)
                .trim_start()
                .trim_start_matches("is ")
                .to_owned(),
            (_, None) => String::new(),
        };
        let (version, names) = (info.gvk.api_version(), names.join(", "));
        rows.push_str(&format!("| {version} | {name} | {names} | {effect} |\n"));
    }
    rows
}

/// With `WINDLASS_UPDATE_DOCS` set, writes the page anew instead of complaining.
#[test]
fn the_compatibility_page_says_what_the_table_says() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the begin mark");
    let (found, after) = rest.split_once(END).expect("the page has the end mark");
    let wanted = page_of_kinds();
    if found == wanted {
        return;
    }
    if std::env::var_os("WINDLASS_UPDATE_DOCS").is_some() {
        let page = format!("{before}{BEGIN}{wanted}{END}{after}");
        std::fs::write(PAGE, page).unwrap();
        return;
    }
    panic!("docs/compatibility.md is not up to date: run this test with WINDLASS_UPDATE_DOCS=1");
}
