//! Which of several operators acts: the one that holds a Lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Another one acts once the lease was not renewed for this long.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// The holder stops after this long without having renewed it, before anybody else can begin.
const STEP_DOWN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Where the Lease is, and who asks.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) identity: String,
}

/// Until when this process may act. It ends by itself, also in a process that was frozen and goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tenure(Arc<AtomicU64>);

impl Tenure {
    /// The lease was renewed by a request that was sent at this time of [`milliseconds`].
    fn renewed(&self, sent: u64) {
        self.0.store(sent + STEP_DOWN.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        milliseconds() >= self.0.load(Ordering::Relaxed)
    }
}

/// Of CLOCK_BOOTTIME, which goes on while the machine sleeps.
fn milliseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// The lease is held.
pub(crate) struct Office {
    place: Place,
    lease: Lease,
    tenure: Tenure,
    /// From before the request that renewed it last.
    since: Instant,
}

/// Waits until the lease is this one's; `None` when told to end before.
///
/// A holder's clock is not looked at: the lease is taken over when it was seen unchanged for its whole
/// length.
pub(crate) async fn wait(
    client: &Client,
    place: &Place,
    tenure: &Tenure,
    shutdown: &CancellationToken,
) -> Option<Office> {
    let api: Api<Lease> = Api::namespaced(client.clone(), &place.namespace);
    let mut seen: Option<(String, Instant)> = None;
    let mut complaint = String::new();
    loop {
        let (since, sent) = (Instant::now(), milliseconds());
        let attempt = tokio::time::timeout(REQUEST_TIMEOUT, attempt(&api, place, &mut seen));
        let taken = tokio::select! {
            () = shutdown.cancelled() => return None,
            taken = attempt => taken,
        };
        match taken {
            Ok(Ok(Some(lease))) => {
                tenure.renewed(sent);
                let (place, tenure) = (place.clone(), tenure.clone());
                return Some(Office { place, lease, tenure, since });
            }
            Ok(Ok(None)) => complaint.clear(),
            Ok(Err(error)) => complain(&mut complaint, error.to_string()),
            Err(_) => complain(&mut complaint, "no answer".to_owned()),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = sleep(RETRY) => {}
        }
    }
}

fn complain(before: &mut String, error: String) {
    if *before != error {
        tracing::warn!(error, "the lease of the operators cannot be asked for");
        *before = error;
    }
}

async fn attempt(
    api: &Api<Lease>,
    place: &Place,
    seen: &mut Option<(String, Instant)>,
) -> Result<Option<Lease>, kube::Error> {
    let Some(found) = api.get_opt(&place.name).await? else {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(place.name.clone()), ..ObjectMeta::default() },
            spec: Some(spec(place, None)),
        };
        return taken(api.create(&PostParams::default(), &lease).await);
    };
    let holder = found.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    let is_free = holder.is_none_or(|holder| holder.is_empty() || holder == place.identity);
    let version = found.metadata.resource_version.clone().unwrap_or_default();
    let is_over = match seen {
        Some((known, since)) if *known == version => since.elapsed() >= LEASE,
        _ => {
            *seen = Some((version, Instant::now()));
            false
        }
    };
    if !is_free && !is_over {
        return Ok(None);
    }
    let next = Lease { spec: Some(spec(place, found.spec.as_ref())), ..found };
    taken(api.replace(&place.name, &PostParams::default(), &next).await)
}

/// A conflict means that somebody else was faster.
fn taken(result: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn spec(place: &Place, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    let is_same = before.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&place.identity));
    LeaseSpec {
        holder_identity: Some(place.identity.clone()),
        lease_duration_seconds: Some(LEASE.as_secs() as i32),
        acquire_time: match before {
            Some(before) if is_same => before.acquire_time.clone(),
            _ => Some(now.clone()),
        },
        renew_time: Some(now),
        lease_transitions: Some(transitions + i32::from(!is_same)),
        ..LeaseSpec::default()
    }
}

impl Office {
    /// Renews the lease; comes back when it is lost.
    pub(crate) async fn keep(&mut self, client: Client) {
        let api: Api<Lease> = Api::namespaced(client, &self.place.namespace);
        loop {
            let deadline = self.since + STEP_DOWN;
            sleep(RENEW_EVERY).await;
            if !self.renew(&api, deadline).await {
                tracing::error!(lease = self.place.name, "the lease of the operators is lost");
                return;
            }
        }
    }

    /// Tries until the deadline.
    async fn renew(&mut self, api: &Api<Lease>, deadline: Instant) -> bool {
        loop {
            let (begun, sent) = (Instant::now(), milliseconds());
            let next = Lease {
                spec: Some(spec(&self.place, self.lease.spec.as_ref())),
                ..self.lease.clone()
            };
            let (name, parameters) = (self.place.name.clone(), PostParams::default());
            let replaced = api.replace(&name, &parameters, &next);
            match tokio::time::timeout_at(deadline.min(begun + REQUEST_TIMEOUT), replaced).await {
                Ok(Ok(lease)) => {
                    self.tenure.renewed(sent);
                    (self.lease, self.since) = (lease, begun);
                    return true;
                }
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                    // Perhaps our own renewal whose answer was lost.
                    if let Ok(Ok(found)) = tokio::time::timeout_at(deadline, api.get(&name)).await {
                        let spec = found.spec.as_ref();
                        let holder = spec.and_then(|spec| spec.holder_identity.as_ref());
                        if holder != Some(&self.place.identity) {
                            return false;
                        }
                        self.lease = found;
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease of the operators is not renewed")
                }
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// So that the next one need not wait. Nothing of this one's may be under way any more.
    pub(crate) async fn give_up(self, client: Client) {
        let api: Api<Lease> = Api::namespaced(client, &self.place.namespace);
        let mut next = self.lease.clone();
        if let Some(spec) = &mut next.spec {
            spec.holder_identity = Some(String::new());
        }
        let (name, parameters) = (&self.place.name, PostParams::default());
        let given = api.replace(name, &parameters, &next);
        if let Ok(Err(error)) = tokio::time::timeout(RETRY, given).await {
            tracing::warn!(%error, "the lease of the operators was not given up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenure_ends_by_itself() {
        let tenure = Tenure::default();
        assert!(tenure.is_over(), "before the lease was taken");
        let now = milliseconds();
        tenure.renewed(now);
        assert!(!tenure.is_over());
        let long_ago = now.saturating_sub(STEP_DOWN.as_millis() as u64);
        tenure.renewed(long_ago);
        assert!(tenure.is_over());
    }
}
