//! What is written, who can read it, and what becomes of a data file whose keys change.

use serde_json::json;

use super::super::backend::{Backend, BackendError};
use super::super::local::LocalStore;
use super::super::redb::RedbBackend;
use super::super::rewrite::{Rewritten, rewrite};
use super::super::transform::Plain;
use super::super::{Change, Freshness, Operation, Pairs, Precondition, Record, Store};
use super::*;

const OLD: &str = "b2xkLWtleS1vZi0zMi1ieXRlcy1mb3ItdGVzdHMtb24=";
const NEW: &str = "bmV3LWtleS1vZi0xNi1iLg==";
const SECRET: &[u8] = b"do not tell";

fn configuration(resources: &str, providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- \
         resources: [{resources}]\n  providers: [{providers}]\n"
    )
}

fn keys(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, secret)| format!("{{name: {name}, secret: \"{secret}\"}}"))
        .collect();
    format!("{{aesgcm: {{keys: [{}]}}}}", keys.join(", "))
}

fn with(providers: &str) -> Encryption {
    Encryption::parse(&configuration("secrets", providers)).unwrap()
}

fn secret(name: &str) -> ObjectKey {
    ObjectKey::new("", "secrets", "default", name)
}

/// As a record begins.
fn plain() -> Vec<u8> {
    [&[1], SECRET].concat()
}

#[test]
fn a_value_is_read_with_its_key_and_in_its_place_only() {
    let own = with(&keys(&[("old", OLD)]));
    let sealed = own.seal(&secret("a"), plain()).unwrap();
    let again = own.seal(&secret("a"), plain()).unwrap();
    assert_ne!(sealed, again, "no nonce is used twice");
    let contains = |value: &[u8]| value.windows(SECRET.len()).any(|part| part == SECRET);
    assert!(!contains(&sealed) && contains(&plain()));
    // Another process has the key and nothing else in common.
    let other = with(&keys(&[("old", OLD)]));
    assert_eq!(other.open(&secret("a"), sealed.clone()).unwrap(), plain());
    let wrong = other.open(&secret("b"), sealed.clone()).unwrap_err();
    assert!(wrong.contains("cannot be decrypted"), "{wrong}");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 0x10;
        assert!(other.open(&secret("a"), changed).is_err(), "byte {at}");
        assert!(other.open(&secret("a"), sealed[..at].to_vec()).is_err() || at == 0);
    }
    let stranger = with(&keys(&[("old", NEW)]));
    assert!(stranger.open(&secret("a"), sealed.clone()).is_err());
    let none = Encryption::default()
        .open(&secret("a"), sealed)
        .unwrap_err();
    assert!(
        none.contains("which the encryption configuration does not have"),
        "{none}"
    );
    assert!(!format!("{own:?}").contains(OLD));
}

#[test]
fn only_what_is_asked_for_is_encrypted_and_what_is_plain_is_read_if_it_may_be() {
    let own = with(&keys(&[("old", OLD)]));
    let map = ObjectKey::new("", "configmaps", "default", "a");
    assert_eq!(own.seal(&map, plain()).unwrap(), plain());
    assert_eq!(own.seal(&secret("a"), vec![DELETED]).unwrap(), [DELETED]);
    let refused = own.open(&secret("a"), plain()).unwrap_err();
    assert!(refused.contains("is not encrypted"), "{refused}");
    let lenient = with(&format!("{}, {{identity: {{}}}}", keys(&[("old", OLD)])));
    assert_eq!(lenient.open(&secret("a"), plain()).unwrap(), plain());
    for (pattern, resource, covered) in [
        ("*.*", "apps/deployments", true),
        ("*.apps", "apps/deployments", true),
        ("deployments.apps", "apps/deployments", true),
        ("deployments", "apps/deployments", false),
        ("*.", "secrets", true),
        ("*.", "apps/deployments", false),
        ("*.apps", "secrets", false),
    ] {
        let text = configuration(&format!("\"{pattern}\""), "{identity: {}}");
        let rule = Encryption::parse(&text).unwrap().rules[0].covers(resource);
        assert_eq!(rule, covered, "{pattern} {resource}");
    }
}

