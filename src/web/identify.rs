//! [`Identify`]: the rules by which a request names its tenant.
//!
//! [`TenantLayer`](super::TenantLayer) evaluates them once per request. They only parse; the resolver decides whether
//! the tenant exists.
//!
//! Invariants:
//! - The first rule that matches decides. There is no default tenant.
//! - A host at or below a suffix of the chain is never a custom domain, in whatever order the rules are.
//! - A header that a rule reads and that occurs twice refuses the request.
//! - Headers that a client can forge are ignored unless the application has configured them.
use super::RequestView;
use super::request::UnclearHeader;
use crate::names::is_at_or_below;
use crate::tenant::TenantRef;
use std::borrow::Cow;
use std::{fmt, sync::Arc};

type Read = dyn Fn(&RequestView<'_>) -> Option<TenantRef<'static>> + Send + Sync;

#[derive(Clone)]
enum Rule {
    Subdomain(Box<str>),
    Domain,
    Header(Box<str>),
    PathAfter(Box<str>),
    With(Arc<Read>),
}

/// What one rule says about the tenant of a request.
enum RuleResult<'a> {
    Tenant(TenantRef<'a>),
    /// The request names no tenant. No further rule is evaluated.
    NoTenant,
    /// The rule does not apply. The next rule is evaluated.
    NoMatch,
}

/// Defines how a request names its tenant, by one rule or a chain of rules. The first rule that names a tenant decides.
/// If that tenant does not exist, the request is rejected: no other rule is evaluated, and there is no default tenant.
///
/// Rules about the host use the request's own host. They use `X-Forwarded-Host` only after
/// [`behind_proxy`](Self::behind_proxy). If a header that a rule reads occurs more than once or is not readable text, the
/// request is refused with [`TenantRejection::UnclearHeader`](super::TenantRejection::UnclearHeader), status 400: one of
/// the values may be a client's and another one a proxy's.
///
/// ```
/// use tenantry::TenantRef;
/// use tenantry::web::Identify;
///
/// #[derive(Clone)]
/// struct Claims { tenant: tenantry::TenantId }
///
/// let identify = Identify::subdomain_of("example.org")
///     .or(Identify::with(|request| request.extension(|claims: &Claims| TenantRef::from(claims.tenant))))
///     .or(Identify::domain());
/// ```
#[derive(Clone)]
pub struct Identify {
    rules: Vec<Rule>,
    forwarded: bool,
}

impl Identify {
    fn rule(rule: Rule) -> Self {
        Self { rules: vec![rule], forwarded: false }
    }
    /// Takes the slug from a subdomain of `suffix`: `acme.example.org` has the slug `acme`. The host `example.org`
    /// itself names no tenant, and no further rule is evaluated for it.
    pub fn subdomain_of(suffix: impl AsRef<str>) -> Self {
        let suffix = suffix.as_ref().trim_matches('.').to_ascii_lowercase();
        Self::rule(Rule::Subdomain(suffix.into()))
    }
    /// Takes the whole host as a tenant's own domain. A host that is equal to the suffix of a
    /// [`subdomain_of`](Self::subdomain_of) in the same chain, or below it, is never a custom domain, whatever the order
    /// of the rules: otherwise a tenant with such a domain would get the requests of another tenant. Reserve the suffix
    /// with [`Builder::reserve_domain`](crate::Builder::reserve_domain) too, so that no tenant can have such a domain.
    pub fn domain() -> Self {
        Self::rule(Rule::Domain)
    }
    /// Takes the value of a header as the slug. Use it only behind a service that sets this header itself and removes
    /// the header that a client has sent.
    pub fn header(name: impl Into<String>) -> Self {
        Self::rule(Rule::Header(name.into().into()))
    }
    /// Takes the path segment after this prefix as the slug: with `/t` the path `/t/acme/notes` has the slug `acme`.
    pub fn path_after(prefix: impl AsRef<str>) -> Self {
        Self::rule(Rule::PathAfter(prefix.as_ref().trim_end_matches('/').into()))
    }
    /// A rule of the application's own, for example by a claim or a session. If it returns `None`, the next rule is
    /// evaluated.
    pub fn with(rule: impl Fn(&RequestView<'_>) -> Option<TenantRef<'static>> + Send + Sync + 'static) -> Self {
        Self::rule(Rule::With(Arc::new(rule)))
    }
    /// Appends the rules of `other`, which are evaluated if these rules do not match.
    pub fn or(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.forwarded |= other.forwarded;
        self
    }
    /// Makes all host rules of this chain use `X-Forwarded-Host` if the request has that header, and the request's own
    /// host if not. A header that occurs twice or contains a list refuses the request.
    ///
    /// Use it only behind a proxy that replaces the header that a client has sent. Otherwise a client that reaches the
    /// program directly can name any tenant.
    pub fn behind_proxy(mut self) -> Self {
        self.forwarded = true;
        self
    }

    /// Evaluates the rules in order. `None` if the request names no tenant; `Err` if a header that a rule reads is not
    /// clear.
    pub(super) fn evaluate<'a>(&self, request: &RequestView<'a>) -> Result<Option<TenantRef<'a>>, UnclearHeader> {
        for rule in &self.rules {
            match self.apply_rule(rule, request)? {
                RuleResult::Tenant(tenant) => return Ok(Some(tenant)),
                RuleResult::NoTenant => return Ok(None),
                RuleResult::NoMatch => {}
            }
        }
        Ok(None)
    }

    fn apply_rule<'a>(&self, rule: &Rule, request: &RequestView<'a>) -> Result<RuleResult<'a>, UnclearHeader> {
        let named = match rule {
            Rule::Subdomain(suffix) => {
                return Ok(self.host(request)?.map_or(RuleResult::NoMatch, |host| subdomain(host, suffix)));
            }
            Rule::Domain => self.host(request)?.filter(|host| !self.has_suffix_of(host)).map(TenantRef::Domain),
            Rule::Header(name) => request.single_header(name)?.map(|slug| TenantRef::Slug(Cow::Borrowed(slug))),
            Rule::PathAfter(prefix) => {
                segment_after(request.path(), prefix).map(|slug| TenantRef::Slug(Cow::Borrowed(slug)))
            }
            Rule::With(rule) => rule(request),
        };
        Ok(named.map_or(RuleResult::NoMatch, RuleResult::Tenant))
    }

    /// Whether a subdomain rule of this chain is about this host.
    fn has_suffix_of(&self, host: &str) -> bool {
        self.rules.iter().any(|rule| matches!(rule, Rule::Subdomain(suffix) if is_at_or_below(host, suffix)))
    }

    fn host<'a>(&self, request: &RequestView<'a>) -> Result<Option<Cow<'a, str>>, UnclearHeader> {
        let own = request.single_host()?;
        let host = if self.forwarded { request.single_header("x-forwarded-host")?.or(own) } else { own };
        // A list is what several proxies have added, or a client and a proxy. No entry can be trusted more than another.
        if self.forwarded && host.is_some_and(|host| host.contains(',')) {
            return Err(UnclearHeader);
        }
        Ok(host.map(|host| without_port(host.trim())).filter(|host| !host.is_empty()).map(lowercase))
    }
}

fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn lowercase(host: &str) -> Cow<'_, str> {
    match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

fn subdomain<'a>(host: Cow<'a, str>, suffix: &str) -> RuleResult<'a> {
    if host == suffix {
        return RuleResult::NoTenant;
    }
    let Some(slug) = host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')) else {
        return RuleResult::NoMatch;
    };
    let length = slug.len();
    RuleResult::Tenant(TenantRef::Slug(match host {
        Cow::Borrowed(host) => Cow::Borrowed(&host[..length]),
        Cow::Owned(mut host) => {
            host.truncate(length);
            Cow::Owned(host)
        }
    }))
}

/// The whole path segment after a prefix. An empty segment does not count, because no slug is empty.
fn segment_after<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?.strip_prefix('/')?;
    let segment = rest.split('/').next().unwrap_or_default();
    Some(segment).filter(|s| !s.is_empty())
}

impl fmt::Debug for Identify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identify({} rules)", self.rules.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomain_ignores_port_case_and_final_dot_of_the_host() {
        let slug_of = |host: &str| match subdomain(lowercase(without_port(host)), "example.org") {
            RuleResult::Tenant(TenantRef::Slug(slug)) => slug.into_owned(),
            RuleResult::NoTenant => String::from("(no tenant)"),
            _ => String::from("(no match)"),
        };
        for (host, slug) in [
            ("acme.example.org", "acme"),
            ("ACME.Example.ORG:8080", "acme"),
            ("acme.example.org.", "acme"),
            ("example.org:443", "(no tenant)"),
            ("a.b.example.org", "a.b"),
            ("acmeexample.org", "(no match)"),
            ("example.org.evil.net", "(no match)"),
            ("[::1]:3000", "(no match)"),
            (".example.org", ""),
        ] {
            assert_eq!(slug_of(host), slug, "slug of the host {host}");
        }
    }

    #[test]
    fn segment_after_returns_only_whole_nonempty_segments() {
        assert_eq!(segment_after("/t/acme/notes", "/t"), Some("acme"));
        assert_eq!(segment_after("/t/acme", "/t"), Some("acme"));
        for path in ["/t", "/t/", "/t//acme", "/tacme", "/x/t/acme"] {
            assert_eq!(segment_after(path, "/t"), None, "segment of {path}");
        }
    }
}
