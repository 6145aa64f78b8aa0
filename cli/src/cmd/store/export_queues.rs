//! `weir store export-queues`: ConsumeQueues as Apache has them.

use std::path::PathBuf;

use weirmq_store::offline::export_queues;
use weirmq_store::{RealDisk, apache_rule};

use super::Place;

/// Write consumequeue/<topic>/<queue>/ in Apache's layout
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir store export-queues weir-data --to /tmp/queues\n\n\
    Apache's broker derives its queues from the log, but not where a queue goes on whose\n\
    messages have all expired, and 5.5 only from the newest segments: with either, export them\n\
    into the directory before Apache's first start.")]
pub(super) struct ExportQueuesArgs {
    #[command(flatten)]
    place: Place,
    /// Where the folder consumequeue goes [default: DIR itself]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(super) fn run(args: ExportQueuesArgs) -> anyhow::Result<()> {
    let directory = args.place.open()?;
    let to = args.to.as_deref().unwrap_or(args.place.path());
    let report = export_queues(&directory, apache_rule, to, &RealDisk)?;
    for topic in &report.skipped_topics {
        eprintln!("warning: topic {topic:?} cannot be the name of a folder and was left out");
    }
    let text = format!(
        "{} entries of {} queues ({} without messages) of {} topics in {} files under {}",
        report.entries,
        report.queues,
        report.empty_queues,
        report.topics,
        report.files,
        report.directory.display()
    );
    Ok(args.place.output().done(&text, &report)?)
}
