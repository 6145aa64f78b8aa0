//! Compressing bodies that are sent and inflating those that are received.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use weirmq_message::sys_flag::{self, Compression};

/// What a compressed body may inflate to, in bytes: far more than any producer sends.
const INFLATED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// `sysFlag` of a body compressed with zlib. Source: `MessageSysFlag.COMPRESSION_ZLIB_TYPE`.
pub(crate) const ZLIB_FLAGS: i32 = sys_flag::COMPRESSED | 3 << 8;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("body is compressed with {0:?}, this client reads zlib only")]
    Compression(Compression),
    #[error("body is no zlib stream: {0}")]
    Damaged(String),
    #[error("body inflates to more than {INFLATED_BYTES_MAX} bytes")]
    TooLarge,
}

/// The zlib stream of `body`. `level` is 0 to 9.
pub(crate) fn compress(body: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    let mut encoder =
        ZlibEncoder::new(Vec::with_capacity(body.len() / 2), Level::new(level.min(9)));
    encoder.write_all(body)?;
    encoder.finish()
}

/// The body that the producer gave, from the one that was stored.
pub(crate) fn plain(stored: Bytes, sys_flag: i32) -> Result<Bytes, BodyError> {
    match sys_flag::compression(sys_flag) {
        None => Ok(stored),
        Some(Compression::Zlib) => {
            let mut inflated = Vec::new();
            let mut decoder = ZlibDecoder::new(&*stored).take(INFLATED_BYTES_MAX + 1);
            let read = decoder.read_to_end(&mut inflated);
            read.map_err(|error| BodyError::Damaged(error.to_string()))?;
            if inflated.len() as u64 > INFLATED_BYTES_MAX {
                return Err(BodyError::TooLarge);
            }
            Ok(inflated.into())
        }
        Some(other) => Err(BodyError::Compression(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_body_comes_back_and_damage_is_noticed() {
        let body = b"abc".repeat(5000);
        let compressed = Bytes::from(compress(&body, 5).unwrap());
        assert!(compressed.len() < 200);
        assert_eq!(plain(compressed.clone(), ZLIB_FLAGS).unwrap(), body);
        assert_eq!(plain(compressed.clone(), sys_flag::COMPRESSED).unwrap(), body);
        for cut in [0, 1, compressed.len() / 2, compressed.len() - 1] {
            assert!(matches!(
                plain(compressed.slice(..cut), ZLIB_FLAGS),
                Err(BodyError::Damaged(_))
            ));
        }
        assert_eq!(plain(Bytes::from_static(b"x"), 0).unwrap(), "x");
    }

    #[test]
    fn other_compressions_and_bombs_are_named() {
        let lz4 = plain(Bytes::new(), sys_flag::COMPRESSED | 1 << 8).unwrap_err();
        assert!(lz4.to_string().contains("Lz4"), "{lz4}");
        let bomb = compress(&vec![0; INFLATED_BYTES_MAX as usize + 1], 1).unwrap();
        assert_eq!(plain(bomb.into(), ZLIB_FLAGS), Err(BodyError::TooLarge));
    }
}
