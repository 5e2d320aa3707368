//! The store's promises as tests, run against every backend.
//!
//! A promise is a function of an [`Opener`], which opens the same log again each time it is called:
//! that is how a restart is played.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::{Backend, BackendError, LogEntry, LogHead};
use super::encryption::Encryption;
use super::local::LocalStore;
use super::memory::MemoryBackend;
use super::redb::RedbBackend;
use super::transform::Plain;
use super::*;

type Opener<'a> = &'a dyn Fn() -> LocalStore;

/// Instantiates each promise for each backend.
macro_rules! promises {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::over_memory(async |open| super::$name(open).await).await; })*
        }
        mod redb {
            $(#[tokio::test] async fn $name() { super::over_redb(async |open| super::$name(open).await).await; })*
        }
        mod encrypted {
            $(#[tokio::test] async fn $name() { super::over_encrypted(async |open| super::$name(open).await).await; })*
        }
    };
}

promises! {
    a_commit_takes_effect_whole_or_not_at_all
    revisions_count_commits_and_survive_restart_and_compaction
    acknowledged_objects_are_there_after_a_restart
    a_closed_store_is_read_and_no_longer_written
    a_failed_precondition_answers_with_the_current_object
    concurrent_creates_of_one_key_have_one_winner
    a_snapshot_never_changes
    a_range_lists_its_objects_in_order_after_a_key
    kept_snapshots_serve_later_pages_and_others_are_gone
    a_watch_replays_and_then_follows
    a_watch_resumes_across_a_restart
    a_deletion_carries_the_last_object_with_its_own_revision
    a_watch_behind_compaction_says_so
    a_quiet_watch_outlives_compaction_of_other_resources
    a_watch_from_the_future_is_refused
    events_carry_labels_before_and_after
}

/// A memory log that survives its store, as a file would.
struct Lasting(Arc<std::sync::Mutex<MemoryBackend>>);

impl Backend for Lasting {
    fn load(
        &mut self,
        visit: &mut dyn FnMut(LogEntry) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.0.lock().unwrap().load(visit)
    }
    fn head(&mut self) -> Result<LogHead, BackendError> {
        self.0.lock().unwrap().head()
    }
    fn append(&mut self, entries: &[LogEntry]) -> Result<(), BackendError> {
        self.0.lock().unwrap().append(entries)
    }
    fn compact(&mut self, through: Revision, obsolete: &[Position]) -> Result<(), BackendError> {
        self.0.lock().unwrap().compact(through, obsolete)
    }
}

