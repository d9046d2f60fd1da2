//! Both ends of the mutual TLS that QUIC runs over, and who a certificate says its bearer is.
//!
//! TLS 1.3 only, no 0-RTT, no resumption: a resumed session would skip the certificate check and
//! keep a revoked agent alive for a ticket's lifetime; a full handshake costs under a millisecond.

mod https;
mod leaf;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lens_model::{IdentityError, SpiffeId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::keyfile::{self, PrivateFileError};
use crate::secret::Secret;

pub use https::{HttpsFiles, https};
pub use leaf::{Leaf, Operator, Peer, leaf};

/// Largest PEM file read, bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Files that hold an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Certificate chain, leaf first, PEM.
    pub cert: PathBuf,
    /// The leaf's private key, PEM; refused when others than its owner can read it.
    pub key: PathBuf,
    /// The authority peers are held against, PEM.
    pub ca: PathBuf,
}

/// Why an identity could not be taken up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no usable PEM of the kind wanted.
    #[error("{path}: no {what} in it: {detail}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// A private key that others could have read, or that is not a file of ours.
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    /// Certificate and key do not fit, or the library refuses them.
    #[error("{cert} with {key}: {detail}")]
    Unfit {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What the library said.
        detail: String,
    },
    /// The certificate does not name an agent.
    #[error("{path}: {source}")]
    Identity {
        /// Which file.
        path: PathBuf,
        /// Why it names none.
        source: PeerError,
    },
}

/// Why a peer's certificate does not say who it is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// It presented none.
    #[error("no certificate presented")]
    None,
    /// It cannot be parsed.
    #[error("certificate is malformed: {0}")]
    Malformed(String),
    /// It holds more or fewer URIs than one.
    #[error("certificate holds {count} URI names, an agent's or operator's holds exactly one")]
    Uris {
        /// How many.
        count: usize,
    },
    /// It is an authority's, or its key may sign certificates.
    #[error("certificate is an authority's: a leaf has CA:FALSE and does not sign certificates")]
    Authority,
    /// Its key may not sign.
    #[error("certificate lacks the key usage digitalSignature")]
    KeyUsage,
    /// The URI is of another kind of identity.
    #[error(transparent)]
    Spiffe(#[from] IdentityError),
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = |source| TlsError::File { path: path.into(), source };
    let meta = fs::metadata(path).map_err(file)?;
    if meta.len() > PEM_BYTES_MAX {
        let source = io::Error::other(format!("{} bytes, more than {PEM_BYTES_MAX}", meta.len()));
        return Err(file(source));
    }
    fs::read(path).map_err(file)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let pem = |detail: String| TlsError::Pem { path: path.into(), what: "certificate", detail };
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(error.to_string()))?;
    if certificates.is_empty() {
        return Err(pem("the file has none".into()));
    }
    Ok(certificates)
}

/// Reads a private file: see [`keyfile::read_private`].
///
/// # Errors
/// [`TlsError::Private`].
pub fn read_private(path: &Path) -> Result<Secret, TlsError> {
    Ok(keyfile::read_private(path, PEM_BYTES_MAX)?)
}

/// A secret that follows from an identity's private key, for one purpose: the same for as long as the
/// key is, and no way back to it.
///
/// # Errors
/// [`TlsError`]: the key cannot be read, or others than its owner could have.
pub fn derived_secret(files: &IdentityFiles, purpose: &str) -> Result<[u8; 32], TlsError> {
    let key = private_key(&files.key)?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.secret_der());
    let mut secret = [0; 32];
    secret.copy_from_slice(ring::hmac::sign(&key, purpose.as_bytes()).as_ref());
    Ok(secret)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read_private(path)?;
    PrivateKeyDer::from_pem_slice(bytes.expose()).map_err(|error| TlsError::Pem {
        path: path.into(),
        what: "private key",
        detail: error.to_string(),
    })
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| TlsError::Pem {
            path: path.into(),
            what: "usable authority",
            detail: error.to_string(),
        })?;
    }
    Ok(Arc::new(store))
}

/// What TLS computes with, and the clock it holds certificates against.
#[derive(Clone, Debug)]
pub struct Crypto {
    /// Cipher suites, key exchange, signatures, randomness.
    pub provider: Arc<CryptoProvider>,
    /// The clock.
    pub time: Arc<dyn TimeProvider>,
}

impl Default for Crypto {
    /// Ring and the system's clock.
    fn default() -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            time: Arc::new(DefaultTimeProvider),
        }
    }
}

/// The agent's end: proves its identity, checks the aggregator's certificate against the authority.
///
/// # Errors
/// [`TlsError`] names the file at fault.
pub fn client(
    files: &IdentityFiles,
    alpn: &[u8],
    crypto: Crypto,
) -> Result<QuicClientConfig, TlsError> {
    let unfit = |detail: String| TlsError::Unfit {
        cert: files.cert.clone(),
        key: files.key.clone(),
        detail,
    };
    let chain = certificates(&files.cert)?;
    agent_identity(&chain)
        .map_err(|source| TlsError::Identity { path: files.cert.clone(), source })?;
    let mut config = ClientConfig::builder_with_details(crypto.provider, crypto.time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unfit(error.to_string()))?
        .with_root_certificates(roots(&files.ca)?)
        .with_client_auth_cert(chain, private_key(&files.key)?)
        .map_err(|error| unfit(error.to_string()))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(|error| unfit(error.to_string()))
}

