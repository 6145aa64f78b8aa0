//! Bodies in fastjson's dialect, and compressed registrations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weirmq_remoting::body::{
    Body as _, HeartbeatData, LockBatchRequestBody, RegisterBrokerBody, TopicRouteData,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = HeartbeatData::decode(bytes);
    let _ = LockBatchRequestBody::decode(bytes);
    let _ = RegisterBrokerBody::decode_form(bytes, true);
    if let Ok(route) = TopicRouteData::decode(bytes) {
        let again = TopicRouteData::decode(&route.encode()).expect("our own body");
        assert_eq!(again.encode(), route.encode());
    }
});
