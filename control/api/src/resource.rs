//! What discovery, OpenAPI and routing know about a resource.
//!
//! Built-in resources are constants in the control plane's table of kinds; custom resources build the
//! same value at run time, which is why every text is a `Cow`.

use std::borrow::Cow;

type Text = Cow<'static, str>;
type Texts = Cow<'static, [Text]>;

/// Group, version and kind: what `apiVersion` and `kind` of an object say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    pub group: Text,
    /// API version, such as `v1`.
    pub version: Text,
    /// Kind, such as `Pod`.
    pub kind: Text,
}

impl GroupVersionKind {
    /// A kind whose names are known at compile time.
    #[must_use]
    pub const fn of(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
        }
    }

    /// The `apiVersion` an object of this kind carries: `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> Text {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            Cow::Owned(format!("{}/{}", self.group, self.version))
        }
    }
}

/// One resource of one group and version, as discovery shows it.
#[derive(Clone, Debug)]
pub struct ResourceInfo {
    /// Group, version and kind of the objects.
    pub gvk: GroupVersionKind,
    /// Plural name, the path segment: `pods`.
    pub plural: Text,
    /// Singular name: `pod`.
    pub singular: Text,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs in discovery's words: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: Texts,
    /// Short names for clients: `po`.
    pub short_names: Texts,
    /// Categories: `all`.
    pub categories: Texts,
    /// Subresources, each with its own kind and verbs.
    pub subresources: Cow<'static, [SubresourceInfo]>,
}

/// A subresource such as `pods/status`.
#[derive(Clone, Debug)]
pub struct SubresourceInfo {
    /// The path segment after the object's name: `status`.
    pub name: Text,
    /// Kind of what is sent and answered; `Scale` of `autoscaling/v1` for `scale`.
    pub gvk: GroupVersionKind,
    /// Verbs in discovery's words.
    pub verbs: Texts,
}
