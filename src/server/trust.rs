//! Which addresses this process may send a password to.
//!
//! The application states an [`AddressPolicy`] in the builder. The verified registry checks the address of every
//! server's row against it, and the resolver and the operations check the addresses that entries have of their own.
//!
//! Invariant: a check happens before a connection is opened, because PostgreSQL's client sends the password in the form
//! that the server asks for.
use super::TlsMode;
use crate::error::UntrustedAddress;
use std::sync::Arc;

/// What the application requires of the addresses in the landlord. The default requires nothing.
#[derive(Clone, Debug)]
pub(crate) struct AddressPolicy {
    /// Minimum for hosts that are not on this machine.
    pub(crate) min_tls: TlsMode,
    /// Host names, and `*.` with a domain for all hosts below it. `None` allows every host.
    pub(crate) hosts: Option<Arc<[String]>>,
    /// Whether rows without an authentication code are refused even if this landlord seems to have none.
    pub(crate) signed_only: bool,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self { min_tls: TlsMode::Disable, hosts: None, signed_only: false }
    }
}

impl AddressPolicy {
    /// Fails if the application does not allow connections to this host with this TLS mode.
    pub(crate) fn check(&self, host: &str, tls: TlsMode) -> Result<(), UntrustedAddress> {
        if self.hosts.as_ref().is_some_and(|allowed| !allowed.iter().any(|pattern| matches_host(pattern, host))) {
            return Err(UntrustedAddress::Host { host: host.into() });
        }
        if TlsMode::is_on_this_machine(host) || tls.stricter(self.min_tls) == tls {
            return Ok(());
        }
        Err(UntrustedAddress::Tls { host: host.into(), found: tls, required: self.min_tls })
    }
}

/// Whether the host is equal to the pattern, or below the domain of a pattern `*.domain`. Case of ASCII letters does not
/// count, as in DNS.
fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => {
            let (host, suffix) = (host.to_ascii_lowercase(), suffix.to_ascii_lowercase());
            host.len() > suffix.len() && host.ends_with(&suffix)
        }
        _ => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_refuses_other_hosts_and_weaker_tls_modes() {
        let hosts: Arc<[String]> = Arc::from([String::from("db1.internal"), String::from("*.db.example")]);
        let policy = AddressPolicy { min_tls: TlsMode::VerifyCa, hosts: Some(hosts), signed_only: false };
        for host in ["db1.internal", "DB1.internal", "a.db.example"] {
            assert_eq!(policy.check(host, TlsMode::VerifyFull), Ok(()), "{host}");
            let weak = policy.check(host, TlsMode::Require);
            assert!(matches!(weak, Err(UntrustedAddress::Tls { required: TlsMode::VerifyCa, .. })), "{weak:?}");
        }
        for host in ["db2.internal", "db1.internal.evil.net", ".db.example", "db.example", "evildb.example", "10.0.0.1"]
        {
            let refused = policy.check(host, TlsMode::VerifyFull);
            assert!(matches!(refused, Err(UntrustedAddress::Host { .. })), "{host}: {refused:?}");
        }
        let local = AddressPolicy { hosts: None, ..policy };
        assert_eq!(local.check("127.0.0.1", TlsMode::Disable), Ok(()), "traffic that stays on this machine");
        assert_eq!(AddressPolicy::default().check("db9.example", TlsMode::Disable), Ok(()));
    }
}