async fn over_memory(promise: impl AsyncFn(Opener<'_>)) {
    let log = Arc::default();
    let open = || LocalStore::open(Box::new(Lasting(Arc::clone(&log))), Box::new(Plain)).unwrap();
    promise(&open).await;
}

async fn over_redb(promise: impl AsyncFn(Opener<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let open =
        || LocalStore::open(Box::new(RedbBackend::open(&path).unwrap()), Box::new(Plain)).unwrap();
    promise(&open).await;
}

async fn over_encrypted(promise: impl AsyncFn(Opener<'_>)) {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
        - resources: [\"*.*\"]\n  providers: [{aesgcm: {keys: [{name: k, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}]";
    let log = Arc::new(std::sync::Mutex::new(MemoryBackend::default()));
    // Each opener is another process: it has the file's keys and none of those that were drawn.
    let open = || {
        let encryption = Box::new(Encryption::parse(text).unwrap());
        LocalStore::open(Box::new(Lasting(Arc::clone(&log))), encryption).unwrap()
    };
    promise(&open).await;
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("", "configmaps", "ns", name)
}

fn all() -> KeyRange {
    KeyRange::resource("", "configmaps")
}

fn put_at(key: ObjectKey, precondition: Precondition, label: &str) -> Operation {
    let object = json!({"metadata": {"name": key.name(), "labels": {"v": label}}});
    let record = Record::encode(&object, Pairs::default()).unwrap();
    Operation {
        key,
        precondition,
        change: Change::Put(record),
    }
}

fn put(name: &str, label: &str) -> Operation {
    put_at(key(name), Precondition::Any, label)
}

fn delete(name: &str) -> Operation {
    Operation {
        key: key(name),
        precondition: Precondition::Any,
        change: Change::Delete,
    }
}

async fn commit(store: &LocalStore, operations: Vec<Operation>) -> Revision {
    store.commit(operations).await.unwrap().revision
}

async fn names(store: &LocalStore) -> Vec<String> {
    let snapshot = store.snapshot(Freshness::Latest).await.unwrap();
    snapshot
        .range(&all(), None)
        .map(|entry| entry.key.name().to_owned())
        .collect()
}

fn told(events: &[Arc<WatchEvent>]) -> Vec<(u64, String, bool)> {
    events
        .iter()
        .map(|e| (e.revision.0, e.entry.key.name().to_owned(), e.deleted))
        .collect()
}

const NOTHING: Retention = Retention {
    age: Duration::ZERO,
    events: 0,
};

async fn a_commit_takes_effect_whole_or_not_at_all(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1"), put("b", "1")]).await;
    let refused = vec![put("c", "1"), put_at(key("a"), Precondition::Absent, "2")];
    assert!(store.commit(refused).await.is_err());
    assert_eq!(names(&store).await, ["a", "b"]);
    let snapshot = store.snapshot(Freshness::Latest).await.unwrap();
    assert_eq!(snapshot.get(&key("a")).unwrap().revision, Revision(1));
    assert_eq!(snapshot.get(&key("b")).unwrap().revision, Revision(1));
}

async fn revisions_count_commits_and_survive_restart_and_compaction(open: Opener<'_>) {
    let store = open();
    assert_eq!(commit(&store, vec![put("a", "1")]).await, Revision(1));
    assert_eq!(commit(&store, vec![delete("a")]).await, Revision(2));
    store.compact(NOTHING).await.unwrap();
    drop(store);
    assert_eq!(commit(&open(), vec![put("a", "1")]).await, Revision(3));
}

async fn acknowledged_objects_are_there_after_a_restart(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    commit(&store, vec![put("a", "2"), put("b", "1")]).await;
    commit(&store, vec![delete("b")]).await;
    store.compact(NOTHING).await.unwrap();
    commit(&store, vec![put("c", "1")]).await;
    drop(store);
    let store = open();
    assert_eq!(names(&store).await, ["a", "c"]);
    let snapshot = store.snapshot(Freshness::Latest).await.unwrap();
    let a = snapshot.get(&key("a")).unwrap();
    let object: Value = serde_json::from_slice(&a.bytes).unwrap();
    assert_eq!(object["metadata"]["resourceVersion"], "2");
    assert_eq!(a.labels.get("v"), Some("2"));
}

async fn a_closed_store_is_read_and_no_longer_written(open: Opener<'_>) {
    let store = Arc::new(open());
    let commits: Vec<_> = (0..20)
        .map(|n| {
            let store = Arc::clone(&store);
            let put = put_at(key(&n.to_string()), Precondition::Any, "v");
            tokio::spawn(async move { store.commit(vec![put]).await.is_ok() })
        })
        .collect();
    store.close().await;
    store.close().await;
    let committed = futures::future::join_all(commits).await;
    let committed = committed.into_iter().filter(|ok| *ok.as_ref().unwrap());
    let count = committed.count();
    let late = store
        .commit(vec![put_at(key("late"), Precondition::Any, "v")])
        .await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    assert_eq!(names(&store).await.len(), count);
    // The old one still lives.
    assert_eq!(names(&open()).await.len(), count);
}

async fn a_failed_precondition_answers_with_the_current_object(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    commit(&store, vec![put("a", "2")]).await;
    let stale = vec![put_at(key("a"), Precondition::At(Revision(1)), "3")];
    match store.commit(stale).await {
        Err(StoreError::PreconditionFailed {
            current: Some(current),
            ..
        }) => {
            assert_eq!(current.revision, Revision(2));
        }
        other => panic!("{other:?}"),
    }
    let absent = vec![delete("nobody")];
    assert!(matches!(
        store.commit(absent).await,
        Err(StoreError::PreconditionFailed { current: None, .. })
    ));
}

async fn concurrent_creates_of_one_key_have_one_winner(open: Opener<'_>) {
    let store = Arc::new(open());
    let creates = (0..32).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let create = put_at(key("a"), Precondition::Absent, &n.to_string());
            store.commit(vec![create]).await.is_ok()
        })
    });
    let outcomes = futures::future::join_all(creates).await;
    assert_eq!(
        outcomes
            .into_iter()
            .filter(|won| *won.as_ref().unwrap())
            .count(),
        1
    );
}

async fn a_snapshot_never_changes(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    let snapshot = store.snapshot(Freshness::Latest).await.unwrap();
    commit(&store, vec![put("b", "1")]).await;
    commit(&store, vec![delete("a")]).await;
    assert_eq!(snapshot.range(&all(), None).count(), 1);
    assert_eq!(snapshot.revision(), Revision(1));
    assert!(matches!(
        store.snapshot(Freshness::AtLeast(Revision(9))).await,
        Err(StoreError::TooLarge { .. })
    ));
}

async fn a_range_lists_its_objects_in_order_after_a_key(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("c", "1"), put("a", "1"), put("b", "1")]).await;
    let other = ObjectKey::new("", "secrets", "ns", "x");
    commit(&store, vec![put_at(other, Precondition::Any, "1")]).await;
    let snapshot = store.snapshot(Freshness::Latest).await.unwrap();
    let (range, after) = (all(), key("a"));
    let rest: Vec<_> = snapshot
        .range(&range, Some(after.as_str()))
        .map(|e| e.key.name())
        .collect();
    assert_eq!(rest, ["b", "c"]);
}

