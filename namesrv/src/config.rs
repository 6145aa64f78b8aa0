//! What a name server can be told. Defaults are Apache's unless a field says otherwise.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weirmq_remoting::net::{Limits, ServerConfig, TlsError, TlsSection};

/// The configuration of one name server, as it stands in a file. [`NameServerConfig::validate`]
/// proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NameServerConfig {
    /// Where `kvConfig.json` lives. Default: none, the KV configuration is lost at a restart.
    pub data_dir: Option<PathBuf>,
    /// A broker that gave no timeout of its own is forgotten after this long without a sign of
    /// life. Default: 120,000.
    pub default_heartbeat_timeout_ms: u64,
    /// Least time between two looks for silent brokers, so a broker may stay this much longer than
    /// its timeout. Nothing wakes up while no broker is due. Default: 5,000.
    pub scan_interval_ms: u64,
    /// Put the KV entries of the namespace `ORDER_TOPIC_CONFIG` into the routes of their topics.
    /// Default: false.
    pub order_messages: bool,
    /// Answer a registration with all entries of the namespace `ORDER_TOPIC_CONFIG`. Default: true.
    pub return_order_topic_config_to_broker: bool,
    /// In a group without a master that asks for it, show the slave with the lowest id as a master
    /// that cannot be written to. Default: false.
    pub support_acting_master: bool,
    /// Forget the topics of a broker that are missing from its registration. Not together with
    /// Apache brokers that split their registrations (`enableSplitRegistration`). Default: false.
    pub delete_topic_with_broker_registration: bool,
    pub limits: LimitsSection,
    pub tls: TlsSection,
}

/// What peers may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// The longest frame, and with it the longest registration. Default: 16 MiB.
    pub frame_bytes_max: usize,
    /// Connections of one listener. Default: 20,000.
    pub connections_max: usize,
    /// A connection on which nothing moves for this long is closed. Default: 120.
    pub idle_seconds: u64,
    /// Brokers, masters and slaves together. Default: 10,000.
    pub brokers_max: usize,
    /// Topics. A registration that would exceed it keeps its broker and the topics that fit.
    /// Default: 500,000.
    pub topics_max: usize,
    /// KV entries of all namespaces. Default: 10,000.
    pub kv_entries_max: usize,
    /// Bytes of all KV namespaces, keys and values. Default: 8 MiB.
    pub kv_bytes_max: usize,
}

impl Default for NameServerConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            default_heartbeat_timeout_ms: 120_000,
            scan_interval_ms: 5_000,
            order_messages: false,
            return_order_topic_config_to_broker: true,
            support_acting_master: false,
            delete_topic_with_broker_registration: false,
            limits: LimitsSection::default(),
            tls: TlsSection::default(),
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            frame_bytes_max: 16 << 20,
            connections_max: 20_000,
            idle_seconds: 120,
            brokers_max: 10_000,
            topics_max: 500_000,
            kv_entries_max: 10_000,
            kv_bytes_max: 8 << 20,
        }
    }
}

/// Which setting is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}: {problem}")]
pub struct ConfigError {
    pub setting: &'static str,
    pub value: u64,
    pub problem: String,
}

impl NameServerConfig {
    /// Checks every setting and its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let day_ms = 24 * 3600 * 1000;
        let ranges = [
            ("default_heartbeat_timeout_ms", self.default_heartbeat_timeout_ms, 100, day_ms),
            ("scan_interval_ms", self.scan_interval_ms, 10, day_ms),
            ("limits.frame_bytes_max", limits.frame_bytes_max as u64, 64 << 10, 1 << 30),
            ("limits.connections_max", limits.connections_max as u64, 1, 1 << 24),
            ("limits.idle_seconds", limits.idle_seconds, 1, 24 * 3600),
            ("limits.brokers_max", limits.brokers_max as u64, 1, 1 << 24),
            ("limits.topics_max", limits.topics_max as u64, 1, 1 << 28),
            ("limits.kv_entries_max", limits.kv_entries_max as u64, 0, 1 << 24),
            ("limits.kv_bytes_max", limits.kv_bytes_max as u64, 0, 1 << 30),
        ];
        for (setting, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError { setting, value, problem: format!("use {min} to {max}") });
            }
        }
        Ok(())
    }

    /// The settings as properties text, the answer to code 319. Where Apache has a setting of the
    /// same meaning, the line has Apache's name. There are no secrets among them.
    pub(crate) fn to_properties(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key}={value}");
        };
        if let Some(directory) = &self.data_dir {
            let file = directory.join(crate::kv_config::FILE_NAME);
            line("kvConfigPath", &file.display());
        }
        line("defaultHeartbeatTimeoutMillis", &self.default_heartbeat_timeout_ms);
        line("scanNotActiveBrokerInterval", &self.scan_interval_ms);
        line("orderMessageEnable", &self.order_messages);
        line("returnOrderTopicConfigToBroker", &self.return_order_topic_config_to_broker);
        line("supportActingMaster", &self.support_acting_master);
        line("deleteTopicWithBrokerRegistration", &self.delete_topic_with_broker_registration);
        // A registration that says `isPart` deletes nothing. Brokers ask whether this is known here.
        line("registrationPartsEnable", &true);
        line("frameBytesMax", &self.limits.frame_bytes_max);
        line("connectionsMax", &self.limits.connections_max);
        line("serverChannelMaxIdleTimeSeconds", &self.limits.idle_seconds);
        line("brokersMax", &self.limits.brokers_max);
        line("topicsMax", &self.limits.topics_max);
        line("kvEntriesMax", &self.limits.kv_entries_max);
        line("kvBytesMax", &self.limits.kv_bytes_max);
        text
    }

    pub(crate) fn default_heartbeat_timeout(&self) -> Duration {
        Duration::from_millis(self.default_heartbeat_timeout_ms)
    }

    pub(crate) fn scan_interval(&self) -> Duration {
        Duration::from_millis(self.scan_interval_ms)
    }

    pub(crate) fn server_config(&self) -> Result<ServerConfig, TlsError> {
        Ok(ServerConfig {
            limits: Limits {
                frame_bytes_max: self.limits.frame_bytes_max,
                idle_timeout: Some(Duration::from_secs(self.limits.idle_seconds)),
            },
            connections_max: Some(self.limits.connections_max),
            tls: self.tls.server_config()?,
            ..ServerConfig::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_wrong_or_unknown_setting_is_named() {
        NameServerConfig::default().validate().unwrap();
        let wrong = NameServerConfig { scan_interval_ms: 0, ..NameServerConfig::default() };
        let error = wrong.validate().unwrap_err().to_string();
        assert_eq!(error, "scan_interval_ms is 0: use 10 to 86400000");
        let unknown = serde_json::from_str::<NameServerConfig>(r#"{"scanInterval":1}"#);
        assert!(unknown.unwrap_err().to_string().contains("scanInterval"));
        let set: NameServerConfig = serde_json::from_str(r#"{"limits":{"topics_max":7}}"#).unwrap();
        assert_eq!(set.limits.topics_max, 7);
        assert!(set.to_properties().contains("topicsMax=7\n"));
    }
}
