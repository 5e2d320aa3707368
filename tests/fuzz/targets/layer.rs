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
    let Ok(listing) = list(data, Some("./app.wasm"), &named, LIMITS) else {
        return;
    };
    let Ok(chosen) = choose(&[listing], &named) else {
        return;
    };
    let archived = chosen.iter().filter(|choice| choice.in_archive);
    let paths: Vec<_> = archived.filter_map(|choice| choice.name.clone()).collect();
    let mut lengths = vec![0; chosen.len()];
    let counted = |at: usize, bytes: &[u8]| {
        lengths[at] += bytes.len();
        Ok(())
    };
    if extract(data, &paths, LIMITS, counted).is_ok() {
        assert!(lengths.iter().all(|length| *length <= 1 << 20));
    }
});
