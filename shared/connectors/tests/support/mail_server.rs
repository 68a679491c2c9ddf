//! Real mail servers, of Python's aiosmtpd, and certificates for them.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;

/// An authority of the test's own.
pub(crate) struct Authority {
    /// What trusts it (DER).
    pub(crate) root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { root, issuer: Issuer::new(params, key), folder: tempfile::tempdir().unwrap() }
    }

    /// A certificate for a name that ends with a year; the files of the certificate and of its key.
    pub(crate) fn certificate(&self, name: &str, last_year: i32) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str, pem: String| {
            let path = self.folder.path().join(format!("{name}-{last_year}.{kind}"));
            std::fs::write(&path, pem).unwrap();
            path
        };
        (file("crt", certificate.pem()), file("key", key.serialize_pem()))
    }
}

/// Servers that run until they are asked what happened.
pub(crate) struct MailServers {
    pub(crate) ports: Vec<u16>,
    process: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl MailServers {
    /// Starts servers as `mail_server.py` takes them.
    pub(crate) fn start(servers: &Value) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../../.cache/mail-server/bin/python");
        assert!(python.exists(), "the mail server for this test isn't installed: run `scripts/mail-server` once");
        let mut process = Command::new(python)
            .args(["-W", "ignore"])
            .arg(root.join("tests/support/mail_server.py"))
            .arg(servers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(process.stdout.take().unwrap()).lines();
        let ports = told.next().expect("the mail server did not start").unwrap();
        Self { ports: serde_json::from_str(&ports).unwrap(), process, told }
    }

    /// What happens next: the servers tell before they answer.
    pub(crate) fn next(&mut self) -> Value {
        let line = self.told.next().expect("the mail server has ended").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Ends the servers; what happened that nobody asked for yet.
    pub(crate) fn end(mut self) -> Vec<Value> {
        drop(self.process.stdin.take());
        let rest = std::iter::from_fn(|| Some(serde_json::from_str(&self.told.next()?.unwrap()).unwrap()));
        rest.collect()
    }
}

impl Drop for MailServers {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}
