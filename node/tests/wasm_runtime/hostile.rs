//! Guests and clients that want more than their share: what they get is bounded, and others go on.

use super::*;

/// A command that does one thing again and again; it traps when that is refused.
fn endlessly(dir: &tempfile::TempDir, definitions: &str, step: &str) -> ContainerSpec {
    wat(
        dir,
        &format!(
            r#"(component
                (core module $m
                    {definitions}
                    (func (export "run") (result i32)
                        (loop $again {step} (br $again))
                        (i32.const 0)))
                (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $cli (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $cli)))"#
        ),
    )
}

#[tokio::test]
async fn what_grows_without_end_is_ended() {
    let node = Node::new();
    for (what, definitions, step, exit_code) in [
        (
            "a table",
            "(table $t 1 funcref)",
            "(if (i32.eq (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)) (then unreachable))",
            134,
        ),
        (
            "a memory",
            "(memory 1)",
            "(if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))",
            137,
        ),
        (
            "a stack",
            "(func $deeper (param i32) (result i32) \
               (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))",
            "(drop (call $deeper (i32.const 0)))",
            134,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = endlessly(&dir, definitions, step);
        spec.limits.memory_bytes = Some(32 << 20);
        let container = node.start(&spec, &node.pod()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), container.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{what} grows for ever"));
        assert_eq!(ended.exit_code, exit_code, "{what}: {ended:?}");
        assert_eq!(ended.oom_killed, exit_code == 137, "{what}: {ended:?}");
        assert_eq!(container.usage().memory_bytes, 0, "{what}");
    }
}

#[tokio::test]
async fn a_flood_of_output_fills_no_disk() {
    let node = Node::new();
    let spec = some!(probe(&["print", "50000"]));
    let limits = LogLimits {
        file_bytes: 64 << 10,
        files: 3,
    };
    let logs = Logs::new(node.logs.path().to_owned(), limits);
    let sink = logs.begin(&spec.pod, &spec.name, spec.attempt);
    let started = node.runtime.start(spec.clone(), node.pod(), sink).await;
    assert_eq!(started.unwrap().wait().await, ExitStatus::exited(0));
    let files: Vec<u64> = std::fs::read_dir(node.log_directory(&spec))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    // A file is rotated after the write that made it too long.
    assert!(files.len() <= 3, "{files:?}");
    assert!(files.iter().sum::<u64>() <= 4 * (64 << 10), "{files:?}");
    assert!(files.iter().sum::<u64>() > 64 << 10, "{files:?}");
}

/// Who asks for something a byte a minute holds a connection, and nothing else.
#[tokio::test]
async fn slow_clients_hold_no_instance_and_keep_nobody_from_an_answer() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 80);
    let mut slow = Vec::new();
    for _ in 0..1000 {
        let mut stream = node.network.host().connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(node.http(address, "/").await, (200, "hello 1".to_owned()));
    while container.usage().memory_bytes > 0 {
        // The instance of that request goes a moment after its answer.
        tokio::task::yield_now().await;
    }
    // They are still connected, and are served once they have asked.
    let mut patient = slow.pop().unwrap();
    patient.write_all(b"st: web\r\n\r\n").await.unwrap();
    let mut begin = [0; 15];
    patient.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
}
