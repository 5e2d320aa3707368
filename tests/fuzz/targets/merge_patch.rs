//! RFC 7396 patches: applying one twice changes nothing more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_control::patch::merge;
use windlass_fuzz::pair;

fuzz_target!(|data: &[u8]| {
    if let Some((object, patch)) = pair(data)
        && let Ok(once) = merge::patch(&object, &patch)
    {
        assert_eq!(merge::patch(&once, &patch), Ok(once));
    }
});
