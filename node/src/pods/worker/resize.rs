//! Changes of what running containers may use (`pods/NAME/resize`).
//!
//! 1. The pod's new requests must fit on the node; else the change waits until there is room, or for ever.
//! 2. Containers whose `resizePolicy` asks for a restart get one; the others are told new limits while they run.
//! 3. What each container was told last is in its facts, and from there in its status.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use windlass_api::pod_resources::amounts;

use super::PodWorker;
use crate::pods::facts::{Resize, containers};
use crate::pods::start::limits;

/// How long after a failed change it is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(10);

impl PodWorker {
    /// Brings what running containers may use in line with what the pod says.
    pub(super) fn resize(&mut self) {
        let pod = self.pod.borrow().clone();
        let changed = |container: &&Container| {
            let facts = self.facts.containers.get(&container.name);
            facts.is_some_and(|facts| facts.is_running() && facts.resources != container.resources)
        };
        let all = pod.spec.iter().flat_map(containers);
        let changed: Vec<_> = all
            .map(|(_, container)| container)
            .filter(changed)
            .collect();
        self.facts.resize = None;
        if changed.is_empty() {
            return;
        }
        if let Err(shortage) = self.context.room.take(&self.identity.uid, &pod) {
            self.facts.resize = Some(if shortage.is_for_ever() {
                Resize::Infeasible(shortage.message())
            } else {
                Resize::Deferred(shortage.message())
            });
            return;
        }
        for container in changed {
            if let Err(message) = self.resize_container(container) {
                let name = &container.name;
                self.facts.resize = Some(Resize::Failed(format!("container {name}: {message}")));
            }
        }
    }

    fn resize_container(&mut self, container: &Container) -> Result<(), String> {
        let (Some(facts), Some(instance)) = (
            self.facts.containers.get_mut(&container.name),
            self.instances.get(&container.name),
        ) else {
            return Ok(());
        };
        if needs_restart(container, facts.resources.as_ref()) {
            let text = format!("Container {} resize requires restart", container.name);
            facts.unhealthy = Some(text);
        } else if let Some(target) = &instance.container {
            target.instance.resize(limits(container)?)?;
        }
        facts.resources.clone_from(&container.resources);
        Ok(())
    }
}

/// Whether a resource that changes asks for a restart.
fn needs_restart(container: &Container, before: Option<&ResourceRequirements>) -> bool {
    let after = container.resources.as_ref();
    let differs = |name: &str| {
        let of = |resources: Option<&ResourceRequirements>| {
            let requests = amounts(resources.and_then(|found| found.requests.as_ref()));
            let limits = amounts(resources.and_then(|found| found.limits.as_ref()));
            (requests.get(name).copied(), limits.get(name).copied())
        };
        of(before) != of(after)
    };
    let mut policies = container.resize_policy.iter().flatten();
    policies
        .any(|policy| policy.restart_policy == "RestartContainer" && differs(&policy.resource_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changes_asks_for_a_restart() {
        let container: Container = serde_json::from_value(json!({
            "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Mi" } },
            "resizePolicy": [
                { "resourceName": "cpu", "restartPolicy": "NotRequired" },
                { "resourceName": "memory", "restartPolicy": "RestartContainer" },
            ],
        }))
        .unwrap();
        for (cpu, memory, restart) in [
            ("1", "1Mi", false),
            ("2", "1Mi", false),
            ("1000m", "1048576", false),
            ("1", "2Mi", true),
        ] {
            let before = json!({ "limits": { "cpu": cpu, "memory": memory } });
            let before = serde_json::from_value(before).unwrap();
            assert_eq!(
                needs_restart(&container, Some(&before)),
                restart,
                "{cpu} {memory}"
            );
        }
    }
}
