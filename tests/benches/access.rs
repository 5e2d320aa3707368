//! Decisions by roles: what one costs among 10 and among 10,000 bindings.
//!
//! Every user has ten bindings to a role of thirty rules, of which the last allows what is asked; a refusal looks at all
//! three hundred rules. Criterion judges each figure against its own past; the table at the end compares both sizes.

use std::cell::RefCell;
use std::fmt::Display;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use windlass_control::identity::UserInfo;
use windlass_control::rbac::{Action, GROUP, Rbac};
use windlass_control::store::local::LocalStore;
use windlass_control::store::memory::MemoryBackend;
use windlass_control::store::transform::Plain;
use windlass_control::store::{
    Change, Freshness, ObjectKey, Operation, Pairs, Precondition, Record, Snapshot, Store,
};

const SIZES: [usize; 2] = [10, 10_000];
/// Bindings of one user.
const OWN: usize = 10;
const RULES: usize = 30;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = must(Runtime::new());
    let costs = RefCell::new(Vec::new());
    let mut group = criterion.benchmark_group("decisions");
    for size in SIZES {
        let (rbac, snapshot) = must(runtime.block_on(cluster(size)));
        let user = UserInfo::authenticated("user-0", &["system:authenticated"]);
        for (what, resource) in [("allowed", "last"), ("refused", "none")] {
            let action = Action {
                verb: "get",
                group: "",
                resource,
                name: "x",
                ..Action::default()
            };
            let spent = RefCell::new((Duration::ZERO, 0_u64));
            group.bench_function(BenchmarkId::new(what, size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let start = Instant::now();
                    for _ in 0..rounds {
                        black_box(rbac.allows(&snapshot, &user, "ns-0", black_box(&action)));
                    }
                    let took = start.elapsed();
                    let mut spent = spent.borrow_mut();
                    *spent = (spent.0 + took, spent.1 + rounds);
                    took
                });
            });
            let (time, rounds) = spent.into_inner();
            costs
                .borrow_mut()
                .push((what, size, time.as_secs_f64() / rounds.max(1) as f64));
        }
    }
    group.finish();
    criterion.final_summary();
    print(&costs.into_inner());
}

/// A benchmark cannot go on from a failure.
#[expect(clippy::panic, reason = "a failed benchmark has no figure to report")]
fn must<T, E: Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error:#}"))
}

fn print(costs: &[(&str, usize, f64)]) {
    println!(
        "\n| decision | of {} bindings | of {} bindings | ratio |",
        SIZES[0], SIZES[1]
    );
    println!("| --- | --: | --: | --: |");
    for (what, size, few) in costs.iter().filter(|(_, size, _)| *size == SIZES[0]) {
        let many = costs
            .iter()
            .find(|(other, of, _)| other == what && of != size);
        let many = many.map_or(f64::NAN, |(.., cost)| *cost);
        println!(
            "| {what} | {:.2} µs | {:.2} µs | {:.2}× |",
            few * 1e6,
            many * 1e6,
            many / few
        );
    }
}

/// So many bindings, [`OWN`] to a user, all in ten namespaces.
async fn cluster(size: usize) -> anyhow::Result<(Rbac, Snapshot)> {
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(
        Box::new(MemoryBackend::default()),
        Box::new(Plain),
    )?);
    let rule = |number: usize| {
        let resource = match number {
            number if number + 1 == RULES => "last".to_owned(),
            number => format!("kind-{number}"),
        };
        json!({"apiGroups": ["", "apps"], "resources": [resource, "pods", "services"],
            "verbs": ["get", "list", "watch"]})
    };
    let rules: Vec<_> = (0..RULES).map(rule).collect();
    // `pods` and `services` are in every rule; what is asked about is in the last only.
    let role = json!({"metadata": {"name": "some"}, "rules": rules});
    let mut operations = vec![put(
        ObjectKey::new(GROUP, "clusterroles", "", "some"),
        &role,
    )?];
    for number in 0..size {
        let (user, name) = (number / OWN, format!("binding-{number}"));
        let namespace = format!("ns-{}", user % 10);
        let binding = json!({
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "some"},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": format!("user-{user}")}],
        });
        let key = ObjectKey::new(GROUP, "rolebindings", &namespace, &name);
        operations.push(put(key, &binding)?);
    }
    store.commit(operations).await?;
    let rbac = Rbac::open(&*store).await?;
    Ok((rbac, store.snapshot(Freshness::Latest).await?))
}

fn put(key: ObjectKey, object: &Value) -> anyhow::Result<Operation> {
    Ok(Operation {
        key,
        precondition: Precondition::Any,
        change: Change::Put(Record::encode(object, Pairs::default())?),
    })
}
