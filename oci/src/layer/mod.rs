//! Finds the program of a wasm image in its layers, and the other components that can be asked for by name.
//!
//! A layer is one of: a `.wasm` file as it is, or a tar archive as image builders write it; either may be compressed
//! with gzip or zstd, and either may go under any media type. So:
//!
//! 1. [`list`] reads each layer once and keeps what could be a program and what hides files of lower layers.
//! 2. [`choose`] decides which file is the program: the one that the image's entrypoint names, else the only `.wasm`,
//!    else the first layer that is a `.wasm` file itself. The others are components beside it.
//! 3. [`extract`] reads the layer again and writes those files out.
//!
//! Nothing is unpacked onto the disk but those files, and both passes are bounded by [`Limits`].

mod decompress;
#[cfg(test)]
pub(crate) mod fixtures;
mod tar;

use std::io::{self, Read};

use tar::{Archive, is_tar, plain};

const MAGIC: &[u8] = b"\0asm";
/// More files that could be the program than any image has.
const MAX_FILES: usize = 1024;
/// Components that an image may offer by name; those after them are not offered.
const MAX_COMPONENTS: usize = 32;
/// Bytes that are copied at a time.
const COPY: usize = 64 << 10;
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
    Program {
        /// What the manifest calls it.
        title: Option<String>,
    },
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

/// A WebAssembly file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Place of the layer among those that were listed.
    pub layer: usize,
    /// Whether it is a file in the layer's archive; else it is the layer itself.
    pub in_archive: bool,
    /// Its path from the image's root, without a slash before it, or the layer's title.
    pub name: Option<String>,
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

