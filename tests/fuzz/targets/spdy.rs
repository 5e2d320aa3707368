//! SPDY frames, as a node agent and the API server read them from strangers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::stream::spdy::decode_all;

fuzz_target!(|data: &[u8]| {
    let _ = decode_all(data);
});
