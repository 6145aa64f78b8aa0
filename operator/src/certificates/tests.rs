//! An authority under a clock that the test moves, seen by peers that read their files late.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::*;

const SETTLE: SignedDuration = SignedDuration::from_mins(5);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn begin() -> Timestamp {
    "2026-11-27T21:00:00Z".parse().unwrap()
}

fn hosts() -> BTreeSet<String> {
    BTreeSet::from(["*.mq-brokers.shop.svc.cluster.local".to_owned()])
}

/// The two Secrets.
#[derive(Default)]
struct Secrets {
    authority: Option<Data>,
    shown: Option<Shown>,
    made_after: Option<Timestamp>,
}

impl Secrets {
    fn step(&self, now: Timestamp) -> Result<Both, String> {
        step(
            &Wanted {
                name: "mq".to_owned(),
                hosts: hosts(),
                made_after: self.made_after,
                settle: SETTLE,
                authority: self.authority.as_ref(),
                shown: self.shown.as_ref(),
            },
            now,
        )
    }

    /// One round of the operator; how many of the two it wrote, and when it looks again.
    fn round(&mut self, now: Timestamp) -> (usize, Timestamp) {
        let both = self.step(now).unwrap();
        let authority = self.authority.replace(both.authority);
        let shown = self.shown.replace(both.shown);
        let writes = [authority != self.authority, shown != self.shown];
        (writes.into_iter().filter(|is| *is).count(), both.next)
    }

    fn files(&self) -> Data {
        self.shown.clone().unwrap().data
    }
}

/// Whether two brokers with these files connect, each as the other's client.
fn connect(one: &Data, other: &Data, now: Timestamp) -> Result<(), String> {
    handshake(one, other, now)?;
    handshake(other, one, now)
}

