//! Commands run in containers that run.

use std::future::poll_fn;
use std::path::Path;

use windlass_node::runtime::exec::{Collected, ExecError, ExecStreams, collect};
use windlass_node::runtime::{ImageComponent, Mount, MountPropagation, MountSource};
use windlass_wasi_shims::fs::MemoryTree;
use windlass_wasi_shims::pipe::{Chunk, Reader, one_way};

use super::*;

/// A container that waits for the end of its input, and its pod's network.
async fn waiting(node: &Node, mounts: Vec<Mount>) -> Option<(Container, PodNetwork)> {
    let mut spec = probe(&["cat"])?;
    spec.stdin = true;
    spec.mounts = mounts;
    spec.args = ["/bin/probe.wasm", "cat"].map(str::to_owned).to_vec();
    spec.image.reference = "registry.windlass.local/a/app:v1".to_owned();
    let pod = node.pod();
    Some((node.start(&spec, &pod).await.unwrap(), pod))
}

async fn run(container: &Container, line: &str) -> Result<Collected, ExecError> {
    let command: Vec<_> = line.split(' ').map(str::to_owned).collect();
    collect(container.as_ref(), &command).await
}

/// What a command printed, without the newline; it must have ended well.
async fn said(container: &Container, line: &str) -> String {
    let ended = run(container, line).await.unwrap();
    assert_eq!(ended.exit, ExitStatus::exited(0), "{}", ended.output);
    ended.output.trim_end().to_owned()
}

#[tokio::test]
async fn a_command_has_what_its_container_has() {
    let node = Node::new();
    let dir = tempfile::tempdir().unwrap();
    let file = some!(built::guest("probe"));
    std::fs::copy(file, dir.path().join("other.wasm")).unwrap();
    std::fs::write(dir.path().join("broken.wasm"), "no wasm").unwrap();
    let tree = MemoryTree::from_files([("a", bytes::Bytes::from_static(b"from memory"))]).unwrap();
    let mount = |path: &str, source| Mount {
        volume: "v".to_owned(),
        path: path.to_owned(),
        read_only: false,
        sub_path: None,
        propagation: MountPropagation::None,
        source,
    };
    let host = MountSource::Host {
        path: dir.path().to_owned(),
        below: None,
    };
    let mounts = vec![
        mount("/data", host),
        mount("/config", MountSource::Memory(Arc::new(tree))),
    ];
    let (container, _pod) = some!(waiting(&node, mounts).await);
    assert_eq!(said(&container, "probe args a b").await, "a,b");
    assert_eq!(said(&container, "probe env COLOUR").await, "green");
    assert_eq!(said(&container, "main read /config/a").await, "from memory");
    let other = "/data/other.wasm write /data/new text";
    assert_eq!(said(&container, other).await, "written");
    let new = std::fs::read_to_string(dir.path().join("new")).unwrap();
    assert_eq!(new, "text");
    // The standard library of Rust says success or failure only.
    let ended = run(&container, "probe exit 7").await.unwrap();
    assert_eq!(ended.exit, ExitStatus::exited(1));
    assert_eq!(said(&container, "app args c").await, "c");
    let trapped = run(&container, "probe trap").await.unwrap();
    assert_eq!(trapped.exit.exit_code, 134);
    assert!(trapped.output.contains("unreachable"), "{}", trapped.output);
    for (line, wanted) in [
        ("sh -c ls", "exec: \"sh\": executable file not found: "),
        ("/data/nosuch.wasm", "executable file not found"),
        ("/etc/passwd", "executable file not found"),
        ("/data/broken.wasm", "not a valid WebAssembly component"),
        ("/data", "exec: \"/data\": "),
    ] {
        let error = run(&container, line).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{line}: {error}");
    }
    container.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn components_of_the_image_are_run_by_their_names() {
    let node = Node::new();
    let file = some!(built::guest("probe"));
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), "no wasm").unwrap();
    let component = |name: &str, blob: &Path| ImageComponent {
        name: name.to_owned(),
        digest: Digest::sha256(&std::fs::read(blob).unwrap()),
        blob: blob.to_owned(),
    };
    let mut spec = some!(probe(&["cat"]));
    spec.stdin = true;
    spec.image.components = vec![
        component("app.wasm", &file),
        component("bin/tool.wasm", &file),
        component("bad.wasm", broken.path()),
    ];
    let pod = node.pod();
    let container = node.start(&spec, &pod).await.unwrap();
    for name in ["tool", "tool.wasm", "bin/tool.wasm", "/bin/tool.wasm"] {
        let line = format!("{name} args a");
        assert_eq!(said(&container, &line).await, "a", "{name}");
    }
    for (line, wanted) in [
        ("/tool.wasm", "executable file not found"),
        ("bad", "not a valid WebAssembly component"),
        ("sh", "the components of its image are app, tool, bad, "),
    ] {
        let error = run(&container, line).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{line}: {error}");
    }
    container.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_container_that_serves_http_says_that_it_is_no_command() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let container = node.start(&spec, &pod).await.unwrap();
    let error = run(&container, "main").await.unwrap_err().to_string();
    assert!(
        error.contains("it serves HTTP and is no command"),
        "{error}"
    );
    let error = run(&container, "ls").await.unwrap_err().to_string();
    assert!(error.contains("its program serves HTTP"), "{error}");
}