/// Reads through a layer of this title. `named` are the paths that the entrypoint may mean.
///
/// # Errors
/// It is neither wasm nor an archive, is damaged, or expands to more than it may.
pub fn list(
    layer: impl Read,
    title: Option<&str>,
    named: &[String],
    limits: Limits,
) -> Result<Listing, ProgramError> {
    let (start, layer) = open(layer, limits)?;
    if start.starts_with(MAGIC) {
        let title = title.map(plain).filter(|title| !title.is_empty());
        return Ok(Listing::Program { title });
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

/// Decides which file is the program. It is the first of what is answered; after it come the other components that have
/// a name. `layers` are the lowest first, `named` the best first.
///
/// # Errors
/// There is none, or there are several files and the entrypoint names none of them.
pub fn choose(layers: &[Listing], named: &[String]) -> Result<Vec<Choice>, ProgramError> {
    let mut visible = visible(layers);
    let by_name = named.iter().find_map(|name| {
        let mut all = visible.iter();
        all.position(|choice| choice.name.as_ref() == Some(name))
    });
    let program = match by_name {
        Some(found) => found,
        None => by_kind(&visible)?,
    };
    let program = visible.remove(program);
    let mut chosen = vec![program];
    for other in visible.into_iter().filter(Choice::is_wasm) {
        let is_new = chosen.iter().all(|known| known.name != other.name);
        if other.name.is_some() && is_new && chosen.len() < MAX_COMPONENTS {
            chosen.push(other);
        }
    }
    Ok(chosen)
}

/// Which file is the program where nothing names it.
fn by_kind(visible: &[Choice]) -> Result<usize, ProgramError> {
    let programs = visible.iter().enumerate();
    let mut programs = programs.filter(|(_, choice)| choice.is_wasm());
    let (first, choice) = programs.next().ok_or(ProgramError::None)?;
    // Layers are in an order that somebody meant; files of an archive are in none.
    if programs.next().is_none() || !choice.in_archive {
        return Ok(first);
    }
    let names = visible.iter().filter(|choice| choice.is_wasm());
    let names = names.map(|choice| match &choice.name {
        Some(name) => format!("/{name}"),
        None => format!("layer {}", choice.layer),
    });
    let names: Vec<_> = names.take(5).collect();
    Err(ProgramError::Several(names.join(", ")))
}

impl Choice {
    /// Whether it is WebAssembly by what it is called; a layer is by its content.
    fn is_wasm(&self) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        !self.in_archive || name.ends_with(".wasm")
    }
}

/// The files that no higher layer hides or replaces, those of the lowest layer first.
fn visible(layers: &[Listing]) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::new();
    let mut hidden_above: Vec<&Hidden> = Vec::new();
    for (layer, listing) in layers.iter().enumerate().rev() {
        match listing {
            Listing::Program { title } => found.push(Choice {
                layer,
                in_archive: false,
                name: title.clone(),
            }),
            Listing::Archive { files, hidden } => {
                for path in files {
                    let is_hidden = hidden_above.iter().any(|hidden| hidden.covers(path));
                    let is_known = found
                        .iter()
                        .any(|choice| choice.in_archive && choice.name.as_ref() == Some(path));
                    if !is_hidden && !is_known {
                        found.push(Choice {
                            layer,
                            in_archive: true,
                            name: Some(path.clone()),
                        });
                    }
                }
                hidden_above.extend(hidden);
            }
        }
    }
    found.sort_by_key(|choice| choice.layer);
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

/// Writes files of a layer's archive out, in the order in which they are there: `write` gets the place in `paths` and the
/// next bytes. Of no paths, that is the layer itself.
///
/// # Errors
/// The layer is damaged, or a file larger than it may be; what was written by then is no program.
pub fn extract(
    layer: impl Read,
    paths: &[String],
    limits: Limits,
    mut write: impl FnMut(usize, &[u8]) -> io::Result<()>,
) -> Result<(), ProgramError> {
    let (_, mut layer) = open(layer, limits)?;
    if paths.is_empty() {
        return copy(&mut layer, limits, |bytes| write(0, bytes));
    }
    let mut wanted: Vec<usize> = (0..paths.len()).collect();
    let mut archive = Archive::new(layer);
    while let Some(header) = archive.next()? {
        let is_meant = |at: &usize| header.is_file && paths.get(*at) == Some(&header.name);
        if let Some(found) = wanted.iter().position(is_meant) {
            let at = wanted.swap_remove(found);
            copy(archive.content(), limits, |bytes| write(at, bytes))?;
        }
        if wanted.is_empty() {
            break;
        }
    }
    Ok(())
}

fn copy(
    source: impl Read,
    limits: Limits,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ProgramError> {
    let mut source = source.take(limits.program.saturating_add(1));
    let mut buffer = vec![0; COPY];
    let mut copied = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        copied += bytes.len() as u64;
        if copied > limits.program {
            let text = format!("the program is larger than {} bytes", limits.program);
            return Err(ProgramError::Damaged(text));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        write(bytes)?;
    }
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
        let chosen = chosen(layers, &named)?;
        let choice = &chosen[0];
        let path = choice.name.clone().filter(|_| choice.in_archive);
        let paths: Vec<_> = path.into_iter().collect();
        let mut found = Vec::new();
        extract(&*layers[choice.layer], &paths, limits, |at, bytes| {
            assert_eq!(at, 0);
            found.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(found)
    }

    /// What is chosen of layers that are titled by their places.
    fn chosen(layers: &[Vec<u8>], named: &[String]) -> Result<Vec<Choice>, ProgramError> {
        let listings = layers.iter().enumerate().map(|(at, layer)| {
            let title = format!("./{at}.wasm");
            list(&**layer, Some(&title), named, Limits::default())
        });
        choose(&listings.collect::<Result<Vec<_>, _>>()?, named)
    }

    fn names(chosen: Vec<Choice>) -> Vec<String> {
        let names = chosen.into_iter().map(|choice| choice.name);
        names.map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn components_beside_the_program_have_names() {
        let other = [WASM, b"2"].concat();
        let layers = [WASM.to_vec(), gzip(&other)];
        let named = |name: &str| [name.to_owned()];
        assert_eq!(names(chosen(&layers, &[]).unwrap()), ["0.wasm", "1.wasm"]);
        let second = chosen(&layers, &named("1.wasm")).unwrap();
        assert_eq!(names(second), ["1.wasm", "0.wasm"]);
        let archive = tar(&[("bin/a.wasm", WASM), ("bin/b.wasm", WASM), ("x", b"1")]);
        let of_archive = chosen(&[archive], &named("bin/b.wasm")).unwrap();
        assert_eq!(names(of_archive), ["bin/b.wasm", "bin/a.wasm"]);
        let many: Vec<_> = (0..40).map(|_| WASM.to_vec()).collect();
        assert_eq!(chosen(&many, &[]).unwrap().len(), MAX_COMPONENTS);
    }

    #[test]
    fn several_files_are_extracted_in_one_pass() {
        let other = [WASM, b"2"].concat();
        let archive = tar(&[("a.wasm", WASM), ("x", b"1"), ("b.wasm", &other)]);
        let paths = ["b.wasm", "none.wasm", "a.wasm"].map(str::to_owned);
        let mut found = vec![Vec::new(); paths.len()];
        let write = |at: usize, bytes: &[u8]| {
            found[at].extend_from_slice(bytes);
            Ok(())
        };
        extract(&*gzip(&archive), &paths, Limits::default(), write).unwrap();
        assert_eq!(found, [other, Vec::new(), WASM.to_vec()]);
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
        let error = extract(WASM, &[], limits, |_, _| Ok(())).unwrap_err();
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
