//! Commands run with nothing but what they were granted.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use wasmtime::component::Component;
use wasmtime::{Config, Engine};
use windlass_wasi_shims::command::CommandEnd;
use windlass_wasi_shims::cpu::{Cpu, Ticker};
use windlass_wasi_shims::fs::{MemoryNode, MemoryTree, Mounts};
use windlass_wasi_shims::limits::Memory;
use windlass_wasi_shims::net::NoNetwork;
use windlass_wasi_shims::state::{self, Grants};
use windlass_wasi_shims::stdio::{Input, Output, OutputSink};
use windlass_wasi_shims::world::{OFFERED, World, WorldError};

#[path = "../../tests/guests/built.rs"]
mod built;

/// Keeps what a guest prints.
#[derive(Default)]
struct Printed(Mutex<Vec<u8>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl OutputSink for Printed {
    fn write(&self, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(())
    }
}

fn engine() -> Engine {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config).unwrap()
}

fn link(engine: &Engine, wasm: &[u8]) -> Result<World, WorldError> {
    let component = Component::new(engine, wasm).unwrap();
    World::link(&state::linker(engine).unwrap(), &[], &component)
}

fn link_wat(wat: &str) -> Result<World, WorldError> {
    link(&engine(), &wat::parse_str(wat).unwrap())
}

/// The probe, and what it is given.
struct Probe {
    world: World,
    grants: Grants,
    stdout: Arc<Printed>,
    stderr: Arc<Printed>,
}

/// Guests that do with files what their arguments say: by WASI 0.2, and by 0.3.
const FILE_GUESTS: [&str; 2] = ["probe", "files3"];

/// A guest, compiled once for all tests.
fn compiled(name: &str) -> Option<(Engine, World)> {
    type Compiled = Option<(Engine, World, Ticker)>;
    static COMPILED: [OnceLock<Compiled>; FILE_GUESTS.len()] =
        [const { OnceLock::new() }; FILE_GUESTS.len()];
    let compile = || {
        let engine = engine();
        let wasm = std::fs::read(built::guest(name)?).unwrap();
        let world = link(&engine, &wasm).unwrap();
        let ticker = Ticker::start(engine.weak()).unwrap();
        Some((engine, world, ticker))
    };
    let index = FILE_GUESTS.iter().position(|known| *known == name);
    let compiled = COMPILED.get(index.unwrap()).unwrap();
    let (engine, world, _) = compiled.get_or_init(compile).as_ref()?;
    Some((engine.clone(), world.clone()))
}

impl Probe {
    fn new(args: &[&str]) -> Option<Self> {
        Self::of("probe", args)
    }

    fn of(guest: &str, args: &[&str]) -> Option<Self> {
        let (engine, world) = compiled(guest)?;
        let (stdout, stderr) = (Arc::new(Printed::default()), Arc::new(Printed::default()));
        let grants = Grants {
            engine,
            args: std::iter::once(&"probe")
                .chain(args)
                .map(|arg| (*arg).to_owned())
                .collect(),
            container: "test".into(),
            host_state: None,
            working_dir: None,
            env: vec![("COLOUR".to_owned(), "green".to_owned())],
            stdout: Output::new(stdout.clone()),
            stderr: Output::new(stderr.clone()),
            stdin: None,
            mounts: Arc::default(),
            network: Arc::new(NoNetwork),
            tls: None,
            memory: Memory::new(None),
            cpu: Cpu::new(None),
            instances: Arc::default(),
        };
        Some(Self {
            world,
            grants,
            stdout,
            stderr,
        })
    }

    fn mounts(mut self, mounts: Mounts) -> Self {
        self.grants.mounts = Arc::new(mounts);
        self
    }

    async fn run(&self) -> CommandEnd {
        self.world.run_command(&self.grants).await.unwrap()
    }

    /// What the probe prints; it must end with this code.
    async fn says(&self, want: i32) -> String {
        match self.run().await {
            CommandEnd::Exited(code) => assert_eq!(code, want, "{}", self.stdout.text()),
            CommandEnd::Trapped(text) => panic!("trapped: {text}"),
        }
        self.stdout.text().trim_end().to_owned()
    }
}

macro_rules! probe {
    ($($arg:expr),*) => {
        match Probe::new(&[$($arg),*]) {
            Some(probe) => probe,
            None => return,
        }
    };
}

