//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! Each name that a request takes on (user, groups, uid, extra) is authorised by itself, as verb
//! `impersonate` on a virtual resource of that name. A ServiceAccount's groups come with its name.

use http::{HeaderMap, HeaderName};

use crate::identity::{AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::registry::error::ApiError;
use crate::server::request_info::RequestInfo;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const ACCOUNT: &str = "system:serviceaccount:";

/// Who a request wants to act as, and what the user behind it must be allowed for that.
#[derive(Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// Whom.
    pub user: UserInfo,
    /// One check per name that is taken on.
    pub checks: Vec<RequestInfo>,
}

/// Reads the headers; `None` when there are none.
///
/// # Errors
/// [`ApiError::BadRequest`] for groups, uid or extra without a user, or a header that is no text.
pub fn asked(headers: &HeaderMap) -> Result<Option<Impersonation>, ApiError> {
    let asked = || headers.keys().any(is_ours);
    let Some(name) = texts(headers, USER)?.into_iter().next() else {
        if asked() {
            return Err(ApiError::BadRequest(
                "requested impersonation without impersonating a user".into(),
            ));
        }
        return Ok(None);
    };
    let groups = texts(headers, GROUP)?;
    let mut checks = vec![name_check(&name)];
    checks.extend(groups.iter().map(|group| check("", "groups", group)));
    let uid = texts(headers, UID)?.into_iter().next().unwrap_or_default();
    if !uid.is_empty() {
        checks.push(check("authentication.k8s.io", "uids", &uid));
    }
    let mut user = UserInfo {
        groups: if groups.is_empty() {
            groups_of(&name)
        } else {
            groups
        },
        name,
        uid,
        ..UserInfo::default()
    };
    for (key, values) in extra(headers)? {
        for value in &values {
            let mut of_value = check("authentication.k8s.io", "userextras", value);
            of_value.subresource.clone_from(&key);
            checks.push(of_value);
        }
        user.extra.insert(key, values);
    }
    complete(&mut user);
    Ok(Some(Impersonation { user, checks }))
}

/// Removes the headers.
pub(super) fn forget(headers: &mut HeaderMap) {
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| is_ours(name))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

fn texts(headers: &HeaderMap, name: &str) -> Result<Vec<String>, ApiError> {
    let text = |value: &http::HeaderValue| match value.to_str() {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(ApiError::BadRequest(format!("header {name} is not text"))),
    };
    headers.get_all(name).iter().map(text).collect()
}

/// The extra attributes, by key; keys are percent-decoded and lower-case.
fn extra(headers: &HeaderMap) -> Result<Vec<(String, Vec<String>)>, ApiError> {
    let keys = headers.keys().filter_map(|name| {
        let key = name.as_str().strip_prefix(EXTRA)?;
        Some((name.as_str(), key))
    });
    let mut found = Vec::new();
    for (name, key) in keys {
        let key = crate::server::request_info::decode(key, false).to_lowercase();
        found.push((key, texts(headers, name)?));
    }
    Ok(found)
}

fn check(group: &str, resource: &str, name: &str) -> RequestInfo {
    RequestInfo {
        verb: "impersonate",
        is_resource: true,
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        name: name.into(),
        ..RequestInfo::default()
    }
}

fn name_check(name: &str) -> RequestInfo {
    match account(name) {
        Some((namespace, account)) => RequestInfo {
            namespace: namespace.into(),
            ..check("", "serviceaccounts", account)
        },
        None => check("", "users", name),
    }
}

fn account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(ACCOUNT)?.split_once(':')
}

fn groups_of(name: &str) -> Vec<String> {
    match account(name) {
        Some((namespace, _)) => vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        None => Vec::new(),
    }
}

/// Everybody is in the group of the authenticated, unless it is nobody.
fn complete(user: &mut UserInfo) {
    let all = if user.name == "system:anonymous" {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    let has = user.is_in(AUTHENTICATED) || user.is_in(UNAUTHENTICATED);
    if !has {
        user.groups.push(all.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn every_name_taken_on_is_checked() {
        let asked = asked(&headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]));
        let asked = asked.unwrap().unwrap();
        assert_eq!(asked.user.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(asked.user.extra["acme.com/project"], ["x"]);
        let checks: Vec<_> = asked
            .checks
            .iter()
            .map(|check| (&*check.resource, &*check.subresource, &*check.name))
            .collect();
        assert_eq!(
            checks,
            [
                ("users", "", "jane"),
                ("groups", "", "dev"),
                ("groups", "", "ops"),
                ("uids", "", "7"),
                ("userextras", "acme.com/project", "x"),
            ]
        );
    }

    #[test]
    fn an_account_brings_its_groups() {
        let asked = asked(&headers(&[(
            "impersonate-user",
            "system:serviceaccount:a:b",
        )]));
        let asked = asked.unwrap().unwrap();
        assert_eq!(
            asked.user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:a",
                AUTHENTICATED
            ]
        );
        assert_eq!(asked.checks[0].namespace, "a");
    }

    #[test]
    fn groups_without_a_user_make_no_sense() {
        let refused = asked(&headers(&[("impersonate-group", "dev")]));
        assert!(matches!(refused, Err(ApiError::BadRequest(_))));
        assert_eq!(asked(&HeaderMap::new()).unwrap(), None);
    }
}
