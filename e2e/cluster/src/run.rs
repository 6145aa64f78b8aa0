//! Starts the cluster, runs tests one after the other, and says what came of each.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::fs::{FlockOperation, flock};

use crate::cluster::{Cluster, Namespace, output};
use crate::evidence;
use crate::images::Images;
use crate::results::{Outcome, Results, load_average};
use crate::tests::{TESTS, Test};

/// Run tests on a cluster of their own
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Only these tests; without any, all
    tests: Vec<String>,
    /// Print the tests and what each shows
    #[arg(long)]
    list: bool,
    /// Only the tests of the smoke set
    #[arg(long, conflicts_with = "tests")]
    smoke: bool,
    /// Skip everything where Kubernetes would have to be built first
    #[arg(long)]
    if_built: bool,
    /// The program under test
    #[arg(long, default_value = "target/fast/weir")]
    weir: PathBuf,
    /// A program of an earlier version, for what is tested between two of them
    #[arg(long)]
    before: Option<PathBuf>,
    /// The scripts that start a cluster
    #[arg(long, default_value = "e2e/cluster/netns")]
    scripts: PathBuf,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// Leave the cluster up, and the namespaces of tests that failed
    #[arg(long)]
    keep: bool,
    /// Keep logs and objects of tests that passed as well
    #[arg(long)]
    keep_logs: bool,
    /// Where logs and objects of tests that failed are kept
    #[arg(long, default_value = "target/e2e-cluster")]
    logs: PathBuf,
    /// A folder for a file of what was measured
    #[arg(long)]
    results: Option<PathBuf>,
    /// What else runs on the machine, for that file
    #[arg(long, default_value = "nothing known")]
    beside: String,
}

/// A test cannot say anything here, and why. An error of a test that holds one counts as skipped.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    if args.list {
        for test in TESTS {
            println!("{:24} {}", test.name, test.about);
        }
        return ExitCode::SUCCESS;
    }
    match run_all(args) {
        Ok(counts) => {
            let Counts { passed, failed, skipped } = counts;
            println!("{passed} passed, {failed} failed, {skipped} skipped");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(args: &RunArgs) -> anyhow::Result<Counts> {
    let tests = chosen(args)?;
    let mut counts = Counts::default();
    if let Some(why) = why_not(args)? {
        for test in &tests {
            println!("SKIP {:24} {why}", test.name);
        }
        counts.skipped = tests.len();
        return Ok(counts);
    }
    // Names of network namespaces and cgroups are taken once.
    let name = std::env::var("WEIRMQ_CLUSTER").unwrap_or_else(|_| "weirmq".to_owned());
    let lock = File::create(std::env::temp_dir().join(format!("{name}-e2e-cluster.lock")))?;
    flock(&lock, FlockOperation::LockExclusive).context("wait for another run")?;

    let scripts = args.scripts.canonicalize().context("folder of the scripts")?;
    let images = Images::new(args.weir.clone(), args.before.clone());
    let nodes = usize::try_from(args.nodes)?;
    let cluster = Cluster::up(&scripts, &cache()?.join("kubernetes"), images, nodes);
    let done = cluster.and_then(|cluster| {
        let mut results = Results::new(&args.weir, args.nodes, &args.beside);
        for test in tests {
            results.add(run_one(&cluster, test, args, &mut counts)?);
            if let Some(folder) = &args.results {
                results.write(folder)?;
            }
        }
        Ok(counts)
    });
    if !args.keep {
        let ended = output(&mut Command::new(scripts.join("down"))).context("take it down");
        if done.is_ok() {
            ended?;
        }
    }
    done
}

fn chosen(args: &RunArgs) -> anyhow::Result<Vec<&'static Test>> {
    if let Some(unknown) =
        args.tests.iter().find(|name| TESTS.iter().all(|test| test.name != **name))
    {
        bail!("there is no test {unknown}; --list prints them");
    }
    let wanted = |test: &&Test| {
        (args.tests.is_empty() && (!args.smoke || test.smoke))
            || args.tests.iter().any(|name| name == test.name)
    };
    Ok(TESTS.iter().filter(wanted).collect())
}

/// Why no cluster can be started here, if none can.
fn why_not(args: &RunArgs) -> anyhow::Result<Option<String>> {
    let check = args.scripts.join("check");
    let mut command = Command::new(&check);
    command.args(args.if_built.then_some("--if-built")).stdin(Stdio::null());
    let checked = command.output().with_context(|| format!("run {}", check.display()))?;
    let text = String::from_utf8_lossy(&checked.stdout).trim().to_owned();
    match checked.status.code() {
        Some(0) => Ok(None),
        Some(1) if !text.is_empty() => Ok(Some(text)),
        _ => bail!("{} ended with {}", check.display(), checked.status),
    }
}

/// Where the builds of e2e/ are kept.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("WEIRMQ_CACHE").filter(|value| !value.is_empty());
    Ok(match cache {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/weirmq/e2e"),
    })
}

fn run_one(
    cluster: &Cluster,
    test: &Test,
    args: &RunArgs,
    counts: &mut Counts,
) -> anyhow::Result<Outcome> {
    let name = format!("e2e-{}", test.name);
    // One that was kept of a run before would not be what the test begins with.
    remove(&cluster.existing(&name))?;
    let namespace = cluster.namespace(&name)?;
    let begun = Instant::now();
    let outcome = (test.run)(&namespace);
    let took = begun.elapsed().as_secs_f64();
    let result = match &outcome {
        Ok(note) => {
            println!("PASS {:24} {took:6.1} s  {note}", test.name);
            counts.passed += 1;
            "PASS"
        }
        Err(error) if error.is::<Skipped>() => {
            println!("SKIP {:24} {error}", test.name);
            counts.skipped += 1;
            "SKIP"
        }
        Err(error) => {
            println!("FAIL {:24} {took:6.1} s  {error:#}", test.name);
            counts.failed += 1;
            "FAIL"
        }
    };
    if result == "FAIL" || args.keep_logs {
        let folder = args.logs.join(test.name);
        match evidence::keep(cluster, &[&name, crate::tests::OPERATOR_NAMESPACE], &folder) {
            Ok(()) => println!("     logs and objects are in {}", folder.display()),
            Err(error) => println!("     logs and objects could not be kept: {error}"),
        }
    }
    std::io::stdout().flush()?;
    if outcome.is_ok() || !args.keep {
        remove(&namespace)?;
    }
    Ok(Outcome {
        name: test.name,
        result,
        took_s: took,
        numbers: namespace.numbers(),
        note: outcome.unwrap_or_else(|error| format!("{error:#}")),
        load_average: load_average(),
    })
}

fn remove(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let delete = ["delete", "namespace", &namespace.name, "--ignore-not-found", "--timeout=120s"];
    namespace.cluster.kubectl(&delete).map(drop)
}
