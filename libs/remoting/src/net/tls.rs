//! The certificate of a listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

/// TLS on the client ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// Take TLS beside plaintext, told apart by the first byte. Default: true.
    pub enabled: bool,
    /// PEM files; without them a self-signed certificate is made at each start.
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
        let (certificates, key) = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => (read_certificates(certificate)?, read_key(key)?),
            _ => self_signed()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        Ok(Some(Arc::new(config)))
    }
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
