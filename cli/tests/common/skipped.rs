//! Skips that are counted.

/// Says that a test can say nothing here, and why. Past the test harness, which keeps what passing
/// tests print to itself: `make test` counts these lines.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub(crate) fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
