//! The guest programs next to this file, built from source by the tests that run them.
//!
//! Included by `#[path]`. Cargo is run once per test binary; it does nothing when nothing changed.
//! Where the target can't be had, the tests that need a guest say so and pass.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The file of a guest, or nothing (and a line that says so) where guests can't be built.
pub(crate) fn guest(name: &str) -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build).as_ref();
    if built.is_none() {
        eprintln!("SKIPPED: no guests; `rustup target add wasm32-wasip2` makes them buildable");
    }
    Some(built?.join(format!("{name}.wasm")))
}

fn build() -> Option<PathBuf> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()?
        .join("tests/guests");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target
        .unwrap_or_else(|| guests.join("../../target"))
        .join("guests");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--quiet",
            "--target",
            "wasm32-wasip2",
            "--manifest-path",
        ])
        .arg(guests.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    status
        .is_ok_and(|status| status.success())
        .then(|| target.join("wasm32-wasip2/release"))
}
