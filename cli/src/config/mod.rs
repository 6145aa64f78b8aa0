//! The configuration file of the server roles: our own TOML, or Apache's properties.

mod apache;
mod properties;
mod suggest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use weirmq_broker::BrokerConfig;
use weirmq_namesrv::NameServerConfig;

pub(crate) use apache::Kind;

/// A whole file. `weir standalone`, `weir broker` and `weir namesrv` read the same form and use
/// the sections that concern them; every section is checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FileConfig {
    pub(crate) listen: Listen,
    pub(crate) broker: BrokerConfig,
    pub(crate) namesrv: NameServerConfig,
}

/// Where the process listens. Flags of the same names win over the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    /// The address that ports are opened on. Default: 127.0.0.1 for standalone, 0.0.0.0 for a
    /// role on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bind: Option<String>,
    /// Default: 10911. Port − 2 is opened as well, for old clients' VIP channel. 0: any.
    pub(crate) broker_port: u16,
    /// Default: 9876. 0: any.
    pub(crate) namesrv_port: u16,
    /// Health and metrics. Default: 10908. 0: any.
    pub(crate) admin_port: u16,
    /// Further ports of the NameServer, by the listener whose addresses it answers with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) namesrv_listeners: BTreeMap<String, u16>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            bind: None,
            broker_port: 10911,
            namesrv_port: 9876,
            admin_port: 10908,
            namesrv_listeners: BTreeMap::new(),
        }
    }
}

/// A file that was read, and what there is to say about it, one line each.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) config: FileConfig,
    /// What the file says.
    pub(crate) content: String,
    pub(crate) warnings: Vec<String>,
}

/// Reads `file`, of whichever form.
///
/// # Errors
/// One error that names the file and, line by line, everything wrong in it.
pub(crate) fn load(file: &Path, kind: Kind) -> anyhow::Result<Loaded> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read configuration {}", file.display()))?;
    parse(file, &text, kind).map_err(|problems| {
        let prefix = format!("{}: ", file.display());
        let lines: Vec<_> = problems.iter().map(|problem| format!("{prefix}{problem}")).collect();
        anyhow::anyhow!("{}", lines.join("\n       "))
    })
}

/// Reads `text`, which `file` has.
///
/// # Errors
/// Everything that is wrong in it, a line each.
pub(crate) fn parse(file: &Path, text: &str, kind: Kind) -> Result<Loaded, Vec<String>> {
    if is_properties(file, text) { from_apache(text, kind) } else { from_toml(text) }
}

/// Reads the file if there is one.
pub(crate) fn load_optional(file: Option<&PathBuf>, kind: Kind) -> anyhow::Result<Loaded> {
    let Some(file) = file else { return Ok(Loaded::default()) };
    let loaded = load(file, kind)?;
    for warning in &loaded.warnings {
        tracing::warn!(file = %file.display(), "{warning}");
    }
    Ok(loaded)
}

/// Checks the values, once flags have had their say.
pub(crate) fn validate(config: &FileConfig) -> anyhow::Result<()> {
    if let Err(error) = config.broker.validate() {
        bail!("broker.{error}");
    }
    if let Err(error) = config.namesrv.validate() {
        bail!("namesrv.{error}");
    }
    Ok(())
}

/// The whole configuration as TOML, as `--print-config` shows it and [`load`] reads it.
pub(crate) fn to_toml(config: &FileConfig) -> anyhow::Result<String> {
    toml::to_string_pretty(config).context("write the configuration as TOML")
}

/// By the extension; any other file is ours if it parses as TOML or has a section.
fn is_properties(file: &Path, text: &str) -> bool {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => false,
        Some("conf" | "properties") => true,
        _ => {
            !text.lines().any(|line| line.trim_start().starts_with('['))
                && text.parse::<Table>().is_err()
        }
    }
}

fn from_toml(text: &str) -> Result<Loaded, Vec<String>> {
    let config = toml::from_str(text).map_err(|error| vec![explain(&error, text)])?;
    Ok(Loaded { config, content: text.to_owned(), warnings: Vec::new() })
}

fn from_apache(text: &str, kind: Kind) -> Result<Loaded, Vec<String>> {
    let apache::Imported { table, warnings, errors } = apache::import(text, kind);
    if !errors.is_empty() {
        return Err(errors);
    }
    let config = Value::Table(table).try_into::<FileConfig>();
    let config = config.map_err(|error| vec![error.message().to_owned()])?;
    Ok(Loaded { config, content: text.to_owned(), warnings })
}

/// `line 3: unknown key …; did you mean …?`
fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| {
        let before = text.get(..span.start).unwrap_or_default();
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    });
    let message = error.message().replace('\n', " ");
    let Some((wrong, expected)) = unknown_field(&message) else {
        return format!("line {line}: {message}");
    };
    let hint = match suggest::nearest(wrong, expected.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => match elsewhere(wrong) {
            Some(path) => format!("did you mean `{path}`?"),
            None => format!("known here: {}", expected.join(", ")),
        },
    };
    format!("line {line}: unknown key `{wrong}`; {hint}")
}

/// Reads serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

/// The full path of a key that stands in the wrong section.
fn elsewhere(name: &str) -> Option<String> {
    fn find(table: &Table, prefix: &str, name: &str) -> Option<String> {
        table.iter().find_map(|(key, value)| {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                _ if key == name => Some(path),
                Value::Table(inner) => find(inner, &path, name),
                _ => None,
            }
        })
    }
    let table = Table::try_from(FileConfig::default()).ok()?;
    find(&table, "", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        from_toml(text).unwrap_err().join("|")
    }

    #[test]
    fn a_misspelt_or_misplaced_key_gets_a_suggestion() {
        assert_eq!(
            problem("[broker]\nclustr = 'x'\n"),
            "line 2: unknown key `clustr`; did you mean `cluster`?"
        );
        assert_eq!(
            problem("[broker]\nretention_hours = 1\n"),
            "line 2: unknown key `retention_hours`; did you mean `broker.store.retention_hours`?"
        );
        assert!(problem("[qqq]\n").contains("known here: listen, broker, namesrv"));
        assert!(problem("[broker]\nname = 3\n").starts_with("line 2: invalid type"));
    }

    #[test]
    fn the_form_is_told_by_the_extension_and_else_by_the_text() {
        assert!(is_properties(Path::new("broker.conf"), ""));
        assert!(!is_properties(Path::new("weir.toml"), "a=b"));
        assert!(is_properties(Path::new("b"), "brokerName = broker-a\n"));
        assert!(!is_properties(Path::new("b"), "[broker]\nname = 'x'\n"));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let text = to_toml(&FileConfig::default()).unwrap();
        let loaded = from_toml(&text).unwrap();
        assert_eq!(loaded.config, FileConfig::default());
    }
}
