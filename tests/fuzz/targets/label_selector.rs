//! Label selectors in queries: a parsed selector, written out, is the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::label_selector::LabelSelector;

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string());
        assert_eq!(again.as_ref(), Ok(&selector));
    }
});
