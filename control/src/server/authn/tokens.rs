//! ServiceAccount tokens: signature and times first, then the objects they stand for.

use jiff::Timestamp;
use serde_json::Value;

use crate::identity::UserInfo;
use crate::pki::service_account::{Reference, Tokens};
use crate::registry::object_meta as meta;
use crate::store::{ObjectKey, Snapshot};

/// The user of a token whose account (and pod, if bound to one) still exist, and those of `audiences`
/// that it is meant for; `None` when it is meant for none of them.
pub(super) fn authenticate(
    tokens: &Tokens,
    snapshot: &Snapshot,
    token: &str,
    audiences: &[String],
) -> Option<(UserInfo, Vec<String>)> {
    let claims = tokens.verify(token, Timestamp::now()).ok()?;
    let mut meant = audiences.to_vec();
    meant.retain(|audience| claims.aud.contains(audience));
    if meant.is_empty() {
        return None;
    }
    let bound = &claims.bound;
    let namespace = &bound.namespace;
    let exists = |resource: &str, reference: &Reference| {
        let key = ObjectKey::new("", resource, namespace, &reference.name);
        let entry = snapshot.get(&key)?;
        let object: Value = serde_json::from_slice(&entry.bytes).ok()?;
        (meta::uid(&object) == reference.uid).then_some(())
    };
    exists("serviceaccounts", &bound.serviceaccount)?;
    if let Some(pod) = &bound.pod {
        exists("pods", pod)?;
    }
    let groups = [
        "system:serviceaccounts",
        &format!("system:serviceaccounts:{namespace}"),
    ];
    let mut user = UserInfo::authenticated(claims.sub.clone(), &groups);
    user.uid.clone_from(&bound.serviceaccount.uid);
    if let Some(pod) = &bound.pod {
        for (key, value) in [("pod-name", &pod.name), ("pod-uid", &pod.uid)] {
            let key = format!("authentication.kubernetes.io/{key}");
            user.extra.insert(key, vec![value.clone()]);
        }
    }
    Some((user, meant))
}
