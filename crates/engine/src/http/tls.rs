//! TLS as a client: rustls, with the certificates of the system.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// The configuration of all TLS connections of an engine, made for the first one.
#[derive(Default)]
pub struct Tls {
    made: Mutex<Option<Arc<ClientConfig>>>,
}

impl Tls {
    /// # Errors
    /// When there is no certificate to verify a server with.
    pub fn config(&self, roots: Option<&[Vec<u8>]>) -> Result<Arc<ClientConfig>, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*made {
            return Ok(config.clone());
        }
        let mut store = RootCertStore::empty();
        match roots {
            Some(roots) => store.add_parsable_certificates(roots.iter().map(|root| CertificateDer::from(root.clone()))),
            None => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        };
        if store.is_empty() {
            return Err("this system has no certificates to verify a server with: install ca-certificates, or set SSL_CERT_FILE to a file of them".to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(store)
            .with_no_client_auth();
        let config = Arc::new(config);
        *made = Some(config.clone());
        Ok(config)
    }
}
