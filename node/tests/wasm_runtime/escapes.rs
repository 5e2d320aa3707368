//! What hostile guests try, and are refused: a table of attempts to reach what was not granted.
//!
//! Each attempt is a command of its own in one container, which goes on; afterwards nothing outside has changed.

use std::path::Path;

use windlass_node::runtime::exec::collect;
use windlass_node::runtime::{Mount, MountPropagation, MountSource, ResourceLimits};
use windlass_wasi_shims::fs::MemoryTree;

use super::*;

/// What is granted: `/data` of the host, `/ro` of the host read-only, `/config` in memory, `/etc/app.conf` one file.
const ATTEMPTS: &[&str] = &[
    // Names that lead out.
    "read ../secret",
    "read /../secret",
    "read /data/../secret",
    "read /data/../../secret",
    "read /data/../../../../../../etc/passwd",
    "read /data/./../secret",
    "read /data/sub/../../secret",
    "read /data/nosuch/../../secret",
    "read /data//..//secret",
    "read /etc/passwd",
    "read /etc/../etc/passwd",
    "read /etc/app.conf/../passwd",
    "read /proc/self/environ",
    "read /proc/1/root/etc/passwd",
    "read /dev/mem",
    "read /config/../secret",
    "read /config/../../etc/passwd",
    "list /",
    "list /data/..",
    "list /proc",
    "list ..",
    "size /etc/passwd",
    "size /data/../secret",
    "write /data/../new x",
    "write /new x",
    "write /etc/cron.d/new x",
    "mkdir /data/../new",
    "mkdir /new",
    "rmdir /data/../keep",
    "remove /data/../secret",
    // Links that the host's directory holds.
    "read /data/absolute",
    "read /data/up",
    "read /data/parent/secret",
    "read /data/proc/environ",
    "read /data/loop",
    "list /data/parent",
    "write /data/up x",
    "write /data/parent/new x",
    "append /data/absolute x",
    "truncate /data/up",
    "remove /data/parent/secret",
    "mkdir /data/parent/new",
    "rename /data/own /data/parent/own",
    // Links that the guest makes.
    "symlink /etc/passwd /data/made-1",
    "symlink ../secret /data/made-2",
    "symlink ../../../../etc/passwd /data/sub/made-3",
    "symlink /proc/self/environ /data/made-4",
    "link /data/up /data/made-5/x",
    "link /data/../secret /data/made-6",
    "link /data/own /ro/made-7",
    "rename /data/../secret /data/made-8",
    "rename /data/own /data/../made-9",
    // What is read-only stays so.
    "write /ro/new x",
    "write /ro/file x",
    "append /ro/file x",
    "truncate /ro/file",
    "remove /ro/file",
    "mkdir /ro/new",
    "rmdir /ro/sub",
    "rename /ro/file /ro/other",
    "rename /ro/file /data/taken",
    "symlink /ro/file /ro/made",
    "write /config/a x",
    "write /config/new x",
    "append /config/a x",
    "remove /config/a",
    "rename /config/a /data/taken",
    "mkdir /config/new",
    "write /etc/app.conf x",
    "remove /etc/app.conf",
    "write /etc/new x",
    "rename /data/own /etc/app.conf",
    // Addresses that are not the pod's.
    "tcp-bind 10.42.0.200:80",
    "tcp-bind 192.0.2.1:80",
    "tcp-ask 169.254.169.254:80 x",
    "tcp-ask [::ffff:169.254.169.254]:80 x",
    "tcp-ask [fe80::1]:80 x",
    "tcp-ask 224.0.0.1:80 x",
    "tcp-ask 255.255.255.255:80 x",
    "tcp-ask 0.0.0.0:HOST x",
    "tcp-ask 127.0.0.1:HOST x",
    "tcp-ask [::1]:HOST x",
    "tcp-ask [::ffff:127.0.0.1]:HOST x",
    "tcp-ask 127.9.9.9:HOST x",
    "udp-ask 169.254.169.254:53 x",
    "udp-ask 224.0.0.1:53 x",
    // More than there is.
    "eat 4096",
    "recurse",
    "connect-many 0.0.0.0:0",
    "trap",
];

/// What is asked of the files by WASI 0.3 as well.
const OF_FILES: &[&str] = &[
    "read", "list", "size", "write", "append", "truncate", "mkdir", "rmdir", "remove", "rename",
    "link", "symlink",
];

/// What is asked of the sockets by WASI 0.3 as well.
const OF_SOCKETS: &[&str] = &["tcp-ask", "tcp-bind", "udp-ask"];

/// Variables of the host, none of which a guest has.
const VARIABLES: &[&str] = &["HOME", "PATH", "USER", "CARGO_MANIFEST_DIR", "PWD"];

