//! Default roles and bindings, made when they are missing. Those that are there and let themselves be
//! updated get back what they lack; what somebody added stays.

use futures::future::try_join_all;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::rbac::{GROUP, defaults};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Makes sure that the default roles and bindings are there.
///
/// # Errors
/// When the API refuses.
pub(super) async fn ensure(client: &Client) -> Result<(), kube::Error> {
    let roles = defaults::roles();
    let bindings = defaults::bindings();
    // A rule or a subject that is missing is added.
    let roles = roles.iter().map(|role| ensure_one(client, role, "rules"));
    try_join_all(roles).await?;
    let bindings = bindings
        .iter()
        .map(|binding| ensure_one(client, binding, "subjects"));
    try_join_all(bindings).await.map(drop)
}

async fn ensure_one(client: &Client, wanted: &Value, list: &str) -> Result<(), kube::Error> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or_default();
    let gvk = GroupVersionKind::gvk(GROUP, "v1", kind);
    let plural = format!("{}s", kind.to_lowercase());
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = wanted.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.unwrap_or_default();
    let Some(found) = api.get_opt(name).await? else {
        let object: DynamicObject =
            serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
        return api.create(&PostParams::default(), &object).await.map(drop);
    };
    let annotations = found.metadata.annotations.as_ref();
    if annotations
        .and_then(|of| of.get(AUTO_UPDATE))
        .is_none_or(|update| update != "true")
    {
        return Ok(());
    }
    let Some(items) = completed(found.data.get(list), wanted.get(list)) else {
        return Ok(());
    };
    let patch = json!({ list: items });
    let patch = Patch::Merge(&patch);
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .map(drop)
}

/// What is there with what is missing; `None` when nothing is.
fn completed(found: Option<&Value>, wanted: Option<&Value>) -> Option<Vec<Value>> {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut all, wanted) = (items(found), items(wanted));
    let before = all.len();
    for item in wanted {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    (all.len() > before).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let (found, wanted) = (json!([1, 9]), json!([1, 2]));
        assert_eq!(
            completed(Some(&found), Some(&wanted)),
            Some(vec![json!(1), json!(9), json!(2)])
        );
        assert_eq!(completed(Some(&found), Some(&json!([9]))), None);
        assert_eq!(completed(None, None), None);
    }
}
