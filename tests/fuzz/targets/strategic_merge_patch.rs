//! Strategic merge patches on a Deployment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::schema::Schema;
use windlass_control::patch::strategic_merge;
use windlass_fuzz::{deployment, pair};

fuzz_target!(|data: &[u8]| {
    if let (Some((object, patch)), Some(ty)) = (pair(data), deployment()) {
        let _ = strategic_merge::patch(Schema::builtin(), ty, &object, &patch);
    }
});
