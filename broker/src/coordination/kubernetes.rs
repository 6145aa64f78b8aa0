//! The authority on Kubernetes: the status of a `BrokerGroup` and a `Lease` of the same name.
//!
//! Rights that a broker needs, each with the group's name under `resourceNames`:
//!
//! | apiGroup | resource | verbs |
//! | --- | --- | --- |
//! | `weirmq.io` | `brokergroups` | get, watch |
//! | `weirmq.io` | `brokergroups/status` | update |
//! | `coordination.k8s.io` | `leases` | get, patch |
//! | `discovery.k8s.io` | `endpointslices`, of the name in [`super::MasterEndpoint`] | get, create, patch |

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Config;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};
use uuid::Uuid;
use weirmq_authority::kubernetes::{BrokerGroupSpec, BrokerGroupStatus};
use weirmq_authority::{Lease, Record, Settings, Swapped, Version};

use super::api::{Api, Change, Error, Kind, Object};
use super::lease_object::LeaseObject;
use super::watch::Watch;

/// How often one read is asked for, at most. A read that fails makes a candidate wait for the
/// lease's whole length again, so one that hangs is asked for a second time beside the first.
const READS_MAX: u32 = 3;

/// The pause after all questions have failed, as those on a connection that was cut.
const READ_PAUSE: Duration = Duration::from_millis(30);

const BROKER_GROUP: Kind = Kind {
    name: "BrokerGroup",
    group: "weirmq.io",
    version: "v1alpha1",
    resource: "brokergroups",
    origin: "the operator makes it for each group of a Broker",
};

const LEASE: Kind = Kind {
    name: "Lease",
    group: "coordination.k8s.io",
    version: "v1",
    resource: "leases",
    origin: "the operator makes it beside the BrokerGroup; an empty one of the same name will do",
};

/// One group's record and lease on an API server.
///
/// Reads are linearizable: quorum reads that begin after the call. A version is `UID/resourceVersion`,
/// so that an object that was deleted and made again is another one. Nothing is retried but reads,
/// within their time.
pub struct Kubernetes {
    api: Api,
    record: Object,
    lease: Object,
    known: Mutex<Known>,
    complaints: Complaints,
}

/// Record, lease, and the settings of the group beside the record; of those the times are the defaults.
pub type Found = ((Version, Record), (Version, Lease), Settings);

/// What was read or written last.
#[derive(Default)]
struct Known {
    record: Option<(Version, Record)>,
    lease: Option<(Version, LeaseObject)>,
}

impl Kubernetes {
    /// The objects called `group` in `namespace`, by default the one this process runs in. Finds the
    /// API server by `$KUBECONFIG`, or as a pod does. Sends nothing yet.
    ///
    /// No request takes longer than three quarters of `request_timeout`, which is
    /// [`weirmq_authority::Settings::request_timeout`].
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub async fn from_environment(
        namespace: Option<&str>,
        group: &str,
        request_timeout: Duration,
    ) -> Result<Self, Error> {
        let config = Config::infer().await;
        let config = config.map_err(|error| {
            let hint = "this is not a pod with a service account, and KUBECONFIG does not help";
            Error::Configuration(format!("{hint}: {error}"))
        })?;
        Self::new(config, namespace, group, request_timeout)
    }

