//! Events in a file, one a line, which is put aside when it becomes large.
//!
//! `audit.log` becomes `audit-2026-01-31T12-00-00.000.log` beside it. Of those put aside the oldest go when there are too
//! many of them, or when they are too old. Files have mode 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Where events are written, and when files are put aside and removed.
#[derive(Clone, Debug)]
pub struct LogFileOptions {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// A file larger than this, in bytes, is put aside.
    pub max_size: u64,
    /// Files put aside longer ago are removed; never if zero.
    pub max_age: Duration,
    /// Most files put aside; any number if zero.
    pub max_backups: usize,
}

/// An open file.
#[derive(Debug)]
pub(super) struct LogFile {
    options: LogFileOptions,
    output: Output,
}

#[derive(Debug)]
enum Output {
    Standard(io::Stdout),
    File { file: File, size: u64 },
}

impl LogFile {
    /// Opens the file to append to it; made with its directory if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(options: LogFileOptions) -> io::Result<Self> {
        let output = if options.path == Path::new("-") {
            Output::Standard(io::stdout())
        } else {
            open(&options.path)?
        };
        Ok(Self { options, output })
    }

    /// Writes events, each with its end of line, and hands them to the system.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&mut self, events: &[u8]) -> io::Result<()> {
        if let Output::File { size, .. } = &self.output
            && *size > 0
            && size.saturating_add(events.len() as u64) > self.options.max_size
        {
            self.put_aside()?;
        }
        match &mut self.output {
            Output::Standard(output) => {
                output.write_all(events)?;
                output.flush()
            }
            Output::File { file, size } => {
                file.write_all(events)?;
                *size += events.len() as u64;
                Ok(())
            }
        }
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let path = &self.options.path;
        let at = Timestamp::now().to_zoned(TimeZone::UTC);
        let at = at.strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        fs::rename(path, backup(path, &at))?;
        self.output = open(path)?;
        self.remove_old()
    }

    fn remove_old(&self) -> io::Result<()> {
        let options = &self.options;
        let mut backups = backups(&options.path)?;
        // Their names sort by time.
        backups.sort_unstable_by(|a, b| b.cmp(a));
        for (at, path) in backups.iter().enumerate() {
            let is_old = !options.max_age.is_zero() && age(path)? > options.max_age;
            if is_old || (options.max_backups > 0 && at >= options.max_backups) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Output> {
    if let Some(directory) = path.parent().filter(|of| !of.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok(Output::File { file, size })
}

/// Name and extension of the file.
fn parts(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = match text(path.extension()) {
        extension if extension.is_empty() => extension,
        extension => format!(".{extension}"),
    };
    (text(path.file_stem()), extension)
}

fn backup(path: &Path, at: &str) -> PathBuf {
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{at}{extension}"))
}

fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (stem, extension) = parts(path);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let middle = name.strip_prefix(&format!("{stem}-"));
        let middle = middle.and_then(|name| name.strip_suffix(&extension));
        // Only what looks like a time of ours: others' files are not touched.
        let is_time = |text: &str| {
            text.len() == "2026-01-31T12-00-00.000".len()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || b"-T.".contains(&byte))
        };
        if middle.is_some_and(is_time) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn age(path: &Path) -> io::Result<Duration> {
    let modified = fs::metadata(path)?.modified()?;
    Ok(SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_large_file_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/audit.log");
        let options = LogFileOptions {
            path: path.clone(),
            max_size: 10,
            max_age: Duration::ZERO,
            max_backups: 2,
        };
        let mut log = LogFile::open(options.clone()).unwrap();
        let other = path.with_file_name("audit-notes.log");
        fs::write(&other, "kept").unwrap();
        for at in 0..5 {
            // Two files of one millisecond would be one.
            while backups(&path)
                .unwrap()
                .iter()
                .any(|of| age(of).unwrap() < Duration::from_millis(2))
            {
                std::thread::yield_now();
            }
            log.write(format!("event {at}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "event 4\n");
        assert_eq!(backups(&path).unwrap().len(), 2);
        assert!(other.exists());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(log);
        let mut again = LogFile::open(options).unwrap();
        again.write(b"x\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "event 4\nx\n");
    }
}
