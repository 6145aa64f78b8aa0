//! An authority of the operator's own for the certificates of one Broker, and how both are renewed.
//! Pure: what the two Secrets hold, and the time, say what they have to hold.
//!
//! An authority changes in three steps, so that every certificate that is in use is trusted by everybody
//! at any time. Between them the new Secret has to have reached the pods, which takes kubelets a minute
//! or two; nothing says when it has, so there is a wait (`settle`).
//!
//! | | issues | trusted | until |
//! | --- | --- | --- | --- |
//! | announced | the old one | both | the wait is over |
//! | promoted | the new one, at once | both | the wait is over |
//! | done | the new one | the new one | two thirds of its time are over |

mod x509;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;

use x509::Pair;

/// The data of a Secret.
pub(crate) type Data = BTreeMap<String, ByteString>;

/// What certificates are for.
pub(crate) struct Wanted<'a> {
    /// The Broker's name, for people who look into a certificate.
    pub(crate) name: String,
    /// Names of DNS, with or without `*`, and addresses, as [`canonical`] writes them.
    pub(crate) hosts: BTreeSet<String>,
    /// What was made before is renewed, authority and all: somebody asked for it.
    pub(crate) made_after: Option<Timestamp>,
    /// How long a changed Secret takes to reach all pods.
    pub(crate) settle: SignedDuration,
    /// What is there, `None` where there is no such Secret.
    pub(crate) authority: Option<&'a Data>,
    pub(crate) shown: Option<&'a Shown>,
}

/// The Secret that pods mount.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `tls.crt`, `tls.key`, and in `ca.crt` whom they trust.
    pub(crate) data: Data,
    /// When it was changed last.
    pub(crate) written: Timestamp,
}

/// What both Secrets have to hold.
pub(crate) struct Both {
    pub(crate) authority: Data,
    pub(crate) shown: Shown,
    /// When to look again.
    pub(crate) next: Timestamp,
}

