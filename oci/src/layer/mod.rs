//! Finds the one program of a wasm image in its layers.
//!
//! A layer is one of: a `.wasm` file as it is, or a tar archive as image builders write it; either may be compressed
//! with gzip or zstd, and either may go under any media type. So:
//!
//! 1. [`list`] reads each layer once and keeps what could be a program and what hides files of lower layers.
//! 2. [`choose`] decides which file is the program: the one that the image's entrypoint names, else the only `.wasm`.
//! 3. [`extract`] reads the layer again and writes that file out.
//!
//! Nothing is unpacked onto the disk but that one file, and both passes are bounded by [`Limits`].

mod decompress;
#[cfg(test)]
pub(crate) mod fixtures;
mod tar;

use std::io::{self, Read, Write};

use tar::{Archive, is_tar, plain};

const MAGIC: &[u8] = b"\0asm";
/// More files that could be the program than any image has.
const MAX_FILES: usize = 1024;
const HIDES_FILE: &str = ".wh.";
const HIDES_DIRECTORY: &str = ".wh..wh..opq";

/// Bounds of what is read of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes that a layer may expand to.
    pub expanded: u64,
    /// Largest program.
    pub program: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            expanded: 4 << 30,
            program: 512 << 20,
        }
    }
}

/// What a layer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is a `.wasm` file itself.
    Program,
    /// It is an archive.
    Archive {
        /// Files that could be the program.
        files: Vec<String>,
        /// Paths of lower layers that are not there any more.
        hidden: Vec<Hidden>,
    },
}

/// What a whiteout hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// A file or directory.
    Path(String),
    /// All that lower layers have in a directory.
    Inside(String),
}

/// Which file of which layer is the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Place of the layer among those that were listed.
    pub layer: usize,
    /// Path in the layer's archive; `None`: the layer itself.
    pub path: Option<String>,
}

/// Why there is no program in an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// No file is one.
    #[error("the image has no WebAssembly file: neither its entrypoint nor any *.wasm")]
    None,
    /// Several could be, and the entrypoint names none of them.
    #[error("the image has several WebAssembly files, and its entrypoint names none: {0}")]
    Several(String),
    /// A layer is neither.
    #[error("the layer is neither WebAssembly nor a tar archive")]
    Unknown,
    /// A layer is damaged, or too large.
    #[error("{0}")]
    Damaged(String),
}

impl From<io::Error> for ProgramError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Reads through a layer. `named` are the paths that the entrypoint may mean.
///
/// # Errors
/// It is neither wasm nor an archive, is damaged, or expands to more than it may.
pub fn list(layer: impl Read, named: &[String], limits: Limits) -> Result<Listing, ProgramError> {
    let (start, layer) = open(layer, limits)?;
    if start.starts_with(MAGIC) {
        return Ok(Listing::Program);
    }
    // An empty layer is an archive of nothing.
    if !start.is_empty() && !is_tar(&start) && start.iter().any(|byte| *byte != 0) {
        return Err(ProgramError::Unknown);
    }
    let (mut files, mut hidden) = (Vec::new(), Vec::new());
    let mut archive = Archive::new(layer);
    while let Some(header) = archive.next()? {
        let (directory, name) = header.name.rsplit_once('/').unwrap_or(("", &header.name));
        if name == HIDES_DIRECTORY {
            hidden.push(Hidden::Inside(directory.to_owned()));
        } else if let Some(name) = name.strip_prefix(HIDES_FILE) {
            hidden.push(Hidden::Path(plain(&format!("{directory}/{name}"))));
        } else if header.is_file && (name.ends_with(".wasm") || named.contains(&header.name)) {
            files.push(header.name);
        }
        if files.len() + hidden.len() > MAX_FILES {
            return Err(ProgramError::Damaged(format!(
                "a layer with more than {MAX_FILES} WebAssembly files and whiteouts"
            )));
        }
    }
    Ok(Listing::Archive { files, hidden })
}

