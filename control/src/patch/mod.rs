//! Patches: how a change that a client describes becomes a new object, and who owns which field.
//!
//! Everything here is pure: values in, a value out; no storage, no clock (the time is given).
//!
//! | file | what |
//! |---|---|
//! | `json` | RFC 6902, a list of operations |
//! | `merge` | RFC 7396, a partial object |
//! | `strategic_merge` | a partial object whose lists merge by key, with `$patch` directives |
//! | `apply` | server-side apply: merge what a manager wants, give up what it no longer wants |
//! | `managed_fields` | the record of who owns which field, kept on every write |
//! | `field_set`, `compare`, `typed_merge` | what the last two stand on: sets of paths, differences, merges |

pub mod apply;
pub mod compare;
pub mod field_set;
pub mod json;
pub mod managed_fields;
pub mod merge;
pub mod strategic_merge;
mod typed_merge;

pub use apply::{ApplyError, ApplyRequest, Conflict, apply};
pub use managed_fields::{UpdateRequest, record_update};

/// Why a patch could not be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch is not of its type's form: 400 BadRequest.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// The patch is well-formed but does not fit the object (a failed `test`, a missing path): 422.
    #[error("{0}")]
    DoesNotFit(String),
    /// The patch would make too much work or too large an object: 413 RequestEntityTooLarge.
    #[error("{0}")]
    TooLarge(String),
}
