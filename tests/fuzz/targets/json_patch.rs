//! RFC 6902 patches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_control::patch::json;
use windlass_fuzz::pair;

fuzz_target!(|data: &[u8]| {
    if let Some((object, patch)) = pair(data) {
        let _ = json::patch(&object, &patch);
    }
});
