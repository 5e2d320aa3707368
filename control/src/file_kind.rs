//! What configuration files say they are, as all of upstream's do: a kind of a version.

use thiserror::Error;

/// Something that is of another kind or version than it has to be.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{place} is of kind {kind:?} of {api_version:?}, not {} of {:?}", expected.0, expected.1)]
pub struct WrongKind {
    /// The file, or the part of it.
    place: &'static str,
    /// What it says it is.
    kind: String,
    /// Of that version.
    api_version: String,
    /// What it should be: a kind of a version.
    expected: (&'static str, &'static str),
}

/// What something says it is; the defaults of `serde` where it says nothing.
#[derive(Debug, Default)]
pub(crate) struct FileKind<'a> {
    pub(crate) kind: &'a str,
    pub(crate) api_version: &'a str,
}

impl FileKind<'_> {
    /// Refuses another kind than `kind`, and versions but `versions`, the first of which is told.
    ///
    /// # Errors
    /// [`WrongKind`].
    pub(crate) fn check(
        &self,
        place: &'static str,
        kind: &'static str,
        versions: &[&'static str],
    ) -> Result<(), WrongKind> {
        if self.kind == kind && versions.contains(&self.api_version) {
            return Ok(());
        }
        Err(WrongKind {
            place,
            kind: self.kind.to_owned(),
            api_version: self.api_version.to_owned(),
            expected: (kind, versions.first().copied().unwrap_or_default()),
        })
    }
}
