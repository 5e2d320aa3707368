//! Continue tokens: what decodes, encodes to a token that says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_control::registry::list::Continue;

fuzz_target!(|token: &str| {
    if let Ok(decoded) = Continue::decode(token) {
        assert_eq!(Continue::decode(&decoded.encode()).ok(), Some(decoded));
    }
});
