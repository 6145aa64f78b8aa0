//! `weir store inspect`: segments, records and queue entries, as they lie on disk.

use base64::Engine as _;
use serde::Serialize;
use weirmq_message::properties;
use weirmq_store::apache_rule;
use weirmq_store::offline::{
    Broken, DerivedState, Inspection, RecordView, SegmentView, StoredEntry,
};

use super::{Place, bytes};
use crate::exit::Failure;
use crate::output::{Output, Row};
use crate::units::format_time;

/// Show segments, or a record, or the entries of a queue; changes nothing
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir store inspect weir-data\n  \
    weir store inspect weir-data --at 1073741824 -n 10\n  \
    weir store inspect weir-data --queue orders:0 --from 1000 -o json")]
pub(super) struct InspectArgs {
    #[command(flatten)]
    place: Place,
    /// Show the record that begins at this position of the log
    #[arg(long, value_name = "OFFSET", conflicts_with = "queue")]
    at: Option<u64>,
    /// Show entries of this queue
    #[arg(long, value_name = "TOPIC:ID", value_parser = parse_queue)]
    queue: Option<(String, i32)>,
    /// The first queue offset to show
    #[arg(long, value_name = "OFFSET", default_value_t = 0, requires = "queue")]
    from: u64,
    /// How many records or entries [default: 1 record, 20 entries]
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<usize>,
}

fn parse_queue(text: &str) -> Result<(String, i32), String> {
    let problem = || format!("`{text}` is no queue; write TOPIC:ID, for example orders:0");
    let (topic, id) = text.rsplit_once(':').ok_or_else(problem)?;
    let id = id.parse().map_err(|_| problem())?;
    if topic.is_empty() { Err(problem()) } else { Ok((topic.to_owned(), id)) }
}

pub(super) fn run(args: InspectArgs) -> anyhow::Result<()> {
    let output = args.place.output();
    let directory = args.place.open()?;
    if let Some((topic, id)) = args.queue {
        let count = args.count.unwrap_or(20);
        let entries = directory.queue_entries(&topic, id, args.from, count, apache_rule)?;
        if entries.is_empty() {
            let problem =
                format!("queue {id} of {topic} has no entry from offset {} on", args.from);
            return Err(Failure::NotFound(problem).into());
        }
        return Ok(output.rows(&entries.into_iter().map(EntryRow).collect::<Vec<_>>())?);
    }
    let Some(at) = args.at else { return show_segments(&output, directory.inspect()?) };
    let is_list = args.count.is_some();
    let mut records = Vec::new();
    let mut failed = None;
    let mut found = |view: RecordView| {
        if output.is_json() && is_list {
            // One a line, so that a whole log can be piped.
            if failed.is_none() {
                failed = RecordRow::of(&view).and_then(|json| output.json_line(&json).err());
            }
        } else {
            records.push(view);
        }
    };
    directory.records_from(at, args.count.unwrap_or(1), &mut found)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    match &records[..] {
        [] => Ok(()),
        [one] if !is_list => show_record(&output, one),
        all => {
            let rows: Vec<_> = all.iter().filter_map(RecordRow::of).collect();
            Ok(output.rows(&rows)?)
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct SegmentRow(SegmentView);

impl Row for SegmentRow {
    const HEADER: &'static [&'static str] = &[
        "START",
        "END",
        "FIRST STORED",
        "LAST STORED",
        "RECORDS",
        "QUEUES",
        "KEYS",
        "PROVED TO",
        "BROKEN AT",
    ];

    fn cells(&self) -> Vec<String> {
        let view = &self.0;
        let time = |time: Option<i64>| format_time(time.unwrap_or(0));
        vec![
            view.start.to_string(),
            view.end.to_string(),
            time(view.first_stored),
            time(view.last_stored),
            view.records.map_or("-".to_owned(), |records| records.to_string()),
            derived(view.queue_file).to_owned(),
            derived(view.key_file).to_owned(),
            view.proofs.map_or("-".to_owned(), |proofs| proofs.proved_to.to_string()),
            view.broken.as_ref().map_or("-".to_owned(), |broken| broken.at.to_string()),
        ]
    }
}

fn derived(state: DerivedState) -> &'static str {
    match state {
        DerivedState::Complete => "complete",
        DerivedState::Open => "open",
    }
}

fn show_segments(output: &Output, view: Inspection) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(output.json(&view)?);
    }
    let state = match (view.is_in_use, view.was_closed) {
        (true, _) => "in use by a process; figures are of different moments",
        (false, true) => "closed",
        (false, false) => "not closed; the next start recovers it",
    };
    let mut fields = vec![("Directory", view.directory.display().to_string())];
    match &view.format {
        Some(format) => {
            fields.push(("Format version", format.version.to_string()));
            fields.push(("Store id", format.store_id.to_string()));
            fields.push(("Cluster", format.cluster.clone()));
            fields.push(("Broker", format.group.clone()));
        }
        None => fields.push(("Format version", "none; only Apache's broker used it".to_owned())),
    }
    fields.push(("State", state.to_owned()));
    fields.push(("Segment size", bytes(view.segment_bytes)));
    fields.push(("Log", format!("{} to {}", view.log_start, view.log_end)));
    fields.push(("Log size", bytes(view.log_end.saturating_sub(view.log_start))));
    let mark = view.durable_mark.map_or("none".to_owned(), |mark| mark.to_string());
    fields.push(("Durable mark", mark));
    output.fields(&fields)?;
    output.line("")?;
    for problem in &view.problems {
        eprintln!("warning: {}: {}", problem.path.display(), problem.reason);
    }
    for segment in &view.segments {
        let Some(Broken { at, reason, next_record }) = &segment.broken else { continue };
        let path = segment.path.display();
        let next = next_record.map_or_else(
            || "no whole record follows in this segment".to_owned(),
            |next| format!("the next whole record begins at {next}"),
        );
        eprintln!("warning: {path}: no record can be read at {at}: {reason}; {next}");
    }
    Ok(output.rows(&view.segments.into_iter().map(SegmentRow).collect::<Vec<_>>())?)
}