/// The aggregator's end: requires a client certificate of the authority.
///
/// # Errors
/// [`TlsError`] names the file at fault.
pub fn server(
    files: &IdentityFiles,
    alpn: &[u8],
    crypto: Crypto,
) -> Result<QuicServerConfig, TlsError> {
    let unfit = |detail: String| TlsError::Unfit {
        cert: files.cert.clone(),
        key: files.key.clone(),
        detail,
    };
    let roots = roots(&files.ca)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&crypto.provider))
        .build()
        .map_err(|error| unfit(error.to_string()))?;
    let mut config = ServerConfig::builder_with_details(crypto.provider, crypto.time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unfit(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, private_key(&files.key)?)
        .map_err(|error| unfit(error.to_string()))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|error| unfit(error.to_string()))
}

/// Who the leaf of a chain says it is.
///
/// # Errors
/// [`PeerError`]: no certificate, not a leaf's, not exactly one URI, or a URI that is not an
/// agent's.
pub fn agent_identity(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, PeerError> {
    Ok(leaf(chain)?.uri.parse()?)
}

/// Who the certificate in a file says its bearer is.
///
/// # Errors
/// [`TlsError`] names the file and what is wrong with it.
pub fn identity_of_file(cert: &Path) -> Result<SpiffeId, TlsError> {
    agent_identity(&certificates(cert)?)
        .map_err(|source| TlsError::Identity { path: cert.into(), source })
}

/// When the leaf in a file ends.
///
/// # Errors
/// [`TlsError`] names the file and what is wrong with it.
pub fn expiry_of_file(cert: &Path) -> Result<lens_model::UnixNanos, TlsError> {
    let chain = certificates(cert)?;
    leaf::expiry(&chain).map_err(|source| TlsError::Identity { path: cert.into(), source })
}

/// Which agent is at the other end of an established connection, and by which certificate.
///
/// # Errors
/// As [`agent_identity`].
pub fn peer(connection: &quinn::Connection) -> Result<Peer, PeerError> {
    let identity = connection.peer_identity().ok_or(PeerError::None)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| PeerError::None)?;
    let leaf = leaf(&chain)?;
    Ok(Peer { id: leaf.uri.parse()?, serial: leaf.serial, not_after: leaf.not_after })
}

/// What changes about files when they are written anew: for noticing that they were.
///
/// A file that is not there has a stamp too, of its absence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(i64, i64, u64, u64)>>);

impl Stamp {
    /// The files as they are now. Follows links: a mounted secret is renewed by moving one.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        use std::os::unix::fs::MetadataExt;
        let stamp = |path: &Path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
        };
        Self(paths.into_iter().map(stamp).collect())
    }
}

impl IdentityFiles {
    /// The files as they are now.
    pub fn stamp(&self) -> Stamp {
        Stamp::of([self.cert.as_path(), &self.key, &self.ca])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{self, CertFiles, Subject};

    fn files(certs: &CertFiles) -> IdentityFiles {
        IdentityFiles { cert: certs.cert.clone(), key: certs.key.clone(), ca: certs.ca.clone() }
    }

    fn authority() -> (tempfile::TempDir, IdentityFiles, IdentityFiles) {
        let dir = tempfile::tempdir().unwrap();
        certs::init(dir.path(), 30).unwrap();
        let agent = Subject::Agent("spiffe://lens.test/agent/n1".parse().unwrap());
        let agent = certs::issue(dir.path(), "n1", &agent, 30, false).unwrap();
        let server = Subject::Server(vec!["localhost".into(), "127.0.0.1".into()]);
        let server = certs::issue(dir.path(), "server", &server, 30, false).unwrap();
        (dir, files(&agent), files(&server))
    }

    #[test]
    fn an_issued_certificate_names_its_agent() {
        let (_dir, agent, server) = authority();
        assert_eq!(identity_of_file(&agent.cert).unwrap().agent.as_str(), "n1");
        assert!(client(&agent, b"x", Crypto::default()).is_ok());
        assert!(super::server(&server, b"x", Crypto::default()).is_ok());
    }

    #[test]
    fn a_servers_certificate_is_no_agents() {
        let (_dir, _, server) = authority();
        let error = client(&server, b"x", Crypto::default()).err().unwrap();
        assert!(error.to_string().contains("exactly one"), "{error}");
    }

    #[test]
    fn a_key_others_can_read_is_refused_with_the_remedy() {
        let (_dir, agent, _) = authority();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&agent.key, readable).unwrap();
        let error = client(&agent, b"x", Crypto::default()).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let (dir, mut agent, _) = authority();
        agent.ca = dir.path().join("nowhere.pem");
        assert!(
            client(&agent, b"x", Crypto::default())
                .err()
                .unwrap()
                .to_string()
                .contains("nowhere.pem")
        );
        agent.ca = dir.path().join("empty.pem");
        fs::write(&agent.ca, "").unwrap();
        assert!(
            client(&agent, b"x", Crypto::default())
                .err()
                .unwrap()
                .to_string()
                .contains("no certificate")
        );
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (_dir, mut agent, server) = authority();
        agent.key = server.key;
        assert!(matches!(client(&agent, b"x", Crypto::default()), Err(TlsError::Unfit { .. })));
    }
}
