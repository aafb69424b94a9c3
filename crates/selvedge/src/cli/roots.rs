//! Whom the command line trusts when it asks a server over TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::exit::{Code, Stop};

/// The one certificate that a server of this configuration has, whatever name it is for: who asks has its file.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn itself(file: &Path) -> Result<Arc<ClientConfig>, Stop> {
    let stop = |text: String| Stop::new(Code::Configuration, text);
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|error| stop(format!("the certificate {shown} cannot be read: {error}")))?;
    let first = CertificateDer::pem_slice_iter(&pem).next().and_then(Result::ok);
    let first = first.ok_or_else(|| stop(format!("{shown} holds no certificate in PEM")))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| stop(format!("this build cannot speak TLS: {error}")))?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Itself(first))).with_no_client_auth()))
}

/// Believes one certificate, letter for letter, and that whoever has it has its key.
#[derive(Debug)]
struct Itself(CertificateDer<'static>);

impl ServerCertVerifier for Itself {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.0 { Ok(ServerCertVerified::assertion()) } else { Err(CertificateError::UnknownIssuer.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, shown, signed, &rustls::crypto::ring::default_provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, shown, signed, &rustls::crypto::ring::default_provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

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
