//! The kinds that it knows.

use serde::Deserialize as _;
use serde_json::Value;
use weirmq_authority::kubernetes::{BrokerGroupSpec, BrokerGroupStatus};

/// A kind of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) name: &'static str,
    /// Whether the status changes only through its subresource.
    pub(crate) has_status: bool,
    /// Whether changes outside of the metadata are counted.
    pub(crate) has_generation: bool,
}

const KINDS: [Kind; 3] = [
    Kind {
        group: "weirmq.io",
        version: "v1alpha1",
        resource: "brokergroups",
        name: "BrokerGroup",
        has_status: true,
        has_generation: true,
    },
    Kind {
        group: "coordination.k8s.io",
        version: "v1",
        resource: "leases",
        name: "Lease",
        has_status: false,
        has_generation: false,
    },
    Kind {
        group: "discovery.k8s.io",
        version: "v1",
        resource: "endpointslices",
        name: "EndpointSlice",
        has_status: false,
        has_generation: true,
    },
];

impl Kind {
    pub(crate) fn of(group: &str, version: &str, resource: &str) -> Option<Self> {
        let is_it = |kind: &Self| {
            kind.group == group && kind.version == version && kind.resource == resource
        };
        KINDS.into_iter().find(is_it)
    }

    pub(crate) fn api_version(self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// How the real one names a resource in its messages.
    pub(crate) fn qualified(self) -> String {
        format!("{}.{}", self.resource, self.group)
    }

    /// Fills in what the schema has a default for.
    pub(crate) fn fill_in_defaults(self, object: &mut Value) {
        if let Ok(spec) = BrokerGroupSpec::deserialize(&object["spec"])
            && self.name == "BrokerGroup"
            && let Ok(spec) = serde_json::to_value(spec)
        {
            object["spec"] = spec;
        }
    }

    /// What is wrong with an object. Less is looked at than the schema does: what brokers write.
    pub(crate) fn fault_of(self, before: Option<&Value>, next: &Value) -> Option<String> {
        match self.name {
            "BrokerGroup" => broker_group_fault(before, next),
            "Lease" => {
                let spec = &next["spec"];
                let is_text = |field: &str| spec[field].is_null() || spec[field].is_string();
                let is_fine = is_text("holderIdentity") && is_text("renewTime");
                (!is_fine).then(|| "spec: Invalid value".to_owned())
            }
            _ => {
                let is_moved = before.is_some_and(|old| old["addressType"] != next["addressType"]);
                is_moved.then(|| "addressType: Invalid value: field is immutable".to_owned())
            }
        }
    }
}

fn broker_group_fault(before: Option<&Value>, next: &Value) -> Option<String> {
    let spec = serde_json::from_value::<BrokerGroupSpec>(next["spec"].clone());
    let settings = spec.map_err(|error| error.to_string()).and_then(|spec| spec.settings());
    if let Err(fault) = settings {
        return Some(format!("spec: Invalid value: {fault}"));
    }
    let before = before?;
    let fixed = |object: &Value| {
        let spec = &object["spec"];
        let replication = &spec["replication"];
        let policy = replication["ackPolicy"].as_str().unwrap_or("AllInSync").to_owned();
        (replication["mode"].clone(), policy, spec["flush"].clone())
    };
    if fixed(before) != fixed(next) {
        return Some(
            "spec: Invalid value: replication.mode, replication.ackPolicy and flush do not change"
                .to_owned(),
        );
    }
    if next["status"].is_null() {
        let is_taken = !before["status"].is_null();
        return is_taken.then(|| "the authority record cannot be taken away".to_owned());
    }
    let read = |object: &Value| BrokerGroupStatus::record_in(object.get("status"));
    match (read(before), read(next)) {
        (_, Err(fault)) => Some(format!("status: Invalid value: {fault}")),
        // The rules compare with a status only where one is.
        (Ok(_), Ok(_)) if before["status"].is_null() => None,
        (Ok(before), Ok(next)) => before.check_next(&next).err().map(|error| error.to_string()),
        (Err(_), Ok(_)) => None,
    }
}
