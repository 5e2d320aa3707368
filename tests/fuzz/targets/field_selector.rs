//! Field selectors in queries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::field_selector::FieldSelector;

fuzz_target!(|text: &str| {
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.matches(|_| Some("x"));
    }
});
