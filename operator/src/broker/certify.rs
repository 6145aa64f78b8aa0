//! Certificates of one Broker: made by the operator's own authority, or asked of cert-manager.
//!
//! Their Secrets are not watched, because that takes the right to list all Secrets there are. They are
//! read when something is due, when a pod is not ready, and every 10 minutes.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::Round;
use super::build::{Plan, tls};
use crate::annotations::RENEW_CERTIFICATES;
use crate::certificates::{self, Both, Shown, Wanted};
use crate::children::{holds, is_of_same_owner, is_owned, short_digest};
use crate::context::{Error, MANAGER};
use crate::kinds::IssuerRef;

/// When the mounted Secret was changed last.
const WRITTEN_AT: &str = "weirmq.io/written-at";
const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// What was wanted when it was looked at last, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certified {
    wanted: String,
    next: Timestamp,
    /// Nobody is waited for. What cert-manager has not issued is looked at each time, as a condition speaks of it.
    is_done: bool,
}

impl Certified {
    fn is_still_so(&self, wanted: &str, now: Timestamp) -> bool {
        self.is_done && self.wanted == wanted && now < self.next
    }
}

impl Round<'_> {
    /// Sees to the certificates, if the resource brings none along. While not all hosts are known those
    /// that there are stay for whom they were made, and are renewed.
    pub(super) async fn certify(
        &mut self,
        plan: &Plan<'_>,
        are_hosts_known: bool,
    ) -> Result<(), Error> {
        let Some(spec) = self.resource.spec.tls.as_ref().filter(|_| tls::are_made(self.resource))
        else {
            return Ok(());
        };
        let (hosts, now) = (tls::hosts(plan), Timestamp::now());
        let asked = self.resource.annotations().get(RENEW_CERTIFICATES);
        let uid = self.resource.uid();
        let wanted =
            short_digest(&format!("{spec:?} {hosts:?} {are_hosts_known} {asked:?} {uid:?}"));
        let key = (plan.namespace(), plan.name());
        let known = self.context.certified.lock().get(&key).cloned();
        let all_ready = self.seen().iter().flat_map(|view| &view.pods).all(|pod| pod.is_ready);
        if all_ready && known.is_some_and(|known| known.is_still_so(&wanted, now)) {
            return Ok(());
        }
        let next = match &spec.issuer_ref {
            Some(issuer) => {
                // cert-manager renews what it was asked for before.
                if are_hosts_known {
                    self.ask_cert_manager(plan, issuer, &hosts).await?;
                }
                now + LOOK_EVERY
            }
            None => self.issue(plan, hosts, are_hosts_known, now).await?.min(now + LOOK_EVERY),
        };
        let is_done = self.findings.certificate.is_none();
        self.context.certified.lock().insert(key, Certified { wanted, next, is_done });
        Ok(())
    }

    /// Makes and renews what the operator's own authority issues, and says when to look again.
    async fn issue(
        &self,
        plan: &Plan<'_>,
        mut hosts: BTreeSet<String>,
        are_hosts_known: bool,
        now: Timestamp,
    ) -> Result<Timestamp, Error> {
        let (authority, shown) = (tls::authority(&plan.name()), tls::certificates(&plan.name()));
        let authority = Kept::read(self, plan, authority).await?;
        let shown = Kept::read(self, plan, shown).await?;
        if !are_hosts_known {
            let Some(shown) = shown.shown() else { return Ok(now + LOOK_EVERY) };
            hosts.extend(certificates::shown_hosts(&shown));
        }
        let both = certificates::step(
            &Wanted {
                name: plan.name(),
                hosts,
                made_after: self.renewal()?,
                settle: self.context.certificate_settle,
                authority: authority.data(),
                shown: shown.shown().as_ref(),
            },
            now,
        );
        let Both { authority: next_authority, shown: next_shown, next } = both.map_err(|why| {
            Error::Certificates(format!(
                "Secret {}: {why}; mend it, or delete it to have another authority made, which brokers \
                 know each other by once all of them have read it",
                authority.name
            ))
        })?;
        if authority.data() != Some(&next_authority) || !authority.is_owned(plan) {
            authority.write(self, plan, "Opaque", json!(next_authority), None).await?;
        }
        let is_new = shown.shown().as_ref() != Some(&next_shown);
        if is_new || !shown.is_owned(plan) {
            let written = Some(next_shown.written);
            let data = json!(next_shown.data);
            shown.write(self, plan, "kubernetes.io/tls", data, written).await?;
        }
        if is_new {
            let note = format!("wrote certificates into Secret {}", shown.name);
            self.event(EventType::Normal, "CertificatesWritten", note).await;
        }
        Ok(next)
    }

    /// Since when certificates have to be.
    fn renewal(&self) -> Result<Option<Timestamp>, Error> {
        let Some(text) = self.resource.annotations().get(RENEW_CERTIFICATES) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Error::Certificates(format!(
                "the annotation {RENEW_CERTIFICATES} is {text}, which is no time such as 2026-11-27T21:00:00Z"
            ))
        })
    }

    /// Applies the `Certificate` whose Secret the pods mount.
    async fn ask_cert_manager(
        &mut self,
        plan: &Plan<'_>,
        issuer: &IssuerRef,
        hosts: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
        let resource = ApiResource::from_gvk_with_plural(&kind, "certificates");
        let wanted = tls::certificate(plan, issuer, hosts);
        let name = tls::certificates(&plan.name());
        let client = self.context.client.clone();
        let api: Api<DynamicObject> = Api::namespaced_with(client, &plan.namespace(), &resource);
        let what = || format!("look for Certificate {name}");
        let found = match api.get_opt(&name).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                let (broker, namespace) = (plan.name(), plan.namespace());
                return Err(Error::MayNotCertify { name, broker, namespace });
            }
            // An object that is not there is no error. That the kind is not the server says in plain text.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(Error::NoCertManager);
            }
            found => found.map_err(Error::kubernetes(what()))?,
        };
        if let Some(found) = &found {
            if !is_of_same_owner(&found.metadata, &wanted) {
                return Err(Error::NameTaken { kind: "Certificate".to_owned(), name });
            }
            self.findings.certificate = not_ready(&found.data);
            if holds(&serde_json::to_value(found).unwrap_or_default(), &wanted) {
                return Ok(());
            }
        }
        let parameters = PatchParams::apply(MANAGER).force();
        match api.patch(&name, &parameters, &Patch::Apply(&wanted)).await {
            Ok(_) => {
                self.context.metrics.wrote("Certificate");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Err(Error::NoCertManager),
            Err(error) => Err(Error::kubernetes(format!("apply Certificate {name}"))(error)),
        }
    }
}

