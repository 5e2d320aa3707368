//! Everything the API answers that is not success: one enum, in the API's terms.
//!
//! `server/status.rs` turns it into a Kubernetes `Status`; nothing else makes one.

use thiserror::Error;

use super::field_error::FieldError;
use crate::store::StoreError;

/// `group` and `resource` of what a request was about; `name` may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
    /// Kind.
    pub kind: String,
    /// Object name.
    pub name: String,
}

impl Target {
    /// `deployments.apps`, or `pods` in the core group.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

impl Target {
    /// `Deployment.apps`, or `Pod` in the core group.
    fn qualified_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

/// One field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyConflict {
    /// Field path, `.spec.replicas`.
    pub field: String,
    /// `conflict with "MANAGER" using VERSION`.
    pub message: String,
}

/// Why a request was not carried out.
#[derive(Debug, Error)]
pub enum ApiError {
    /// No such object.
    #[error("{} {:?} not found", .0.qualified(), .0.name)]
    NotFound(Target),
    /// No such path.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// The name is taken.
    #[error("{} {:?} already exists", .0.qualified(), .0.name)]
    AlreadyExists(Target),
    /// Every generated name was taken.
    #[error("{} {:?} already exists, the server was not able to generate a unique name for the object", .0.qualified(), .0.name)]
    NameExhausted(Target),
    /// The object changed since the client read it, or is not the one the client means.
    #[error("Operation cannot be fulfilled on {} {:?}: {reason}", target.qualified(), target.name)]
    Conflict {
        /// The object.
        target: Target,
        /// What does not match.
        reason: String,
    },
    /// A server-side apply met other owners.
    #[error("Apply failed with {} conflict{}: {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, conflicts(.0))]
    ApplyConflict(Vec<ApplyConflict>),
    /// Fields break the rules.
    #[error("{} {:?} is invalid: {}", .target.qualified_kind(), .target.name, fields(.errors))]
    Invalid {
        /// The object.
        target: Target,
        /// All that is wrong with it.
        errors: Vec<FieldError>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// A JSON patch whose `test` failed, or that points nowhere.
    #[error("the server rejected our request due to an error in our request")]
    UnprocessablePatch(String),
    /// No credentials, or wrong ones.
    #[error("Unauthorized")]
    Unauthorized,
    /// The user may not.
    #[error("{}{} is forbidden: {reason}", .target.qualified(), if .target.name.is_empty() { String::new() } else { format!(" {:?}", .target.name) })]
    Forbidden {
        /// What was asked for.
        target: Target,
        /// Why not.
        reason: String,
        /// A machine-readable cause, if upstream gives one.
        cause: Option<&'static str>,
    },
    /// The verb does not exist for the resource.
    #[error("{verb} is not supported on resources of kind {:?}", .target.qualified())]
    MethodNotAllowed {
        /// The resource.
        target: Target,
        /// The verb.
        verb: String,
    },
    /// No representation the client accepts.
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(String),
    /// A body in a format the server does not read.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(String),
    /// The body exceeds the limit, in bytes.
    #[error("Request entity too large: limit is {0}")]
    TooLarge(usize),
    /// A patch that would make too much work.
    #[error("{0}")]
    PatchTooLarge(String),
    /// History or snapshot is gone.
    #[error("{message}")]
    Expired {
        /// Which, in words.
        message: String,
        /// A token with which a list may go on, inconsistently.
        continue_token: Option<String>,
    },
    /// The client asked for a revision that does not exist yet.
    #[error("Timeout: Too large resource version: {requested}, current: {current}")]
    ResourceVersionTooLarge {
        /// What was asked for.
        requested: u64,
        /// What there is.
        current: u64,
    },
    /// Too many requests at once.
    #[error("{0}")]
    TooManyRequests(String),
    /// An eviction that a PodDisruptionBudget does not allow now.
    #[error("Cannot evict pod as it would violate the pod's disruption budget.")]
    DisruptionBudget {
        /// Which budget, and what it lacks.
        cause: String,
        /// Seconds after which another try may succeed, if that is a matter of time. Where clients are
        /// told, they wait and try again on their own, and their users hear of nothing.
        retry_after: Option<u32>,
    },
    /// An eviction of a pod that several PodDisruptionBudgets choose.
    #[error(
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    )]
    SeveralBudgets,
    /// Something did not answer in time.
    #[error("Timeout: {0}")]
    Timeout(String),
    /// A part that should have answered is not there.
    #[error("{0}")]
    ServiceUnavailable(String),
    /// What a request was passed on to did not answer. Unlike [`Self::ServiceUnavailable`] it does not ask
    /// the client to try again: the fault is not this server's to mend.
    #[error("{0}")]
    Unreachable(String),
    /// A capability Windlass does not have yet, by name.
    #[error("{0}")]
    NotImplemented(String),
    /// A fault of ours or of the disk.
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

fn fields(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => {
            let texts: Vec<_> = many.iter().map(ToString::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

fn conflicts(conflicts: &[ApplyConflict]) -> String {
    match conflicts {
        [one] => format!("{}: {}", one.message, one.field),
        many => {
            let texts: Vec<_> = many
                .iter()
                .map(|c| format!("{}: {}", c.message, c.field))
                .collect();
            texts.join("\n")
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { requested, oldest } => Self::Expired {
                message: format!("too old resource version: {requested} ({oldest})"),
                continue_token: None,
            },
            StoreError::TooLarge { requested, current } => Self::ResourceVersionTooLarge {
                requested: requested.0,
                current: current.0,
            },
            StoreError::Closed => Self::ServiceUnavailable("the server is shutting down".into()),
            other => Self::Internal(other.to_string()),
        }
    }
}
