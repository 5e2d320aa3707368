//! Builds the tools (`tools/`), components that every wasm container can be asked to run, and makes them part of the crate.
//!
//! Where the target wasm32-wasip2 is not installed, or the build fails, the crate is built without them, and says why:
//! when compiling, and to whoever asks for one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The tools, each a binary of the workspace `tools/`.
const TOOLS: &[&str] = &["tar", "test"];

/// What cargo tells this script, and must not tell the cargo that it runs: flags and wrappers are for another target.
const NOT_FOR_TOOLS: &[&str] = &[
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=tools");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut text = String::new();
    match build(&out.join("tools")) {
        Ok(directory) => {
            text.push_str(
                "/// The tools, as the build made them.\nconst BUILT: &[(&str, &[u8])] = &[\n",
            );
            for name in TOOLS {
                let file = directory.join(format!("{name}.wasm"));
                writeln!(text, "    ({name:?}, include_bytes!({file:?})),")
                    .map_err(io::Error::other)?;
            }
            text.push_str("];\n/// Why there are none.\nconst MISSING: Option<&str> = None;\n");
        }
        Err(reason) => {
            println!("cargo::warning=tools for `kubectl cp` are left out: {reason}");
            let constants = "/// The tools, as the build made them.\nconst BUILT: &[(&str, &[u8])] = &[];\n\
                /// Why there are none.\n";
            writeln!(
                text,
                "{constants}const MISSING: Option<&str> = Some({reason:?});"
            )
            .map_err(io::Error::other)?;
        }
    }
    fs::write(out.join("tools.rs"), text)
}

/// Answers the directory of the components, or why there is none.
fn build(target: &Path) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").ok_or("no cargo")?;
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--quiet", "--locked"])
        .args([
            "--target",
            "wasm32-wasip2",
            "--manifest-path",
            "tools/Cargo.toml",
        ])
        .env("CARGO_TARGET_DIR", target);
    for name in NOT_FOR_TOOLS {
        command.env_remove(name);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(target.join("wasm32-wasip2/release"));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| line.starts_with("error"));
    Err(format!(
        "{}; `rustup target add wasm32-wasip2` makes them buildable",
        first.unwrap_or("cargo failed")
    ))
}
