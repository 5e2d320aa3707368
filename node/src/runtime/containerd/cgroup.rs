//! What a container uses, as the kernel's control groups count it: version 1, one directory per controller, and version
//! 2, one directory for all.
//!
//! Read when somebody asks; nothing is polled and nothing is kept.

use std::path::{Path, PathBuf};

use crate::runtime::Usage;

const ROOT: &str = "/sys/fs/cgroup";

/// The control groups of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cgroup {
    /// Of version 1: for memory, for processor time, and for processes, if that is counted.
    V1 {
        memory: PathBuf,
        cpu: PathBuf,
        pids: Option<PathBuf>,
    },
    /// Of version 2.
    V2(PathBuf),
    /// The process was gone before it could be found out.
    Unknown,
}

impl Cgroup {
    /// Those of a process.
    pub(super) fn of_process(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        text.map_or(Self::Unknown, |text| Self::parse(&text, Path::new(ROOT)))
    }

    /// Spec: cgroups(7): `NUMBER:CONTROLLERS:/PATH`; version 2 has number 0 and no controllers.
    fn parse(text: &str, root: &Path) -> Self {
        let entries = || {
            text.lines().filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                Some((parts.next()?, parts.next()?.trim_start_matches('/')))
            })
        };
        let of = |controller: &str| {
            let mut found =
                entries().filter(|(names, _)| names.split(',').any(|name| name == controller));
            found
                .next()
                .map(|(_, path)| root.join(controller).join(path))
        };
        match (of("memory"), of("cpuacct")) {
            (Some(memory), Some(cpu)) => Self::V1 {
                memory,
                cpu,
                pids: of("pids"),
            },
            _ => match entries().find(|(names, _)| names.is_empty()) {
                Some((_, path)) => Self::V2(root.join(path)),
                None => Self::Unknown,
            },
        }
    }

    /// What the container has used; nothing once it has ended.
    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::V1 { memory, cpu, pids } => Usage {
                cpu_nanos: number(&cpu.join("cpuacct.usage")),
                memory_bytes: number(&memory.join("memory.usage_in_bytes"))
                    .saturating_sub(field(&memory.join("memory.stat"), "total_inactive_file")),
                processes: pids
                    .as_ref()
                    .map_or(0, |pids| number(&pids.join("pids.current"))),
            },
            Self::V2(path) => Usage {
                cpu_nanos: field(&path.join("cpu.stat"), "usage_usec").saturating_mul(1000),
                // Spec: the working set, what can't be given back without harm.
                memory_bytes: number(&path.join("memory.current"))
                    .saturating_sub(field(&path.join("memory.stat"), "inactive_file")),
                processes: number(&path.join("pids.current")),
            },
            Self::Unknown => Usage::default(),
        }
    }
}

fn number(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path);
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn field(path: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(key, _)| *key == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("memory/k8s.io/a/memory.usage_in_bytes", "5000\n");
        write(
            "memory/k8s.io/a/memory.stat",
            "cache 1\ntotal_inactive_file 1000\n",
        );
        write("cpuacct/k8s.io/a/cpuacct.usage", "77\n");
        write("pids/k8s.io/a/pids.current", "12\n");
        let one = "5:pids:/k8s.io/a\n4:memory:/k8s.io/a\n3:cpu,cpuacct:/k8s.io/a\n0::/x\n";
        let wanted = |cpu_nanos, memory_bytes, processes| Usage {
            cpu_nanos,
            memory_bytes,
            processes,
        };
        let usage = Cgroup::parse(one, dir.path()).usage();
        assert_eq!(usage, wanted(77, 4000, 12));
        write("k8s.io/b/memory.current", "900\n");
        write("k8s.io/b/memory.stat", "anon 1\ninactive_file 100\n");
        write("k8s.io/b/cpu.stat", "usage_usec 3\nuser_usec 2\n");
        write("k8s.io/b/pids.current", "2\n");
        let usage = Cgroup::parse("0::/k8s.io/b\n", dir.path()).usage();
        assert_eq!(usage, wanted(3000, 800, 2));
        assert_eq!(Cgroup::parse("", dir.path()), Cgroup::Unknown);
        assert_eq!(
            Cgroup::parse("0::/gone\n", dir.path()).usage(),
            Usage::default()
        );
    }
}
