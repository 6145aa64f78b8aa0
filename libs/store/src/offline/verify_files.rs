//! Looks at the small files beside the log: that they are there, whole, and what they foretell.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::report::{Finding, FindingKind, VerifyReport};
use super::truncate::Cut;
use crate::block_sums::BLOCK_BYTES;
use crate::error::StoreError;
use crate::scrub;
use crate::small_file;

/// The small files of `weir/` itself; what else lies there is not ours. Those of `weir/user/` have
/// whatever names the store's user gave them.
const OWN_FILES: [&str; 7] =
    ["format.json", "durable-mark", "log-start", "cut", "clock", "queue-state", "scrub"];

/// How one version of a small file is.
enum Version {
    Missing,
    Whole,
    Broken(String),
}

impl Version {
    fn of(directory: &Directory, path: &Path) -> Self {
        match small_file::prove(&*directory.disk, path) {
            Ok(()) => Self::Whole,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Broken("the checksum is wrong".to_owned())
            }
            Err(error) => Self::Broken(format!("cannot be read: {error}")),
        }
    }
}

/// Proves every small file, and the version before each.
pub(super) fn check_small_files(
    directory: &Directory,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let layout = &directory.layout;
    let mut files: BTreeSet<PathBuf> =
        OWN_FILES.iter().map(|name| layout.weir.join(name)).collect();
    let listed = match directory.disk.list(&layout.user) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io("list", &layout.user)(error)),
    };
    let names =
        listed.iter().map(|file| file.name.strip_suffix(".last").unwrap_or(file.name.as_str()));
    // What a replacement left that was cut short is written again by the next one.
    files.extend(names.filter(|name| !name.ends_with(".tmp")).map(|name| layout.user.join(name)));
    for path in files {
        check_one(directory, &path, report);
    }
    check_log_start(directory, report);
    Ok(())
}

fn check_one(directory: &Directory, path: &Path, report: &mut VerifyReport) {
    let last = small_file::last_version(path);
    // Who needed it has said so.
    if report.findings.iter().any(|known| known.path == path || known.path == last) {
        return;
    }
    let before = Version::of(directory, &last);
    match (Version::of(directory, path), before) {
        (Version::Missing | Version::Whole, Version::Missing | Version::Whole) => {}
        (Version::Whole, Version::Broken(reason)) => report.notes.push(format!(
            "{}: {reason}; it is the version before one that is whole, and nobody needs it",
            last.display()
        )),
        (Version::Broken(reason), before) => {
            let then = match before {
                _ if path == directory.layout.log_start() => "counts for nothing",
                Version::Whole => "the version before it stands in for it, where that may be",
                Version::Missing | Version::Broken(_) => "no version before it is left",
            };
            let reason = format!("{reason}; {then}");
            report.found(Finding::file(FindingKind::SmallFile, path, reason));
        }
        (Version::Missing, Version::Broken(reason)) => {
            report.found(Finding::file(FindingKind::SmallFile, &last, reason));
        }
    }
}

/// A store that has a durable mark has noted where its log begins before that.
fn check_log_start(directory: &Directory, report: &mut VerifyReport) {
    let path = directory.layout.log_start();
    let is_missing = matches!(Version::of(directory, &path), Version::Missing);
    if !is_missing || directory.mark.is_none() {
        return;
    }
    let begins = directory.log_start();
    match Version::of(directory, &small_file::last_version(&path)) {
        Version::Missing => {
            let reason = format!(
                "is not there, so nobody knows whether the log began before {begins}; the next start \
                 takes that for its beginning: compare it with a replica, or a backup, first"
            );
            report.found(Finding::file(FindingKind::SmallFile, &path, reason));
        }
        Version::Whole | Version::Broken(_) => report.notes.push(format!(
            "{} was being replaced when the machine stopped; the next start notes {begins} again",
            path.display()
        )),
    }
}

/// Says which damage the broker knows of and refuses to read that this verification did not meet.
pub(super) fn note_scrub(
    directory: &Directory,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    for range in scrub::kept_damage(&*directory.disk, &directory.layout)? {
        let is_met = report.findings.iter().any(|finding| {
            matches!((finding.from, finding.to), (Some(from), Some(to)) if from < range.to && range.from < to)
        });
        let is_there = range.to > report.log_start && range.from < report.log_end;
        if !is_met && is_there {
            report.notes.push(format!(
                "{} to {} was found damaged ({}) and is refused to readers; it holds now, and the next \
                 pass of the scrub takes that back",
                range.from, range.to, range.reason
            ));
        }
    }
    Ok(())
}

/// Leaves out what a cut that was begun takes away with the next open, and says so.
pub(super) fn foretell(cut: &Cut, report: &mut VerifyReport) {
    let (at, begins_at) = (cut.at, cut.begin.as_ref().map(|begin| begin.start));
    let is_kept = |finding: &Finding| match (finding.from, begins_at) {
        (None, _) => true,
        (Some(_), Some(_)) => false,
        (Some(from), None) => from < at,
    };
    report.findings.retain(is_kept);
    report.torn_tail = None;
    report.without_checksum.retain(|range| begins_at.is_none() && range.from < at);
    let blocks = report.without_checksum.iter_mut().map(|range| {
        range.to = range.to.min(at);
        (range.to - range.from).div_ceil(BLOCK_BYTES)
    });
    report.blocks_without_checksum = blocks.sum();
    let text = match begins_at {
        Some(start) => {
            (report.log_start, report.log_end) = (start, start);
            format!("a replica was taking away its whole log, to begin empty at {start}")
        }
        None => {
            report.log_end = report.log_end.min(at);
            format!("a replica was cutting off what its master does not have, from {at} on")
        }
    };
    report
        .notes
        .push(format!("{text}; the next open finishes that, so what goes with it is not listed"));
}
