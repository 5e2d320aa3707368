//! YAML bodies and object files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::schema::decode_yaml_documents;

fuzz_target!(|data: &[u8]| {
    if let Ok(documents) = decode_yaml_documents(data) {
        for document in documents {
            let _ = document.value.to_string();
        }
    }
});
