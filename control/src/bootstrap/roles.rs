//! Default roles and bindings, made when they are missing. Those that are there and let themselves be
//! updated get back what they lack; what somebody added stays.

use std::collections::{BTreeMap, HashMap};

use futures::future::try_join_all;
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::rbac::{GROUP, defaults};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Makes sure that the default roles and bindings are there.
///
/// # Errors
/// When the API refuses.
pub(super) async fn ensure(client: &Client) -> Result<(), kube::Error> {
    // A rule or a subject that is missing is added. Bindings need their roles.
    for (wanted, list) in [
        (defaults::roles(), "rules"),
        (defaults::bindings(), "subjects"),
    ] {
        let mut by_kind: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for object in wanted {
            let kind = object.get("kind").and_then(Value::as_str);
            let kind = kind.unwrap_or_default().to_owned();
            by_kind.entry(kind).or_default().push(object);
        }
        let kinds = by_kind.iter();
        try_join_all(kinds.map(|(kind, wanted)| ensure_kind(client, kind, wanted, list))).await?;
    }
    Ok(())
}

/// Namespace, if any, and name.
type Place = (Option<String>, String);

async fn ensure_kind(
    client: &Client,
    kind: &str,
    wanted: &[Value],
    list: &str,
) -> Result<(), kube::Error> {
    let gvk = GroupVersionKind::gvk(GROUP, "v1", kind);
    let plural = format!("{}s", kind.to_lowercase());
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    let everywhere: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let known = everywhere.list(&ListParams::default()).await?;
    let known: HashMap<Place, DynamicObject> = known
        .into_iter()
        .map(|object| ((object.namespace(), object.name_any()), object))
        .collect();
    let ensured = wanted.iter().map(async |object| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace");
        let name = text("/metadata/name").unwrap_or_default();
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => everywhere.clone(),
        };
        let place = (namespace.map(str::to_owned), name.to_owned());
        ensure_one(&api, known.get(&place), object, list).await
    });
    try_join_all(ensured).await.map(drop)
}

async fn ensure_one(
    api: &Api<DynamicObject>,
    found: Option<&DynamicObject>,
    wanted: &Value,
    list: &str,
) -> Result<(), kube::Error> {
    let Some(found) = found else {
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
    api.patch(&found.name_any(), &PatchParams::default(), &patch)
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
