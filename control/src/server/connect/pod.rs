//! What a request on a pod must name: a container of it, and a node that runs it.

use serde_json::Value;

use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;

/// The node that runs the pod.
pub(super) fn node(pod: &Value) -> Result<&str, ApiError> {
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
    node.filter(|node| !node.is_empty()).ok_or_else(|| {
        ApiError::BadRequest(format!(
            "pod {} does not have a host assigned",
            meta::name(pod)
        ))
    })
}

/// The container asked for, or the only one.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let (main, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let ephemeral = names(pod, "ephemeralContainers");
    let name = meta::name(pod);
    if asked.is_empty() {
        return match main.as_slice() {
            [only] => Ok((*only).to_owned()),
            several => Err(ApiError::BadRequest(which_of(name, several, &init))),
        };
    }
    let mut all = main.iter().chain(&init).chain(&ephemeral);
    if all.any(|known| *known == asked) {
        return Ok(asked.to_owned());
    }
    let text = format!("container {asked} is not valid for pod {name}");
    Err(ApiError::BadRequest(text))
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let containers = pod
        .pointer(&format!("/spec/{list}"))
        .and_then(Value::as_array);
    let containers = containers.into_iter().flatten();
    containers
        .filter_map(|container| container.get("name")?.as_str())
        .collect()
}

fn which_of(name: &str, main: &[&str], init: &[&str]) -> String {
    let mut text = format!("a container name must be specified for pod {name}");
    if !main.is_empty() {
        text = format!("{text}, choose one of: [{}]", main.join(" "));
        if !init.is_empty() {
            text = format!("{text} or one of the init containers: [{}]", init.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_found_or_the_error_says_which_there_are() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
        }});
        let cases = [
            ("b", Ok("b")),
            ("i", Ok("i")),
            ("x", Err("container x is not valid for pod p")),
            (
                "",
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
                ),
            ),
        ];
        for (asked, expected) in cases {
            let found = container(&pod, asked).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        }
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
        let error = node(&one).unwrap_err().to_string();
        assert_eq!(error, "pod p does not have a host assigned");
    }
}
