//! A certificate authority of our own, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// Whether a certificate is good for today.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Validity {
    Valid,
    Expired,
}

/// Signs certificates, and keeps them as files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// An authority that keeps its files in a folder; its own is `NAME.pem`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("right parameters");
        let authority = Self { issuer, folder: folder.to_owned() };
        authority.keep(name, &authority.issuer.pem());
        authority
    }

    /// Where a file of this name is.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(format!("{name}.pem")).display().to_string()
    }

    fn keep(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).expect("it is our folder");
    }

    /// Signs a certificate for hosts, and keeps it with its key in `NAME.pem`, in the place of what was there.
    pub(crate) fn sign(&self, name: &str, hosts: &[&str], validity: Validity) {
        let mut params = params(name, hosts);
        if validity == Validity::Expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("right parameters");
        self.keep(name, &format!("{}{}", key.serialize_pem(), certificate.pem()));
    }
}

/// What a certificate says of who has it; it is good from 2019 on.
fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2019, 1, 1);
    params
}
