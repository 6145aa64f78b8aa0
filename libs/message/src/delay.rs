//! The delay levels of `messageDelayLevel`, as Apache has them by default.

/// The delay of each level from 1 on, in seconds.
pub const LEVEL_SECONDS: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// The delay of a level in milliseconds. Levels beyond the last one mean the last one; `None` for
/// 0 and below, which mean no delay.
pub fn level_ms(level: i32) -> Option<i64> {
    let level = usize::try_from(level).ok().filter(|level| *level > 0)?;
    Some(LEVEL_SECONDS[level.min(LEVEL_SECONDS.len()) - 1] as i64 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_beyond_the_last_are_the_last() {
        assert_eq!(
            (level_ms(1), level_ms(18), level_ms(19)),
            (Some(1000), Some(7_200_000), level_ms(18))
        );
        assert_eq!((level_ms(0), level_ms(-1)), (None, None));
    }
}