#[derive(Serialize)]
#[serde(transparent)]
struct EntryRow(StoredEntry);

impl Row for EntryRow {
    const HEADER: &'static [&'static str] = &["QUEUE OFFSET", "POSITION", "SIZE", "TAG HASH"];

    fn cells(&self) -> Vec<String> {
        let entry = &self.0;
        vec![
            entry.queue_offset.to_string(),
            entry.physical_offset.to_string(),
            entry.size.to_string(),
            entry.tag_hash.to_string(),
        ]
    }
}

/// Everything that a record says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordRow {
    position: u64,
    size: usize,
    topic: String,
    queue_id: i32,
    queue_offset: u64,
    flag: i32,
    sys_flag: i32,
    born_timestamp: i64,
    born_host: String,
    store_timestamp: i64,
    store_host: String,
    reconsume_times: i32,
    prepared_transaction_offset: i64,
    properties: Vec<(String, String)>,
    /// Absent when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    body_base64: String,
}

impl RecordRow {
    fn of(view: &RecordView) -> Option<Self> {
        let record = view.record()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = properties::iter(record.properties);
        Some(Self {
            position: view.position,
            size: view.bytes.len(),
            topic: record.topic.to_owned(),
            queue_id: record.queue_id,
            queue_offset: record.queue_offset,
            flag: record.flag,
            sys_flag: record.sys_flag,
            born_timestamp: record.born_timestamp,
            born_host: record.born_host.to_string(),
            store_timestamp: record.store_timestamp,
            store_host: record.store_host.to_string(),
            reconsume_times: record.reconsume_times,
            prepared_transaction_offset: record.prepared_transaction_offset,
            properties: pairs.map(|(name, value)| (text(name), text(value))).collect(),
            body: std::str::from_utf8(record.body).ok().map(str::to_owned),
            body_base64: base64::engine::general_purpose::STANDARD.encode(record.body),
        })
    }
}

impl Row for RecordRow {
    const HEADER: &'static [&'static str] =
        &["POSITION", "SIZE", "TOPIC", "QUEUE", "OFFSET", "STORED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.position.to_string(),
            self.size.to_string(),
            self.topic.clone(),
            self.queue_id.to_string(),
            self.queue_offset.to_string(),
            format_time(self.store_timestamp),
        ]
    }
}

fn show_record(output: &Output, view: &RecordView) -> anyhow::Result<()> {
    let Some(row) = RecordRow::of(view) else { return Ok(()) };
    if output.is_json() {
        return Ok(output.json(&row)?);
    }
    let mut fields = vec![
        ("Position", row.position.to_string()),
        ("Size", row.size.to_string()),
        ("Topic", row.topic.clone()),
        ("Queue", row.queue_id.to_string()),
        ("Queue offset", row.queue_offset.to_string()),
        ("Born", format!("{} at {}", format_time(row.born_timestamp), row.born_host)),
        ("Stored", format!("{} at {}", format_time(row.store_timestamp), row.store_host)),
        ("Delivered again", row.reconsume_times.to_string()),
        ("Flag", row.flag.to_string()),
        ("sysFlag", format!("{:#x}", row.sys_flag)),
        ("Prepared transaction", row.prepared_transaction_offset.to_string()),
    ];
    for (name, value) in &row.properties {
        fields.push((name, value.clone()));
    }
    output.fields(&fields)?;
    let body = row.body.clone().unwrap_or_else(|| format!("base64: {}", row.body_base64));
    Ok(output.line(format_args!("\n{body}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_topic_and_id() {
        assert_eq!(parse_queue("orders:3"), Ok(("orders".to_owned(), 3)));
        assert_eq!(parse_queue("%RETRY%g:0"), Ok(("%RETRY%g".to_owned(), 0)));
        for bad in ["orders", ":1", "orders:", "orders:x"] {
            assert!(parse_queue(bad).is_err(), "{bad}");
        }
    }
}
