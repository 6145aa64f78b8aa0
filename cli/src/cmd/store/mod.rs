//! `weir store`: the directory of a broker that is not running.

mod close;
mod export_queues;
mod inspect;
mod repair;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weirmq_store::RealDisk;
use weirmq_store::offline::Directory;

use crate::output::{Format, Output};

/// Look at, verify and repair the directory of a broker that is not running
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir store inspect weir-data\n  \
    weir store verify weir-data -o json\n  \
    weir store repair weir-data --cut-at-damage\n  \
    weir store close weir-data\n\n\
    Only repair, close and export-queues change anything. verify ends with 5 when it finds damage.")]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Repair(repair::RepairArgs),
    Close(close::CloseArgs),
    ExportQueues(export_queues::ExportQueuesArgs),
}

pub(crate) fn run(args: StoreArgs) -> anyhow::Result<()> {
    match args.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Close(args) => close::run(args),
        Command::ExportQueues(args) => export_queues::run(args),
    }
}

/// What all of them take.
#[derive(clap::Args)]
struct Place {
    /// The directory that the broker was given with --data
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

impl Place {
    fn output(&self) -> Output {
        Output::new(self.output)
    }

    fn open(&self) -> anyhow::Result<Directory> {
        Ok(Directory::open(&self.directory, Arc::new(RealDisk))?)
    }

    fn path(&self) -> &Path {
        &self.directory
    }
}

/// A number of bytes as people read it.
fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
