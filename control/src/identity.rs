//! Who makes a request.

use std::collections::BTreeMap;

/// The group of all authenticated users.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of unauthenticated users.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of node agents.
pub const NODES: &str = "system:nodes";
/// The group of those who hold a bootstrap token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";

/// A user as authentication found it. In one process a component's identity is this value in the
/// request's extensions, which no network peer can set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, such as `system:node:worker`.
    pub name: String,
    /// Unique id, if the authenticator knows one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user.
    #[must_use]
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups
            .iter()
            .copied()
            .chain([AUTHENTICATED])
            .map(Into::into)
            .collect();
        Self {
            name: name.into(),
            groups,
            ..Self::default()
        }
    }

    /// The user of a request without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        let groups = vec![UNAUTHENTICATED.into()];
        Self {
            name: "system:anonymous".into(),
            groups,
            ..Self::default()
        }
    }

    /// Whether the user is in `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node whose agent this is.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.is_in(NODES)
            .then(|| self.name.strip_prefix("system:node:"))
            .flatten()
    }
}