/// Decides which file is the program. `layers` are the lowest first, `named` the best first.
///
/// # Errors
/// There is none, or there are several and the entrypoint names none of them.
pub fn choose(layers: &[Listing], named: &[String]) -> Result<Choice, ProgramError> {
    let visible = visible(layers);
    let by_name = named.iter().find_map(|name| {
        let mut all = visible.iter();
        all.find(|choice| choice.path.as_ref() == Some(name))
    });
    if let Some(found) = by_name {
        return Ok(found.clone());
    }
    let is_wasm = |choice: &&Choice| {
        let path = choice.path.as_deref();
        path.is_none_or(|path| path.ends_with(".wasm"))
    };
    let programs: Vec<_> = visible.iter().filter(is_wasm).collect();
    match programs.as_slice() {
        [] => Err(ProgramError::None),
        [only] => Ok((*only).clone()),
        several => {
            let names = several.iter().map(|choice| match &choice.path {
                Some(path) => format!("/{path}"),
                None => format!("layer {}", choice.layer),
            });
            let names: Vec<_> = names.take(5).collect();
            Err(ProgramError::Several(names.join(", ")))
        }
    }
}

/// The files that no higher layer hides or replaces.
fn visible(layers: &[Listing]) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::new();
    let mut hidden_above: Vec<&Hidden> = Vec::new();
    for (layer, listing) in layers.iter().enumerate().rev() {
        match listing {
            Listing::Program => found.push(Choice { layer, path: None }),
            Listing::Archive { files, hidden } => {
                for path in files {
                    let is_hidden = hidden_above.iter().any(|hidden| hidden.covers(path));
                    let is_known = found
                        .iter()
                        .any(|choice| choice.path.as_ref() == Some(path));
                    if !is_hidden && !is_known {
                        let path = Some(path.clone());
                        found.push(Choice { layer, path });
                    }
                }
                hidden_above.extend(hidden);
            }
        }
    }
    found
}

impl Hidden {
    fn covers(&self, path: &str) -> bool {
        let is_below = |directory: &str| {
            let rest = path.strip_prefix(directory);
            directory.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        match self {
            Self::Path(hidden) => path == hidden || is_below(hidden),
            Self::Inside(directory) => is_below(directory),
        }
    }
}

/// Writes the chosen file of a layer out.
///
/// # Errors
/// The layer is damaged, or the file larger than it may be; what was written by then is no program.
pub fn extract(
    layer: impl Read,
    path: Option<&str>,
    limits: Limits,
    mut target: impl Write,
) -> Result<(), ProgramError> {
    let (_, mut layer) = open(layer, limits)?;
    let copied = match path {
        None => copy(&mut layer, limits, &mut target)?,
        Some(path) => {
            let mut archive = Archive::new(layer);
            loop {
                let header = archive.next()?.ok_or(ProgramError::None)?;
                if header.is_file && header.name == path {
                    break copy(archive.content(), limits, &mut target)?;
                }
            }
        }
    };
    if copied > limits.program {
        let text = format!("the program is larger than {} bytes", limits.program);
        return Err(ProgramError::Damaged(text));
    }
    Ok(())
}

fn copy(source: impl Read, limits: Limits, target: &mut impl Write) -> io::Result<u64> {
    io::copy(&mut source.take(limits.program.saturating_add(1)), target)
}

/// The first block of what a layer holds, and all of it.
fn open<'a>(layer: impl Read + 'a, limits: Limits) -> io::Result<(Vec<u8>, Box<dyn Read + 'a>)> {
    let mut layer = decompress::reader(layer, limits.expanded)?;
    let mut start = Vec::new();
    layer.by_ref().take(512).read_to_end(&mut start)?;
    let whole = io::Cursor::new(start.clone()).chain(layer);
    Ok((start, Box::new(whole)))
}

/// The paths that an image's entrypoint may mean, best first.
#[must_use]
pub fn named_paths(program: Option<&str>, working_dir: Option<&str>) -> Vec<String> {
    let Some(program) = program.filter(|program| !program.is_empty()) else {
        return Vec::new();
    };
    let from_root = plain(program);
    if program.starts_with('/') {
        return vec![from_root];
    }
    let inside = plain(&format!("{}/{program}", working_dir.unwrap_or_default()));
    vec![inside, from_root]
}

