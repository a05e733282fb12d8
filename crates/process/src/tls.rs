//! The certificate that a server shows, replaced while it serves: no restart, no open connection
//! cut off.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

/// A certificate that can't be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The chain isn't PEM.
    #[error("the certificate is not PEM")]
    Chain(#[source] pem::Error),
    /// The chain has no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// The key isn't PEM, or there is none.
    #[error("the private key is not PEM")]
    Key(#[source] pem::Error),
    /// The key can't be used, or isn't the certificate's.
    #[error("the private key does not go with the certificate")]
    Pair(#[source] rustls::Error),
}

/// The certificate in use. Clones speak of the same one.
#[derive(Clone, Default)]
pub struct Certificate(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Certificate {
    /// Serves this chain and key, both PEM, from the next connection on. Where they can't be used,
    /// the certificate before them stays.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(CertificateError::Chain)?;
        if chain.is_empty() {
            return Err(CertificateError::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateError::Pair)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(pair));
        Ok(())
    }

    /// What a TLS server of HTTP/2 and HTTP/1.1 is configured with. TLS 1.3 alone: every client of
    /// an operator speaks it.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// Never the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("present", &self.current().is_some()).finish()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;

    fn pair() -> (String, String) {
        let Generated { cert, signing_key } =
            generate_simple_self_signed(["server.example".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_that_cannot_be_used_leaves_the_one_before_in_place() {
        let certificate = Certificate::default();
        let ((chain, key), (_, other)) = (pair(), pair());
        certificate.replace(chain.as_bytes(), key.as_bytes()).unwrap();
        let before = certificate.current().unwrap();

        let mismatch = certificate.replace(chain.as_bytes(), other.as_bytes()).unwrap_err();
        assert!(matches!(mismatch, CertificateError::Pair(_)), "{mismatch}");
        assert!(matches!(certificate.replace(b"", key.as_bytes()).unwrap_err(), CertificateError::Empty));
        assert!(matches!(certificate.replace(chain.as_bytes(), b"").unwrap_err(), CertificateError::Key(_)));
        assert!(Arc::ptr_eq(&before, &certificate.current().unwrap()));
    }

    #[test]
    fn the_key_is_never_shown() {
        let certificate = Certificate::default();
        let (chain, key) = pair();
        certificate.replace(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(format!("{certificate:?}"), "Certificate { present: true }");
    }
}
