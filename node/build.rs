//! Builds what the crate carries with it: the tools (`tools/`), components that every wasm container can be asked to run,
//! and the program of sandboxes (`pause/`), for containers of Linux.
//!
//! Where the target wasm32-wasip2 is not installed, or a build fails, the crate is built without them, and says why:
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
    println!("cargo::rerun-if-changed=pause");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    write_tools(&out)?;
    match env::var_os("CARGO_FEATURE_CONTAINERD") {
        Some(_) => write_pause(&out),
        None => Ok(()),
    }
}

/// Makes the program of sandboxes, or says why there is none.
fn write_pause(out: &Path) -> io::Result<()> {
    let (program, missing) = match build_pause(&out.join("pause")) {
        Ok(file) => (format!("include_bytes!({file:?})"), None),
        Err(reason) => {
            println!("cargo::warning=containers of Linux are left out: {reason}");
            ("&[]".to_owned(), Some(reason))
        }
    };
    let text = format!(
        "/// The program, as the build made it.\npub(super) const PAUSE: &[u8] = {program};\n\
         /// Why there is none.\npub(super) const MISSING: Option<&str> = {missing:?};\n"
    );
    fs::write(out.join("pause.rs"), text)
}

/// Compiles the program for the target, static and without any library.
fn build_pause(file: &Path) -> Result<PathBuf, String> {
    let target = env::var("TARGET").map_err(|error| error.to_string())?;
    let offered = ["x86_64-", "aarch64-"];
    if !target.contains("linux")
        || !offered
            .iter()
            .any(|architecture| target.starts_with(architecture))
    {
        return Err(format!("the target is {target}"));
    }
    let rustc = env::var_os("RUSTC").ok_or("no rustc")?;
    let mut command = Command::new(rustc);
    command
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--target",
            &target,
        ])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
        ])
        .args(["-C", "relocation-model=static"])
        .args([
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
        ])
        .arg("-o")
        .arg(file)
        .arg("pause/pause.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        command.arg("-C").arg({
            let mut option = std::ffi::OsString::from("linker=");
            option.push(linker);
            option
        });
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(file.to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| line.starts_with("error"));
    Err(first.unwrap_or("rustc failed").to_owned())
}

fn write_tools(out: &Path) -> io::Result<()> {
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
