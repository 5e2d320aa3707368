//! The plugin that containerd runs: from its environment and standard input to a question, and from the agent's answer to
//! standard output.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Command, Failure, Request, VERSIONS, result};

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest configuration that is read.
const LONGEST: u64 = 1 << 20;

/// What containerd hands over on standard input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    socket: PathBuf,
}

/// Does what a CNI plugin is asked for: `variable` reads its environment. Writes to `output` what its caller has to read.
///
/// # Errors
/// The output can't be written. What went wrong otherwise is said there, and `false` is answered.
pub fn run(
    variable: impl Fn(&str) -> Option<String>,
    input: impl Read,
    output: &mut impl Write,
) -> io::Result<bool> {
    let mut version = "1.0.0".to_owned();
    let (answer, is_success) = match answer(&variable, input, &mut version) {
        Ok(answer) => (answer, true),
        Err(Failure { code, message }) => (
            Some(json!({"cniVersion": version, "code": code, "msg": message})),
            false,
        ),
    };
    if let Some(answer) = answer {
        writeln!(output, "{answer}")?;
    }
    Ok(is_success)
}

fn answer(
    variable: &impl Fn(&str) -> Option<String>,
    input: impl Read,
    version: &mut String,
) -> Result<Option<Value>, Failure> {
    let configuration: Configuration = serde_json::from_reader(input.take(LONGEST))
        .map_err(|error| Failure::configuration(format!("read the configuration: {error}")))?;
    let asked = variable("CNI_COMMAND");
    if asked.as_deref() == Some("VERSION") {
        return Ok(Some(
            json!({"cniVersion": "1.0.0", "supportedVersions": VERSIONS}),
        ));
    }
    let spoken = configuration.cni_version;
    if !VERSIONS.contains(&spoken.as_str()) {
        let message = format!("cniVersion {spoken:?}: one of {VERSIONS:?} is spoken");
        return Err(Failure { code: 1, message });
    }
    *version = spoken;
    let required = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| Failure::environment(format!("{name} is not set")))
    };
    let command = match asked.as_deref() {
        Some("ADD") => Command::Add,
        Some("DEL") => Command::Del,
        Some("CHECK") => Command::Check,
        other => {
            let message = format!("CNI_COMMAND {:?} is unknown", other.unwrap_or_default());
            return Err(Failure::environment(message));
        }
    };
    let netns = match command {
        // It may be gone.
        Command::Del => variable("CNI_NETNS").unwrap_or_default(),
        Command::Add | Command::Check => required("CNI_NETNS")?,
    };
    let request = Request {
        command,
        container_id: required("CNI_CONTAINERID")?,
        netns,
        interface: required("CNI_IFNAME")?,
        uid: pod_uid(&required("CNI_ARGS")?)?,
    };
    match ask(&configuration.socket, &request) {
        Ok(Answer::Added(added)) => Ok(Some(result(version, &added, &request))),
        Ok(Answer::Done) => Ok(None),
        Ok(Answer::Failed(failure)) => Err(failure),
        // A link goes with its namespace, and what else there is when the agent is back.
        Err(_) if command == Command::Del => Ok(None),
        Err(error) => Err(Failure::later(format!(
            "ask the node agent at {}: {error}",
            configuration.socket.display()
        ))),
    }
}

/// The pod, as whoever runs its sandbox names it.
fn pod_uid(arguments: &str) -> Result<String, Failure> {
    let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
    let uid = pairs.find(|(name, _)| *name == "K8S_POD_UID");
    let uid = uid.map(|(_, uid)| uid.to_owned());
    uid.ok_or_else(|| Failure::environment(format!("CNI_ARGS {arguments:?} has no K8S_POD_UID")))
}

fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::os::unix::net::UnixListener;

    fn run_with(variables: &[(&str, &str)], input: &str) -> (bool, Value) {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let mut output = Vec::new();
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let success = run(variable, input.as_bytes(), &mut output).unwrap();
        (
            success,
            serde_json::from_slice(&output).unwrap_or(Value::Null),
        )
    }

    const POD: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a;K8S_POD_UID=u"),
    ];

    fn with(command: &'static str) -> Vec<(&'static str, &'static str)> {
        let mut all = POD.to_vec();
        all.push(("CNI_COMMAND", command));
        all
    }

    #[test]
    fn it_says_which_versions_it_speaks() {
        let (success, answer) =
            run_with(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"1.0.0"}"#);
        assert!(success);
        assert_eq!(answer["supportedVersions"], json!(VERSIONS));
    }

    #[test]
    fn it_says_what_it_cannot_do_with_the_codes_of_the_specification() {
        let without = |name: &str| {
            let mut all = with("ADD");
            all.retain(|(known, _)| *known != name);
            all
        };
        let good = r#"{"cniVersion":"1.0.0","socket":"/nowhere"}"#;
        for (variables, input, code) in [
            (with("ADD"), "{", 6),
            (with("ADD"), r#"{"cniVersion":"0.1.0"}"#, 1),
            (with("DANCE"), good, 4),
            (without("CNI_NETNS"), good, 4),
            (without("CNI_ARGS"), good, 4),
            (with("ADD"), good, 11),
            (with("CHECK"), good, 11),
        ] {
            let (success, answer) = run_with(&variables, input);
            assert!(!success);
            assert_eq!(answer["code"], code, "{answer}");
        }
    }

    #[test]
    fn a_removal_succeeds_without_an_agent() {
        let good = r#"{"cniVersion":"1.0.0","socket":"/nowhere"}"#;
        assert_eq!(run_with(&with("DEL"), good), (true, Value::Null));
    }

    #[test]
    fn it_passes_on_what_the_agent_says() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let asked: Request = serde_json::from_str(&line).unwrap();
            let answer = json!({"Added": {"address": "10.0.0.2", "mac": "02:57:01:00:00:01"}});
            writeln!(stream, "{answer}").unwrap();
            asked
        });
        let input = json!({"cniVersion": "1.0.0", "socket": socket}).to_string();
        let (success, answer) = run_with(&with("ADD"), &input);
        assert!(success, "{answer}");
        assert_eq!(answer["ips"][0]["address"], "10.0.0.2/32");
        let asked = agent.join().unwrap();
        assert_eq!((asked.uid.as_str(), asked.command), ("u", Command::Add));
    }
}
