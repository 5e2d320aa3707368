//! ClusterRoles that collect: their rules are those of all ClusterRoles that their selectors match.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Context;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod_owners::selector_of;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};

const NAME: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 2;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let roles = Arc::clone(&context.informers.cluster_roles);
    roles.synced().await;
    let (known, changed) = (Arc::clone(&roles), Arc::clone(&queue));
    let _roles = roles.subscribe(move |change| {
        // Any change may concern any role that collects; there are few of those.
        let collecting = known
            .all()
            .into_iter()
            .filter(|role| role.aggregation_rule.is_some());
        let keys = collecting.map(|role| Key::of(&role.metadata));
        let own = change.new.map(|role| Key::of(&role.metadata));
        keys.chain(own).for_each(|key| changed.add(key));
    });
    let stop = context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| collect(&context, key)).await;
}

async fn collect(context: &Context, key: Key) -> Outcome {
    let roles = &context.informers.cluster_roles;
    let Some(role) = roles.get(&key) else {
        return Ok(None);
    };
    let Some(rules) = collected(&role, &roles.all())? else {
        return Ok(None);
    };
    if role.rules.as_deref().unwrap_or_default() == rules {
        return Ok(None);
    }
    let patch = json!({
        "metadata": { "resourceVersion": role.metadata.version() }, "rules": rules,
    });
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    unless_gone(api.patch(&key.name, &params, &patch).await)?;
    Ok(None)
}

/// What the role should say; `None` if it says it itself.
fn collected(
    role: &ClusterRole,
    all: &[Arc<ClusterRole>],
) -> Result<Option<Vec<PolicyRule>>, ReconcileError> {
    let Some(aggregation) = &role.aggregation_rule else {
        return Ok(None);
    };
    let mut sources: Vec<_> = all
        .iter()
        .filter(|source| source.metadata.name() != role.metadata.name())
        .collect();
    sources.sort_by(|a, b| a.metadata.name().cmp(b.metadata.name()));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let selector = selector_of(Some(selector))?;
        let matching = sources
            .iter()
            .filter(|of| selector.matches(of.metadata.labels()));
        for rule in matching.flat_map(|source| source.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn role(object: Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn rules_are_collected_by_label_each_once() {
        let rule =
            |resource: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        let labels = json!({"to-view": "true"});
        let view = role(json!({
            "metadata": {"name": "view", "labels": labels},
            "rules": [rule("stale")],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": labels}]},
        }));
        let all = [
            Arc::clone(&view),
            role(
                json!({"metadata": {"name": "b", "labels": labels}, "rules": [rule("pods"), rule("maps")]}),
            ),
            role(json!({"metadata": {"name": "a", "labels": labels}, "rules": [rule("pods")]})),
            role(json!({"metadata": {"name": "c"}, "rules": [rule("secrets")]})),
        ];
        let rules = collected(&view, &all).unwrap().unwrap();
        let resources: Vec<_> = rules
            .iter()
            .map(|rule| rule.resources.clone().unwrap())
            .collect();
        assert_eq!(resources, [["pods"], ["maps"]]);
        assert_eq!(collected(&all[3], &all).unwrap(), None);
    }
}
