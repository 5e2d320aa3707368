//! Which compiled components stay on disk.
//!
//! Machine code is several times as large as the component it comes from, and components come and go. A file is used when it
//! is mapped, which its modification time says; when there is too much, those go that were used longest ago, and those that
//! nobody used for long go anyway. Files of other engines (of an earlier version of this program) are among them.
//!
//! Invariant: removing a file takes nothing from who has it mapped, and costs who asks again a compilation.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompiledLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// How long a file stays that nobody uses.
    pub age: Duration,
}

impl Default for CompiledLimits {
    /// 4 GiB, 30 days.
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// A compiled component on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CompiledFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes what is too much or too old below `root`. Blocks.
///
/// # Errors
/// The directory can't be read, or a file not removed.
pub(super) fn collect(root: &Path, limits: &CompiledLimits) -> io::Result<()> {
    for path in plan(find(root)?, limits, SystemTime::now()) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => tracing::debug!(path = %path.display(), "removed a compiled component"),
        }
    }
    Ok(())
}

/// Says that a file is used.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    let file = std::fs::File::options().append(true).open(path)?;
    file.set_modified(SystemTime::now())
}

/// The compiled components of all engines.
fn find(root: &Path) -> io::Result<Vec<CompiledFile>> {
    let mut found = Vec::new();
    for engine in std::fs::read_dir(root)? {
        let engine = engine?;
        if !engine.file_type()?.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(engine.path())? {
            let path = entry?.path();
            if path
                .extension()
                .is_none_or(|extension| extension != "cwasm")
            {
                continue;
            }
            let metadata = match path.metadata() {
                // Another agent's embedding may have removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            found.push(CompiledFile {
                bytes: metadata.len(),
                used: metadata.modified()?,
                path,
            });
        }
    }
    Ok(found)
}

/// What goes.
fn plan(mut files: Vec<CompiledFile>, limits: &CompiledLimits, now: SystemTime) -> Vec<PathBuf> {
    files.sort_by(|a, b| (b.used, &a.path).cmp(&(a.used, &b.path)));
    let mut kept = 0_u64;
    let goes = files.into_iter().filter(|file| {
        // A time to come is one of a clock that was set back: as good as now.
        let age = now.duration_since(file.used).unwrap_or_default();
        let with_it = kept.saturating_add(file.bytes);
        if age > limits.age || with_it > limits.bytes {
            return true;
        }
        kept = with_it;
        false
    });
    goes.map(|file| file.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let file = |name: &str, bytes: u64, ago: i64| {
            let distance = Duration::from_secs(ago.unsigned_abs());
            let used = if ago < 0 {
                now + distance
            } else {
                now - distance
            };
            CompiledFile {
                path: name.into(),
                bytes,
                used,
            }
        };
        let limits = CompiledLimits {
            bytes: 100,
            age: Duration::from_secs(1000),
        };
        for (files, expected) in [
            (vec![], vec![]),
            (vec![file("a", 60, 1), file("b", 40, 2)], vec![]),
            (vec![file("a", 60, 2), file("b", 41, 1)], vec!["a"]),
            (
                vec![file("old", 1, 1001), file("new", 1, 1000)],
                vec!["old"],
            ),
            (
                vec![file("large", 101, 0), file("small", 1, 5)],
                vec!["large"],
            ),
            (vec![file("to come", 60, -50), file("b", 60, 1)], vec!["b"]),
            (
                vec![file("a", 50, 1), file("b", 60, 2), file("c", 50, 3)],
                vec!["b"],
            ),
        ] {
            let gone = plan(files.clone(), &limits, now);
            let expected: Vec<_> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(gone, expected, "{files:?}");
        }
    }

    #[test]
    fn files_of_all_engines_count_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for (name, length) in [("old/a.cwasm", 60), ("new/b.cwasm", 60), ("new/c.tmp", 500)] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; length]).unwrap();
        }
        let old = std::fs::File::options()
            .append(true)
            .open(root.path().join("old/a.cwasm"));
        let earlier = SystemTime::now() - Duration::from_secs(100);
        old.unwrap().set_modified(earlier).unwrap();
        let limits = CompiledLimits {
            bytes: 100,
            ..CompiledLimits::default()
        };
        collect(root.path(), &limits).unwrap();
        let there = |name: &str| root.path().join(name).exists();
        assert!(!there("old/a.cwasm") && there("new/b.cwasm") && there("new/c.tmp"));
        // Used again, it is the other one's turn.
        std::fs::write(root.path().join("old/a.cwasm"), vec![0; 60]).unwrap();
        let b = std::fs::File::options()
            .append(true)
            .open(root.path().join("new/b.cwasm"));
        b.unwrap()
            .set_modified(earlier - Duration::from_secs(1))
            .unwrap();
        touch(&root.path().join("old/a.cwasm")).unwrap();
        collect(root.path(), &limits).unwrap();
        assert!(there("old/a.cwasm") && !there("new/b.cwasm"));
    }
}