fn handshake(client: &Data, server: &Data, now: Timestamp) -> Result<(), String> {
    #[derive(Debug)]
    struct At(UnixTime);
    impl rustls::time_provider::TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(self.0)
        }
    }
    let seconds = u64::try_from(now.as_second()).unwrap();
    let time = || {
        std::sync::Arc::new(At(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))))
    };
    let own = |files: &Data| {
        let certificates = CertificateDer::pem_slice_iter(&files["tls.crt"].0);
        let key = PrivateKeyDer::from_pem_slice(&files["tls.key"].0).unwrap();
        (certificates.collect::<Result<Vec<_>, _>>().unwrap(), key)
    };
    let roots = |files: &Data| {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&files["ca.crt"].0) {
            roots.add(root.unwrap()).unwrap();
        }
        std::sync::Arc::new(roots)
    };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(server), provider.clone());
    let (certificates, key) = own(server);
    let server = ServerConfig::builder_with_details(provider.clone(), time())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(certificates, key)
        .unwrap();
    let (certificates, key) = own(client);
    let client = ClientConfig::builder_with_details(provider, time())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(client))
        .with_client_auth_cert(certificates, key)
        .unwrap();
    let name = ServerName::try_from("mq-0-1.mq-brokers.shop.svc.cluster.local").unwrap();
    let mut client = ClientConnection::new(client.into(), name).unwrap();
    let mut server = ServerConnection::new(server.into()).unwrap();
    let text = |error: rustls::Error| error.to_string();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut left = &bytes[..];
        while !left.is_empty() {
            server.read_tls(&mut left).unwrap();
            server.process_new_packets().map_err(text)?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut left = &bytes[..];
        while !left.is_empty() {
            client.read_tls(&mut left).unwrap();
            client.process_new_packets().map_err(text)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_and_nothing_is_written_before() {
    let mut secrets = Secrets::default();
    let (writes, next) = secrets.round(begin());
    assert_eq!((writes, next), (2, begin() + DAY * 60));
    let first = secrets.files();
    for time in [begin() + SETTLE, begin() + DAY, begin() + DAY * 60 - HOUR] {
        assert_eq!(secrets.round(time), (0, next));
    }
    assert_eq!(secrets.round(next).0, 1, "the authority stays");
    assert_ne!(secrets.files()["tls.crt"], first["tls.crt"]);
    assert_eq!(secrets.files()["ca.crt"], first["ca.crt"]);
    connect(&first, &secrets.files(), next).unwrap();
}

/// A broker reads its files up to the wait after they changed. Whoever reads late and whoever reads at
/// once have to know each other at any time.
#[test]
fn everybody_knows_everybody_while_the_authority_changes() {
    let mut secrets = Secrets::default();
    secrets.round(begin());
    // A while before two of three years are over, and until the change is.
    let mut now = begin() + DAY * 2 * 365 - HOUR;
    secrets.round(now);
    let first = secrets.files();
    let mut late = first.clone();
    let mut changes = 0;
    let mut rounds = 0;
    let end = now + DAY;
    while now < end {
        let before = secrets.files();
        secrets.round(now);
        rounds += 1;
        if secrets.files() != before {
            changes += 1;
            // Everybody has read what was there for the whole wait.
            late = before;
        }
        connect(&late, &secrets.files(), now)
            .unwrap_or_else(|error| panic!("after {changes} changes at {now}: {error}"));
        now += SignedDuration::from_mins(4);
    }
    assert_eq!(changes, 3, "announced, promoted, done in {rounds} rounds");
    assert!(secrets.files()["ca.crt"] != first["ca.crt"]);
    assert!(connect(&first, &secrets.files(), now).is_err(), "the old one is not trusted any more");
    assert!(!secrets.authority.as_ref().unwrap().contains_key("previous.crt"));
}

#[test]
fn an_operator_that_dies_between_the_two_writes_goes_on_without_a_shortened_wait() {
    let mut secrets = Secrets::default();
    secrets.round(begin());
    let mut now = begin() + DAY * 2 * 365;
    secrets.round(now - HOUR);
    let mut late = secrets.files();
    for half in ["announced", "promoted", "done"] {
        // Only the first of the two.
        secrets.authority = Some(secrets.step(now).unwrap().authority);
        now += HOUR;
        let before = secrets.files();
        secrets.round(now);
        assert_eq!(secrets.shown.as_ref().unwrap().written, now, "{half}");
        connect(&late, &secrets.files(), now).unwrap_or_else(|error| panic!("{half}: {error}"));
        connect(&before, &secrets.files(), now).unwrap_or_else(|error| panic!("{half}: {error}"));
        late = secrets.files();
        now += SignedDuration::from_mins(4);
        assert_eq!(secrets.round(now).0, 0, "{half}: the wait is not over");
        now += SignedDuration::from_mins(1);
    }
    assert_eq!(secrets.authority.unwrap().len(), 2);
}

/// An operator whose clock ran ahead made everything, and the clock was set right.
#[test]
fn what_a_clock_that_ran_ahead_made_is_not_kept_until_then() {
    let ahead = begin() + DAY * 200;
    let mut secrets = Secrets::default();
    secrets.round(ahead);
    let made_ahead = secrets.files();
    let first = secrets.authority.clone().unwrap();
    assert!(connect(&made_ahead, &made_ahead, begin()).is_err(), "it does not count yet");
    // A new certificate at once, by the authority that everybody trusts; and another authority in the
    // usual three steps.
    let mut now = begin();
    let mut rounds = 0;
    while secrets.authority.as_ref().unwrap()["ca.crt"] == first["ca.crt"] || rounds < 5 {
        let before = secrets.shown.clone().unwrap().data;
        secrets.round(now);
        connect(&secrets.files(), &secrets.files(), now).unwrap();
        if rounds > 0 {
            connect(&before, &secrets.files(), now).unwrap();
        }
        now += SETTLE;
        rounds += 1;
        assert!(rounds < 20, "no end");
    }
    assert_eq!(secrets.round(now).0, 0, "once, and not for ever");
    let (made, issuer) = (secrets.files(), secrets.authority.clone().unwrap());
    for certificate in [&made["tls.crt"], &issuer["ca.crt"]] {
        let text = String::from_utf8(certificate.0.clone()).unwrap();
        assert!(x509::facts(&text).unwrap().made <= now);
    }
}

#[test]
fn an_address_in_another_form_is_no_other_host() {
    let wanted = ["fd00:0:0::7", "MQ.example.org", "10.0.0.7"];
    let hosts: BTreeSet<String> = wanted.map(canonical).into();
    assert_eq!(hosts, ["fd00::7", "mq.example.org", "10.0.0.7"].map(str::to_owned).into());
    let wanted = |authority, shown| Wanted {
        name: "mq".to_owned(),
        hosts: hosts.clone(),
        made_after: None,
        settle: SETTLE,
        authority,
        shown,
    };
    let first = step(&wanted(None, None), begin()).unwrap();
    assert_eq!(shown_hosts(&first.shown), hosts);
    let again = wanted(Some(&first.authority), Some(&first.shown));
    let again = step(&again, begin() + HOUR).unwrap();
    assert!(again.shown == first.shown, "a certificate was made anew");
}

#[test]
fn a_renewal_that_is_asked_for_renews_all_of_it_once() {
    let mut secrets = Secrets::default();
    secrets.round(begin());
    let first = secrets.files();
    let mut now = begin() + DAY;
    secrets.made_after = Some(now);
    let mut changes = 0;
    for _ in 0..20 {
        let before = secrets.files();
        secrets.round(now);
        changes += usize::from(before != secrets.files());
        now += SETTLE;
    }
    assert_eq!(changes, 3);
    assert!(connect(&first, &secrets.files(), now).is_err());
    // One in the future has to come first.
    secrets.made_after = Some(now + DAY);
    assert_eq!(secrets.round(now).0, 0);
}

#[test]
fn other_hosts_get_another_certificate_of_the_same_authority() {
    let mut secrets = Secrets::default();
    secrets.round(begin());
    let first = secrets.files();
    let more = Wanted {
        name: "mq".to_owned(),
        hosts: hosts().into_iter().chain(["mq.example.org".to_owned()]).collect(),
        made_after: None,
        settle: SETTLE,
        authority: secrets.authority.as_ref(),
        shown: secrets.shown.as_ref(),
    };
    let both = step(&more, begin() + HOUR).unwrap();
    assert_ne!(both.shown.data["tls.crt"], first["tls.crt"]);
    assert_eq!(both.shown.data["ca.crt"], first["ca.crt"]);
}

#[test]
fn what_somebody_broke_is_mended_or_told() {
    let mut secrets = Secrets::default();
    secrets.round(begin());
    let good = secrets.authority.clone().unwrap();
    // The certificate can be made again.
    secrets.shown.as_mut().unwrap().data.remove("tls.key");
    assert_eq!(secrets.round(begin() + HOUR).0, 1);
    secrets.shown = None;
    assert_eq!(secrets.round(begin() + HOUR).0, 1);
    // A clock that was ahead.
    secrets.shown.as_mut().unwrap().written = begin() + DAY * 3650;
    assert_eq!(secrets.round(begin() + HOUR).0, 1);
    assert_eq!(secrets.round(begin() + HOUR * 2).0, 0);
    // An authority cannot.
    for (key, value) in [("ca.crt", "nonsense"), ("next.key", "half a pair")] {
        let mut bad = good.clone();
        bad.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
        secrets.authority = Some(bad);
        assert!(secrets.step(begin() + HOUR).is_err(), "{key}");
    }
    let mut other = good.clone();
    let foreign = x509::authority("other", begin()).unwrap();
    other.insert("ca.key".to_owned(), ByteString(foreign.key.into_bytes()));
    (secrets.authority, secrets.shown) = (Some(other), None);
    assert!(secrets.step(begin() + HOUR).is_err_and(|why| why.contains("is not the key of")));
    secrets.authority = Some(Data::new());
    assert!(secrets.step(begin() + HOUR).is_err());
    // One that is over is replaced at once.
    secrets.authority = Some(good.clone());
    let late = begin() + DAY * 4 * 365;
    assert_eq!(secrets.round(late).0, 2);
    assert_eq!(secrets.authority.as_ref().unwrap().len(), 2);
    connect(&secrets.files(), &secrets.files(), late).unwrap();
}