    /// The same with a given API server.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn new(
        config: Config,
        namespace: Option<&str>,
        group: &str,
        request_timeout: Duration,
    ) -> Result<Self, Error> {
        let namespace: Arc<str> = namespace.unwrap_or(&config.default_namespace).into();
        check_name("namespace", &namespace, 63)?;
        check_name("broker group", group, 253)?;
        let name: Arc<str> = group.into();
        let object = |kind| {
            let (namespace, name) = (Arc::clone(&namespace), Arc::clone(&name));
            Object { kind, namespace, name }
        };
        let (record, lease) = (object(&BROKER_GROUP), object(&LEASE));
        let api = Api::new(config, request_timeout.mul_f64(0.75))?;
        let (known, complaints) = (Mutex::default(), Complaints::default());
        Ok(Self { api, record, lease, known, complaints })
    }

    /// Reads record and lease, and what the group's settings are in that version of the record.
    ///
    /// # Errors
    /// Names the object and what to do. A new complaint is logged as well, and that it is over.
    pub async fn read(&self) -> Result<Found, Error> {
        let read = tokio::try_join!(self.read_group(), self.read_lease());
        self.complaints.note("read", read.as_ref().err());
        let ((record, settings), (version, lease)) = read?;
        let mut known = self.known.lock();
        known.record = Some(record.clone());
        known.lease = Some((version.clone(), lease));
        Ok((record, (version, lease.lease), settings))
    }

    /// Replaces the record, if it stands in version `expected`. A change that no correct replica
    /// makes is not even sent.
    pub async fn swap_record(&self, expected: &Version, next: &Record) -> Swapped {
        let swapped = self.try_swap_record(expected, next).await;
        self.outcome("change the record", swapped)
    }

    /// Replaces the lease, if it stands in version `expected`.
    pub async fn swap_lease(&self, expected: &Version, next: &Lease) -> Swapped {
        let swapped = self.try_swap_lease(expected, next).await;
        self.outcome("change the lease", swapped)
    }

    /// Wakes whoever awaits it when the record or the group's settings may have changed: a hint to
    /// read. Not for the lease, which changes all the time as long as all is well.
    pub fn watch(&self) -> Watch {
        Watch::of(&self.api, self.record.clone())
    }

    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    pub(super) fn namespace(&self) -> Arc<str> {
        Arc::clone(&self.record.namespace)
    }

    /// The uid of the `BrokerGroup` that was read or written last; empty before.
    pub(super) fn uid(&self) -> String {
        let known = self.known.lock();
        let uid = known.record.as_ref().and_then(|(version, _)| version.0.rsplit_once('/'));
        uid.map(|(uid, _)| uid.to_owned()).unwrap_or_default()
    }

    async fn read_group(&self) -> Result<((Version, Record), Settings), Error> {
        let mut object = self.read_object(&self.record).await?;
        let record = (version(&self.record, &object)?, self.record_in(&object)?);
        let spec = serde_json::from_value::<BrokerGroupSpec>(object["spec"].take());
        let spec = spec.map_err(|error| self.record.unreadable(format!("its spec: {error}")))?;
        Ok((record, spec.settings().map_err(|why| self.record.unreadable(why))?))
    }

    async fn read_lease(&self) -> Result<(Version, LeaseObject), Error> {
        let object = self.read_object(&self.lease).await?;
        let lease = LeaseObject::read(&object).map_err(|why| self.lease.unreadable(why))?;
        Ok((version(&self.lease, &object)?, lease))
    }

    fn record_in(&self, object: &Value) -> Result<Record, Error> {
        let record = BrokerGroupStatus::record_in(object.get("status"));
        record.map_err(|why| self.record.unreadable(format!("its status is no record: {why}")))
    }

    /// The first good answer of up to [`READS_MAX`] questions, of which each later one is asked
    /// after a third of the time or when all before have failed.
    async fn read_object(&self, object: &Object) -> Result<Value, Error> {
        let within = self.api.request_timeout;
        let end = Instant::now() + within;
        let mut asked = tokio::task::JoinSet::new();
        for nth in 1..=READS_MAX {
            let (api, question) = (self.api.clone(), object.clone());
            asked.spawn(async move { api.get(&question).await });
            let patience =
                if nth == READS_MAX { end } else { end - within * (READS_MAX - nth) / READS_MAX };
            while let Ok(answer) = timeout_at(patience, asked.join_next()).await {
                match answer {
                    Some(Ok(Err(error))) if error.is_passing() && nth < READS_MAX => {}
                    Some(Ok(answer)) => return answer,
                    Some(Err(error)) => return Err(object.unreadable(error.to_string())),
                    // All failed. The next one follows a little later, not at once.
                    None => {
                        sleep_until(patience.min(Instant::now() + READ_PAUSE)).await;
                        break;
                    }
                }
            }
        }
        Err(Error::NoAnswer { object: object.clone(), within })
    }

    async fn try_swap_record(&self, expected: &Version, next: &Record) -> Result<Version, Error> {
        let object = &self.record;
        let known = self.known.lock().record.clone().filter(|(known, _)| known == expected);
        let before = match known {
            Some((_, before)) => before,
            // Not what was seen last: so it is looked for.
            None => {
                let ((found, before), _) = self.read_group().await?;
                if found != *expected {
                    return Err(Error::Conflict(object.clone()));
                }
                before
            }
        };
        if let Err(regression) = before.check_next(next) {
            let said = format!("this broker itself does: {regression}");
            return Err(Error::Refused { object: object.clone(), code: 0, said });
        }
        let status = BrokerGroupStatus { record: next.clone(), write: Uuid::new_v4().to_string() };
        let body = json!({
            "apiVersion": object.api_version(),
            "kind": object.kind.name,
            "metadata": self.expected(object, expected)?,
            "status": status,
        });
        let answer = self.api.change(object, Change::ReplaceStatus, &body).await?;
        let version = version(object, &answer)?;
        if self.record_in(&answer)? != *next {
            return Err(object.unreadable(
                "the API server keeps another record than it was given; its definition of the \
                 kind is another one than `weir crds` prints",
            ));
        }
        self.known.lock().record = Some((version.clone(), next.clone()));
        Ok(version)
    }

    async fn try_swap_lease(&self, expected: &Version, next: &Lease) -> Result<Version, Error> {
        let object = &self.lease;
        let known = self.known.lock().lease.clone().filter(|(known, _)| known == expected);
        let before = known.as_ref().map(|(_, before)| before);
        // A patch and no replacement: labels and owners are others'.
        let mut body = LeaseObject::change(before, next, Timestamp::now());
        let metadata = self.expected(object, expected)?;
        for (key, value) in metadata.as_object().into_iter().flatten() {
            body["metadata"][key] = value.clone();
        }
        let answer = self.api.change(object, Change::Merge, &body).await?;
        let version = version(object, &answer)?;
        let written = LeaseObject::read(&answer).map_err(|why| object.unreadable(why))?;
        if written.lease != *next {
            return Err(object.unreadable("the API server keeps another lease than it was given"));
        }
        self.known.lock().lease = Some((version.clone(), written));
        Ok(version)
    }

    /// The metadata that makes a change hold for one version only.
    fn expected(&self, object: &Object, expected: &Version) -> Result<Value, Error> {
        let (uid, resource_version) = expected.0.rsplit_once('/').ok_or_else(|| {
            let said = format!("{:?} is no version of it", expected.0);
            Error::Refused { object: object.clone(), code: 0, said }
        })?;
        Ok(json!({
            "name": object.name.as_ref(), "namespace": object.namespace.as_ref(),
            "uid": uid, "resourceVersion": resource_version,
        }))
    }

    fn outcome(&self, what: &'static str, swapped: Result<Version, Error>) -> Swapped {
        // Losing is part of an election and nobody's fault.
        let complaint = swapped.as_ref().err().filter(|error| !matches!(error, Error::Conflict(_)));
        self.complaints.note(what, complaint);
        match swapped {
            Ok(version) => Swapped::Won(version),
            Err(error) if error.is_certain() => Swapped::Lost,
            Err(_) => Swapped::Unknown,
        }
    }
}

