//! Exec and attach: the client's upgrade, passed through to the node that runs the container.

use axum::response::Response;
use serde_json::Value;
use windlass_api::stream::remote_command::Streams;

use super::{Daemon, NodeConnector, pod};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::Context;
use crate::server::request_info::Query;
use crate::store::Snapshot;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoteCommand {
    /// A new process in a container.
    Exec,
    /// The container's own.
    Attach,
}

impl NodeConnector {
    /// Connects the client to a process of `pod`.
    pub(crate) async fn remote_command(
        &self,
        command: RemoteCommand,
        pod: &Value,
        context: &Context,
        snapshot: &Snapshot,
    ) -> Result<Response, ApiError> {
        let path = path(command, pod, &context.query)?;
        let daemon = Daemon::of_pod(pod, snapshot)?;
        self.pass_upgrade(&daemon, path, context).await
    }
}

/// The node's endpoint for what the query asks.
fn path(command: RemoteCommand, pod: &Value, query: &Query) -> Result<String, ApiError> {
    let container = pod::container(pod, query.get("container"))?;
    let streams = Streams {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    let streams = streams.checked();
    let streams = streams.map_err(|text| ApiError::BadRequest(text.to_owned()))?;
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    parameters.extend_pairs(streams.kubelet_query());
    let endpoint = match command {
        RemoteCommand::Attach => "attach",
        RemoteCommand::Exec => {
            parameters.extend_pairs(query.all("command").map(|word| ("command", word)));
            "exec"
        }
    };
    let (namespace, name) = (meta::namespace(pod), meta::name(pod));
    let parameters = parameters.finish();
    Ok(format!(
        "/{endpoint}/{namespace}/{name}/{container}?{parameters}"
    ))
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use serde_json::json;

    use super::*;

    fn found(command: RemoteCommand, query: &str) -> Result<String, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c"}]}});
        let uri: Uri = format!("/?{query}").parse().unwrap();
        path(command, &pod, &Query::of(&uri)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_become_those_of_a_kubelet() {
        let exec = "command=echo&command=a%20b&stdin=1&stdout=true&stderr=true&tty=true";
        assert_eq!(
            found(RemoteCommand::Exec, exec).unwrap(),
            "/exec/n/p/c?input=1&output=1&tty=1&command=echo&command=a+b"
        );
        let attach = found(RemoteCommand::Attach, "stdout=true&stderr=1&container=c");
        assert_eq!(attach.unwrap(), "/attach/n/p/c?output=1&error=1");
        let none = found(RemoteCommand::Attach, "stdout=false").unwrap_err();
        assert_eq!(none, "you must specify at least 1 of stdin, stdout, stderr");
    }
}
