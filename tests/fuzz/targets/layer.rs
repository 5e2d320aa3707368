//! Layers of images: compressed or not, archives or not. What is read of them ends, and stays within its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_oci::layer::{Limits, choose, extract, list};

const LIMITS: Limits = Limits {
    expanded: 4 << 20,
    program: 1 << 20,
};

fuzz_target!(|data: &[u8]| {
    let named = ["app.wasm".to_owned()];
    let Ok(listing) = list(data, &named, LIMITS) else {
        return;
    };
    let Ok(choice) = choose(&[listing], &named) else {
        return;
    };
    let mut program = Vec::new();
    if extract(data, choice.path.as_deref(), LIMITS, &mut program).is_ok() {
        assert!(program.len() <= 1 << 20);
    }
});