/// Everything below a directory: paths, links, contents.
fn snapshot(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            let target = std::fs::read_link(&path).unwrap().display().to_string();
            found.push((path, target));
        } else if path.is_dir() {
            found.extend(snapshot(&path));
            found.push((path, "directory".to_owned()));
        } else {
            found.push((path.clone(), std::fs::read_to_string(path).unwrap()));
        }
    }
    found.sort();
    found
}

fn prepare(root: &Path) {
    use std::os::unix::fs::symlink;
    for directory in ["data/sub", "ro/sub", "keep"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["secret", "data/own", "ro/file", "app.conf"] {
        std::fs::write(root.join(file), format!("the {file}")).unwrap();
    }
    for (target, at) in [
        ("/etc/passwd", "absolute"),
        ("../secret", "up"),
        ("..", "parent"),
        ("/proc/self", "proc"),
        ("loop", "loop"),
    ] {
        symlink(target, root.join("data").join(at)).unwrap();
    }
}

fn mounts(root: &Path) -> Vec<Mount> {
    let tree = MemoryTree::from_files([("a", bytes::Bytes::from_static(b"in memory"))]).unwrap();
    let host = |path: &str| MountSource::Host {
        path: root.join(path),
        below: None,
    };
    [
        ("/data", false, host("data")),
        ("/ro", true, host("ro")),
        ("/config", true, MountSource::Memory(Arc::new(tree))),
        ("/etc/app.conf", true, host("app.conf")),
    ]
    .map(|(path, read_only, source)| Mount {
        volume: "v".to_owned(),
        path: path.to_owned(),
        read_only,
        sub_path: None,
        propagation: MountPropagation::None,
        source,
    })
    .to_vec()
}

#[tokio::test]
async fn no_attempt_leads_out() {
    let node = Node::new();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    prepare(root);
    let mut spec = some!(probe(&["cat"]));
    spec.stdin = true;
    spec.mounts = mounts(root);
    let tools = tempfile::tempdir().unwrap();
    for tool in ["files3", "sockets3"] {
        std::fs::copy(some!(built::guest(tool)), tools.path().join(tool)).unwrap();
    }
    spec.mounts.push(Mount {
        volume: "v".to_owned(),
        path: "/tools".to_owned(),
        read_only: true,
        sub_path: None,
        propagation: MountPropagation::None,
        source: MountSource::Host {
            path: tools.path().to_owned(),
            below: None,
        },
    });
    spec.limits = ResourceLimits {
        memory_bytes: Some(64 << 20),
        ..ResourceLimits::default()
    };
    let container = node.start(&spec, &node.pod()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();

    let outside = |root: &Path| {
        let mut all = snapshot(root);
        all.retain(|(path, _)| !path.starts_with(root.join("data")));
        all
    };
    let before = outside(root);
    let passwd = std::fs::read("/etc/passwd").unwrap();
    let run_by = async |program: &str, line: &str| {
        let command: Vec<_> = std::iter::once(program)
            .chain(line.split(' '))
            .map(str::to_owned)
            .collect();
        let ended = collect(container.as_ref(), &command);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        ended
            .unwrap_or_else(|_| panic!("{line} does not end"))
            .unwrap()
    };
    let run = async |line: &str| run_by("probe", line).await;
    let attempts = ATTEMPTS.iter().flat_map(|attempt| {
        let what = attempt.split(' ').next().unwrap_or_default();
        let by_files3 = OF_FILES.contains(&what).then_some("/tools/files3");
        let by_sockets3 = OF_SOCKETS.contains(&what).then_some("/tools/sockets3");
        let programs = std::iter::once("probe").chain(by_files3).chain(by_sockets3);
        programs.map(move |program| (program, attempt))
    });
    let mut refused = 0;
    for (program, attempt) in attempts {
        let ended = run_by(program, &attempt.replace("HOST", &port)).await;
        assert_ne!(
            ended.exit.exit_code, 0,
            "{program} {attempt}: {}",
            ended.output
        );
        for secret in ["the secret", "root:", "the file"] {
            assert!(
                !ended.output.contains(secret),
                "{program} {attempt}: {}",
                ended.output
            );
        }
        refused += 1;
    }
    for variable in VARIABLES {
        let ended = run(&format!("env {variable}")).await;
        assert_eq!(ended.output, "unset\n", "{variable}");
        refused += 1;
    }
    assert!(refused >= 150, "{refused}");
    assert_eq!(outside(root), before);
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), passwd);
    assert!(!Path::new("/new").exists());

    // And what was granted still works.
    assert_eq!(run("read /data/own").await.output, "the data/own\n");
    assert_eq!(run("read /ro/file").await.output, "the ro/file\n");
    assert_eq!(run("list /etc").await.output, "app.conf\n");
    let by_files3 = run_by("/tools/files3", "read /data/own").await;
    assert_eq!(by_files3.output, "the data/own\n");
}
