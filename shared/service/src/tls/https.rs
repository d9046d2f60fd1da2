//! The aggregator's HTTP door under TLS: who comes with a certificate must be an operator.
//!
//! A client without certificate is let through to ask what anyone may ask; one with a certificate
//! that is not an operator's – an agent's, of the very same authority – is turned away within the
//! handshake.

use std::path::PathBuf;
use std::sync::Arc;

use lens_model::{OperatorId, TrustDomain};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use super::{Crypto, IdentityFiles, TlsError, certificates, leaf, private_key, roots};

/// What the door needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsFiles {
    /// The aggregator's own identity.
    pub identity: IdentityFiles,
    /// The authority operators' certificates are held against; the agents' when `None`.
    pub operator_ca: Option<PathBuf>,
    /// The one trust domain operators are taken from, if only one is.
    pub trust_domain: Option<TrustDomain>,
}

#[derive(Debug)]
struct OperatorsOnly {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: Option<TrustDomain>,
}

impl ClientCertVerifier for OperatorsOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let refused =
            || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let leaf = leaf(std::slice::from_ref(end_entity)).map_err(|_| refused())?;
        let operator: OperatorId = leaf.uri.parse().map_err(|_| refused())?;
        match &self.trust_domain {
            Some(domain) if *domain != operator.trust_domain => Err(refused()),
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The door's end of TLS 1.3: operators' certificates or none; no early data, no resumption.
///
/// # Errors
/// [`TlsError`] names the file at fault.
pub fn https(files: &HttpsFiles, crypto: Crypto) -> Result<ServerConfig, TlsError> {
    let identity = &files.identity;
    let unfit = |detail: String| TlsError::Unfit {
        cert: identity.cert.clone(),
        key: identity.key.clone(),
        detail,
    };
    let roots = roots(files.operator_ca.as_ref().unwrap_or(&identity.ca))?;
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&crypto.provider))
        .build()
        .map_err(|error| unfit(error.to_string()))?;
    let verifier = OperatorsOnly { chain, trust_domain: files.trust_domain.clone() };
    let mut config = ServerConfig::builder_with_details(crypto.provider, crypto.time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unfit(error.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(certificates(&identity.cert)?, private_key(&identity.key)?)
        .map_err(|error| unfit(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}
