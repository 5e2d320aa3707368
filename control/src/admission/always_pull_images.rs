//! `AlwaysPullImages`: every container asks the registry for its image, so that nobody runs what another pod
//! of the node had the rights to pull.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::strategy::Endpoint;

pub(super) struct AlwaysPullImages;

/// Where a pod has containers.
const CONTAINERS: [&str; 3] = [
    "/spec/initContainers",
    "/spec/containers",
    "/spec/ephemeralContainers",
];

impl Admission for AlwaysPullImages {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if attributes.kind() != "Pod" || attributes.endpoint == Endpoint::Status || object.is_null()
        {
            return Ok(());
        }
        let old = attributes.old;
        for pointer in CONTAINERS {
            let before = old
                .and_then(|old| old.pointer(pointer))
                .and_then(Value::as_array);
            let containers = object.pointer_mut(pointer).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                // The policy of a container that is there cannot change; only another image is asked for anew.
                let is_same = |old: &Value| old.get("image") == container.get("image");
                let is_known = before.is_some_and(|before| before.iter().any(is_same));
                if let Some(container) = container.as_object_mut().filter(|_| !is_known) {
                    container.insert("imagePullPolicy".into(), "Always".into());
                }
            }
        }
        let volumes = object
            .pointer_mut("/spec/volumes")
            .and_then(Value::as_array_mut);
        for volume in volumes
            .into_iter()
            .flatten()
            .filter(|_| attributes.old.is_none())
        {
            if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
                image.insert("pullPolicy".into(), "Always".into());
            }
        }
        Ok(())
    }
}