/// What `kubectl cp` calls: the node's own tools.
#[tokio::test]
async fn tools_reach_the_files_of_the_container_and_no_others() {
    let node = Node::new();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "one").unwrap();
    let host = MountSource::Host {
        path: dir.path().to_owned(),
        below: None,
    };
    let mount = Mount {
        volume: "v".to_owned(),
        path: "/data".to_owned(),
        read_only: false,
        sub_path: None,
        propagation: MountPropagation::None,
        source: host,
    };
    let (container, _pod) = some!(waiting(&node, vec![mount]).await);
    said(&container, "test -d /data").await;
    let ended = run(&container, "test -d /data/a").await.unwrap();
    assert_eq!(ended.exit.exit_code, 1);
    said(&container, "tar -cf /data/out.tar -C /data a").await;
    said(&container, "tar -xmf /data/out.tar -C /data/copy").await;
    let copy = std::fs::read_to_string(dir.path().join("copy/a")).unwrap();
    assert_eq!(copy, "one");
    let ended = run(&container, "tar -cf - /etc/hostname").await.unwrap();
    assert_ne!(ended.exit.exit_code, 0);
}

/// Streams of a command, and the ends that the client holds.
fn streams(stdin: Option<Reader>) -> (ExecStreams, Reader) {
    let (stdout, output) = one_way();
    let streams = ExecStreams {
        stdin,
        stdout,
        stderr: None,
        terminal: true,
        sizes: None,
    };
    (streams, output)
}

#[tokio::test]
async fn streams_are_the_commands_own() {
    let node = Node::new();
    let (container, _pod) = some!(waiting(&node, Vec::new()).await);
    let (mut input, stdin) = one_way();
    let (of_command, mut output) = streams(Some(stdin));
    let command = ["probe", "cat"].map(str::to_owned).to_vec();
    let running = tokio::spawn(container.exec(command, of_command));
    input.push(bytes::Bytes::from_static(b"typed")).unwrap();
    drop(input);
    let chunk = poll_fn(|cx| output.poll_chunk(cx, 64)).await;
    assert_eq!(chunk, Chunk::Data(bytes::Bytes::from_static(b"typed\n")));
    assert_eq!(running.await.unwrap().unwrap(), ExitStatus::exited(0));
}

#[tokio::test]
async fn a_command_ends_with_its_container_and_when_nobody_waits_for_it() {
    let node = Node::new();
    let (container, _pod) = some!(waiting(&node, Vec::new()).await);
    let spin = ["probe", "spin"].map(str::to_owned).to_vec();
    let (of_command, mut left) = streams(None);
    let running = tokio::spawn(container.exec(spin.clone(), of_command));
    let (of_command, mut given_up) = streams(None);
    drop(container.exec(spin.clone(), of_command));
    assert_eq!(poll_fn(|cx| given_up.poll_chunk(cx, 1)).await, Chunk::End);
    container.stop(Duration::ZERO).await;
    assert_eq!(running.await.unwrap().unwrap().exit_code, 137);
    assert_eq!(poll_fn(|cx| left.poll_chunk(cx, 1)).await, Chunk::End);
    let (of_command, _output) = streams(None);
    assert_eq!(
        container.exec(spin, of_command).await.unwrap().exit_code,
        137
    );
}

#[tokio::test]
async fn limits_change_while_a_container_runs() {
    let node = Node::new();
    let (container, _pod) = some!(waiting(&node, Vec::new()).await);
    let limits = |mebibytes: u64| ResourceLimits {
        memory_bytes: Some(mebibytes << 20),
        cpu_millis: Some(500),
        cpu_request_millis: None,
    };
    container.resize(limits(16)).unwrap();
    let ended = run(&container, "probe eat 64").await.unwrap();
    assert_eq!((ended.exit.exit_code, ended.exit.oom_killed), (137, true));
    container.resize(limits(256)).unwrap();
    assert_eq!(said(&container, "probe eat 64").await, "ate 64");
    let told = container.component().unwrap().limits;
    assert_eq!(
        (told.memory_bytes, told.cpu_millis),
        (Some(256 << 20), Some(500))
    );
    let error = container.resize(limits(0)).unwrap_err();
    assert!(error.contains("below its current usage"), "{error}");
}
