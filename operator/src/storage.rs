//! Disks that grow. A StatefulSet's claims cannot be changed, so the claims themselves are, and the set
//! is made anew around its pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::children::Children;
use crate::conditions::Finding;
use crate::context::{Context, Error};

/// How long at most until disks that could not grow are asked again whether they can.
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(120);
/// The condition that says so.
pub(crate) const NOT_EXPANDED: &str = "StorageNotExpanded";

/// The condition that says that a disk goes with its pod, and nobody else has what is on it.
pub(crate) const CLAIM_DELETED: &str = "ClaimDeleted";

/// What it says, and why.
pub(crate) fn not_expanded(why: &str) -> Finding {
    Finding::new(NOT_EXPANDED, true, "Refused", why)
}

/// Applies an object, of a StatefulSet with disks that may grow. Why they cannot, if that is so: then
/// everything else was applied.
pub(crate) async fn apply(
    context: &Context,
    children: &Children,
    wanted: &mut Value,
) -> Result<Option<String>, Error> {
    let mut refused = None;
    if wanted["kind"] == "StatefulSet" {
        match grow(context, children, wanted).await? {
            Claims::Fit => {}
            Claims::Renewed => return Ok(None),
            Claims::Refused(why) => refused = Some(why),
        }
    }
    children.apply(wanted).await?;
    Ok(refused)
}

/// What can be done with a StatefulSet this time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claims {
    /// It can be applied.
    Fit,
    /// It was deleted, without its pods, to be made anew with larger claims; not this time.
    Renewed,
    /// The disks cannot grow, and why. The wanted set was given the claims that are there.
    Refused(String),
}

/// Lets the disks of `wanted`, a StatefulSet, grow where it asks for that.
async fn grow(context: &Context, children: &Children, wanted: &mut Value) -> Result<Claims, Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&wanted["metadata"]["name"]);
    let namespace = text(&wanted["metadata"]["namespace"]);
    let Some(size) = size_of(&wanted["spec"]["volumeClaimTemplates"][0]) else {
        return Ok(Claims::Fit);
    };
    let asked = format!("let disks of {namespace}/{name} grow to {}", size.0);
    let Some(there) = children.get::<StatefulSet>("StatefulSet", &namespace, &name) else {
        // Disks of a set that was there before were kept, and may be smaller.
        let Some(refused) = grow_claims(context, &namespace, &name, &size).await? else {
            return Ok(Claims::Fit);
        };
        context.patience.in_vain(&asked, &refused.why, ASK_EVERY);
        // The set has another size than is wanted as long as a disk has, so that it is asked again.
        let request = &mut wanted["spec"]["volumeClaimTemplates"][0]["spec"]["resources"];
        request["requests"]["storage"] = json!(refused.size);
        return Ok(Claims::Refused(refused.why));
    };
    if there.metadata.deletion_timestamp.is_some() {
        return Ok(Claims::Renewed);
    }
    let known = json!(there.spec.as_ref().and_then(|spec| spec.volume_claim_templates.clone()));
    let Some(known_size) = size_of(&known[0]) else { return Ok(Claims::Fit) };
    if is_same(&size, &known_size) {
        return Ok(Claims::Fit);
    }
    // What was refused is refused until somebody changes the StorageClass, which nobody tells the operator.
    let refused = match context.patience.not_due(&asked) {
        Some(why) => Some(why),
        None => grow_claims(context, &namespace, &name, &size).await?.map(|refused| {
            context.patience.in_vain(&asked, &refused.why, ASK_EVERY);
            refused.why
        }),
    };
    if let Some(why) = refused {
        wanted["spec"]["volumeClaimTemplates"] = known;
        return Ok(Claims::Refused(why));
    }
    context.patience.forget(&asked);
    children.delete_alone("StatefulSet", &namespace, &name, there.uid()).await?;
    Ok(Claims::Renewed)
}

/// A disk that may not grow.
struct Refused {
    /// What it has.
    size: Quantity,
    why: String,
}

