//! ComponentStatus: whether the parts of the control plane are well. Deprecated upstream since v1.19;
//! old dashboards still ask. The parts live in one process here: while it answers, they run.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Computed;
use crate::registry::error::ApiError;
use crate::server::verbs::Request;

pub(super) struct ComponentStatuses;

const COMPONENTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

#[async_trait]
impl Computed for ComponentStatuses {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "componentstatuses")
    }

    async fn list(&self, _: &Request<'_>) -> Result<Vec<Value>, ApiError> {
        let component = |name: &str| {
            json!({
                "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
                "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
            })
        };
        Ok(COMPONENTS.map(component).into())
    }

    fn warning(&self) -> Option<String> {
        Some("v1 ComponentStatus is deprecated in v1.19+".into())
    }
}
