//! Whom the command line trusts when it asks a server over TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::exit::{Code, Stop};

/// The certificates of a file, and no others; without one those of this system.
///
/// # Errors
/// The file cannot be read, or there is no certificate to trust.
pub fn trusted(file: Option<&Path>) -> Result<Arc<ClientConfig>, Stop> {
    let stop = |text: String| Stop::new(Code::Configuration, text);
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let shown = file.display();
            let pem = std::fs::read(file).map_err(|error| stop(format!("--cacert {shown} cannot be read: {error}; name a file with certificates in PEM")))?;
            let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            let (added, _) = roots.add_parsable_certificates(found.unwrap_or_default());
            if added == 0 {
                return Err(stop(format!("--cacert {shown} holds no certificate in PEM: name the certificate that signed the server's, or the server's own")));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let text = "this system has no certificates to verify a server with: install ca-certificates, or name some with --cacert FILE";
        return Err(stop(text.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| stop(format!("this build cannot speak TLS: {error}")))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