/// What cert-manager says of a certificate that it has not issued.
fn not_ready(certificate: &Value) -> Option<String> {
    let conditions = certificate["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    (ready["status"] != "True")
        .then(|| ready["message"].as_str().unwrap_or("cert-manager does not say why").to_owned())
}

/// A Secret as it is.
struct Kept {
    name: String,
    found: Option<Secret>,
}

impl Kept {
    async fn read(round: &Round<'_>, plan: &Plan<'_>, name: String) -> Result<Self, Error> {
        let api = Self::api(round, plan);
        let found = match api.get_opt(&name).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                let (broker, namespace) = (plan.name(), plan.namespace());
                return Err(Error::MayNotCertify { name, broker, namespace });
            }
            found => found.map_err(Error::kubernetes(format!("read Secret {name}")))?,
        };
        if let Some(found) = &found {
            let wanted = plan.metadata(&name);
            let labels = json!(found.metadata.labels);
            if !holds(&labels, &wanted["labels"]) {
                return Err(Error::NameTaken { kind: "Secret".to_owned(), name });
            }
        }
        Ok(Self { name, found })
    }

    fn api(round: &Round<'_>, plan: &Plan<'_>) -> Api<Secret> {
        Api::namespaced(round.context.client.clone(), &plan.namespace())
    }

    /// Whether it goes with the Broker as it is there now. One of the same name that was deleted before
    /// takes along what it owned, when the garbage collector comes to it.
    fn is_owned(&self, plan: &Plan<'_>) -> bool {
        self.found.as_ref().is_some_and(|found| is_owned(&found.metadata, &plan.metadata("")))
    }

    fn data(&self) -> Option<&certificates::Data> {
        self.found.as_ref()?.data.as_ref()
    }

    /// One that does not say when it was written was written now, as far as anybody knows: by a time in
    /// the future it is written again.
    fn shown(&self) -> Option<Shown> {
        let data = self.data()?.clone();
        let written = self.found.as_ref()?.annotations().get(WRITTEN_AT);
        let written = written.and_then(|time| time.parse().ok()).unwrap_or(Timestamp::MAX);
        Some(Shown { data, written })
    }

    async fn write(
        &self,
        round: &Round<'_>,
        plan: &Plan<'_>,
        type_: &str,
        data: Value,
        written: Option<Timestamp>,
    ) -> Result<(), Error> {
        let mut metadata = plan.metadata(&self.name);
        if let Some(found) = &self.found {
            // Whoever changed it meanwhile is not overwritten; the next round reads it.
            metadata["resourceVersion"] = json!(found.resource_version());
        }
        if let Some(written) = written {
            metadata["annotations"] = json!({ WRITTEN_AT: written.to_string() });
        }
        let wanted = json!({
            "apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": metadata, "data": data,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let (api, patch) = (Self::api(round, plan), Patch::Apply(&wanted));
        let written = api.patch(&self.name, &parameters, &patch).await;
        written.map_err(Error::kubernetes(format!("write Secret {}", self.name)))?;
        round.context.metrics.wrote("Secret");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_issued_yet_is_looked_at_again() {
        let now = Timestamp::UNIX_EPOCH;
        let mut known = Certified { wanted: "a".to_owned(), next: now + LOOK_EVERY, is_done: true };
        assert!(known.is_still_so("a", now));
        assert!(!known.is_still_so("a", now + LOOK_EVERY) && !known.is_still_so("b", now));
        known.is_done = false;
        assert!(!known.is_still_so("a", now), "or nothing would say that it is missing");
    }

    #[test]
    fn cert_manager_is_believed_when_it_says_why() {
        let said = |status: &str| {
            json!({ "status": { "conditions": [
                { "type": "Issuing", "status": "True", "message": "x" },
                { "type": "Ready", "status": status, "message": "the issuer is missing" },
            ] } })
        };
        assert_eq!(not_ready(&said("False")).as_deref(), Some("the issuer is missing"));
        assert_eq!(not_ready(&said("True")), None);
        assert_eq!(not_ready(&json!({})), None);
    }
}