#[cfg(test)]
mod tests {
    use super::fixtures::{gzip, tar, zstd};
    use super::*;

    const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

    fn program(layers: &[Vec<u8>], named: &[&str]) -> Result<Vec<u8>, ProgramError> {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let limits = Limits::default();
        let listings = layers.iter().map(|layer| list(&**layer, &named, limits));
        let listings: Vec<_> = listings.collect::<Result<_, _>>()?;
        let choice = choose(&listings, &named)?;
        let mut found = Vec::new();
        extract(
            &*layers[choice.layer],
            choice.path.as_deref(),
            limits,
            &mut found,
        )?;
        Ok(found)
    }

    #[test]
    fn the_program_is_found_in_every_kind_of_layer() {
        let archive = tar(&[("bin/sh", b"no"), ("./app.wasm", WASM), ("lib/x", b"no")]);
        let cases = [
            WASM.to_vec(),
            gzip(WASM),
            zstd(WASM),
            archive.clone(),
            gzip(&archive),
            zstd(&archive),
        ];
        for (at, layer) in cases.into_iter().enumerate() {
            assert_eq!(program(&[layer], &[]).unwrap(), WASM, "case {at}");
        }
    }

    #[test]
    fn the_entrypoint_decides_between_several() {
        let other = [WASM, b"2"].concat();
        let layer = tar(&[("a.wasm", WASM), ("opt/b.wasm", &other), ("c", &other)]);
        let layers = [layer];
        assert_eq!(program(&layers, &["opt/b.wasm"]).unwrap(), other);
        assert_eq!(program(&layers, &["none", "c"]).unwrap(), other);
        let error = program(&layers, &["none"]).unwrap_err().to_string();
        assert!(error.contains("/a.wasm, /opt/b.wasm"), "{error}");
        let none = program(&[tar(&[("x", b"1")])], &[]).unwrap_err();
        assert_eq!(none, ProgramError::None);
    }

    #[test]
    fn higher_layers_replace_and_hide() {
        let newer = [WASM, b"2"].concat();
        let low = tar(&[("d/app.wasm", WASM)]);
        let replaced = tar(&[("d/app.wasm", &newer)]);
        assert_eq!(program(&[low.clone(), replaced], &[]).unwrap(), newer);
        for whiteout in ["d/.wh.app.wasm", ".wh.d", "d/.wh..wh..opq", ".wh..wh..opq"] {
            let high = tar(&[(whiteout, b""), ("other.wasm", &newer)]);
            assert_eq!(
                program(&[low.clone(), high], &[]).unwrap(),
                newer,
                "{whiteout}"
            );
        }
    }

    #[test]
    fn links_devices_and_other_files_are_no_programs() {
        let mut archive = fixtures::entry("app.wasm", b'2', 0);
        archive.extend(fixtures::entry("dev.wasm", b'3', 0));
        archive.resize(archive.len() + 1024, 0);
        assert_eq!(
            program(&[archive], &["app.wasm"]).unwrap_err(),
            ProgramError::None
        );
        let text = b"#!/bin/sh\necho no archive".to_vec();
        assert_eq!(program(&[text], &[]).unwrap_err(), ProgramError::Unknown);
    }

    #[test]
    fn a_program_over_the_limit_is_refused() {
        let limits = Limits {
            expanded: 1 << 20,
            program: 4,
        };
        let error = extract(WASM, None, limits, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("larger than 4"), "{error}");
    }

    #[test]
    fn the_entrypoint_is_looked_for_where_it_would_run() {
        let cases: [(Option<&str>, Option<&str>, &[&str]); 5] = [
            (None, None, &[]),
            (Some("/a.wasm"), Some("/w"), &["a.wasm"]),
            (Some("a.wasm"), Some("/w/"), &["w/a.wasm", "a.wasm"]),
            (Some("./a"), None, &["a", "a"]),
            (Some(""), None, &[]),
        ];
        for (program, directory, want) in cases {
            assert_eq!(named_paths(program, directory), want);
        }
    }
}
