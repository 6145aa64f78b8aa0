//! Following the configuration file while a broker runs.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weirmq_broker::{BrokerConfig, Configuration};

use crate::config::{self, FileConfig, Kind};

/// How often the file is looked at. A change is taken at the second look that finds the same, so that
/// nobody acts upon a file that is half written.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where a broker's configuration comes from, and how it comes about again.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    /// What the file said at the start.
    pub(crate) content: String,
    /// Puts flags over what the file says, as at the start.
    pub(crate) with_flags: WithFlags,
}

pub(crate) type WithFlags = Box<dyn Fn(FileConfig) -> anyhow::Result<FileConfig> + Send + Sync>;

/// Looks at the file for ever. `started` is what the process was started with, flags included, and
/// `complete` adds to the broker's part what is known since ports are open.
pub(super) async fn follow(
    source: Source,
    started: FileConfig,
    complete: impl Fn(&mut BrokerConfig) + Send + Sync + 'static,
    configuration: Arc<Configuration>,
) -> Infallible {
    let mut taken = Ok(source.content.clone().into_bytes());
    let mut before = taken.clone();
    let source = Arc::new((source, started, complete));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let file = source.0.file.clone();
        let looked = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
        let Ok(looked) = looked else { continue };
        let looked = looked.map_err(|error| error.to_string());
        if looked == before && looked != taken {
            taken = looked.clone();
            let (source, configuration, looked) =
                (source.clone(), configuration.clone(), looked.clone());
            let work = move || {
                let (source, started, complete) = &*source;
                let read = looked.as_deref().map_err(Clone::clone);
                let read = read.and_then(|content| again(source, started, content));
                let read = read.map(|(mut broker, others)| {
                    complete(&mut broker);
                    (broker, others)
                });
                let read = read.map_err(|error| format!("{}: {error}", source.file.display()));
                configuration.file_changed(looked.as_deref().unwrap_or_default(), read);
            };
            if let Err(error) = tokio::task::spawn_blocking(work).await {
                tracing::error!(%error, "the changed configuration is not used");
            }
        }
        before = looked;
    }
}

/// Reads the configuration as at the start: the broker's part, and which other sections changed, all of
/// which count at the next start.
fn again(
    source: &Source,
    started: &FileConfig,
    content: &[u8],
) -> Result<(BrokerConfig, Vec<String>), String> {
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    let loaded = config::parse(&source.file, text, Kind::Broker);
    let loaded = loaded.map_err(|problems| problems.join("; "))?;
    for warning in &loaded.warnings {
        tracing::warn!(file = %source.file.display(), "{warning}");
    }
    let read = (source.with_flags)(loaded.config).map_err(|error| error.to_string())?;
    let sections =
        [("listen", read.listen != started.listen), ("namesrv", read.namesrv != started.namesrv)];
    let others =
        sections.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned());
    Ok((read.broker, others.collect()))
}
