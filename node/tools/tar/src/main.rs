//! `tar` over the files that a container was granted: what `kubectl cp` runs at the other end.
//!
//! ```text
//!   tar -c [-C DIR] [-f FILE] PATH...     writes an archive
//!   tar -x [-C DIR] [-f FILE] [-mp]       unpacks one
//!   tar -t [-f FILE]                      lists one
//! ```
//!
//! `-f -`, and no `-f`, is standard input or output. Without a working directory, paths begin at `/`. There are no owners
//! and no modes in WASI: they are neither kept nor set. Links are not followed out of what was asked for: a symbolic link
//! is archived as one, and in an archive to be unpacked it is an error that is told, after the rest was unpacked.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use tar::{Archive, Builder, EntryType, Header};

/// Permissions written into archives, since WASI has none.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    operation: Option<Operation>,
    /// The archive; standard input or output without one.
    archive: Option<PathBuf>,
    verbose: bool,
    directory: PathBuf,
    paths: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    Extract,
    List,
}

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| run(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tar: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    match options.operation {
        Some(Operation::Create) => create(options),
        Some(Operation::Extract) => extract(options),
        Some(Operation::List) => list(options),
        None => Err("one of -c, -x and -t is needed".to_owned()),
    }
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            directory: PathBuf::from("/"),
            ..Self::default()
        };
        let mut arguments = arguments.enumerate();
        let mut only_paths = false;
        while let Some((at, argument)) = arguments.next() {
            let short = match argument.strip_prefix('-') {
                _ if only_paths => None,
                Some("-") => {
                    only_paths = true;
                    continue;
                }
                Some(long) if long.starts_with('-') => {
                    options.long(&argument)?;
                    continue;
                }
                Some(short) if !short.is_empty() => Some(short),
                // The first word is options even without a dash.
                None if at == 0 => Some(argument.as_str()),
                _ => None,
            };
            let Some(short) = short else {
                let path = options.directory.join(&argument);
                options.paths.push(path);
                continue;
            };
            let mut letters = short.chars();
            while let Some(letter) = letters.next() {
                let mut value = || {
                    let rest = std::mem::replace(&mut letters, "".chars()).as_str();
                    let next = || arguments.next().map(|(_, next)| next);
                    let value = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
                    value
                        .or_else(next)
                        .ok_or_else(|| format!("option -{letter} needs a value"))
                };
                match letter {
                    'c' => options.operation = Some(Operation::Create),
                    'x' => options.operation = Some(Operation::Extract),
                    't' => options.operation = Some(Operation::List),
                    'v' => options.verbose = true,
                    // Times, modes and owners are not set anyway.
                    'm' | 'p' | 'o' => {}
                    'f' => {
                        options.archive =
                            Some(value()?.into()).filter(|path| *path != Path::new("-"))
                    }
                    'C' => options.directory = options.directory.join(value()?),
                    other => return Err(format!("option -{other} is not supported")),
                }
            }
        }
        Ok(options)
    }

    fn long(&mut self, option: &str) -> Result<(), String> {
        match option {
            "--create" => self.operation = Some(Operation::Create),
            "--extract" => self.operation = Some(Operation::Extract),
            "--list" => self.operation = Some(Operation::List),
            "--verbose" => self.verbose = true,
            "--no-same-owner" | "--no-same-permissions" | "--touch" => {}
            other => return Err(format!("option {other} is not supported")),
        }
        Ok(())
    }

    fn input(&self) -> Result<Box<dyn Read>, String> {
        match &self.archive {
            Some(path) => Ok(Box::new(File::open(path).map_err(at(path))?)),
            None => Ok(Box::new(io::stdin().lock())),
        }
    }
}

/// An error of a file, with its path.
fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

// Writing

fn create(options: &Options) -> Result<(), String> {
    if options.paths.is_empty() {
        return Err("refusing to create an empty archive".to_owned());
    }
    let output: Box<dyn Write> = match &options.archive {
        Some(path) => Box::new(File::create(path).map_err(at(path))?),
        None => Box::new(io::stdout().lock()),
    };
    let mut archive = Builder::new(io::BufWriter::with_capacity(64 << 10, output));
    for path in &options.paths {
        // Names in an archive are relative to where it is unpacked.
        let name = path.strip_prefix(&options.directory).unwrap_or(path);
        add(&mut archive, path, &inside(name)?, options.verbose)?;
    }
    let mut output = archive.into_inner().map_err(|error| error.to_string())?;
    output.flush().map_err(|error| error.to_string())
}

