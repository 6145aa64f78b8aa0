//! `weir store verify`: reads everything and says what is wrong.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use weirmq_store::apache_rule;
use weirmq_store::offline::{self, Directory, Finding, VerifyReport};

use super::{Place, bytes};
use crate::exit::Failure;
use crate::output::{Output, Row};

/// Prove the whole log, its queues and its key index; changes nothing
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir store verify weir-data\n  \
    weir store verify weir-data -o json > report.json\n\n\
    Exit codes: 0 all is sound; 5 there is damage, with its exact ranges on stdout; 1 it could not\n\
    be verified, for example because a broker uses the directory.")]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: VerifyArgs) -> anyhow::Result<()> {
    let output = args.place.output();
    let directory = args.place.open()?;
    let report = verify(&directory)?;
    if output.is_json() {
        output.json(&report)?;
    } else {
        show(&output, &report)?;
    }
    match report.is_sound {
        true => Ok(()),
        false => {
            let count = report.findings.len() as u64 + report.more_findings;
            let problem = format!("{count} findings; see the table for the exact ranges");
            Err(Failure::Damage(problem).into())
        }
    }
}

/// Verifies with a bar on a terminal.
pub(super) fn verify(directory: &Directory) -> anyhow::Result<VerifyReport> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    let style = "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}";
    bar.set_style(ProgressStyle::with_template(style)?);
    let report = offline::verify(directory, apache_rule, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    Ok(report?)
}

#[derive(Serialize)]
#[serde(transparent)]
struct FindingRow(Finding);

impl Row for FindingRow {
    const HEADER: &'static [&'static str] = &["KIND", "FROM", "TO", "FILE", "REASON"];

    fn cells(&self) -> Vec<String> {
        let finding = &self.0;
        let position = |at: Option<u64>| at.map_or("-".to_owned(), |position| position.to_string());
        let kind = serde_json::to_value(finding.kind).ok();
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("-").to_owned();
        vec![
            kind,
            position(finding.from),
            position(finding.to),
            finding.path.display().to_string(),
            finding.reason.clone(),
        ]
    }
}

/// How many there are, and where the first ones are.
fn without_checksum(report: &VerifyReport) -> String {
    const SHOWN: usize = 5;
    let ranges = report.without_checksum.iter().take(SHOWN);
    let ranges: Vec<_> = ranges.map(|range| format!("{} to {}", range.from, range.to)).collect();
    let more = match report.without_checksum.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more ranges, in -o json"),
    };
    format!("{}: {}{more}", report.blocks_without_checksum, ranges.join(", "))
}

fn show(output: &Output, report: &VerifyReport) -> anyhow::Result<()> {
    let size = report.log_end.saturating_sub(report.log_start);
    let mut fields = vec![
        ("Directory", report.directory.display().to_string()),
        ("Result", if report.is_sound { "sound" } else { "damaged" }.to_owned()),
        ("Log", format!("{} to {}, {}", report.log_start, report.log_end, bytes(size))),
        ("Segments", report.segments.to_string()),
        ("Records", report.records.to_string()),
        ("Queues", report.queues.to_string()),
        ("Queue entries compared", report.queue_entries.to_string()),
        ("Keys compared", report.key_entries.to_string()),
        ("Blocks compared", report.blocks.to_string()),
    ];
    if report.blocks_without_checksum > 0 {
        fields.push(("Blocks without checksum", without_checksum(report)));
    }
    if let Some(tail) = report.torn_tail {
        let text = format!(
            "{} to {} with {} whole records; the next start cuts it, as after any crash",
            tail.from, tail.to, tail.records
        );
        fields.push(("Torn tail", text));
    }
    output.fields(&fields)?;
    for note in &report.notes {
        eprintln!("note: {note}");
    }
    if report.findings.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows: Vec<_> = report.findings.iter().cloned().map(FindingRow).collect();
    Ok(output.rows(&rows)?)
}
