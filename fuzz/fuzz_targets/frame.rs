//! A stream cut anywhere gives the same frames as the stream at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weirmq_remoting::frame::{FrameError, Split, split};

const FRAME_BYTES_MAX: usize = 4096;

fuzz_target!(|input: (Vec<u8>, usize)| {
    let (stream, step) = input;
    let whole = frames(&stream, stream.len().max(1));
    assert_eq!(whole, frames(&stream, step % 64 + 1));
});

fn frames(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut buffer = Vec::new();
    let mut found = Vec::new();
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match split(&buffer, FRAME_BYTES_MAX) {
                Ok(Split::Frame(_, length)) => found.push(buffer.drain(..length).collect()),
                Ok(Split::Need(need)) => {
                    assert!(need > buffer.len() && need <= FRAME_BYTES_MAX + 8);
                    break;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}
