//! JSON bodies: decoded, checked against a kind's schema, decoded again as they would be stored.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::schema::{Schema, decode_json, strict_messages};
use windlass_fuzz::choose_kind;

fuzz_target!(|data: &[u8]| {
    let Some((_, ty, data)) = choose_kind(data) else {
        return;
    };
    let Ok(decoded) = decode_json(data) else {
        return;
    };
    let mut object = decoded.value;
    let report = Schema::builtin().check(ty, &mut object);
    let _ = strict_messages(&decoded.duplicates, &report.unknown);
    if report.type_errors.is_empty() {
        let again = Schema::builtin().check(ty, &mut object.clone());
        assert!(again.type_errors.is_empty() && again.unknown.is_empty());
        let stored =
            decode_json(object.to_string().as_bytes()).expect("what was read can be written");
        assert_eq!(stored.value, object);
    }
});
