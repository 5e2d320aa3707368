//! Rules about the source itself: who may import whom, and what every example brings along.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod examples;
mod layering;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}