fn add(
    archive: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    verbose: bool,
) -> Result<(), String> {
    let failed = at(path);
    let found = fs::symlink_metadata(path).map_err(&failed)?;
    if verbose {
        eprintln!("{}", name.display());
    }
    let mut header = Header::new_gnu();
    let modified = found.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    header.set_mtime(modified.map_or(0, |time| time.as_secs()));
    if found.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(FILE_MODE);
        header.set_size(0);
        let target = fs::read_link(path).map_err(&failed)?;
        return archive
            .append_link(&mut header, name, target)
            .map_err(failed);
    }
    if found.is_dir() {
        if !name.as_os_str().is_empty() {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(DIRECTORY_MODE);
            header.set_size(0);
            archive
                .append_data(&mut header, name, io::empty())
                .map_err(&failed)?;
        }
        let entries = fs::read_dir(path).map_err(&failed)?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(&failed)?;
        names.sort();
        for entry in names {
            add(archive, &path.join(&entry), &name.join(&entry), verbose)?;
        }
        return Ok(());
    }
    header.set_entry_type(EntryType::Regular);
    header.set_mode(FILE_MODE);
    header.set_size(found.len());
    let file = File::open(path).map_err(&failed)?;
    // A file that grows meanwhile is cut where its header says; one that shrinks is filled up.
    let content = file.chain(io::repeat(0)).take(found.len());
    archive
        .append_data(&mut header, name, content)
        .map_err(failed)
}

/// A name without root and `.`; one with `..` is refused.
fn inside(name: &Path) -> Result<PathBuf, String> {
    let mut inside = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(format!("{}: a name with '..' is refused", name.display()));
            }
        }
    }
    Ok(inside)
}

// Reading

fn extract(options: &Options) -> Result<(), String> {
    let mut archive = Archive::new(options.input()?);
    let broken = |error: io::Error| format!("the archive is broken: {error}");
    let mut refused = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let path = options.directory.join(inside(&name)?);
        if options.verbose {
            println!("{}", name.display());
        }
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path).map_err(at(&path))?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(at(parent))?;
                }
                let mut file = File::create(&path).map_err(at(&path))?;
                io::copy(&mut entry, &mut file).map_err(at(&path))?;
            }
            EntryType::XGlobalHeader => {}
            _ => refused.push(name.display().to_string()),
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!(
        "links and special files were left out: {}",
        refused.join(", ")
    ))
}

fn list(options: &Options) -> Result<(), String> {
    let mut archive = Archive::new(options.input()?);
    let broken = |error: io::Error| format!("the archive is broken: {error}");
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        println!("{}", entry.path().map_err(broken)?.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn options_are_those_that_kubectl_writes() {
        let found = parsed("cf - /data/a").unwrap();
        assert_eq!(found.operation, Some(Operation::Create));
        assert_eq!((found.archive, found.paths), (None, vec!["/data/a".into()]));
        let found = parsed("-xmf - -C /data").unwrap();
        assert_eq!(found.operation, Some(Operation::Extract));
        assert_eq!(found.directory, Path::new("/data"));
        let found = parsed("--no-same-permissions --no-same-owner -xmf -").unwrap();
        assert_eq!(found.operation, Some(Operation::Extract));
        let found = parsed("-c -f out.tar -C /data -- -a b").unwrap();
        assert_eq!(found.archive, Some("out.tar".into()));
        assert_eq!(found.paths, [PathBuf::from("/data/-a"), "/data/b".into()]);
        for wrong in ["-cz", "-c -f", "--gzip"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_back() {
        let from = std::env::temp_dir().join(format!("tar-tool-{}", std::process::id()));
        fs::create_dir_all(from.join("source/sub")).unwrap();
        fs::write(from.join("source/a"), "one").unwrap();
        fs::write(from.join("source/sub/b"), vec![7; 100_000]).unwrap();
        let archive = from.join("out.tar");
        let options = |operation, directory: &str, paths: &[&str]| Options {
            operation: Some(operation),
            archive: Some(archive.clone()),
            verbose: false,
            directory: from.join(directory),
            paths: paths
                .iter()
                .map(|path| from.join(directory).join(path))
                .collect(),
        };
        run(&options(Operation::Create, "source", &["a", "sub"])).unwrap();
        run(&options(Operation::Extract, "copy", &[])).unwrap();
        assert_eq!(fs::read(from.join("copy/a")).unwrap(), b"one");
        assert_eq!(fs::read(from.join("copy/sub/b")).unwrap(), vec![7; 100_000]);
        fs::remove_dir_all(&from).unwrap();
    }

    #[test]
    fn names_never_lead_out() {
        assert_eq!(inside(Path::new("/a/./b")).unwrap(), Path::new("a/b"));
        assert!(inside(Path::new("a/../../b")).is_err());
    }
}
