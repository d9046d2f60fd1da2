//! The certificates of every world: an authority, one aggregator, agents by name.
//!
//! Their keys follow from their names, so every run of every seed has the same bytes. Valid from
//! 1975 to 4096: a clock that is a year off is a fault of counting, not of trust, here.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lens_service::tls::IdentityFiles;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use tempfile::TempDir;

use super::random::Chance;

/// The trust domain of every world.
pub const DOMAIN: &str = "world.test";

/// The name the aggregator's certificate carries.
pub const SERVER: &str = "aggregator";

/// Files of every identity, gone when dropped.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

/// An Ed25519 key by its name, PKCS#8 (RFC 8410).
fn key(name: &str) -> Result<KeyPair, rcgen::Error> {
    const HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let mut der = HEAD.to_vec();
    let mut secret = [0; 32];
    Chance::new(1).fork(name).fill(&mut secret);
    der.extend_from_slice(&secret);
    KeyPair::try_from(der)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let serial = Chance::new(2).fork(name).next() >> 1;
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

impl Certificates {
    /// Makes the files of the aggregator and of these agents.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn make(agents: &[String]) -> io::Result<Self> {
        let made = Self { dir: tempfile::tempdir()? };
        made.fill(agents).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(made)
    }

    fn fill(&self, agents: &[String]) -> Result<(), Box<dyn std::error::Error>> {
        let mut root = params("authority");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_key = key("authority")?;
        fs::write(self.dir.path().join("ca.pem"), root.self_signed(&root_key)?.pem())?;
        let issuer = Issuer::new(root, root_key);
        let server = SanType::DnsName(SERVER.try_into()?);
        self.issue(&issuer, SERVER, server, ExtendedKeyUsagePurpose::ServerAuth)?;
        for agent in agents {
            let uri = SanType::URI(format!("spiffe://{DOMAIN}/agent/{agent}").try_into()?);
            self.issue(&issuer, agent, uri, ExtendedKeyUsagePurpose::ClientAuth)?;
        }
        Ok(())
    }

    fn issue(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        name: &str,
        san: SanType,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut leaf = params(name);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.subject_alt_names = vec![san];
        let pair = key(name)?;
        let files = self.of(name);
        fs::write(&files.cert, leaf.signed_by(&pair, issuer)?.pem())?;
        fs::write(&files.key, pair.serialize_pem())?;
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Files of one identity.
    pub fn of(&self, name: &str) -> IdentityFiles {
        let file = |name: &str, kind: &str| self.path().join(format!("{name}.{kind}"));
        IdentityFiles { cert: file(name, "pem"), key: file(name, "key"), ca: file("ca", "pem") }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}
