//! Cutting the byte stream into frames.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of everything that follows |
//! | 1 | form of the header: 0 JSON, 1 binary |
//! | 3 | length of the header |
//! | n | header |
//! | rest | body |
//!
//! Source: `RemotingCommand.decode`, `NettyDecoder`.

use crate::command::SerializeType;

/// Bytes in front of a header.
pub const PREFIX_BYTES: usize = 8;
/// The longest frame by default, as Apache's `com.rocketmq.remoting.frameMaxLength`.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest header: 32,767 bytes of properties with every byte escaped, and room for the rest.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;

/// One frame inside a read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub serialize: SerializeType,
    pub header: &'a [u8],
    pub body: &'a [u8],
}

/// How the front of a buffer looks.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole frame, and the bytes that it takes.
    Frame(Frame<'a>, usize),
    /// A frame's beginning; it is whole with this many bytes.
    Need(usize),
}

/// Why the stream cannot be read on. The connection has to be closed: where the next frame would
/// begin is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {length} bytes, the limit is {max}")]
    TooLong { length: u32, max: usize },
    #[error("frame of {length} bytes is too short to hold a header of {header} bytes")]
    TooShort { length: u32, header: usize },
    #[error("header of {length} bytes, the limit is {HEADER_BYTES_MAX}")]
    HeaderTooLong { length: usize },
    #[error("header form {0} is neither JSON (0) nor binary (1)")]
    SerializeType(u8),
}

/// The first frame that this side itself wrote into `bytes`, and the bytes that it takes. The
/// limits are for peers: the reply to a large batch has a longer header than any request may.
pub fn split_written(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (mark, rest) = rest.get(..length)?.split_first_chunk::<4>()?;
    let serialize = SerializeType::from_number(mark[0])?;
    let header_length = u32::from_be_bytes([0, mark[1], mark[2], mark[3]]) as usize;
    let (header, body) = rest.split_at_checked(header_length)?;
    Some((Frame { serialize, header, body }, length + 4))
}

/// Looks at the front of `bytes`. Lengths are checked as soon as they are there, before any byte
/// behind them is waited for.
pub fn split(bytes: &[u8], frame_bytes_max: usize) -> Result<Split<'_>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(Split::Need(PREFIX_BYTES));
    };
    let length = u32::from_be_bytes(*length);
    if length as usize > frame_bytes_max {
        return Err(FrameError::TooLong { length, max: frame_bytes_max });
    }
    let Some((mark, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(Split::Need(PREFIX_BYTES));
    };
    let header_length = u32::from_be_bytes([0, mark[1], mark[2], mark[3]]) as usize;
    let serialize =
        SerializeType::from_number(mark[0]).ok_or(FrameError::SerializeType(mark[0]))?;
    if header_length > HEADER_BYTES_MAX {
        return Err(FrameError::HeaderTooLong { length: header_length });
    }
    let Some(body_length) = (length as usize).checked_sub(4 + header_length) else {
        return Err(FrameError::TooShort { length, header: header_length });
    };
    let total = PREFIX_BYTES + header_length + body_length;
    if bytes.len() < total {
        return Ok(Split::Need(total));
    }
    let (header, rest) = rest.split_at(header_length);
    Ok(Split::Frame(Frame { serialize, header, body: &rest[..body_length] }, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + header.len() as u32 + body.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        let bytes = frame(b"{}", b"body");
        for cut in 0..bytes.len() {
            assert!(matches!(split(&bytes[..cut], 1000), Ok(Split::Need(need)) if need > cut));
        }
        let expected = Frame { serialize: SerializeType::Json, header: b"{}", body: b"body" };
        assert_eq!(split(&bytes, 1000), Ok(Split::Frame(expected, bytes.len())));
    }

    #[test]
    fn lengths_are_refused_before_their_bytes_are_there() {
        assert!(matches!(split(&[0x7F, 0, 0, 0], 1000), Err(FrameError::TooLong { .. })));
        assert!(matches!(split(&[0xFF; 4], usize::MAX), Ok(Split::Need(_))));
        assert!(matches!(split(&[0, 0, 0, 4, 0, 0, 0, 9], 1000), Err(FrameError::TooShort { .. })));
        assert!(matches!(split(&[0, 0, 0, 0, 0, 0, 0, 0], 1000), Err(FrameError::TooShort { .. })));
        assert!(matches!(
            split(&[0, 0, 0, 99, 9, 0, 0, 9], 1000),
            Err(FrameError::SerializeType(9))
        ));
        let long = split(&[0, 0xFF, 0, 0, 0, 0xFE, 0, 0], FRAME_BYTES_MAX);
        assert!(matches!(long, Err(FrameError::HeaderTooLong { .. })));
    }
}