async fn kept_snapshots_serve_later_pages_and_others_are_gone(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    let kept = store.snapshot(Freshness::Latest).await.unwrap();
    store.keep(&kept);
    commit(&store, vec![put("b", "1")]).await;
    commit(&store, vec![put("c", "1")]).await;
    assert_eq!(
        store
            .snapshot_at(Revision(1))
            .await
            .unwrap()
            .range(&all(), None)
            .count(),
        1
    );
    assert!(matches!(
        store.snapshot_at(Revision(2)).await,
        Err(StoreError::Compacted {
            requested: Revision(2),
            ..
        })
    ));
    assert_eq!(
        store
            .snapshot_at(Revision(3))
            .await
            .unwrap()
            .range(&all(), None)
            .count(),
        3
    );
}

async fn a_watch_replays_and_then_follows(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    commit(&store, vec![put("b", "1")]).await;
    let mut watch = store.watch(all(), Revision(1)).await.unwrap();
    assert_eq!(told(&watch.next().await.unwrap()), [(2, "b".into(), false)]);
    let (event, revision) = tokio::join!(watch.next(), commit(&store, vec![delete("a")]));
    assert_eq!(told(&event.unwrap()), [(3, "a".into(), true)]);
    assert_eq!(watch.progress(), revision);
}

async fn a_watch_resumes_across_a_restart(open: Opener<'_>) {
    let store = open();
    for label in ["1", "2", "3"] {
        commit(&store, vec![put("a", label)]).await;
    }
    drop(store);
    let store = open();
    let mut watch = store.watch(all(), Revision(1)).await.unwrap();
    let events = watch.next().await.unwrap();
    assert_eq!(
        told(&events),
        [(2, "a".into(), false), (3, "a".into(), false)]
    );
}

async fn a_deletion_carries_the_last_object_with_its_own_revision(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "last")]).await;
    commit(&store, vec![delete("a")]).await;
    drop(store);
    let store = open();
    let mut watch = store.watch(all(), Revision(1)).await.unwrap();
    let events = watch.next().await.unwrap();
    let object: Value = serde_json::from_slice(&events[0].entry.bytes).unwrap();
    assert_eq!(object["metadata"]["resourceVersion"], "2");
    assert_eq!(object["metadata"]["labels"]["v"], "last");
}

async fn a_watch_behind_compaction_says_so(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    let mut behind = store.watch(all(), Revision(1)).await.unwrap();
    commit(&store, vec![put("a", "2")]).await;
    assert_eq!(store.compact(NOTHING).await.unwrap(), Revision(2));
    assert!(matches!(
        behind.next().await,
        Err(StoreError::Compacted { .. })
    ));
    let late = store.watch(all(), Revision(1)).await;
    assert!(matches!(late, Err(StoreError::Compacted { .. })));
    assert!(store.watch(all(), Revision(2)).await.is_ok());
}

async fn a_quiet_watch_outlives_compaction_of_other_resources(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "1")]).await;
    let mut quiet = store
        .watch(KeyRange::resource("", "secrets"), Revision(1))
        .await
        .unwrap();
    commit(&store, vec![put("a", "2")]).await;
    store.compact(NOTHING).await.unwrap();
    let secret = ObjectKey::new("", "secrets", "ns", "x");
    commit(&store, vec![put_at(secret, Precondition::Absent, "1")]).await;
    assert_eq!(told(&quiet.next().await.unwrap()), [(3, "x".into(), false)]);
}

async fn a_watch_from_the_future_is_refused(open: Opener<'_>) {
    let store = open();
    let future = store.watch(all(), Revision(5)).await;
    assert!(matches!(future, Err(StoreError::TooLarge { .. })));
}

async fn events_carry_labels_before_and_after(open: Opener<'_>) {
    let store = open();
    commit(&store, vec![put("a", "old")]).await;
    commit(&store, vec![put("a", "new")]).await;
    let mut watch = store.watch(all(), Revision(1)).await.unwrap();
    let events = watch.next().await.unwrap();
    let before = events[0].previous.as_ref().unwrap();
    assert_eq!(
        (before.labels.get("v"), events[0].entry.labels.get("v")),
        (Some("old"), Some("new"))
    );
}

/// A log whose disk is full for a while.
struct Failing(MemoryBackend, Arc<std::sync::atomic::AtomicBool>);

impl Backend for Failing {
    fn load(
        &mut self,
        visit: &mut dyn FnMut(LogEntry) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.0.load(visit)
    }
    fn head(&mut self) -> Result<LogHead, BackendError> {
        self.0.head()
    }
    fn append(&mut self, entries: &[LogEntry]) -> Result<(), BackendError> {
        if self.1.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(BackendError::Io("no space left on device".into()));
        }
        self.0.append(entries)
    }
    fn compact(&mut self, through: Revision, obsolete: &[Position]) -> Result<(), BackendError> {
        self.0.compact(through, obsolete)
    }
}

#[tokio::test]
async fn a_failed_write_leaves_nothing_behind_and_may_be_retried() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let backend = Failing(MemoryBackend::default(), Arc::clone(&full));
    let store = LocalStore::open(Box::new(backend), Box::new(Plain)).unwrap();
    let error = store.commit(vec![put("a", "1")]).await.unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(names(&store).await.is_empty());
    full.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(commit(&store, vec![put("a", "1")]).await, Revision(1));
}
