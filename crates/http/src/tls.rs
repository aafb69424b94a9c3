//! TLS of the server: a certificate and its key from files, which may change while it serves.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use selvedge_kernel::time::Millis;

/// The longest file that is read: a chain has a few kilobytes.
const FILE_BYTES: u64 = 1 << 20;

/// Why a certificate and its key cannot be used: nothing of them is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unusable {
    /// Which of the two files it is about.
    pub half: Half,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// One of the two files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// The chain.
    Certificate,
    /// The private key.
    Key,
}

impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.file.display(), self.message, self.hint)
    }
}

impl std::error::Error for Unusable {}

/// What the files said when somebody looked at them.
#[derive(Clone, PartialEq, Eq)]
pub struct Mark(Vec<u8>, Vec<u8>);

/// The certificate that is in force, and the files that it came from.
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    opened: Option<Mark>,
    in_force: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Certificates({})", self.certificate.display())
    }
}

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    /// They are not there, hold no certificate or key, do not belong together, or the certificate is not valid at `now`.
    pub fn open(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>, now: SystemTime) -> Result<Certificates, Unusable> {
        let (certificate, key) = (certificate.into(), key.into());
        // Before they are read: what is exchanged in between differs from it.
        let opened = mark(&certificate, &key);
        let in_force = RwLock::new(read(&certificate, &key, now)?);
        Ok(Certificates { certificate, key, opened, in_force })
    }

    /// What the files said when they were read first.
    #[must_use]
    pub fn opened(&self) -> Option<&Mark> {
        self.opened.as_ref()
    }

    /// The file of the chain.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.certificate
    }

    /// What the files say now; none if one of them cannot be read.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        mark(&self.certificate, &self.key)
    }

    /// Reads the files again: the next handshake has what they say.
    ///
    /// # Errors
    /// What [`Certificates::open`] says; what was in force stays in force.
    pub fn reload(&self, now: SystemTime) -> Result<(), Unusable> {
        let read = read(&self.certificate, &self.key, now)?;
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// How connections are made with it: TLS 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// This build lacks what TLS needs.
    pub fn server(self: &Arc<Self>) -> Result<Arc<ServerConfig>, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(InForce(self.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn mark(certificate: &Path, key: &Path) -> Option<Mark> {
    Some(Mark(bytes(Half::Certificate, certificate).ok()?, bytes(Half::Key, key).ok()?))
}

/// Gives each handshake what is in force then.
#[derive(Debug)]
struct InForce(Arc<Certificates>);

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.in_force.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(certificate: &Path, key: &Path, now: SystemTime) -> Result<Arc<CertifiedKey>, Unusable> {
    let chain_pem = bytes(Half::Certificate, certificate)?;
    let key_pem = bytes(Half::Key, key)?;
    let of_chain = |message: String, hint: &str| Unusable { half: Half::Certificate, file: certificate.to_owned(), message, hint: hint.to_owned() };
    let of_key = |message: &str, hint: &str| Unusable { half: Half::Key, file: key.to_owned(), message: message.to_owned(), hint: hint.to_owned() };
    let chain = CertificateDer::pem_slice_iter(&chain_pem).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    let Some(own) = chain.first() else {
        return Err(of_chain("it holds no certificate in PEM".to_owned(), "write the chain there, `-----BEGIN CERTIFICATE-----`, our own certificate first"));
    };
    in_time(own, &chain[1..], now).map_err(|message| of_chain(message, "put a certificate there that is valid now, and look at this machine's clock"))?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| of_key("it holds no private key in PEM", "write the key there without a passphrase, `-----BEGIN PRIVATE KEY-----`"))?;
    let signing = ring::sign::any_supported_type(&private)
        .map_err(|_| of_key("it holds a key of a kind that is not served with", "use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519"))?;
    let whole = CertifiedKey::new(chain.clone(), signing);
    match whole.keys_match() {
        // Of a key that cannot tell its public half nothing is known against it.
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(whole)),
        Err(_) => Err(of_key(
            &format!("it is not the key of the first certificate of {}", certificate.display()),
            "write the pair that belongs together, our own certificate first in its chain",
        )),
    }
}

/// Whether a certificate can be read and is valid now. Whom it is signed by is for clients to judge: here nobody is trusted, so
/// that this is where a right one ends.
fn in_time(own: &CertificateDer<'_>, more: &[CertificateDer<'_>], now: SystemTime) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(own).map_err(|error| format!("its first certificate cannot be read: {error}"))?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let algorithms = ring::default_provider().signature_verification_algorithms;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), more, UnixTime::since_unix_epoch(now), algorithms.all) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Err(format!("its first certificate ended at {}", at(not_after))),
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Err(format!("its first certificate begins at {}", at(not_before)))
        }
        Err(Error::InvalidCertificate(CertificateError::Expired)) => Err("its first certificate has ended".to_owned()),
        Err(Error::InvalidCertificate(CertificateError::NotValidYet)) => Err("its first certificate has not begun".to_owned()),
        Err(Error::InvalidCertificate(CertificateError::BadEncoding)) => Err("its first certificate cannot be read".to_owned()),
        _ => Ok(()),
    }
}

fn at(time: UnixTime) -> Millis {
    Millis(time.as_secs().saturating_mul(1_000))
}

fn bytes(half: Half, file: &Path) -> Result<Vec<u8>, Unusable> {
    let unusable = |message: String, hint: &str| Unusable { half, file: file.to_owned(), message, hint: hint.to_owned() };
    let cannot = |error: std::io::Error| unusable(format!("it cannot be read: {error}"), "name a file that is there and that this user may read");
    let length = std::fs::metadata(file).map_err(cannot)?.len();
    if length > FILE_BYTES {
        return Err(unusable(format!("it has {length} bytes, at most {FILE_BYTES} are read"), "name the file with the PEM text alone"));
    }
    std::fs::read(file).map_err(cannot)
}
