//! The id that a producer gives a message, `UNIQ_KEY`.
//!
//! 16 bytes as 32 upper-case hex digits. Source: `MessageClientIDSetter`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | IPv4 address of this machine |
//! | 2 | process id, low bytes |
//! | 4 | a number of this process' start (Java: hash of the class loader) |
//! | 4 | milliseconds since the first of the month, UTC |
//! | 2 | counter |

use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// A key that no other message has or had.
pub(crate) fn unique_key() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed) as u16;
    let mut key = String::with_capacity(32);
    encode(&PREFIX, now_ms(), counter, &mut key);
    key
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The address that this machine would use to reach others; 127.0.0.1 when it reaches nobody.
pub(crate) fn local_ip() -> Ipv4Addr {
    *LOCAL_IP
}

static LOCAL_IP: LazyLock<Ipv4Addr> = LazyLock::new(|| {
    // Connecting a datagram socket sends nothing; it only looks up the way there.
    let looked_up = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    match looked_up.map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST,
    }
});

static PREFIX: LazyLock<[u8; 10]> = LazyLock::new(|| {
    let mut prefix = [0; 10];
    prefix[..4].copy_from_slice(&local_ip().octets());
    prefix[4..6].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_i64(now_ms());
    prefix[6..].copy_from_slice(&(hasher.finish() as u32).to_be_bytes());
    prefix
});

fn encode(prefix: &[u8; 10], now_ms: i64, counter: u16, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let elapsed = (now_ms - month_start_ms(now_ms)) as u32;
    for byte in prefix.iter().chain(&elapsed.to_be_bytes()).chain(&counter.to_be_bytes()) {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 0xF)]));
    }
}

/// When the month of `now_ms` began, UTC. The Gregorian calendar counted from 1 March 0000, when
/// leap days stand at the end of a year.
fn month_start_ms(now_ms: i64) -> i64 {
    let days = now_ms.div_euclid(DAY_MS);
    let day_of_era = (days + 719_468).rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    (days - day_of_month) * DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_laid_out_as_apaches() {
        let prefix = [127, 0, 0, 1, 0x12, 0x34, 0xDE, 0xAD, 0xBE, 0xEF];
        let mut key = String::new();
        // 2026-11-21T12:00:00.001Z is 20.5 days and 1 ms after the first of November.
        encode(&prefix, 1_795_262_400_001, 0xFF, &mut key);
        assert_eq!(key, "7F0000011234DEADBEEF69925E0100FF");
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (now, start) in [
            (0, 0),
            (1_709_208_000_000, 1_706_745_600_000), // 29 February 2024
            (1_709_251_200_000, 1_709_251_200_000), // 1 March 2024
            (1_735_689_599_999, 1_733_011_200_000), // the last moment of 2024
        ] {
            assert_eq!(month_start_ms(now), start, "{now}");
        }
    }

    #[test]
    fn keys_are_32_digits_and_differ() {
        let keys: std::collections::HashSet<_> = (0..1000).map(|_| unique_key()).collect();
        assert_eq!(keys.len(), 1000);
        for key in keys {
            assert!(
                key.len() == 32
                    && key.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
            );
        }
    }
}
