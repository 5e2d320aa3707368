//! Protobuf bodies: whatever decodes and passes the check comes back the same after encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use windlass_api::schema::Schema;
use windlass_api::schema::protobuf::envelope;
use windlass_fuzz::choose_kind;

fuzz_target!(|data: &[u8]| {
    let _ = envelope::open(data);
    let schema = Schema::builtin();
    let Some((_, ty, message)) = choose_kind(data) else {
        return;
    };
    let Ok(mut object) = schema.decode_protobuf(ty, message) else {
        return;
    };
    let report = schema.check(ty, &mut object);
    assert!(report.unknown.is_empty(), "{:?}", report.unknown);
    if report.type_errors.is_empty() {
        let message = schema
            .encode_protobuf(ty, &object)
            .expect("checked objects encode");
        let mut again = schema
            .decode_protobuf(ty, &message)
            .expect("own messages decode");
        schema.check(ty, &mut again);
        let message_again = schema
            .encode_protobuf(ty, &again)
            .expect("checked objects encode");
        assert_eq!(message, message_again);
    }
});