/// A host as certificates are compared: names in lower case, addresses in their shortest form.
pub(crate) fn canonical(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

/// The hosts of the certificate that pods show; none where it cannot be read.
pub(crate) fn shown_hosts(shown: &Shown) -> BTreeSet<String> {
    let certificate = text(&shown.data, "tls.crt");
    let facts = certificate.and_then(|certificate| x509::facts(&certificate).ok());
    facts.map(|facts| facts.hosts).unwrap_or_default()
}

/// What to do now. `authority` has to be written before `shown`.
///
/// # Errors
/// What of the authority's Secret cannot be used: it is nothing that could be made anew without cutting
/// off brokers that trust the old one.
pub(crate) fn step(wanted: &Wanted<'_>, now: Timestamp) -> Result<Both, String> {
    let mut authority = match wanted.authority {
        Some(data) => Authority::read(data)?,
        None => Authority::new(x509::authority(&wanted.name, now)?),
    };
    if x509::facts(&authority.current.certificate)?.expires <= now {
        // Nobody trusts it any more, so there is nothing to overlap with.
        authority = Authority::new(x509::authority(&wanted.name, now)?);
    }
    let known = wanted.shown.filter(|shown| authority.is_shown(shown, wanted, now));
    let settled = known.is_some_and(|shown| now.duration_since(shown.written) >= wanted.settle);
    if settled {
        if let Some(next) = authority.next.take() {
            let previous = std::mem::replace(&mut authority.current, next);
            authority.previous = Some(previous.certificate);
        } else {
            authority.previous = None;
        }
    }
    if authority.next.is_none() && authority.previous.is_none() {
        let facts = x509::facts(&authority.current.certificate)?;
        let is_asked =
            wanted.made_after.is_some_and(|time| time <= now && is_before(facts.made, time));
        // Made by a clock that ran ahead, it would last longer than it should.
        if is_asked || facts.due() <= now || facts.made > now {
            authority.next = Some(x509::authority(&wanted.name, now)?);
        }
    }
    let known = known.filter(|shown| authority.is_shown(shown, wanted, now));
    let shown = match known {
        Some(shown) => shown.clone(),
        None => authority.show(wanted, now)?,
    };
    Ok(Both { next: authority.next_look(&shown, wanted)?, authority: authority.write(), shown })
}

/// Who signs certificates.
struct Authority {
    current: Pair,
    /// Announced: everybody is to trust it before it issues anything.
    next: Option<Pair>,
    /// The certificate of the one before, until nobody shows what it issued.
    previous: Option<String>,
}

impl Authority {
    fn new(current: Pair) -> Self {
        Self { current, next: None, previous: None }
    }

    fn read(data: &Data) -> Result<Self, String> {
        let pair = |name: &str| -> Result<Option<Pair>, String> {
            let (certificate, key) =
                (text(data, &format!("{name}.crt")), text(data, &format!("{name}.key")));
            match (certificate, key) {
                (None, None) => Ok(None),
                (Some(certificate), Some(key)) => {
                    x509::facts(&certificate).map_err(|why| format!("{name}.crt: {why}"))?;
                    Ok(Some(Pair { certificate, key }))
                }
                _ => Err(format!("of {name}.crt and {name}.key one is missing")),
            }
        };
        let current = pair("ca")?.ok_or("ca.crt and ca.key are missing")?;
        let previous = text(data, "previous.crt");
        if let Some(previous) = &previous {
            x509::facts(previous).map_err(|why| format!("previous.crt: {why}"))?;
        }
        Ok(Self { current, next: pair("next")?, previous })
    }

    fn write(&self) -> Data {
        let mut data = Data::new();
        let mut put = |name: &str, text: &str| {
            data.insert(name.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        put("ca.crt", &self.current.certificate);
        put("ca.key", &self.current.key);
        if let Some(next) = &self.next {
            put("next.crt", &next.certificate);
            put("next.key", &next.key);
        }
        if let Some(previous) = &self.previous {
            put("previous.crt", previous);
        }
        data
    }

    /// Whom brokers trust.
    fn trusted(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let all = [self.previous.as_deref(), Some(self.current.certificate.as_str()), next];
        all.into_iter().flatten().collect()
    }

    /// Whether the Secret that pods mount is as it should be.
    fn is_shown(&self, shown: &Shown, wanted: &Wanted<'_>, now: Timestamp) -> bool {
        let Some(certificate) = text(&shown.data, "tls.crt") else { return false };
        let Ok(facts) = x509::facts(&certificate) else { return false };
        text(&shown.data, "ca.crt").is_some_and(|trusted| trusted == self.trusted())
            && text(&shown.data, "tls.key").is_some()
            && facts.hosts == wanted.hosts
            && x509::is_issued_by(&certificate, &self.current.certificate)
            && facts.due() > now
            // By a clock that ran ahead: nobody takes such a certificate before that time, and what was
            // written then would not settle.
            && facts.made <= now
            && shown.written <= now
    }

    fn show(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<Shown, String> {
        let known = wanted.shown.and_then(|shown| self.leaf_to_keep(shown, wanted, now));
        let leaf = match known {
            Some(leaf) => leaf,
            None => x509::leaf(&self.current, &wanted.name, &wanted.hosts, now)?,
        };
        if !x509::is_issued_by(&leaf.certificate, &self.current.certificate) {
            return Err("ca.key is not the key of ca.crt".to_owned());
        }
        let data =
            [("ca.crt", self.trusted()), ("tls.crt", leaf.certificate), ("tls.key", leaf.key)];
        let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
        Ok(Shown { data: data.into(), written: now })
    }

    /// The certificate that is shown, where only those who are trusted change.
    fn leaf_to_keep(&self, shown: &Shown, wanted: &Wanted<'_>, now: Timestamp) -> Option<Pair> {
        let mut data = shown.data.clone();
        data.insert("ca.crt".to_owned(), ByteString(self.trusted().into_bytes()));
        let fitting = Shown { data, written: now };
        if !self.is_shown(&fitting, wanted, now) {
            return None;
        }
        let (certificate, key) = (text(&shown.data, "tls.crt")?, text(&shown.data, "tls.key")?);
        Some(Pair { certificate, key })
    }

    fn next_look(&self, shown: &Shown, wanted: &Wanted<'_>) -> Result<Timestamp, String> {
        if self.next.is_some() || self.previous.is_some() {
            return Ok(shown.written + wanted.settle);
        }
        let leaf = text(&shown.data, "tls.crt").unwrap_or_default();
        Ok(x509::facts(&leaf)?.due().min(x509::facts(&self.current.certificate)?.due()))
    }
}

/// By whole seconds: certificates say nothing smaller.
fn is_before(made: Timestamp, time: Timestamp) -> bool {
    made.as_second() < time.as_second()
}

fn text(data: &Data, key: &str) -> Option<String> {
    data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
}

#[cfg(test)]
mod tests;
