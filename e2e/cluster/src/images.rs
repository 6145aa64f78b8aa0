//! The images of the tests: built and put onto the nodes when the first test needs them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use parking_lot::Mutex;

use crate::cluster::{Cluster, output};
use crate::run::Skipped;

/// The image under test.
pub(crate) const WEIR: &str = "localhost/weirmq:e2e";
/// The same program under another name, to roll to.
pub(crate) const NEXT: &str = "localhost/weirmq:e2e-next";
/// A program of an earlier version, if there is one.
pub(crate) const BEFORE: &str = "localhost/weirmq:e2e-before";
/// `weir` and this program.
pub(crate) const CLIENT: &str = "localhost/weirmq-client:e2e";

/// What the images are made of, and which of them the nodes have.
pub(crate) struct Images {
    /// The program under test.
    weir: PathBuf,
    /// One of an earlier version.
    before: Option<PathBuf>,
    provided: Mutex<BTreeSet<&'static str>>,
}

impl Images {
    pub(crate) fn new(weir: PathBuf, before: Option<PathBuf>) -> Self {
        Self { weir, before, provided: Mutex::default() }
    }

    /// The program under test.
    pub(crate) fn weir(&self) -> &Path {
        &self.weir
    }

    /// The image of an earlier version; where there is none, another name of the one under test.
    pub(crate) fn before(&self) -> &'static str {
        if self.before.is_some() { BEFORE } else { NEXT }
    }

    /// Builds an image and puts it onto every node of `cluster`, if that was not done yet.
    pub(crate) fn provide(&self, cluster: &Cluster, name: &'static str) -> anyhow::Result<()> {
        let mut provided = self.provided.lock();
        if provided.contains(name) {
            return Ok(());
        }
        let program = match (name, &self.before) {
            (BEFORE, Some(before)) => before,
            (BEFORE, None) => {
                let why = "no program of an earlier version was given (--before)".to_owned();
                return Err(Skipped(why).into());
            }
            _ => &self.weir,
        };
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("image.tar");
        let mut build = Command::new("images/build");
        build.arg("--weir").arg(program).args(["--max-mb", "1000", "--name", name, "--out"]);
        build.arg(&archive);
        if name == CLIENT {
            build.arg("--add").arg(std::env::current_exe()?);
        }
        output(&mut build).with_context(|| format!("build image {name}"))?;
        cluster.load(&archive)?;
        provided.insert(name);
        Ok(())
    }
}
