//! What a run measured, as a file: one for each run, with what else has to be known to compare it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde::Serialize;

use crate::cluster::output;

#[derive(Serialize)]
pub(crate) struct Results {
    date: String,
    commit: String,
    /// Whether files differed from that commit.
    is_changed: bool,
    /// The folder of the program under test: the profile that it was built with.
    profile: String,
    kernel: String,
    processors: usize,
    nodes: u64,
    /// What else ran on the machine, as whoever started it says.
    beside: String,
    tests: Vec<Outcome>,
}

/// One test.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// `PASS`, `FAIL` or `SKIP`.
    pub(crate) result: &'static str,
    pub(crate) took_s: f64,
    pub(crate) note: String,
    pub(crate) numbers: BTreeMap<String, f64>,
    /// How many processes ran or waited for a processor, averaged over the last minute, at its end.
    pub(crate) load_average: String,
}

impl Results {
    pub(crate) fn new(weir: &Path, nodes: u64, beside: &str) -> Self {
        let said = |program: &str, words: &[&str]| {
            let answer = output(Command::new(program).args(words));
            answer.map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let folder = weir.parent().and_then(Path::file_name).unwrap_or_default();
        Self {
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            is_changed: !said("git", &["status", "--porcelain"]).is_empty(),
            profile: folder.to_string_lossy().into_owned(),
            kernel: said("uname", &["-r"]),
            processors: processors(),
            nodes,
            beside: beside.to_owned(),
            tests: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.tests.push(outcome);
    }

    /// Writes them into `folder`, under the time at which the run began.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).context("make the folder of results")?;
        let name = format!("{}.json", self.date.replace(':', ""));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        fs::write(folder.join(name), text).context("write the results")
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Whether so much else runs here that times by the clock say little. The nodes of this cluster and what runs on
/// them are two processes for each processor at times; with half as many again it is not them alone.
pub(crate) fn is_busy() -> bool {
    load_average().parse().is_ok_and(|load: f64| load >= 3.0 * processors() as f64)
}

pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
