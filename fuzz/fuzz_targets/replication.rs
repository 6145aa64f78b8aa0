//! Frames between replicas, as a connection reads them.
#![no_main]

// The broker keeps its frames to itself.
#[path = "../../broker/src/replication/frame.rs"]
mod frame;

/// What a frame of offsets holds, as in `broker/src/offsets.rs`.
mod offsets {
    #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    pub(crate) struct CommittedOffset {
        pub group: String,
        pub topic: String,
        pub queue: i32,
        pub offset: i64,
    }
}

use bytes::Bytes;
use frame::{Frame, HEAD_BYTES, contents_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let Ok((kind, length)) = contents_bytes(*head, 1 << 20) else { return };
        let Some((contents, next)) = after.split_at_checked(length) else { return };
        if let Ok(frame) = Frame::decode(kind, Bytes::copy_from_slice(contents)) {
            let mut encoded = Vec::new();
            frame.encode(&mut encoded);
            let (kind, length) = contents_bytes(*encoded.first_chunk().unwrap(), 1 << 22).unwrap();
            assert_eq!(length, encoded.len() - HEAD_BYTES);
            let again = Frame::decode(kind, Bytes::from(encoded).slice(HEAD_BYTES..)).unwrap();
            assert_eq!(again, frame);
        }
        rest = next;
    }
});