#[tokio::test]
async fn arguments_and_environment_arrive() {
    assert_eq!(
        probe!("args", "one", "two words").says(0).await,
        "one,two words"
    );
    assert_eq!(probe!("env", "COLOUR").says(0).await, "green");
    assert_eq!(probe!("env", "HOME").says(0).await, "unset");
}

#[tokio::test]
async fn standard_output_and_error_are_apart() {
    let probe = probe!("print", "2");
    assert_eq!(probe.says(0).await, "line 0\nline 1\ndone");
    assert_eq!(probe.stderr.text(), "warning 0\nwarning 1\n");
}

#[tokio::test]
async fn standard_input_is_closed_or_piped() {
    assert_eq!(probe!("cat").says(0).await, "");
    let mut probe = probe!("cat");
    let (mut writer, input) = Input::piped();
    probe.grants.stdin = Some(input);
    writer.push(Bytes::from_static(b"typed")).unwrap();
    drop(writer);
    assert_eq!(probe.says(0).await, "typed");
}

#[tokio::test]
async fn exit_codes_and_traps_are_told_apart() {
    assert!(matches!(
        probe!("exit", "0").run().await,
        CommandEnd::Exited(0)
    ));
    // The std library of 0.2 guests tells failure, not its number.
    assert!(matches!(
        probe!("exit", "3").run().await,
        CommandEnd::Exited(1 | 3)
    ));
    let probe = probe!("trap");
    let CommandEnd::Trapped(text) = probe.run().await else {
        panic!("not a trap")
    };
    assert!(text.contains("unreachable"), "{text}");
    assert!(
        probe.stderr.text().contains("asked to"),
        "{}",
        probe.stderr.text()
    );
}

