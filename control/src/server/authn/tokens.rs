//! ServiceAccount tokens: signature and times first, then the objects they stand for.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::identity::UserInfo;
use crate::pki::service_account::{Reference, Tokens};
use crate::registry::object_meta as meta;
use crate::store::{ObjectKey, Snapshot};

/// For how long the tokens of an object that is being deleted are taken, after its time is up.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The user of a token whose account (and the object it is bound to, if any) still exist, and those of `audiences`
/// that it is meant for; `None` when it is meant for none of them.
pub(super) fn authenticate(
    tokens: &Tokens,
    snapshot: &Snapshot,
    token: &str,
    audiences: &[String],
) -> Option<(UserInfo, Vec<String>)> {
    let now = Timestamp::now();
    let claims = tokens.verify(token, now).ok()?;
    let mut meant = audiences.to_vec();
    meant.retain(|audience| claims.aud.contains(audience));
    if meant.is_empty() {
        return None;
    }
    let bound = &claims.bound;
    let namespace = &bound.namespace;
    let exists = |resource: &str, namespace: &str, reference: &Reference| {
        let key = ObjectKey::new("", resource, namespace, &reference.name);
        let object: Value = serde_json::from_slice(&snapshot.get(&key)?.bytes).ok()?;
        (meta::uid(&object) == reference.uid && !is_long_deleted(&object, now)).then_some(())
    };
    exists("serviceaccounts", namespace, &bound.serviceaccount)?;
    if let Some(secret) = &bound.secret {
        exists("secrets", namespace, secret)?;
    }
    match (&bound.pod, &bound.node) {
        (Some(pod), _) => exists("pods", namespace, pod)?,
        (None, Some(node)) => exists("nodes", "", node)?,
        (None, None) => {}
    }
    let groups = [
        "system:serviceaccounts",
        &format!("system:serviceaccounts:{namespace}"),
    ];
    let mut user = UserInfo::authenticated(claims.sub.clone(), &groups);
    user.uid.clone_from(&bound.serviceaccount.uid);
    let mut tell = |key: &str, value: String| {
        if !value.is_empty() {
            let key = format!("authentication.kubernetes.io/{key}");
            user.extra.insert(key, vec![value]);
        }
    };
    if !claims.jti.is_empty() {
        tell("credential-id", format!("JTI={}", claims.jti));
    }
    for (what, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(Reference { name, uid }) = reference {
            tell(&format!("{what}-name"), name.clone());
            tell(&format!("{what}-uid"), uid.clone());
        }
    }
    Some((user, meant))
}

/// Whether an object was deleted so long ago that its tokens are not taken any more, though it is there.
fn is_long_deleted(object: &Value, now: Timestamp) -> bool {
    let deleted = object.pointer("/metadata/deletionTimestamp");
    let deleted = deleted
        .and_then(Value::as_str)
        .and_then(|at| at.parse().ok());
    deleted.is_some_and(|at: Timestamp| now.duration_since(at) > LEEWAY)
}
