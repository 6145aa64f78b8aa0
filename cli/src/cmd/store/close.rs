//! `weir store close`: leaves a directory as a clean stop would have.

use anyhow::Context as _;

use super::Place;
use crate::exit::Failure;

/// Recover a directory and close it cleanly, so that Apache's broker may open it
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir store close weir-data\n\n\
    Does what starting and stopping a broker does, without listening: the torn tail of a crash is\n\
    cut, derived files are completed, config/*.json are written, `abort` goes away.")]
pub(super) struct CloseArgs {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: CloseArgs) -> anyhow::Result<()> {
    let directory = args.place.open()?;
    directory.check_unused()?;
    let Some(config) = directory.store_config()? else {
        let problem = format!(
            "{} has no weir/format.json: no WeirMQ broker has used it",
            args.place.path().display()
        );
        return Err(Failure::NotFound(problem).into());
    };
    drop(directory);
    let report = weirmq_broker::close_directory(config).context("close the store")?;
    let object = serde_json::json!({
        "wasClosed": report.was_clean,
        "logStart": report.log_start,
        "logEnd": report.log_end,
        "cutBytes": report.cut_bytes,
        "cutRecords": report.cut_records,
        "rebuiltSegments": report.rebuilt_segments,
    });
    let cut = match report.cut_bytes {
        0 => String::new(),
        bytes => format!("; {bytes} bytes with {} whole records were cut", report.cut_records),
    };
    let text = format!("closed; the log ends at {}{cut}", report.log_end);
    Ok(args.place.output().done(&text, &object)?)
}