#[test]
fn what_cannot_be_followed_is_refused_without_showing_a_key() {
    for (text, expected) in [
        (
            configuration("secrets", "{secretbox: {keys: []}}"),
            "\"secretbox\" is not supported",
        ),
        (
            configuration("secrets", "{secretbox: {keys: []}}"),
            "\"secretbox\" is not supported",
        ),
        (configuration("secrets", ""), "providers must not be empty"),
        (
            configuration("secrets", "{identity: {}, aesgcm: {keys: []}}"),
            "each entry names one provider, not 2",
        ),
        (
            configuration("", "{identity: {}}"),
            "resources must not be empty",
        ),
        (
            configuration("secrets", &keys(&[])),
            "aesgcm.keys must not be empty",
        ),
        (
            configuration("secrets", &keys(&[("a", "c2hvcnQ=")])),
            "key \"a\": the secret must have 16 or 32 bytes",
        ),
        (
            configuration("secrets", &keys(&[("a", "%%%")])),
            "key \"a\": the secret is not base64",
        ),
        (
            "kind: Pod\napiVersion: v1\n".to_owned(),
            "the file is of kind \"Pod\" of \"v1\"",
        ),
        (
            configuration(
                "secrets",
                &format!("{{aesgcm: {{keys: [{{secret: {OLD}, nam: a}}]}}}}"),
            ),
            "line ",
        ),
    ] {
        let error = Encryption::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(OLD), "{error}");
    }
}

async fn commit(store: &LocalStore, name: &str) {
    let object = json!({"metadata": {"name": name}, "data": {"v": "do not tell"}});
    let record = Record::encode(&object, Pairs::default()).unwrap();
    let operation = Operation {
        key: secret(name),
        precondition: Precondition::Any,
        change: Change::Put(record),
    };
    store.commit(vec![operation]).await.unwrap();
}

#[tokio::test]
async fn a_data_file_follows_its_keys_when_it_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let open = |transform: Box<dyn Transform>| {
        let backend: Box<dyn Backend> = Box::new(RedbBackend::open(&path)?);
        LocalStore::open(backend, transform)
    };
    let shows = || {
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(SECRET.len()).any(|part| part == SECRET)
    };
    let store = open(Box::new(Plain)).unwrap();
    for name in ["a", "b", "a"] {
        commit(&store, name).await;
    }
    let in_use = rewrite(&path, &Encryption::default()).unwrap_err();
    assert!(matches!(in_use, BackendError::InUse { .. }), "{in_use}");
    drop(store);
    assert!(shows());
    let strict = with(&keys(&[("old", OLD)]));
    let refused = open(Box::new(strict.clone())).unwrap_err().to_string();
    assert!(refused.contains("is not encrypted"), "{refused}");
    assert!(rewrite(&path, &strict).is_err(), "it could not be read");
    assert!(shows(), "nothing has changed");
    let first = with(&format!("{}, {{identity: {{}}}}", keys(&[("old", OLD)])));
    let written = rewrite(&path, &first).unwrap();
    assert_eq!(written, Rewritten { all: 3, changed: 3 });
    assert!(!shows());
    let store = open(Box::new(strict.clone())).unwrap();
    commit(&store, "c").await;
    drop(store);
    // A new key writes, the old one still reads; then it is gone.
    let both = with(&keys(&[("new", NEW), ("old", OLD)]));
    let written = rewrite(&path, &both).unwrap();
    assert_eq!(written, Rewritten { all: 4, changed: 4 });
    assert_eq!(rewrite(&path, &both).unwrap().changed, 0);
    let store = open(Box::new(with(&keys(&[("new", NEW)])))).unwrap();
    let snapshot = store.snapshot(Freshness::Latest).await.unwrap();
    assert_eq!(snapshot.revision().0, 4, "revisions stay");
    for name in ["a", "b", "c"] {
        assert!(snapshot.get(&secret(name)).is_some(), "{name}");
    }
    drop(store);
    assert!(open(Box::new(strict)).is_err(), "the old key is of no use");
    // And back.
    let back = with(&format!("{{identity: {{}}}}, {}", keys(&[("new", NEW)])));
    assert_eq!(rewrite(&path, &back).unwrap().changed, 4);
    assert!(shows());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
