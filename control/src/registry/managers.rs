//! Field managers on every write: who last set which field.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::schema::Schema;

use super::Call;
use super::strategy::Endpoint;
use crate::patch::UpdateRequest;

/// Top-level fields that writing through `endpoint` cannot change.
#[must_use]
pub fn ignored(call: &Call<'_>, endpoint: Endpoint) -> &'static [&'static [&'static str]] {
    match endpoint {
        Endpoint::Main if call.served.kind.strategy.has_status() => &[&["status"]],
        Endpoint::Status => &[&["spec"]],
        _ => &[],
    }
}

/// Records in `new` that the call's manager wrote it in place of `old`.
pub(super) fn record(
    schema: &Schema,
    call: &Call<'_>,
    endpoint: Endpoint,
    old: Option<&Value>,
    new: &mut Value,
) {
    let request = UpdateRequest {
        manager: &call.options.manager,
        api_version: &call.served.kind.info.gvk.api_version(),
        subresource: endpoint.name(),
        now: Timestamp::now(),
        ignored: ignored(call, endpoint),
    };
    crate::patch::record_update(schema, call.served.ty, old, new, &request);
}
