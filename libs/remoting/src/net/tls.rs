//! The certificate of a listener.
//!
//! Its files are looked at with each handshake and read again when they have changed, so a
//! certificate that is renewed while the server runs is shown from the next connection on. Files that
//! cannot be used change nothing: a renewal may write them one after the other.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

/// TLS on the client ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// Take TLS beside plaintext, told apart by the first byte. Default: true.
    pub enabled: bool,
    /// PEM files, read again when they have changed; without them a self-signed certificate is made
    /// at each start.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Default for TlsSection {
    fn default() -> Self {
        Self { enabled: true, certificate: None, key: None }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {path}: {reason}")]
    Read { path: String, reason: String },
    #[error("make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    #[error("certificate and key do not fit: {0}")]
    Certificate(#[from] rustls::Error),
}

impl TlsSection {
    /// What a listener needs, `None` when TLS is off. Without files a self-signed certificate is
    /// made, as Apache's servers do in their test mode: clients do not verify it by default.
    pub fn server_config(&self) -> Result<Option<Arc<rustls::ServerConfig>>, TlsError> {
        if !self.enabled {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        Ok(Some(Arc::new(match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let files = [certificate.clone(), key.clone()];
                config.with_cert_resolver(Arc::new(CertificateFiles::read(files)?))
            }
            _ => {
                let (certificates, key) = self_signed()?;
                config.with_single_cert(certificates, key)?
            }
        })))
    }
}

/// What tells one version of a file from another: inode, time of change, length. `None` where there
/// is no file. A Secret that Kubernetes mounts is changed by a link, which is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion(Option<(u64, i64, i64, u64)>);

impl FileVersion {
    pub fn of(path: &Path) -> Self {
        let file = std::fs::metadata(path).ok();
        Self(file.map(|file| (file.ino(), file.ctime(), file.ctime_nsec(), file.len())))
    }
}

/// Certificate and key in files.
#[derive(Debug)]
struct CertificateFiles {
    files: [PathBuf; 2],
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// Which files it was read from.
    versions: [FileVersion; 2],
    key: Arc<CertifiedKey>,
    /// What was wrong with newer ones, so that it is said once.
    complaint: String,
}

impl CertificateFiles {
    fn read(files: [PathBuf; 2]) -> Result<Self, TlsError> {
        let versions = files.each_ref().map(|path| FileVersion::of(path));
        let key = Arc::new(read_both(&files)?);
        let current = Mutex::new(Current { versions, key, complaint: String::new() });
        Ok(Self { files, current })
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        // Before the files are read: what changes meanwhile is read again.
        let versions = self.files.each_ref().map(|path| FileVersion::of(path));
        if versions != current.versions {
            match read_both(&self.files) {
                Ok(key) => {
                    tracing::info!("the certificate for clients was read again");
                    *current = Current { versions, key: Arc::new(key), complaint: String::new() };
                }
                Err(error) => {
                    let complaint = error.to_string();
                    if complaint != current.complaint {
                        tracing::warn!(complaint, "a new certificate is not used, the last one is");
                        current.complaint = complaint;
                    }
                }
            }
        }
        Some(current.key.clone())
    }
}

/// A certificate and the key that it is of.
fn read_both([certificate, key]: &[PathBuf; 2]) -> Result<CertifiedKey, TlsError> {
    let (certificates, key) = (read_certificates(certificate)?, read_key(key)?);
    let provider = rustls::crypto::ring::default_provider();
    Ok(CertifiedKey::from_der(certificates, key, &provider)?)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn self_signed() -> Result<Identity, TlsError> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| unreadable(path, &error))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Read { path: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// Takes whatever certificate it is shown.
    #[derive(Debug)]
    struct AnyCertificate;

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    /// The certificate that a client is shown.
    async fn shown(server: &Arc<rustls::ServerConfig>) -> CertificateDer<'static> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(64 << 10);
        let name = ServerName::try_from("broker").unwrap();
        let (accepted, connected) = tokio::join!(
            TlsAcceptor::from(server.clone()).accept(far),
            TlsConnector::from(Arc::new(client)).connect(name, near),
        );
        accepted.unwrap();
        let connection = connected.unwrap();
        connection.get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
        let write = |path: &Path, text: &str| {
            // As a mounted Secret changes: another file takes the place of the last.
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, path).unwrap();
        };
        let made = || rcgen::generate_simple_self_signed(vec!["broker".to_owned()]).unwrap();
        let (first, second) = (made(), made());
        write(&files[0], &first.cert.pem());
        write(&files[1], &first.signing_key.serialize_pem());
        let [certificate, key] = files.clone().map(Some);
        let section = TlsSection { enabled: true, certificate, key };
        let server = section.server_config().unwrap().unwrap();
        assert_eq!(shown(&server).await, *first.cert.der());

        // Half of it is there: the old one is shown still.
        write(&files[0], &second.cert.pem());
        assert_eq!(shown(&server).await, *first.cert.der());
        write(&files[1], &second.signing_key.serialize_pem());
        assert_eq!(shown(&server).await, *second.cert.der());
        std::fs::remove_file(&files[1]).unwrap();
        assert_eq!(shown(&server).await, *second.cert.der());
    }
}
