//! Bootstrap tokens: `ID.SECRET`, kept as Secrets of kube-system, for nodes that join.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;

use crate::identity::{BOOTSTRAPPERS, UserInfo};
use crate::store::{ObjectKey, Snapshot};

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;

/// The two halves of a token that has the form of a bootstrap token.
pub(super) fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    (id.len() == ID_LEN && secret.len() == SECRET_LEN && plain(id) && plain(secret))
        .then_some((id, secret))
}

/// The user a bootstrap token stands for, if it is known, valid and meant for authentication.
pub(super) fn authenticate(snapshot: &Snapshot, id: &str, secret: &str) -> Option<UserInfo> {
    let key = ObjectKey::new(
        "",
        "secrets",
        "kube-system",
        &format!("bootstrap-token-{id}"),
    );
    let object: Value = serde_json::from_slice(&snapshot.get(&key)?.bytes).ok()?;
    let data = |field: &str| {
        let encoded = object.get("data")?.get(field)?.as_str()?;
        String::from_utf8(BASE64.decode(encoded).ok()?).ok()
    };
    let right_type = object.get("type") == Some(&"bootstrap.kubernetes.io/token".into());
    let known = data("token-secret")?;
    let same = known.len() == secret.len()
        && known
            .bytes()
            .zip(secret.bytes())
            .fold(0, |diff, (a, b)| diff | (a ^ b))
            == 0;
    let expired = data("expiration").is_some_and(|end| {
        end.parse::<Timestamp>()
            .map_or(true, |end| end <= Timestamp::now())
    });
    let usable = data("usage-bootstrap-authentication").as_deref() == Some("true");
    (right_type && same && usable && !expired)
        .then(|| UserInfo::authenticated(format!("system:bootstrap:{id}"), &[BOOTSTRAPPERS]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_tokens_are_bootstrap_tokens() {
        assert_eq!(
            split("abcdef.0123456789abcdef"),
            Some(("abcdef", "0123456789abcdef"))
        );
        for other in [
            "abcdef",
            "abcdef.short",
            "ABCDEF.0123456789abcdef",
            "a.b.c",
            "",
        ] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
