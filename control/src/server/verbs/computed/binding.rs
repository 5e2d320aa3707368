//! POST namespaces/NAMESPACE/bindings: the old way to bind a pod, by the name in the object.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Computed;
use crate::registry::Call;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::verbs::{Request, subresource};

pub(super) struct Bindings;

#[async_trait]
impl Computed for Bindings {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "bindings")
    }

    async fn create(&self, request: &Request<'_>, binding: Value) -> Result<Value, ApiError> {
        let served = request
            .server
            .registry()
            .find("", "v1", "pods")
            .ok_or(ApiError::NoSuchPath)?;
        let call = Call {
            served,
            namespace: &request.context.info.namespace,
            name: meta::name(&binding),
            options: &request.options,
        };
        subresource::bind_pod(request.server.registry(), &call, &binding).await?;
        Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        }))
    }
}
