//! Mutual TLS between replicas: each shows a certificate of the group's authority.
//!
//! The files are looked at with each connection and read again when they have changed, so a
//! certificate that is renewed while the broker runs is used from the next connection on.
//! Connections that there are stay. Files that cannot be used change nothing: a renewal writes them
//! one after the other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use weirmq_remoting::net::FileVersion;

use crate::config::ReplicationTls;

/// How replicas encrypt, and know each other.
pub(super) struct Tls {
    files: ReplicationTls,
    current: Mutex<Current>,
}

struct Current {
    /// Which files they are.
    seen: [FileVersion; 3],
    both: Both,
    /// What was wrong with newer ones, so that it is said once.
    complaint: String,
}

#[derive(Clone)]
struct Both {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// # Errors
    /// Which file cannot be used, and why.
    pub(super) fn read(files: ReplicationTls) -> Result<Self, String> {
        let seen = versions(&files);
        let both = read(&files)?;
        let current = Mutex::new(Current { seen, both, complaint: String::new() });
        Ok(Self { files, current })
    }

    /// Encrypts a connection that came here, from whoever has a certificate.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current().server);
        Ok(acceptor.accept(stream).await?.into())
    }

    /// Encrypts a connection to `address`, `host:port`, whose certificate has to be the host's.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        address: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.current().client);
        Ok(connector.connect(name, stream).await?.into())
    }

    fn current(&self) -> Both {
        let mut current = self.current.lock();
        // Before the files are read: what changes meanwhile is read again.
        let seen = versions(&self.files);
        if seen != current.seen {
            match read(&self.files) {
                Ok(both) => {
                    tracing::info!("certificates of the replication port were read again");
                    *current = Current { seen, both, complaint: String::new() };
                }
                Err(complaint) if complaint != current.complaint => {
                    tracing::warn!(complaint, "new certificates are not used, the last ones are");
                    current.complaint = complaint;
                }
                Err(_) => {}
            }
        }
        current.both.clone()
    }
}

fn versions(files: &ReplicationTls) -> [FileVersion; 3] {
    [&files.certificate, &files.key, &files.ca].map(|path| FileVersion::of(path))
}

fn read(files: &ReplicationTls) -> Result<Both, String> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = |path: &Path| {
        let read =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(read) if read.is_empty() => Err(wrong(path, &"no certificate is in it")),
            read => read.map_err(|error| wrong(path, &error)),
        }
    };
    let own = certificates(&files.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.ca)? {
        roots.add(root).map_err(|error| wrong(&files.ca, &error))?;
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = verifier.build().map_err(|error| wrong(&files.ca, &error))?;
    let unfit = |error: rustls::Error| wrong(&files.certificate, &error);
    let versions = &[&rustls::version::TLS13];
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(unfit)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.clone(), key.clone_key())
        .map_err(unfit)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(unfit)?
        .with_root_certificates(roots)
        .with_client_auth_cert(own, key)
        .map_err(unfit)?;
    Ok(Both { server: Arc::new(server), client: Arc::new(client) })
}
