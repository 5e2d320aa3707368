//! Builds the dashboard (`web/`) and makes it part of the binary.
//!
//! 1. What the dashboard is made of is copied into the output directory, so that nothing is written beside the sources.
//! 2. npm installs what the lock file names and Vite makes the files.
//! 3. The page and the files, compressed, become a constant that `src/dashboard.rs` includes.
//!
//! Without Node, or where it fails, the binary is built all the same: its dashboard is a page that says why.
//! `WINDLASS_SKIP_DASHBOARD=1` leaves it out on purpose.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

/// What the dashboard is made of, below `web/`.
const SOURCES: &[&str] = &[
    ".npmrc",
    "index.html",
    "package.json",
    "package-lock.json",
    "public",
    "src",
    "tsconfig.json",
    "vite.config.ts",
];

/// Media types by extension.
const MEDIA_TYPES: &[(&str, &str)] = &[
    ("css", "text/css; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=WINDLASS_SKIP_DASHBOARD");
    for source in SOURCES {
        println!("cargo::rerun-if-changed=web/{source}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let dist = match build(&out) {
        Ok(dist) => dist,
        Err(reason) => {
            println!("cargo::warning=the dashboard is left out: {reason}");
            let dist = out.join("without");
            fs::create_dir_all(&dist)?;
            fs::write(dist.join("index.html"), page_without(&reason))?;
            dist
        }
    };
    embed(&dist, &out)
}

/// Makes the files; answers where they are, or why there are none.
fn build(out: &Path) -> Result<PathBuf, String> {
    if env::var_os("WINDLASS_SKIP_DASHBOARD").is_some_and(|value| value == "1") {
        return Err("WINDLASS_SKIP_DASHBOARD is set".to_owned());
    }
    let work = out.join("web");
    for source in SOURCES {
        let from = Path::new("web").join(source);
        let copied = replace(&from, &work.join(source));
        copied.map_err(|error| format!("{}: {error}", from.display()))?;
    }
    let installed = work.join("node_modules/.windlass-lock");
    let lock = fs::read(work.join("package-lock.json")).map_err(|error| error.to_string())?;
    if fs::read(&installed).ok().as_deref() != Some(&lock) {
        run(
            &work,
            &["ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        )?;
        fs::write(&installed, &lock).map_err(|error| error.to_string())?;
    }
    run(
        &work,
        &[
            "exec",
            "--offline",
            "--",
            "vite",
            "build",
            "--outDir",
            "dist",
            "--emptyOutDir",
        ],
    )?;
    Ok(work.join("dist"))
}

fn run(directory: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("npm")
        .args(arguments)
        .current_dir(directory)
        .output();
    let output = output.map_err(|error| format!("npm cannot be run ({error}): install Node.js"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(4).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("npm {}: {}", arguments.join(" "), last.join(" ")))
}

/// Puts a copy of a file or directory in the place of what was there.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            replace(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).map(drop)
}

fn page_without(reason: &str) -> String {
    let reason = reason.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Windlass</title></head><body>\
         <h1>This windlass has no dashboard</h1><p>It was built without one: {reason}.</p>\
         <p>Build it where Node.js and npm are installed, or use kubectl.</p></body></html>"
    )
}

/// Writes the constant that holds all files.
fn embed(dist: &Path, out: &Path) -> io::Result<()> {
    let compressed = out.join("compressed");
    if compressed.exists() {
        fs::remove_dir_all(&compressed)?;
    }
    fs::create_dir_all(&compressed)?;
    let mut files = Vec::new();
    list(dist, dist, &mut files)?;
    files.sort();
    let mut assets = String::new();
    for (number, name) in files.iter().enumerate() {
        if name == "/index.html" || name.ends_with(".map") {
            continue;
        }
        let extension = name.rsplit('.').next().unwrap_or_default();
        let known = MEDIA_TYPES.iter().find(|(of, _)| *of == extension);
        let media_type = known.map_or("application/octet-stream", |(_, media_type)| media_type);
        let path = compressed.join(format!("{number}.gz"));
        let mut encoder = GzEncoder::new(fs::File::create(&path)?, Compression::best());
        encoder.write_all(&fs::read(dist.join(name.trim_start_matches('/')))?)?;
        encoder.finish()?;
        writeln!(
            assets,
            "        ({name:?}, {media_type:?}, include_bytes!({path:?})),"
        )
        .map_err(io::Error::other)?;
    }
    let page = dist.join("index.html");
    let text = format!(
        "/// The dashboard, as the build made it.\nconst FILES: Files = Files {{\n    page: include_str!({page:?}),\n    assets: &[\n{assets}    ],\n}};\n"
    );
    fs::write(out.join("dashboard_files.rs"), text)
}

fn list(root: &Path, directory: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, files)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            files.push(format!("/{}", name.display()));
        }
    }
    Ok(())
}
