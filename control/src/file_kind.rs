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

/// Refuses what is not of this kind and one of these versions, the first of which is told.
///
/// # Errors
/// [`WrongKind`].
pub(crate) fn check(
    place: &'static str,
    (kind, api_version): (&str, &str),
    expected: &'static str,
    versions: &[&'static str],
) -> Result<(), WrongKind> {
    if kind == expected && versions.contains(&api_version) {
        return Ok(());
    }
    Err(WrongKind {
        place,
        kind: kind.to_owned(),
        api_version: api_version.to_owned(),
        expected: (expected, versions.first().copied().unwrap_or_default()),
    })
}
