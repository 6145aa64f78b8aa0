//! `weir store repair`: makes a damaged log usable again, and says what that costs.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use weirmq_broker::QueueBehind;
use weirmq_store::offline::{self, CutPlan, Excess, Finding, FindingKind, GivenUp};
use weirmq_store::{Disk, RealDisk, SystemClock};

use super::verify::verify;
use super::{Place, bytes};
use crate::exit::Failure;
use crate::output::{Output, Row};
use crate::units::format_time;

/// Cut a log at its first damage, after a copy of what is cut
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir store repair weir-data\n  \
    weir store repair weir-data --cut-at-damage\n  \
    weir store repair weir-data --cut-at-damage --backup /mnt/backup/broker-a\n\n\
    Without --cut-at-damage it only says what would be lost. A replica, where there is one, loses\n\
    nothing: prefer it. The copy holds the bytes as they were, one file for each segment.")]
pub(super) struct RepairArgs {
    #[command(flatten)]
    place: Place,
    /// Take everything from the first damage on out of the log
    #[arg(long)]
    cut_at_damage: bool,
    /// Have the log begin with the first segment that is there, although earlier ones are missing
    #[arg(long, conflicts_with = "cut_at_damage")]
    accept_missing_start: bool,
    /// Where the copy goes; made when missing [default: DIR/weir/backup-…]
    #[arg(long, value_name = "DIR", requires = "cut_at_damage")]
    backup: Option<PathBuf>,
}

pub(super) fn run(args: RepairArgs) -> anyhow::Result<()> {
    let output = args.place.output();
    if args.accept_missing_start {
        return accept_missing_start(&args, &output);
    }
    let directory = args.place.open()?;
    let report = verify(&directory)?;
    let is_start = |finding: &&Finding| finding.kind == FindingKind::MissingStart;
    if let Some(Finding { from: Some(from), to: Some(to), .. }) =
        report.findings.iter().find(is_start)
    {
        let problem = format!(
            "the log's first segments, from {from} to {to}, are missing and have not expired; put \
             the files back, or give them up with --accept-missing-start"
        );
        return Err(Failure::Damage(problem).into());
    }
    let Some(plan) = offline::plan_cut(&directory, &report)? else {
        let text = match report.is_sound {
            true => "nothing to repair: the log is sound",
            false => "the log itself is sound; the next start mends or names the rest",
        };
        return Ok(output.done(text, &serde_json::json!({ "cut": false, "reason": text }))?);
    };
    // The lock goes from the reader to the writer.
    drop(directory);
    if !args.cut_at_damage {
        show(&output, "would be cut", &plan)?;
        let problem = match plan.cuts_log {
            true => "nothing was changed; add --cut-at-damage to cut the log there",
            false => {
                "nothing was changed; add --cut-at-damage to do it, which cuts nothing of the log"
            }
        };
        return Err(Failure::Damage(problem.to_owned()).into());
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let cut = offline::cut(args.place.path(), &disk, plan, args.backup, &SystemClock)?;
    if output.is_json() {
        return Ok(output.json(&cut)?);
    }
    show(&output, "was cut", &cut.plan)?;
    Ok(output.line(format_args!("\nthe copy lies in {}", cut.backup.display()))?)
}

fn accept_missing_start(args: &RepairArgs, output: &Output) -> anyhow::Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let given_up = offline::accept_missing_start(args.place.path(), &disk)?;
    let Some(GivenUp { range, unknown }) = given_up else {
        let text = "nothing to repair: the log's start is there";
        return Ok(output.done(text, &serde_json::json!({ "givenUp": null }))?);
    };
    for path in &unknown {
        eprintln!(
            "warning: {} is gone or not whole: queues whose messages were all in that segment begin \
             at 0 again; set the offsets of their consumer groups back (`weir group reset`)",
            path.display()
        );
    }
    let behind = match unknown.is_empty() {
        true => Vec::new(),
        false => queues_behind(args),
    };
    for QueueBehind { topic, queue, next, committed } in &behind {
        eprintln!(
            "warning: queue {queue} of {topic} goes on at {next}, and groups have committed {committed}"
        );
    }
    let behind: Vec<_> = behind
        .into_iter()
        .map(|one| {
            let QueueBehind { topic, queue, next, committed } = one;
            serde_json::json!({ "topic": topic, "queue": queue, "next": next, "committed": committed })
        })
        .collect();
    let text = format!("the log begins at {}; from {} on it is lost", range.end, range.start);
    let json = serde_json::json!({
        "givenUp": { "from": range.start, "to": range.end },
        "unknownQueues": unknown,
        "queuesBehind": behind,
    });
    Ok(output.done(&text, &json)?)
}

/// Which of the queues that nobody knows any more groups still know. The start is given up by now,
/// whatever else is wrong with the directory.
fn queues_behind(args: &RepairArgs) -> Vec<QueueBehind> {
    let asked = args.place.open().and_then(|directory| Ok(directory.store_config()?));
    let asked = asked.and_then(|config| match config {
        Some(config) => Ok(weirmq_broker::queues_behind(config)?),
        None => Ok(Vec::new()),
    });
    asked.unwrap_or_else(|error| {
        eprintln!("warning: what groups have committed to them cannot be read: {error:#}");
        Vec::new()
    })
}

#[derive(Serialize)]
struct TopicRow {
    topic: String,
    records: u64,
}

impl Row for TopicRow {
    const HEADER: &'static [&'static str] = &["TOPIC", "RECORDS LOST"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.records.to_string()]
    }
}

fn show(output: &Output, what: &str, plan: &CutPlan) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(output.json(plan)?);
    }
    for Excess { path, bytes: excess } in &plan.excess {
        let path = path.display();
        output.line(format_args!("{} {what} behind the end of {path}", bytes(*excess)))?;
    }
    if plan.renews_mark {
        let at = plan.at;
        output.line(format_args!(
            "weir/durable-mark is damaged; the log is whole up to {at}, and whether it went on nobody knows: \
             the mark is set there"
        ))?;
    }
    if !plan.cuts_log {
        return Ok(());
    }
    let time = |time: Option<i64>| format_time(time.unwrap_or(0));
    output.line(format_args!(
        "{} {what}, from {} to {}, with {} whole records stored from {} to {}",
        bytes(plan.to - plan.at),
        plan.at,
        plan.to,
        plan.records,
        time(plan.first_stored),
        time(plan.last_stored)
    ))?;
    if plan.queued > 0 {
        let queued = plan.queued;
        output.line(format_args!("Apache's queues know {queued} messages from there on"))?;
    }
    let rows = plan.records_by_topic.iter();
    let rows: Vec<_> =
        rows.map(|(topic, records)| TopicRow { topic: topic.clone(), records: *records }).collect();
    if rows.is_empty() {
        return Ok(());
    }
    output.line("")?;
    Ok(output.rows(&rows)?)
}