#[tokio::test]
async fn nothing_is_reachable_that_was_not_granted() {
    for args in [
        &["read", "/etc/passwd"][..],
        &["list", "/"],
        &["write", "/tmp/x", "y"],
        &["resolve", "localhost"],
        &["tcp-bind", "0.0.0.0:80"],
        &["tcp-ask", "127.0.0.1:80", "x"],
    ] {
        let Some(probe) = Probe::new(args) else {
            return;
        };
        let said = probe.says(1).await;
        assert!(said.starts_with("error: "), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn files_in_memory_are_read_and_never_written() {
    let files = || {
        let tree = [
            ("a.txt", Bytes::from_static(b"alpha")),
            ("sub/b", Bytes::from_static(b"beta")),
        ];
        let tree = Arc::new(MemoryTree::from_files(tree).unwrap());
        let mut mounts = Mounts::new();
        mounts.memory("/config", tree.clone(), None).unwrap();
        mounts.memory("/etc/one", tree, Some("a.txt")).unwrap();
        mounts
    };
    for (args, code, want) in [
        (&["read", "/config/a.txt"][..], 0, "alpha"),
        (&["read", "/config/sub/../a.txt"], 0, "alpha"),
        (&["read", "/config/sub/b"], 0, "beta"),
        (&["read", "/etc/one"], 0, "alpha"),
        (&["size", "/config/a.txt"], 0, "5"),
        (&["size", "/etc/one"], 0, "5"),
        (&["list", "/config"], 0, "a.txt,sub"),
        (&["list", "/etc"], 0, "one"),
        (&["read", "/config/none"], 1, "error: NotFound"),
        (
            &["write", "/config/a.txt", "x"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (
            &["write", "/config/new", "x"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (&["write", "/etc/one", "x"], 1, "error: ReadOnlyFilesystem"),
        (&["remove", "/config/a.txt"], 1, "error: ReadOnlyFilesystem"),
        (
            &["append", "/config/a.txt", "x"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (
            &["truncate", "/config/a.txt"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (&["mkdir", "/config/new"], 1, "error: ReadOnlyFilesystem"),
        (&["rmdir", "/config/sub"], 1, "error: ReadOnlyFilesystem"),
        (
            &["rename", "/config/a.txt", "/config/b.txt"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (
            &["link", "/config/a.txt", "/config/b.txt"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (
            &["symlink", "a.txt", "/config/b.txt"],
            1,
            "error: ReadOnlyFilesystem",
        ),
        (&["readlink", "/config/none"], 1, "error: NotFound"),
        (&["read", "/config/../../etc/passwd"], 1, ""),
        (&["list", "/config/a.txt"], 1, "error: NotADirectory"),
    ] {
        for guest in FILE_GUESTS {
            let Some(probe) = Probe::of(guest, args) else {
                return;
            };
            let said = probe.mounts(files()).says(code).await;
            assert!(want.is_empty() || said == want, "{guest} {args:?}: {said}");
        }
    }
}

#[tokio::test]
async fn who_asks_for_the_working_directory_is_told() {
    for (directory, want) in [(None, "none"), (Some("/data"), "/data")] {
        let Some(mut guest) = Probe::of("files3", &["cwd"]) else {
            return;
        };
        guest.grants.working_dir = directory.map(str::to_owned);
        assert_eq!(guest.says(0).await, want);
    }
}

#[tokio::test]
async fn an_update_shows_in_the_next_open() {
    let tree = Arc::new(MemoryTree::from_files([("a", Bytes::from_static(b"old"))]).unwrap());
    for text in ["old", "new"] {
        tree.replace(MemoryNode::from_files([("a", Bytes::from(text))]).unwrap());
        let mut mounts = Mounts::new();
        mounts.memory("/config", tree.clone(), None).unwrap();
        assert_eq!(
            probe!("read", "/config/a").mounts(mounts).says(0).await,
            text
        );
    }
}

#[tokio::test]
async fn host_directories_are_written_unless_read_only() {
    for guest in FILE_GUESTS {
        use_host_directory(guest).await;
    }
}

async fn use_host_directory(guest: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("escape")).unwrap();
    let mounts = |read_only| {
        let mut mounts = Mounts::new();
        mounts.host("/data", dir.path(), None, read_only).unwrap();
        mounts
            .host("/dev/log", &dir.path().join("file"), None, read_only)
            .unwrap();
        mounts
    };
    for (args, read_only, code, want) in [
        (&["read", "/data/file"][..], true, 0, "content"),
        (&["read", "/dev/log"], true, 0, "content"),
        (&["size", "/dev/log"], true, 0, "7"),
        (&["write", "/data/file", "x"], true, 1, ""),
        (&["write", "/dev/log", "x"], true, 1, ""),
        (&["mkdir", "/data/dir"], true, 1, ""),
        (&["rename", "/data/file", "/data/other"], true, 1, ""),
        (&["remove", "/data/file"], true, 1, ""),
        (&["read", "/data/escape"], false, 1, ""),
        (&["read", "/data/../etc/passwd"], false, 1, ""),
        (&["symlink", "/etc/passwd", "/data/out"], false, 1, ""),
        (&["symlink", "../../etc/passwd", "/data/up"], false, 1, ""),
        (&["write", "/data/new", "fresh"], false, 0, "written"),
        (&["write", "/dev/log", "ended"], false, 0, "written"),
        (&["append", "/dev/log", " well"], false, 0, "appended"),
        (&["read", "/data/file"], false, 0, "ended well"),
        (&["mkdir", "/data/dir"], false, 0, "made"),
        (&["mkdir", "/data/dir"], false, 1, "error: AlreadyExists"),
        (&["write", "/data/draft", "ended well"], false, 0, "written"),
        (
            &["rename", "/data/draft", "/data/dir/moved"],
            false,
            0,
            "renamed",
        ),
        (
            &["link", "/data/dir/moved", "/data/linked"],
            false,
            0,
            "linked",
        ),
        (&["read", "/data/linked"], false, 0, "ended well"),
        (
            &["symlink", "moved", "/data/dir/soft"],
            false,
            0,
            "ended well",
        ),
        (&["readlink", "/data/dir/soft"], false, 0, "moved"),
        (&["list", "/data/dir"], false, 0, "moved,soft"),
        (&["truncate", "/data/linked"], false, 0, "truncated"),
        (&["size", "/data/dir/moved"], false, 0, "0"),
        (&["remove", "/data/dir/soft"], false, 0, "removed"),
        (&["remove", "/data/dir/moved"], false, 0, "removed"),
        (&["rmdir", "/data/dir"], false, 0, "removed"),
        (&["read", "/data/dir/moved"], false, 1, "error: NotFound"),
    ] {
        let Some(probe) = Probe::of(guest, args) else {
            return;
        };
        let said = probe.mounts(mounts(read_only)).says(code).await;
        assert!(want.is_empty() || said == want, "{guest} {args:?}: {said}");
    }
    assert_eq!(
        std::fs::read_to_string(dir.path().join("new")).unwrap(),
        "fresh"
    );
}

#[tokio::test]
async fn too_many_open_files_are_an_error_and_not_a_trap() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    for (guest, path) in FILE_GUESTS
        .into_iter()
        .flat_map(|guest| [(guest, "/config/a"), (guest, "/data/file")])
    {
        let tree = Arc::new(MemoryTree::from_files([("a", Bytes::from_static(b"x"))]).unwrap());
        let mut mounts = Mounts::new();
        mounts.memory("/config", tree, None).unwrap();
        mounts.host("/data", dir.path(), None, true).unwrap();
        let Some(probe) = Probe::of(guest, &["open-many", path]) else {
            return;
        };
        let said = probe.mounts(mounts).says(0).await;
        assert_eq!(said, "limited true", "{guest} {path}");
    }
}

/// A listing costs the host a file descriptor and never all names, nor a thread that waits for the guest.
#[tokio::test]
async fn listings_are_read_as_they_are_asked_for_and_are_few() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..1000 {
        std::fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    for guest in FILE_GUESTS {
        let mut mounts = Mounts::new();
        mounts.host("/data", dir.path(), None, true).unwrap();
        let Some(probe) = Probe::of(guest, &["list-many", "/data"]) else {
            return;
        };
        let said = probe.mounts(mounts).says(0).await;
        assert_eq!(said, "limited 64, then 1000", "{guest}");
    }
}

#[tokio::test]
async fn the_memory_limit_is_noticed_and_given_back() {
    let mut probe = probe!("eat", "64");
    probe.grants.memory = Memory::new(Some(16 << 20));
    assert!(matches!(probe.run().await, CommandEnd::Trapped(_)));
    assert!(probe.grants.memory.take_denied());
    assert!(probe.grants.memory.peak() > 8 << 20);
    assert_eq!(probe.grants.memory.used(), 0);
    let probe = probe!("eat", "8");
    assert_eq!(probe.says(0).await, "ate 8");
}

#[tokio::test]
async fn an_endless_loop_yields_is_metered_and_can_be_ended() {
    let probe = probe!("spin");
    let mut spinning = Box::pin(probe.run());
    // One thread runs both: every turn of this loop needs the guest to yield.
    for _ in 0..5 {
        assert!(futures::poll!(&mut spinning).is_pending());
    }
    drop(spinning);
    assert!(probe.grants.cpu.used_nanos() > 0);
}

#[test]
fn every_missing_import_is_named() {
    let error = link_wat(
        r#"(component
            (import "wasi:keyvalue/store@0.2.0" (instance (export "open" (func))))
            (import "acme:gadget/api" (instance (export "go" (func))))
            (import "wasi:sockets/types@0.4.0" (instance (export "connect" (func))))
        )"#,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the component imports what this host does not offer: \
         wasi:keyvalue/store@0.2.0, acme:gadget/api, wasi:sockets/types@0.4.0"
    );
}

#[test]
fn a_component_that_is_no_program_says_what_it_exports() {
    let error = link_wat("(component)").unwrap_err();
    assert!(error.to_string().ends_with("it exports nothing"), "{error}");
    let error = link_wat(r#"(component (instance $i) (export "acme:gadget/api" (instance $i)))"#);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .ends_with("it exports acme:gadget/api")
    );
}

#[test]
fn an_import_with_a_function_too_much_is_named() {
    let error = link_wat(
        r#"(component
            (import "wasi:cli/environment@0.2.0" (instance (export "nosuch" (func))))
            (instance $run)
            (export "wasi:cli/run@0.2.0" (instance $run))
        )"#,
    )
    .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("wasi:cli/environment@0.2.0") && text.contains("nosuch"),
        "{text}"
    );
}

#[test]
fn what_is_said_to_be_offered_is_linked() {
    let engine = engine();
    let linker = state::linker(&engine).unwrap();
    for (name, track) in OFFERED {
        // An interface of the linker has a resource or a function; a wrong type proves it is there.
        let wat = format!(
            r#"(component (import "{name}@{track}.0" (instance (export "windlass-test" (func)))))"#
        );
        let component = Component::new(&engine, wat::parse_str(&wat).unwrap()).unwrap();
        let error = linker.instantiate_pre(&component).err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("windlass-test"), "{name}@{track}: {text}");
    }
}
