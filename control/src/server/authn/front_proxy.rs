//! Users whom a proxy in front of the API has authenticated: it says their names in headers, and proves by its client
//! certificate that it may.
//!
//! Headers of anybody else mean nothing, and they are removed before a request is sent on.

use http::{HeaderMap, HeaderName};
use thiserror::Error;

use super::super::request_info::decode;
use crate::identity::{AUTHENTICATED, UserInfo};

/// The proxy, and the headers it uses.
#[derive(Clone, Debug, Default)]
pub struct FrontProxy {
    /// The authorities, in PEM, of which one has to have signed the proxy's certificate.
    pub certificate_authority: String,
    /// The common names that the certificate may have; any if there are none.
    pub allowed_names: Vec<String>,
    /// The headers of which the first that is there names the user.
    pub username_headers: Vec<HeaderName>,
    /// The headers that name groups.
    pub group_headers: Vec<HeaderName>,
    /// The headers of which the first that is there is the user's uid.
    pub uid_headers: Vec<HeaderName>,
    /// What headers of further attributes begin with.
    pub extra_prefixes: Vec<HeaderName>,
}

/// Options that do not go together.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("--requestheader-{0} is required when --requestheader-client-ca-file is given")]
pub struct Incomplete(&'static str);

impl FrontProxy {
    /// Refuses a proxy that could name nobody.
    ///
    /// # Errors
    /// [`Incomplete`].
    pub fn check(&self) -> Result<(), Incomplete> {
        if self.username_headers.is_empty() {
            return Err(Incomplete("username-headers"));
        }
        Ok(())
    }

    /// The user that a request of the proxy with this common name is made for; `None` if the proxy is not meant or names
    /// nobody.
    pub(super) fn user(&self, common_name: &str, headers: &HeaderMap) -> Option<UserInfo> {
        let names = &self.allowed_names;
        if !names.is_empty() && !names.iter().any(|name| name == common_name) {
            return None;
        }
        let first = |names: &[HeaderName]| {
            let values = names.iter().filter_map(|name| headers.get(name));
            let mut texts = values.filter_map(|value| value.to_str().ok());
            texts.find(|text| !text.is_empty()).map(str::to_owned)
        };
        let groups = self
            .group_headers
            .iter()
            .flat_map(|name| headers.get_all(name));
        let groups = groups.filter_map(|value| value.to_str().ok());
        let mut user = UserInfo {
            name: first(&self.username_headers)?,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: groups.map(str::to_owned).collect(),
            ..UserInfo::default()
        };
        if !user.is_in(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        for (name, value) in headers {
            let (Some(key), Ok(value)) = (self.extra_key(name), value.to_str()) else {
                continue;
            };
            user.extra.entry(key).or_default().push(value.to_owned());
        }
        Some(user)
    }

    fn extra_key(&self, name: &HeaderName) -> Option<String> {
        let mut prefixes = self.extra_prefixes.iter();
        let key = prefixes.find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))?;
        Some(decode(key, false).to_lowercase())
    }

    /// Removes what the proxy says.
    pub(super) fn forget(&self, headers: &mut HeaderMap) {
        let named = [
            &self.username_headers,
            &self.group_headers,
            &self.uid_headers,
        ];
        for name in named.into_iter().flatten() {
            headers.remove(name);
        }
        let extra = headers.keys().filter(|name| self.extra_key(name).is_some());
        for name in extra.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> FrontProxy {
        FrontProxy {
            allowed_names: vec!["front".into()],
            username_headers: vec![HeaderName::from_static("x-remote-user")],
            group_headers: vec![HeaderName::from_static("x-remote-group")],
            uid_headers: vec![HeaderName::from_static("x-remote-uid")],
            extra_prefixes: vec![HeaderName::from_static("x-remote-extra-")],
            ..FrontProxy::default()
        }
    }

    #[test]
    fn a_proxy_says_who_its_user_is() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "alice"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-example.com%2fscope", "read"),
            ("x-other", "stays"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let user = proxy().user("front", &headers).unwrap();
        assert_eq!((&*user.name, &*user.uid), ("alice", "7"));
        assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(user.extra["example.com/scope"], ["read"]);
        assert_eq!(proxy().user("back", &headers), None);
        proxy().forget(&mut headers);
        assert!(headers.keys().eq(["x-other"]));
        assert_eq!(proxy().user("front", &headers), None);
    }
}
