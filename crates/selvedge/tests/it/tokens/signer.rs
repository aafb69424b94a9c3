//! Issuers of tokens for tests: real keys, real signatures, and a server that gives their set.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use selvedge_kernel::auth::{Issuer, OneOrMany, Roles, Tenant};
use selvedge_kernel::policy::Span;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// RSA of 2048 bits, for these tests alone: what signs here does not make such keys.
const RSA: &[u8] = include_bytes!("rsa.der");

pub enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Key {
    pub fn rsa() -> Key {
        Key::Rsa(RsaKeyPair::from_der(RSA).unwrap())
    }

    pub fn p256() -> Key {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Key::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &SystemRandom::new()).unwrap())
    }

    pub fn ed25519() -> Key {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Key::Ed25519(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    /// As it stands in a set.
    pub fn public(&self, id: &str) -> Value {
        match self {
            Key::Rsa(pair) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "kid": id, "use": "sig", "n": base64(n), "e": base64(e) })
            }
            Key::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "x": base64(&point[1..33]), "y": base64(&point[33..]) })
            }
            Key::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "key_ops": ["verify"], "x": base64(pair.public_key()) }),
        }
    }

    fn signs(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).unwrap();
                signature
            }
            Key::P256(pair) => pair.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }

    /// A token with a header and claims as they are written.
    pub fn token_of(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64(header), base64(claims));
        let signature = self.signs(signed.as_bytes());
        format!("{signed}.{}", base64(signature))
    }

    pub fn token(&self, id: &str, claims: &Value) -> String {
        self.token_of(&json!({ "alg": self.algorithm(), "typ": "JWT", "kid": id }).to_string(), &claims.to_string())
    }
}

pub fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Claims that open the tenant `default` to an owner from now on for an hour; `now` in seconds.
pub fn claims(now: u64) -> Value {
    json!({ "iss": "https://login.test", "aud": ["other", "selvedge"], "sub": "ada", "exp": now + 3_600, "nbf": now, "iat": now, "groups": ["admins", "x y"] })
}

/// An issuer whose tokens open the tenant `default`, with its keys at a place.
pub fn issuer(jwks: &str) -> Issuer {
    Issuer {
        issuer: "https://login.test".to_owned(),
        audience: OneOrMany::One("selvedge".to_owned()),
        jwks: jwks.to_owned(),
        skew: Span(std::time::Duration::from_secs(60)),
        tenant: Tenant::Fixed("default".to_owned()),
        roles: Roles::Claim { claim: "groups".to_owned(), map: BTreeMap::from([("admins".to_owned(), "owner".to_owned())]) },
        claims: Vec::new(),
    }
}

/// A server that gives a set of keys.
pub struct Keys {
    pub url: String,
    said: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicU64>,
}

impl Keys {
    pub async fn new(set: String) -> Keys {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Keys::on(listener, set)
    }

    pub fn on(listener: TcpListener, set: String) -> Keys {
        let url = format!("http://{}/keys?v=1", listener.local_addr().unwrap());
        let (said, asked) = (Arc::new(Mutex::new((200, set))), Arc::new(AtomicU64::new(0)));
        let (saying, asking) = (said.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                asking.fetch_add(1, Ordering::SeqCst);
                let (status, body) = saying.lock().unwrap().clone();
                give(&mut stream, status, &body).await;
            }
        });
        Keys { url, said, asked }
    }

    /// One that speaks TLS as `localhost`, with a certificate of its own: where it is, and the certificate as PEM.
    pub async fn secured(set: String) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let url = format!("https://localhost:{}/keys?v=1", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    give(&mut stream, 200, &set).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        let lines = data_encoding::BASE64.encode(made.cert.der());
        let lines: Vec<&str> = lines.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        (url, format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
    }

    /// What it says from now on.
    pub fn say(&self, status: u16, body: String) {
        *self.said.lock().unwrap() = (status, body);
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn give(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), status: u16, body: &str) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).await.unwrap_or(0);
    assert!(request[..read].starts_with(b"GET /keys?v=1 HTTP/1.1\r\n"));
    let text = format!("HTTP/1.1 {status} So\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes()).await;
}
