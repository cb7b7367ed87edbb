//! The domains of the application itself, which no tenant may register as a custom domain.
//!
//! `Builder::reserve_domain` collects them. A provisioning and the built-in registry refuse custom domains at or below
//! one of them, and the web layer's rule for custom domains leaves hosts below a suffix of subdomains to the rule of
//! that suffix.
use super::{Domain, InvalidName};
use std::sync::Arc;

/// Domains that belong to the application with everything below them. Lower case, without a dot at either end.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReservedDomains(Arc<[Box<str>]>);

impl ReservedDomains {
    /// Reserves these domains too.
    pub(crate) fn with(&self, domain: &str) -> Self {
        let added = domain.trim_matches('.').to_ascii_lowercase();
        Self(self.0.iter().cloned().chain([added.into()]).collect())
    }
    /// Whether one of them is empty, which would reserve nothing.
    pub(crate) fn has_empty(&self) -> bool {
        self.0.iter().any(|reserved| reserved.is_empty())
    }
    /// Fails with [`InvalidName::Reserved`] if the domain is equal to a reserved one or below it.
    pub(crate) fn check(&self, domain: &Domain) -> Result<(), InvalidName> {
        match self.0.iter().find(|reserved| is_at_or_below(domain.as_str(), reserved)) {
            Some(reserved) => Err(InvalidName::Reserved(reserved.clone())),
            None => Ok(()),
        }
    }
}

/// Whether the host is `suffix` or a subdomain of it. Both are in lower case.
pub(crate) fn is_at_or_below(host: &str, suffix: &str) -> bool {
    match host.strip_suffix(suffix) {
        Some(rest) => rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_refuses_domains_at_and_below_a_reserved_one_only() {
        let reserved = ReservedDomains::default().with(".Example.ORG.").with("other.test");
        let check = |domain: &str| reserved.check(&domain.parse().unwrap());
        for domain in ["example.org", "acme.example.org", "a.b.example.org", "x.other.test"] {
            assert!(matches!(check(domain), Err(InvalidName::Reserved(_))), "{domain} was accepted");
        }
        for domain in ["acmeexample.org", "example.org.evil.net", "example.com"] {
            assert_eq!(check(domain), Ok(()), "{domain}");
        }
    }
}
