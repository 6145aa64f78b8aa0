//! Which resource is meant: `mq`, `nameserver/ns`.

use std::fmt;
use std::str::FromStr;

use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};
use weirmq_operator::kinds::{Broker, ConsumerGroup, NameServer, Topic};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Broker,
    NameServer,
    Topic,
    ConsumerGroup,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::NameServer => "nameserver",
            Self::Topic => "topic",
            Self::ConsumerGroup => "consumergroup",
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Self::Broker => ApiResource::erase::<Broker>(&()),
            Self::NameServer => ApiResource::erase::<NameServer>(&()),
            Self::Topic => ApiResource::erase::<Topic>(&()),
            Self::ConsumerGroup => ApiResource::erase::<ConsumerGroup>(&()),
        }
    }
}

/// A resource by kind and name; `NAME` alone is a Broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Target {
    pub(super) fn api(&self, client: Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client, namespace, &self.kind.resource())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.text(), self.name)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').unwrap_or(("broker", text));
        let lower = kind.to_ascii_lowercase();
        let singular = lower.strip_suffix('s').unwrap_or(&lower);
        let kinds = [Kind::Broker, Kind::NameServer, Kind::Topic, Kind::ConsumerGroup];
        let Some(kind) = kinds.into_iter().find(|kind| kind.text() == singular) else {
            let known = kinds.map(Kind::text).join(", ");
            return Err(format!("there is no kind {kind} here; there are: {known}"));
        };
        if name.is_empty() {
            return Err("the name is missing".to_owned());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_a_broker() {
        let parsed = |text: &str| text.parse::<Target>().map(|target| target.to_string());
        assert_eq!(parsed("mq"), Ok("broker/mq".to_owned()));
        assert_eq!(parsed("NameServers/ns"), Ok("nameserver/ns".to_owned()));
        assert_eq!(parsed("consumergroup/g"), Ok("consumergroup/g".to_owned()));
        assert!(parsed("pod/x").unwrap_err().contains("no kind pod"));
        assert!(parsed("broker/").is_err());
    }
}
