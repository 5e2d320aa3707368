//! Files that only their owner may read, written whole or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::PkiError;

fn error(path: &Path) -> impl Fn(std::io::Error) -> PkiError + '_ {
    move |source| PkiError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Makes a directory, and its parents, that only its owner may enter.
///
/// # Errors
/// When the system refuses.
pub fn make_directory(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(error(path))
}

/// The text in `path`, written first with what `make` gives if there is none.
///
/// # Errors
/// When the system or `make` refuses.
pub fn read_or_create(
    path: &Path,
    make: impl FnOnce() -> Result<String, PkiError>,
) -> Result<String, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write(path, &text)?;
            Ok(text)
        }
        Err(other) => Err(error(path)(other)),
    }
}

/// The text in `path`.
///
/// # Errors
/// When the system refuses.
pub fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(error(path))
}

/// Replaces `path` by a file with `text` and mode 0600: written beside, made durable, renamed.
///
/// # Errors
/// When the system refuses; the old file is still there then.
pub fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let beside = path.with_extension("new");
    let attempt = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    attempt().map_err(error(path))
}
