//! kubectl of every version that lies on this machine.
//!
//! Uses the `kubectl` on PATH and, where they lie beside it, versioned ones (`kubectl.1.29`). Every version
//! does the everyday things (`everyday`); every third goes through the long lists of the other files. Says
//! which versions were used, or that the test was skipped.
//!
//! A command is written as in a shell, with single quotes only: `patch cm a -p '{"data": {"b": "c"}}'`.

mod access;
mod apply;
mod create;
mod everyday;
mod pods;
mod read;
mod stories;
mod wasm_pod;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use windlass_tests::{Cluster, PATIENCE};

/// Minor versions that the project is tested with.
const SUPPORTED: std::ops::RangeInclusive<u32> = 27..=33;

/// One kubectl of this machine.
struct Program {
    path: PathBuf,
    minor: u32,
}

impl Program {
    /// Whether this version is one that goes through everything.
    fn is_thorough(&self) -> bool {
        self.minor.is_multiple_of(3)
    }
}

/// Every kubectl of this machine that the project supports.
async fn programs() -> Vec<Program> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("kubectl"))
        .find(|file| file.is_file());
    let Some(found) = found else {
        println!("SKIPPED: kubectl is not on PATH");
        return Vec::new();
    };
    let real = std::fs::canonicalize(&found).unwrap();
    let folder = real.parent().unwrap();
    let versioned: Vec<_> = SUPPORTED
        .map(|minor| Program {
            path: folder.join(format!("kubectl.1.{minor}")),
            minor,
        })
        .filter(|program| program.path.is_file())
        .collect();
    if versioned.is_empty() {
        // The only one there is goes through everything.
        let (path, minor) = (found, 0);
        return vec![Program { path, minor }];
    }
    versioned
}

/// The newest kubectl, which is said; `None` without one.
async fn newest() -> Option<Program> {
    let program = programs().await.pop()?;
    println!("using {}", program.path.display());
    Some(program)
}

/// Runs a test with every kubectl that `chosen` picks, each against a control plane of its own.
async fn with_each(chosen: impl Fn(&Program) -> bool, test: impl AsyncFn(&Kubectl)) {
    for program in programs().await.into_iter().filter(chosen) {
        println!("using {}", program.path.display());
        let cluster = Cluster::control_plane().await.unwrap();
        test(&Kubectl::new(&program, &cluster)).await;
        cluster.shutdown().await;
    }
}

/// One kubectl that talks to one cluster.
struct Kubectl {
    program: PathBuf,
    minor: u32,
    /// Where kubectl keeps what it discovered.
    cache: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn new(program: &Program, cluster: &Cluster) -> Self {
        Self {
            program: program.path.clone(),
            minor: program.minor,
            cache: cluster.directory().join(format!("cache-{}", program.minor)),
            kubeconfig: cluster.kubeconfig().unwrap(),
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(words(line))
            .env("KUBE_EDITOR", "sed -i s/blue/edited/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, line: &str, input: &str) -> Output {
        let mut child = self.command(line).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Not every command reads its input.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output();
        let output = tokio::time::timeout(PATIENCE, output).await;
        output
            .unwrap_or_else(|_| panic!("{line} does not end"))
            .unwrap()
    }

    /// Runs a command, which must succeed; returns what it printed.
    async fn ok(&self, line: &str) -> String {
        self.ok_with(line, "").await
    }

    /// As [`Kubectl::ok`], with a text on standard input.
    async fn ok_with(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} {line}: {text}{error}",
            self.program.display()
        );
        text
    }

    /// Runs a command, which must fail; returns all that it said.
    async fn fails(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        assert!(!output.status.success(), "{line} should have failed");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Runs commands one after the other; each succeeds and prints the text beside it.
    async fn each_prints(&self, steps: &[(&str, &str)]) {
        for (line, expected) in steps {
            let printed = self.ok(line).await;
            assert!(
                printed.contains(expected),
                "{} {line}: {expected:?} is not in:\n{printed}",
                self.program.display()
            );
        }
    }

    /// Runs commands; each fails and says the text beside it.
    async fn each_complains(&self, steps: &[(&str, &str)]) {
        for (line, expected) in steps {
            let said = self.fails(line, "").await;
            assert!(
                said.contains(expected),
                "{} {line}: {expected:?} is not in:\n{said}",
                self.program.display()
            );
        }
    }

    /// Starts a command that runs until it is dropped.
    fn start(&self, line: &str) -> Running {
        let mut child = self.command(line).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running {
            line: line.to_owned(),
            lines,
            _child: child,
        }
    }
}

/// A command that goes on, killed when it is dropped.
struct Running {
    line: String,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Running {
    /// The next line that contains a text.
    async fn says(&mut self, expected: &str) -> String {
        let next = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.contains(expected) {
                    return line;
                }
            }
            panic!("{} ended without {expected:?}", self.line);
        };
        let line = tokio::time::timeout(PATIENCE, next).await;
        line.unwrap_or_else(|_| panic!("no {expected:?} from {}", self.line))
    }
}

/// Splits a command into words at spaces that do not stand between single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            space if space.is_whitespace() && !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Writes a file into the cluster's directory and returns its path.
fn file(kubectl: &Kubectl, name: &str, text: &str) -> String {
    let folder: &Path = kubectl.kubeconfig.parent().unwrap();
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
