//! What a request asks for: its path, method and query, in the API's terms.
//!
//! ```text
//! /api/VERSION/...            core group
//! /apis/GROUP/VERSION/...     every other group
//!   [namespaces/NAMESPACE/]RESOURCE[/NAME[/SUBRESOURCE[/REST]]]
//! ```
//! Everything else is a non-resource path, such as `/version`.

use http::{Method, Uri};
use std::borrow::Cow;

/// A request in the API's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get list watch create update patch delete deletecollection`, or the method in lower case for
    /// non-resource paths.
    pub verb: &'static str,
    /// Whether the path names a resource.
    pub is_resource: bool,
    /// The path.
    pub path: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty for cluster scope or all namespaces.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
    /// Object name, empty for collections.
    pub name: String,
    /// What follows the subresource.
    pub rest: String,
}

/// Query parameters, decoded, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the query of `uri`.
    #[must_use]
    pub fn of(uri: &Uri) -> Self {
        let pairs = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                decode(key, true).into_owned(),
                decode(value, true).into_owned(),
            )
        });
        Self(decoded.collect())
    }

    /// The first value under `key`, empty when there is none.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
            .unwrap_or_default()
    }

    /// Every value under `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// Whether the value under `key` means yes: anything but absent, `false` and `0`.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.all(key)
            .next()
            .is_some_and(|value| !matches!(value, "false" | "0" | "f" | "F"))
    }
}

/// Undoes percent-encoding; in queries a plus is a space.
pub(super) fn decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, decoded) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                bytes.nth(1);
            }
            (b'+', _) if plus => out.push(b' '),
            (byte, _) => out.push(byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

impl RequestInfo {
    /// Reads a request line.
    #[must_use]
    pub fn of(method: &Method, uri: &Uri, query: &Query) -> Self {
        let path = uri.path().to_owned();
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let parts: Vec<String> = segments.map(|s| decode(s, false).into_owned()).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => (("", *version), rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => ((*group, *version), rest),
            _ => {
                return Self {
                    verb: method_verb(method),
                    path,
                    ..Self::default()
                };
            }
        };
        let mut info = Self {
            is_resource: true,
            group: group.0.into(),
            version: group.1.into(),
            path: String::new(),
            ..Self::default()
        };
        info.read_resource(rest);
        info.path = path;
        info.verb = resource_verb(method, &info, query);
        info
    }

    /// Reads what follows the version.
    fn read_resource(&mut self, parts: &[&str]) {
        let (namespace, parts) = match parts {
            // `namespaces/NAME/status` and `finalize` are the namespace's own subresources.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", parts),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", parts),
        };
        let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
        self.namespace = namespace.into();
        self.resource = part(0);
        self.name = part(1);
        self.subresource = part(2);
        self.rest = parts.get(3..).unwrap_or_default().join("/");
    }
}

/// Verbs that a review may ask about, those of requests and those that only permissions know.
const VERBS: [&str; 21] = [
    "*",
    "approve",
    "attest",
    "bind",
    "create",
    "delete",
    "deletecollection",
    "escalate",
    "get",
    "head",
    "impersonate",
    "list",
    "options",
    "patch",
    "post",
    "proxy",
    "put",
    "sign",
    "update",
    "use",
    "watch",
];

/// The verb of that name; empty, which nobody but those who may do everything has leave for, when there
/// is none.
#[must_use]
pub fn known_verb(verb: &str) -> &'static str {
    let known = VERBS.into_iter().find(|known| *known == verb);
    known.unwrap_or_default()
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

fn resource_verb(method: &Method, info: &RequestInfo, query: &Query) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if info.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        Method::GET | Method::HEAD if !info.name.is_empty() => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &Method, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::of(method, &uri, &Query::of(&uri))
    }

    #[test]
    fn paths_are_read_as_the_api_means_them() {
        let cases = [
            (
                Method::GET,
                "/api/v1/pods",
                ("list", "", "", "pods", "", ""),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?watch=1",
                ("watch", "", "a", "pods", "", ""),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods/b/log",
                ("get", "", "a", "pods", "b", "log"),
            ),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments",
                ("create", "apps", "a", "deployments", "", ""),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a",
                ("get", "", "", "namespaces", "a", ""),
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                ("update", "", "", "namespaces", "a", "finalize"),
            ),
            (
                Method::DELETE,
                "/api/v1/nodes",
                ("deletecollection", "", "", "nodes", "", ""),
            ),
        ];
        for (method, uri, expected) in cases {
            let i = info(&method, uri);
            assert!(i.is_resource);
            let found = (
                i.verb,
                &*i.group,
                &*i.namespace,
                &*i.resource,
                &*i.name,
                &*i.subresource,
            );
            assert_eq!(found, expected, "{uri}");
        }
        assert!(!info(&Method::GET, "/version").is_resource);
        assert!(!info(&Method::GET, "/apis/apps/v1").is_resource);
    }

    #[test]
    fn queries_are_decoded_and_broken_escapes_stay() {
        let uri: Uri = "/x?labelSelector=a%3Db%2Cc&x=1+2&y=%zz&watch"
            .parse()
            .unwrap();
        let query = Query::of(&uri);
        assert_eq!(query.get("labelSelector"), "a=b,c");
        assert_eq!(query.get("x"), "1 2");
        assert_eq!(query.get("y"), "%zz");
        assert!(query.flag("watch"));
        assert!(!query.flag("nothing"));
    }
}
