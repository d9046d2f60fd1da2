//! What one leaf certificate says of its bearer, read as strictly as an X.509-SVID has to be.
//!
//! The TLS library checks the chain, the dates and the extended key usage; which name the leaf
//! carries, and that it is a leaf, is checked here. Exactly one URI: a certificate with two could
//! be taken for either.

use lens_model::{OperatorId, SpiffeId, UnixNanos};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PeerError;

/// What a leaf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its one URI.
    pub uri: String,
    /// Its serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// When it ends.
    pub not_after: UnixNanos,
}

/// An agent, and the certificate that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: SpiffeId,
    /// The certificate's serial number, hex.
    pub serial: String,
    /// When the certificate ends.
    pub not_after: UnixNanos,
}

/// A person or program that operates, and the certificate that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Who it is.
    pub id: OperatorId,
    /// The certificate's serial number, hex.
    pub serial: String,
}

fn parse<'a>(chain: &'a [CertificateDer<'_>]) -> Result<X509Certificate<'a>, PeerError> {
    let leaf = chain.first().ok_or(PeerError::None)?;
    let parsed = X509Certificate::from_der(leaf);
    Ok(parsed.map_err(|error| PeerError::Malformed(error.to_string()))?.1)
}

fn not_after(leaf: &X509Certificate<'_>) -> UnixNanos {
    let secs = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    UnixNanos(secs.saturating_mul(1_000_000_000))
}

/// When the first certificate of a chain ends.
///
/// # Errors
/// [`PeerError::None`], [`PeerError::Malformed`].
pub(super) fn expiry(chain: &[CertificateDer<'_>]) -> Result<UnixNanos, PeerError> {
    Ok(not_after(&parse(chain)?))
}

/// What the leaf of a chain says.
///
/// # Errors
/// [`PeerError`]: no certificate, an authority's, one whose key may not sign, or not exactly one
/// URI.
pub fn leaf(chain: &[CertificateDer<'_>]) -> Result<Leaf, PeerError> {
    let parsed = parse(chain)?;
    let (mut uris, mut signs) = (Vec::new(), false);
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(PeerError::Authority);
            }
            ParsedExtension::KeyUsage(usage) => {
                if usage.key_cert_sign() || usage.crl_sign() {
                    return Err(PeerError::Authority);
                }
                signs = usage.digital_signature();
            }
            ParsedExtension::ParseError { error } => {
                return Err(PeerError::Malformed(error.to_string()));
            }
            _ => {}
        }
    }
    if !signs {
        return Err(PeerError::KeyUsage);
    }
    let count = uris.len();
    match (uris.pop(), count) {
        (Some(uri), 1) => {
            let serial = format!("{:x}", parsed.serial);
            Ok(Leaf { uri, serial, not_after: not_after(&parsed) })
        }
        _ => Err(PeerError::Uris { count }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri("spiffe://lens.test/agent/n1")];
        change(&mut params);
        vec![params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()]
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_leaf_with_one_uri_says_who_it_is_its_serial_and_its_end() {
        let chain = made(|params| {
            params.serial_number = Some(vec![0x0A, 0xBC, 0xDE].into());
            params.not_after = time::OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
        });
        let leaf = leaf(&chain).unwrap();
        assert_eq!(leaf.uri, "spiffe://lens.test/agent/n1");
        assert_eq!(leaf.serial, "abcde");
        assert_eq!(leaf.not_after, UnixNanos(1_900_000_000_000_000_000));
    }

    #[test]
    fn two_uris_or_none_are_nobodys() {
        let second = made(|params| params.subject_alt_names.push(uri("https://lens.test")));
        assert!(matches!(leaf(&second), Err(PeerError::Uris { count: 2 })));
        let none = made(|params| params.subject_alt_names.clear());
        assert!(matches!(leaf(&none), Err(PeerError::Uris { count: 0 })));
        let dns = made(|params| {
            let name = SanType::DnsName("n1.lens.test".try_into().unwrap());
            params.subject_alt_names = vec![name];
        });
        assert!(matches!(leaf(&dns), Err(PeerError::Uris { count: 0 })));
        assert!(matches!(leaf(&[]), Err(PeerError::None)));
        let junk = [CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])];
        assert!(matches!(leaf(&junk), Err(PeerError::Malformed(_))));
    }

    #[test]
    fn an_authority_or_a_key_that_may_not_sign_is_no_leaf() {
        let ca = made(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(matches!(leaf(&ca), Err(PeerError::Authority)));
        let signer = made(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
        assert!(matches!(leaf(&signer), Err(PeerError::Authority)));
        let other = made(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
        assert!(matches!(leaf(&other), Err(PeerError::KeyUsage)));
        let unsaid = made(|params| params.key_usages.clear());
        assert!(matches!(leaf(&unsaid), Err(PeerError::KeyUsage)));
    }

    #[test]
    fn an_operators_certificate_is_no_agents_and_the_other_way_round() {
        let operator = made(|params| {
            params.subject_alt_names = vec![uri("spiffe://lens.test/operator/alice")];
        });
        assert!(super::super::agent_identity(&operator).is_err());
        assert!(leaf(&operator).unwrap().uri.parse::<OperatorId>().is_ok());
        let agent = made(|_| {});
        assert!(super::super::agent_identity(&agent).is_ok());
        assert!(leaf(&agent).unwrap().uri.parse::<OperatorId>().is_err());
    }
}