/// The version of an object as the API server gave it.
fn version(object: &Object, value: &Value) -> Result<Version, Error> {
    let metadata = &value["metadata"];
    match (metadata["uid"].as_str(), metadata["resourceVersion"].as_str()) {
        (Some(uid), Some(version)) if !uid.is_empty() && !version.is_empty() => {
            Ok(Version(format!("{uid}/{version}")))
        }
        _ => Err(object.unreadable("it has no uid or no resourceVersion")),
    }
}

/// Names go into paths: what is no name of an object must not choose another path.
pub(super) fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let are_ends_plain = bytes.first().is_some_and(|byte| is_plain(*byte))
            && bytes.last().is_some_and(|byte| is_plain(*byte));
        are_ends_plain && bytes.iter().all(|byte| is_plain(*byte) || *byte == b'-')
    };
    if name.len() <= bytes_max && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(Error::Configuration(format!(
        "{name:?} is no name of a {what}: up to {bytes_max} small letters, digits, - and ."
    )))
}

/// What was complained of last, so that a fault that lasts is logged once.
#[derive(Default)]
struct Complaints(Mutex<Vec<(&'static str, String)>>);

impl Complaints {
    fn note(&self, what: &'static str, error: Option<&Error>) {
        let mut complaints = self.0.lock();
        let known = complaints.iter().position(|(known, _)| *known == what);
        match (error.map(ToString::to_string), known) {
            (Some(error), known) => {
                if known.is_none_or(|known| complaints[known].1 != error) {
                    warn!(error, "could not {what} of the broker group");
                }
                match known {
                    Some(known) => complaints[known].1 = error,
                    None => complaints.push((what, error)),
                }
            }
            (None, Some(known)) => {
                complaints.swap_remove(known);
                info!("could {what} of the broker group again");
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        for name in ["broker-a", "a", "orders.broker-0", "0"] {
            check_name("broker group", name, 253).unwrap();
        }
        for name in ["", ".", "..", "a/b", "a/../b", "A", "a_b", "-a", "a-", "a..b", "a?x=1", "ä"]
        {
            assert!(check_name("broker group", name, 253).is_err(), "{name}");
        }
        assert!(check_name("namespace", &"a".repeat(64), 63).is_err());
    }
}
