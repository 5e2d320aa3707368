//! Server-side apply on a Deployment: what one applies twice, the second time changes nothing.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use windlass_api::schema::Schema;
use windlass_control::patch::{ApplyRequest, apply};
use windlass_fuzz::{deployment, pair};

fuzz_target!(|data: &[u8]| {
    let (Some((live, mut config)), Some(ty)) = (pair(data), deployment()) else {
        return;
    };
    let schema = Schema::builtin();
    // As in the server: only a configuration that passed the check is applied.
    if !config.is_object() || !schema.check(ty, &mut config).type_errors.is_empty() {
        return;
    }
    let request = ApplyRequest {
        manager: "fuzz",
        api_version: "apps/v1",
        subresource: "",
        force: true,
        now: Timestamp::UNIX_EPOCH,
        ignored: &[&["status"]],
    };
    let live = Some(&live).filter(|live| live.is_object());
    if let Ok(once) = apply(schema, ty, live, &config, &request) {
        assert_eq!(apply(schema, ty, Some(&once), &config, &request), Ok(once));
    }
});
