//! Pods' network namespaces, by the Container Network Interface.
//!
//! ```text
//!   containerd ── runs ──► plugin.rs: `windlass` with CNI_COMMAND in its environment
//!                             │ a line of JSON each way, over a socket that only root can open
//!                             ▼
//!                          server.rs in the agent: which pod is that? ──► KernelNetwork::join, ::leave
//! ```
//!
//! The plugin knows nothing: the agent gave the pod its address before containerd made its namespace. [`install`] writes
//! what containerd has to read.
//!
//! Source: the CNI specification 1.0.0, versions 0.3.0 to 1.0.0.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) mod plugin;
pub(super) mod server;

/// The name under which the plugin is installed, and of the network.
const NAME: &str = "windlass";

/// The versions of the specification that are spoken.
const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// What the plugin asks of the agent.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    command: Command,
    /// The sandbox, for whoever runs it.
    container_id: String,
    /// Path of the network namespace; empty if it is gone.
    netns: String,
    /// Name of the pod's end of the link.
    interface: String,
    /// The pod.
    uid: String,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Command {
    Add,
    Del,
    Check,
}

/// What the agent says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Added(Added),
    Done,
    Failed(Failure),
}

/// A pod that has its link.
#[derive(Debug, Serialize, Deserialize)]
struct Added {
    address: std::net::Ipv4Addr,
    mac: String,
}

/// Why nothing was done, with a code of the specification.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    code: u32,
    message: String,
}

impl Failure {
    /// The container is unknown here.
    fn unknown(message: impl Into<String>) -> Self {
        Self {
            code: 3,
            message: message.into(),
        }
    }

    /// The environment of the plugin makes no sense.
    fn environment(message: impl Into<String>) -> Self {
        Self {
            code: 4,
            message: message.into(),
        }
    }

    /// The configuration can't be read.
    fn configuration(message: impl Into<String>) -> Self {
        Self {
            code: 6,
            message: message.into(),
        }
    }

    /// Trying again later helps.
    fn later(message: impl Into<String>) -> Self {
        Self {
            code: 11,
            message: message.into(),
        }
    }
}

/// Lets containerd find the plugin: `program`, which does as a plugin when it is run with `CNI_COMMAND` in its environment,
/// under its name in `bin_dir`, and its configuration in `conf_dir`.
///
/// # Errors
/// A directory or file can't be made.
pub fn install(program: &Path, bin_dir: &Path, conf_dir: &Path, socket: &Path) -> io::Result<()> {
    std::fs::create_dir_all(bin_dir)?;
    std::fs::create_dir_all(conf_dir)?;
    let link = bin_dir.join(NAME);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(program, link)?;
    let configuration = json!({
        "cniVersion": "1.0.0",
        "name": NAME,
        "plugins": [{"type": NAME, "socket": socket}],
    });
    let path = conf_dir.join("10-windlass.conflist");
    // Whoever watches the directory sees the file whole.
    let mut file = tempfile::NamedTempFile::new_in(conf_dir)?;
    serde_json::to_writer_pretty(&mut file, &configuration)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The result of an addition, as that version of the specification has it.
fn result(version: &str, added: &Added, request: &Request) -> Value {
    let gateway = super::tables::NEXT_HOP;
    let mut ip = json!({
        "address": format!("{}/32", added.address),
        "gateway": gateway,
        "interface": 0,
    });
    if version.starts_with("0.")
        && let Some(ip) = ip.as_object_mut()
    {
        ip.insert("version".to_owned(), json!("4"));
    }
    json!({
        "cniVersion": version,
        "interfaces": [{
            "name": request.interface,
            "mac": added.mac,
            "sandbox": request.netns,
        }],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": gateway}],
        "dns": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_names_the_plugin_and_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (bin, conf) = (directory.path().join("bin"), directory.path().join("conf"));
        let program = directory.path().join("program");
        std::fs::write(&program, "").unwrap();
        for _ in 0..2 {
            install(&program, &bin, &conf, Path::new("/run/agent.sock")).unwrap();
        }
        assert_eq!(std::fs::read_link(bin.join(NAME)).unwrap(), program);
        let files: Vec<_> = std::fs::read_dir(&conf).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let text = std::fs::read_to_string(conf.join("10-windlass.conflist")).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read["plugins"][0],
            json!({"type": "windlass", "socket": "/run/agent.sock"})
        );
    }

    #[test]
    fn a_result_is_written_as_its_version_asks() {
        let request = Request {
            command: Command::Add,
            container_id: "c".to_owned(),
            netns: "/run/netns/a".to_owned(),
            interface: "eth0".to_owned(),
            uid: "u".to_owned(),
        };
        let added = Added {
            address: std::net::Ipv4Addr::new(10, 0, 0, 2),
            mac: "02:57:01:00:00:01".to_owned(),
        };
        for (version, family) in [("0.4.0", json!("4")), ("1.0.0", Value::Null)] {
            let result = result(version, &added, &request);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"][0]["version"], family);
            assert_eq!(result["ips"][0]["address"], "10.0.0.2/32");
            assert_eq!(result["interfaces"][0]["sandbox"], "/run/netns/a");
        }
    }
}
