//! Test servers without and with TLS, for benchmarks that measure both.
//!
//! On a loopback address the crate's default is [`TlsMode::Prefer`](tenantry::server::TlsMode), so connections are
//! encrypted if the server offers TLS. `-- --encryption off` or `-- --encryption tls` measures one of the two.
use rcgen::{CertificateParams, KeyPair};
use tenantry::testing::{TestServer, server::TestServerBuilder};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Off,
    Tls,
}

impl Encryption {
    /// Those that the arguments of the benchmark ask for; both by default.
    #[allow(clippy::panic, reason = "a benchmark panics on errors")]
    pub(crate) fn from_arguments() -> Vec<Self> {
        match std::env::args().skip_while(|a| a != "--encryption").nth(1).as_deref() {
            None => vec![Self::Off, Self::Tls],
            Some("off") => vec![Self::Off],
            Some("tls") => vec![Self::Tls],
            Some(other) => panic!("--encryption is `off` or `tls`, not {other:?}"),
        }
    }

    /// A builder of a server that offers TLS, or does not.
    pub(crate) fn server(self) -> TestServerBuilder {
        let builder = TestServer::builder();
        if self == Self::Off {
            return builder;
        }
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        builder.tls(certificate.pem(), key.serialize_pem())
    }

    /// The name of a row, which says so if it was measured over TLS.
    pub(crate) fn label(self, name: &str) -> String {
        match self {
            Self::Off => name.to_owned(),
            Self::Tls => format!("TLS: {name}"),
        }
    }
}
