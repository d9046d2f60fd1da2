//! A small working certificate authority: one root, server certificates, one certificate an agent.
//!
//! An agent's certificate carries exactly one URI, `spiffe://<trust-domain>/agent/<name>`; a
//! server's carries DNS names or addresses. Keys are written 0600 and never over an existing file.
//! It is meant for a laboratory, a demo, or a fleet without an authority of its own; any authority
//! that issues the same names works as well.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lens_model::{OperatorId, SpiffeId};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// How far back a certificate's validity begins, so that a peer whose clock lags can use it.
const BACKDATE: Duration = Duration::minutes(5);

/// Longest lifetime issued, days: a leaf that outlives its root is of no use.
pub const DAYS_MAX: u32 = 3_650;

/// Why a certificate could not be made or stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there already; overwriting a key would strand everything it signed.
    #[error("{path} exists already: remove it first, or choose another directory or name")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// There is no authority in the directory.
    #[error(
        "{dir} holds no authority (ca.pem and ca.key): run `lens certs init --dir {dir}` first"
    )]
    NoAuthority {
        /// Which directory.
        dir: PathBuf,
    },
    /// The requested lifetime is out of bounds.
    #[error("a lifetime of {days} days is out of bounds: use 1 to {DAYS_MAX}")]
    Days {
        /// What was asked.
        days: u32,
    },
    /// The certificate library refused; the text is its own.
    #[error("certificate could not be made: {0}")]
    Library(#[from] rcgen::Error),
}

/// Files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM, readable by its owner alone.
    pub key: PathBuf,
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub enum Subject {
    /// An agent, by its identity.
    Agent(SpiffeId),
    /// A person or program that operates, by its identity.
    Operator(OperatorId),
    /// An aggregator, by the names and addresses it is reached at.
    Server(Vec<String>),
}

fn check_days(days: u32) -> Result<(), CertsError> {
    if (1..=DAYS_MAX).contains(&days) { Ok(()) } else { Err(CertsError::Days { days }) }
}

fn params(common_name: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::days(i64::from(days));
    params
}

/// Makes a root in `dir`: `ca.pem` and `ca.key`.
///
/// # Errors
/// [`CertsError::Exists`] when there is one already; [`CertsError::File`] when it cannot be
/// written; [`CertsError::Days`] for a lifetime out of bounds.
pub fn init(dir: &Path, days: u32) -> Result<CertFiles, CertsError> {
    check_days(days)?;
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    for path in [&cert, &key] {
        if path.exists() {
            return Err(CertsError::Exists { path: path.clone() });
        }
    }
    fs::create_dir_all(dir).map_err(|source| CertsError::File { path: dir.into(), source })?;
    let mut params = params("lens telemetry authority", days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate()?;
    let root = params.self_signed(&pair)?;
    write_new(&key, &pair.serialize_pem(), 0o600)?;
    write_new(&cert, &root.pem(), 0o644)?;
    Ok(CertFiles { ca: cert.clone(), cert, key })
}

/// Issues a certificate from the authority in `dir` as `<name>.pem` and `<name>.key` beside it.
///
/// `replace` lets it take the place of an earlier one of that name (renewal).
///
/// # Errors
/// [`CertsError::NoAuthority`] without an authority; [`CertsError::Exists`] when the name is taken
/// and `replace` is false; otherwise as [`init`].
pub fn issue(
    dir: &Path,
    name: &str,
    subject: &Subject,
    days: u32,
    replace: bool,
) -> Result<CertFiles, CertsError> {
    check_days(days)?;
    let ca = dir.join("ca.pem");
    let files = CertFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        ca,
    };
    let missing = |_| CertsError::NoAuthority { dir: dir.into() };
    let ca_pem = fs::read_to_string(&files.ca).map_err(missing)?;
    let ca_key = fs::read_to_string(dir.join("ca.key")).map_err(missing)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&ca_key)?)?;
    let mut params = params(name, days);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    match subject {
        Subject::Agent(id) => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        }
        Subject::Operator(id) => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        }
        Subject::Server(names) => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            for name in names {
                params.subject_alt_names.push(match name.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(name.as_str().try_into()?),
                });
            }
        }
    }
    let pair = KeyPair::generate()?;
    let cert = params.signed_by(&pair, &issuer)?;
    if !replace {
        write_new(&files.key, &pair.serialize_pem(), 0o600)?;
        write_new(&files.cert, &cert.pem(), 0o644)?;
        return Ok(files);
    }
    // Key and certificate each change place in one step; a reader between the two sees a pair
    // that does not match, refuses it and keeps what it had.
    for (path, text, mode) in
        [(&files.key, pair.serialize_pem(), 0o600), (&files.cert, cert.pem(), 0o644)]
    {
        let fresh = path.with_extension("new");
        drop(fs::remove_file(&fresh));
        write_new(&fresh, &text, mode)?;
        fs::rename(&fresh, path)
            .map_err(|source| CertsError::File { path: path.clone(), source })?;
    }
    Ok(files)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let file = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CertsError::Exists { path: path.into() },
        _ => CertsError::File { path: path.into(), source },
    };
    let mut to =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(file)?;
    to.write_all(text.as_bytes()).and_then(|()| to.sync_all()).map_err(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn agent(name: &str) -> Subject {
        Subject::Agent(format!("spiffe://lens.test/agent/{name}").parse().unwrap())
    }

    #[test]
    fn an_authority_is_made_once_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = init(dir.path(), 30).unwrap();
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(init(dir.path(), 30), Err(CertsError::Exists { .. })));
    }

    #[test]
    fn a_name_is_issued_once_unless_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let none = issue(dir.path(), "a", &agent("a"), 30, false).unwrap_err();
        assert!(none.to_string().contains("lens certs init"), "{none}");
        init(dir.path(), 30).unwrap();
        let files = issue(dir.path(), "a", &agent("a"), 30, false).unwrap();
        let first = fs::read(&files.cert).unwrap();
        assert!(matches!(
            issue(dir.path(), "a", &agent("a"), 30, false),
            Err(CertsError::Exists { .. })
        ));
        issue(dir.path(), "a", &agent("a"), 30, true).unwrap();
        assert_ne!(fs::read(&files.cert).unwrap(), first);
    }

    #[test]
    fn lifetimes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(init(dir.path(), 0), Err(CertsError::Days { days: 0 })));
        assert!(matches!(init(dir.path(), DAYS_MAX + 1), Err(CertsError::Days { .. })));
    }
}
