//! Times and durations as people type and read them.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Where to begin reading a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    Earliest,
    Latest,
    /// Milliseconds since 1970, by the broker's clock.
    Time(i64),
}

/// Reads `10s`, `500ms`, `1h30m`, `2d`. A number without a unit is refused: nobody agrees on one.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("`{text}` is no duration; write 500ms, 10s, 5m, 1h30m or 2d");
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    if let Some(days) = days {
        return Ok(Duration::from_secs(u64::from(days) * 86_400));
    }
    let parsed: SignedDuration = text.parse().map_err(|_| problem())?;
    Duration::try_from(parsed).map_err(|_| problem())
}

/// Reads `earliest`, `latest` or a time.
pub(crate) fn parse_from(text: &str) -> Result<ReadFrom, String> {
    match text {
        "earliest" => Ok(ReadFrom::Earliest),
        "latest" => Ok(ReadFrom::Latest),
        _ => parse_time(text).map(ReadFrom::Time),
    }
}

/// Reads a point in time as milliseconds since 1970: a date and time with a zone, or without one
/// in this machine's; a date; milliseconds; or a duration, which counts back from now.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        return parse_milliseconds(text);
    }
    let ago = text.strip_suffix("ago").map_or(text, str::trim_end);
    if let Ok(duration) = parse_duration(ago) {
        let back =
            i64::try_from(duration.as_millis()).map_err(|_| format!("`{text}` is too long"))?;
        return Ok(Timestamp::now().as_millisecond() - back);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.as_millisecond());
    }
    let local = text.parse::<jiff::civil::DateTime>().ok();
    let zoned = local.and_then(|local| local.to_zoned(TimeZone::system()).ok());
    zoned.map(|zoned| zoned.timestamp().as_millisecond()).ok_or_else(|| {
        format!("`{text}` is no time; write 2026-01-31T12:00:00Z, 2026-01-31 12:00, milliseconds since 1970, or 10m for ten minutes ago")
    })
}

/// Milliseconds have 12 digits since 1973 and 13 since 2001; ten digits are surely seconds.
fn parse_milliseconds(text: &str) -> Result<i64, String> {
    match text.len() {
        12..=15 => text.parse().map_err(|_| format!("`{text}` is no time")),
        _ => Err(format!("`{text}` is no time in milliseconds since 1970, which has 13 digits")),
    }
}

/// A broker's time in this machine's zone, `2026-01-31 12:00:00.000`; `-` for 0, which brokers
/// say for never.
pub(crate) fn format_time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) if milliseconds > 0 => {
            time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        for bad in ["", "10", "-5s", "fast", "1y"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_taken_in_several_forms() {
        assert_eq!(parse_from("earliest"), Ok(ReadFrom::Earliest));
        assert_eq!(parse_from("latest"), Ok(ReadFrom::Latest));
        let noon = 1_769_860_800_000;
        assert_eq!(parse_time("2026-01-31T12:00:00Z"), Ok(noon));
        assert_eq!(parse_time("2026-01-31 20:00:00+08:00"), Ok(noon));
        assert_eq!(parse_time("1769860800000"), Ok(noon));
        let local = parse_time("2026-01-31 12:00").unwrap();
        assert_eq!(format_time(local), "2026-01-31 12:00:00.000");
        let ago = parse_time("10m ago").unwrap() + 600_000 - Timestamp::now().as_millisecond();
        assert!(ago.abs() < 5_000, "{ago}");
        for bad in ["", "yesterday", "1769860800", "2026-13-01"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        assert_eq!(format_time(0), "-");
    }
}
