//! Compares queue and key files with what the log says they should hold.

use super::directory::Directory;
use super::entries::{Derived, Entries, read_part};
use super::report::{Finding, FindingKind, VerifyReport};
use super::verify::InSegment;
use crate::block_sums::{BLOCK_BYTES, is_intact};
use crate::error::StoreError;
use crate::key_file::KeyEntry;
use crate::segment::Segment;

/// Compares the blocks of a segment with their checksums. The log takes it up to `covered`, and
/// something of the log stands there up to `written`, behind which only padding follows.
/// `is_judged`: the checksums there are will count.
pub(super) fn compare_blocks(
    segment: &Segment,
    covered: u64,
    written: u64,
    is_judged: bool,
    report: &mut VerifyReport,
) {
    let (kind, path) = (FindingKind::Block, segment.blocks.path());
    let sums = match is_judged {
        true => segment.blocks.read(segment.start, segment.end()),
        false => Ok(Vec::new()),
    };
    let sums = match sums {
        Ok(sums) => sums,
        Err(error) => {
            return report.found(Finding::file(kind, path, error.to_string()));
        }
    };
    let mut summed = sums.iter().map(|summed| summed.position).peekable();
    for position in (segment.start..written).step_by(BLOCK_BYTES as usize) {
        if summed.next_if_eq(&position).is_none() {
            report.has_no_checksum(position, (position + BLOCK_BYTES).min(written));
        }
    }
    let mut buffer = Vec::new();
    for summed in sums {
        report.blocks += 1;
        let reason = match is_intact(segment, &summed, &mut buffer) {
            Ok(true) if summed.end() <= covered => continue,
            Ok(true) => "was on disk, and lies behind the end of the log".to_owned(),
            Ok(false) => "is not what was written".to_owned(),
            Err(error) => error.to_string(),
        };
        report.found(Finding::range(kind, &segment.path, summed.position, summed.end(), reason));
    }
}

/// Compares both files of a segment whose log reaches to `covered`.
pub(super) fn compare(
    directory: &Directory,
    segment: &Segment,
    covered: u64,
    found: InSegment,
    report: &mut VerifyReport,
) {
    let InSegment { derived: Derived { mut entries, keys }, damage, .. } = found;
    // Of records that are damaged only the derived files know, and may know.
    let is_lost = |position: u64| damage.iter().any(|range| range.contains(&position));
    directory.drop_forgotten(&mut entries);
    let queues = compare_queues(directory, segment, covered, entries, &is_lost, report);
    let keys = compare_keys(segment, covered, keys, &is_lost, report);
    let files = [
        (FindingKind::QueueFile, segment.queues.path(), queues),
        (FindingKind::KeyFile, segment.keys.path(), keys),
    ];
    for (kind, path, outcome) in files {
        let reason = match outcome {
            Ok(Outcome::Same) => continue,
            Ok(Outcome::Incomplete) => {
                let path = path.display();
                report.notes.push(format!("{path} is not complete; the next open derives it"));
                continue;
            }
            Ok(Outcome::Differs(reason)) => reason,
            Err(error) => error.to_string(),
        };
        let (from, to) = (segment.start, covered);
        let path = path.to_path_buf();
        report.found(Finding::range(kind, &path, from, to, reason));
    }
}

enum Outcome {
    Same,
    Incomplete,
    Differs(String),
}

fn compare_queues(
    directory: &Directory,
    segment: &Segment,
    covered: u64,
    expected: Entries,
    is_lost: &dyn Fn(u64) -> bool,
    report: &mut VerifyReport,
) -> Result<Outcome, StoreError> {
    let Some(parts) = directory.parts(segment, covered)? else { return Ok(Outcome::Incomplete) };
    let mut found = Entries::new();
    for part in &parts {
        let queues = found.entry(part.topic.clone()).or_default();
        read_part(segment, part, queues.entry(part.queue_id).or_default())?;
    }
    for queue in found.values_mut().flat_map(|queues| queues.values_mut()) {
        queue.retain(|(_, entry)| !is_lost(entry.physical_offset));
    }
    directory.drop_forgotten(&mut found);
    let count = |entries: &Entries| -> usize {
        entries.values().flat_map(|queues| queues.values()).map(Vec::len).sum()
    };
    report.queue_entries += count(&found) as u64;
    if found == expected {
        return Ok(Outcome::Same);
    }
    for (topic, queues) in &expected {
        for (queue_id, entries) in queues {
            let own = found.get(topic).and_then(|queues| queues.get(queue_id));
            let own = own.map_or(&[][..], Vec::as_slice);
            let wrong = entries.iter().zip(own).find(|(wanted, has)| wanted != has);
            let Some((offset, _)) = wrong.map(|(wanted, _)| wanted).or(entries.get(own.len()))
            else {
                continue;
            };
            return Ok(Outcome::Differs(format!(
                "queue {queue_id} of {topic} differs from the log from offset {offset} on"
            )));
        }
    }
    let (more, wanted) = (count(&found), count(&expected));
    Ok(Outcome::Differs(format!("has {more} entries where the log has {wanted}")))
}

fn compare_keys(
    segment: &Segment,
    covered: u64,
    mut expected: Vec<KeyEntry>,
    is_lost: &dyn Fn(u64) -> bool,
    report: &mut VerifyReport,
) -> Result<Outcome, StoreError> {
    if !segment.keys.load(segment.start, covered)? {
        return Ok(Outcome::Incomplete);
    }
    let runs = segment.keys.entries()?;
    if let Some(at) = runs.iter().position(|run| !run.is_sorted()) {
        return Ok(Outcome::Differs(format!(
            "run {at} is not sorted, so keys are not found in it"
        )));
    }
    let found = runs.into_iter().flatten().filter(|(_, position)| !is_lost(*position));
    let mut found: Vec<KeyEntry> = found.collect();
    report.key_entries += found.len() as u64;
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected {
        return Ok(Outcome::Same);
    }
    let differs = expected.iter().zip(&found).find(|(wanted, has)| wanted != has);
    let (has, wanted) = (found.len(), expected.len());
    Ok(Outcome::Differs(match differs {
        Some(((_, position), _)) => {
            format!("a key of the record at {position} is not there; {has} entries of {wanted}")
        }
        None => format!("has {has} entries where the log has {wanted}"),
    }))
}
