//! Making and reading single certificates. Keys are ECDSA on P-256; everything is PEM.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::canonical;

/// A certificate counts from a while before it is made: clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);
const AUTHORITY_VALID: SignedDuration = SignedDuration::from_hours(3 * 365 * 24);
const LEAF_VALID: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) made: Timestamp,
    pub(super) expires: Timestamp,
    /// The hosts that it is for, as [`canonical`] writes them.
    pub(super) hosts: BTreeSet<String>,
}

impl Facts {
    /// When another one is due: two thirds of its time are over.
    pub(super) fn due(&self) -> Timestamp {
        let valid = self.expires.duration_since(self.made);
        self.made + valid / 3 * 2
    }
}

/// A new authority. Its name is one of its own, so that two of them are told apart by what they issued.
pub(super) fn authority(name: &str, now: Timestamp) -> Result<Pair, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // A common name has 64 characters.
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ");
    params.distinguished_name.push(DnType::CommonName, format!("{name} {time}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(now, AUTHORITY_VALID)?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let made = params.self_signed(&key).map_err(|error| error.to_string())?;
    Ok(Pair { certificate: made.pem(), key: key.serialize_pem() })
}

/// A certificate for servers and clients at these hosts: names of DNS, with or without `*`, or
/// addresses.
pub(super) fn leaf(
    authority: &Pair,
    name: &str,
    hosts: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Pair, String> {
    let text = |error: rcgen::Error| error.to_string();
    let hosts: Vec<String> = hosts.iter().cloned().collect();
    let mut params = CertificateParams::new(hosts).map_err(text)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = validity(now, LEAF_VALID)?;
    let key = KeyPair::from_pem(&authority.key).map_err(text)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, key).map_err(text)?;
    let key = KeyPair::generate().map_err(text)?;
    let made = params.signed_by(&key, &issuer).map_err(text)?;
    Ok(Pair { certificate: made.pem(), key: key.serialize_pem() })
}

/// Reads a certificate.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn facts(certificate: &str) -> Result<Facts, String> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|error| error.to_string())?;
    let read = pem.parse_x509().map_err(|error| error.to_string())?;
    let validity = read.validity();
    let text = |error: jiff::Error| error.to_string();
    let begins = Timestamp::from_second(validity.not_before.timestamp()).map_err(text)?;
    let names = read.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    Ok(Facts {
        made: begins.checked_add(BACKDATED).map_err(text)?,
        expires: Timestamp::from_second(validity.not_after.timestamp()).map_err(text)?,
        hosts: names.iter().filter_map(host).collect(),
    })
}

/// Whether the authority with this certificate issued the other.
pub(super) fn is_issued_by(certificate: &str, authority: &str) -> bool {
    let Ok((_, authority)) = parse_x509_pem(authority.as_bytes()) else { return false };
    let Ok((_, certificate)) = parse_x509_pem(certificate.as_bytes()) else { return false };
    let (Ok(authority), Ok(certificate)) = (authority.parse_x509(), certificate.parse_x509())
    else {
        return false;
    };
    certificate.issuer() == authority.subject()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(canonical(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// From a while before `now`, and until when.
fn validity(
    now: Timestamp,
    valid: SignedDuration,
) -> Result<(OffsetDateTime, OffsetDateTime), String> {
    let time = |at: Timestamp| {
        OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|error| error.to_string())
    };
    Ok((time(now - BACKDATED)?, time(now + valid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_what_it_was_made_for() {
        let now: Timestamp = "2026-11-27T21:00:00Z".parse().unwrap();
        let hosts = ["*.mq-brokers.shop.svc.cluster.local", "10.0.0.1", "fd00::1"];
        let hosts: BTreeSet<String> = hosts.map(str::to_owned).into();
        let (one, other) = (authority("mq", now).unwrap(), authority("mq", now).unwrap());
        let leaf = leaf(&one, "mq", &hosts, now).unwrap();
        let facts = facts(&leaf.certificate).unwrap();
        assert_eq!(facts.hosts, hosts);
        assert_eq!((facts.made, facts.expires), (now, now + LEAF_VALID));
        assert_eq!(facts.due(), now + SignedDuration::from_hours(60 * 24));
        assert!(is_issued_by(&leaf.certificate, &one.certificate));
        assert!(!is_issued_by(&leaf.certificate, &other.certificate), "of the same name");
        assert!(super::facts("nonsense").is_err());
    }
}