/// Has every claim of the set ask for `size` that asks for less; also those of replicas that are not there, as
/// disks are kept. One that goes is nobody's disk any more: the next pod gets another.
async fn grow_claims(
    context: &Context,
    namespace: &str,
    set: &str,
    size: &Quantity,
) -> Result<Option<Refused>, Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let labels = format!("{}={}", crate::children::MANAGED_BY, crate::context::MANAGER);
    let claims = api.list(&ListParams::default().labels(&labels)).await;
    let claims = claims.map_err(Error::kubernetes("list the claims"))?;
    let prefix = format!("data-{set}-");
    let stays = claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
    let mine = stays.filter(|claim| {
        claim.name_any().strip_prefix(&prefix).is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    for claim in mine {
        let name = claim.name_any();
        let known = size_of(&json!(claim));
        let both = known.as_ref().and_then(bytes).zip(bytes(size));
        if both.is_some_and(|(known, wanted)| known >= wanted) {
            continue;
        }
        let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => context.metrics.wrote("PersistentVolumeClaim"),
            Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
                let why = format!(
                    "the disk {name} cannot grow to {}: {}. Everything goes on with the size that \
                     is there; set allowVolumeExpansion of its StorageClass, and it is asked again \
                     within minutes",
                    size.0, status.message
                );
                return Ok(Some(Refused { size: known.unwrap_or_else(|| size.clone()), why }));
            }
            Err(error) => {
                return Err(Error::kubernetes(format!("let the disk {name} grow"))(error));
            }
        }
    }
    Ok(None)
}

/// The volume of a pod's claim that somebody deleted: it is there until the pod ends, and its data with it.
/// `None` where nobody did. Of a claim without a volume that is an empty name.
///
/// The server is asked each time: whoever is about to end the pod must not go by what was so a moment ago.
pub(crate) async fn deleted(
    context: &Context,
    namespace: &str,
    pod: &str,
) -> Result<Option<String>, Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let name = format!("data-{pod}");
    // The right to list them is there for larger disks.
    let claims = api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await;
    let claims = claims.map_err(Error::kubernetes(format!("look for the claim {name}")))?;
    let mut deleted =
        claims.into_iter().filter(|claim| claim.metadata.deletion_timestamp.is_some());
    let volume = |claim: PersistentVolumeClaim| claim.spec.and_then(|spec| spec.volume_name);
    Ok(deleted.next().map(|claim| volume(claim).unwrap_or_default()))
}

/// What is said of such a claim where nobody else has what is on the disk.
pub(crate) fn last_copy(pod: &str, volume: &str) -> Finding {
    let message = format!(
        "{pod} is not started anew: somebody deleted its claim data-{pod}, which goes with its disk when the pod \
         ends, by whatever, and nobody else has all that is on it. Set persistentVolumeReclaimPolicy of the \
         PersistentVolume {volume} to Retain now, and give it to a new claim (docs/operator.md, \"A claim that \
         somebody deleted\")"
    );
    Finding::new(CLAIM_DELETED, true, "LastCopy", message)
}

fn size_of(claim: &Value) -> Option<Quantity> {
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str()?;
    Some(Quantity(size.to_owned()))
}

fn is_same(a: &Quantity, b: &Quantity) -> bool {
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// A quantity of Kubernetes in bytes, rounded to a whole number of them, where that fits.
///
/// In all forms that the API server takes, because it answers in another one: of `1.1Gi`, which is no whole
/// number of bytes, it makes `1181116006400m`, and of `1000e6` `1e9` (`Quantity.CanonicalizeBytes`).
pub(crate) fn bytes(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: f64 = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let bytes = (number.parse::<f64>().ok()? * factor).round();
    (1.0..9e15).contains(&bytes).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_by_their_bytes() {
        let quantity = |text: &str| Quantity(text.to_owned());
        assert!(is_same(&quantity("1Gi"), &quantity("1024Mi")));
        assert!(is_same(&quantity("1.5Ki"), &quantity("1536")));
        assert!(!is_same(&quantity("1Gi"), &quantity("1G")));
        for (asked, kept) in [
            ("1.1Gi", "1181116006400m"),
            ("1073741824000m", "1Gi"),
            ("1000e6", "1e9"),
            ("1E9", "1e9"),
            ("2000T", "2P"),
        ] {
            assert!(is_same(&quantity(asked), &quantity(kept)), "{asked} and {kept}");
        }
        assert!(!is_same(&quantity("1.1Gi"), &quantity("1.2Gi")));
        assert_eq!(bytes(&quantity("1Zi")), None);
        assert_eq!(bytes(&quantity("a lot")), None);
        assert_eq!(bytes(&quantity("")), None);
    }
}
