//! A group's lease as a `Lease` of `coordination.k8s.io/v1`.
//!
//! | where | what |
//! | --- | --- |
//! | `spec.holderIdentity` | replica and incarnation of the holder, as `2-00000000000000ab`; absent or empty: nobody |
//! | `metadata.annotations["weirmq.io/renewals"]` | how often it was renewed, decimal |
//! | `spec.leaseTransitions`, `spec.renewTime`, `spec.acquireTime` | for people; nothing decides by them, since clocks differ |
//!
//! Renewals stand in an annotation, because the numbers of the kind's own fields end at 2^31.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use weirmq_authority::{Incarnation, Lease, Member, ReplicaId};

/// The annotation with the renewals.
const RENEWALS: &str = "weirmq.io/renewals";

/// A lease as it was read, with what a change has to count on from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LeaseObject {
    pub(super) lease: Lease,
    transitions: u32,
}

impl LeaseObject {
    /// Reads the object.
    ///
    /// # Errors
    /// What of it is not a lease.
    pub(super) fn read(object: &Value) -> Result<Self, String> {
        let renewals = match &object["metadata"]["annotations"][RENEWALS] {
            Value::Null => None,
            Value::String(renewals) => Some(parse_renewals(renewals).ok_or_else(|| {
                format!("the annotation {RENEWALS} is not a number below 2^63: {renewals:.40}")
            })?),
            other => return Err(format!("the annotation {RENEWALS} is {other:.40}")),
        };
        let spec = &object["spec"];
        let holder = match &spec["holderIdentity"] {
            Value::Null => None,
            Value::String(identity) if identity.is_empty() => None,
            Value::String(identity) => Some(parse_holder(identity).ok_or_else(|| {
                format!("spec.holderIdentity is not REPLICA-INCARNATION: {identity:.40}")
            })?),
            other => return Err(format!("spec.holderIdentity is {other:.40}")),
        };
        if holder.is_some() && renewals.is_none() {
            let why = "it has a holder and no annotation";
            return Err(format!("{why} {RENEWALS}; take spec.holderIdentity away to free it"));
        }
        let transitions = spec["leaseTransitions"].as_u64().and_then(|n| u32::try_from(n).ok());
        let lease = Lease { holder, renewals: renewals.unwrap_or(0) };
        Ok(Self { lease, transitions: transitions.unwrap_or(0) })
    }

    /// The fields that change from this lease, or from one that is not known, to `next`.
    pub(super) fn change(before: Option<&Self>, next: &Lease, now: Timestamp) -> Value {
        let now = format!("{now:.6}");
        let holder = next.holder.map(|Member { replica, incarnation }| {
            format!("{}-{}", replica.0, String::from(incarnation))
        });
        let mut spec = json!({ "holderIdentity": holder, "renewTime": now });
        if let Some(before) = before
            && before.lease.holder != next.holder
        {
            spec["acquireTime"] = json!(now);
            // A signed number of 32 bits in the API.
            spec["leaseTransitions"] = json!(before.transitions.saturating_add(1) & 0x7fff_ffff);
        }
        json!({
            "metadata": { "annotations": { RENEWALS: next.renewals.to_string() } },
            "spec": spec,
        })
    }
}

/// Below 2^63, so that counting on cannot overflow.
fn parse_renewals(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<i64>().ok().filter(|_| is_digits)?.try_into().ok()
}

fn parse_holder(identity: &str) -> Option<Member> {
    let (replica, incarnation) = identity.split_once('-')?;
    let is_digits = replica.bytes().all(|byte| byte.is_ascii_digit());
    let replica = ReplicaId(replica.parse().ok().filter(|_| is_digits)?);
    let is_whole =
        incarnation.len() == 16 && incarnation.bytes().all(|byte| byte.is_ascii_hexdigit());
    let incarnation = Incarnation::try_from(incarnation.to_owned()).ok().filter(|_| is_whole)?;
    Some(Member { replica, incarnation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Lease {
        let holder = Member { replica: ReplicaId(2), incarnation: Incarnation(0xab) };
        Lease { holder: Some(holder), renewals: 7 }
    }

    #[test]
    fn a_lease_passes_through_the_object() {
        let now = "2026-11-27T13:30:00.1234567Z".parse().unwrap();
        let object = LeaseObject::change(Some(&LeaseObject::default()), &held(), now);
        assert_eq!(object["spec"]["holderIdentity"], "2-00000000000000ab");
        assert_eq!(object["spec"]["renewTime"], "2026-11-27T13:30:00.123456Z");
        let read = LeaseObject::read(&object).unwrap();
        assert_eq!((read.lease, read.transitions), (held(), 1));
        let renewed = Lease { renewals: 8, ..held() };
        let object = LeaseObject::change(Some(&read), &renewed, now);
        assert_eq!(object["spec"]["leaseTransitions"], Value::Null);
        let given_back =
            LeaseObject::change(Some(&read), &Lease { holder: None, renewals: 9 }, now);
        assert_eq!(given_back["spec"]["holderIdentity"], Value::Null);
    }

    #[test]
    fn an_object_that_nobody_took_is_a_free_lease() {
        for object in [json!({}), json!({"spec": {}}), json!({"spec": {"holderIdentity": ""}})] {
            assert_eq!(LeaseObject::read(&object).unwrap().lease, Lease::default());
        }
    }

    #[test]
    fn what_is_not_a_lease_is_refused() {
        let annotated = |renewals: &str| json!({ RENEWALS: renewals });
        let object = |annotations: Value, holder: &str| json!({"metadata": {"annotations": annotations}, "spec": {"holderIdentity": holder}});
        for holder in ["somebody", "0", "0-1", "+1-00000000000000ab", "0-00000000000000ag", "-"] {
            assert!(LeaseObject::read(&object(annotated("1"), holder)).is_err(), "{holder}");
        }
        let holder = "0-00000000000000ab";
        for renewals in ["", "-1", "+1", "1.5", "9223372036854775808", "18446744073709551615"] {
            assert!(LeaseObject::read(&object(annotated(renewals), holder)).is_err(), "{renewals}");
        }
        let error = LeaseObject::read(&object(json!({}), holder)).unwrap_err();
        assert!(error.contains("take spec.holderIdentity away"), "{error}");
        assert!(LeaseObject::read(&json!({"spec": {"holderIdentity": 5}})).is_err());
    }
}
