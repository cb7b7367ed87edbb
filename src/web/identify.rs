use super::RequestView;
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

/// What one rule says of a request.
enum Said<'a> {
    Tenant(TenantRef<'a>),
    Nobody,
    NotMine,
}

/// How a request names its tenant. The first rule that names one decides: if that tenant is unknown, no other is asked, and
/// none is ever taken for lack of a better one.
///
/// Host rules look at the host that the request itself is for. What a proxy says of it counts only after
/// [`behind_proxy`](Self::behind_proxy).
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
    /// `acme.example.org` is the slug `acme`; `example.org` itself is nobody, and asks no further rule.
    pub fn subdomain_of(suffix: impl AsRef<str>) -> Self {
        let suffix = suffix.as_ref().trim_matches('.').to_ascii_lowercase();
        Self::rule(Rule::Subdomain(suffix.into()))
    }
    /// The whole host, as one of the tenants' own domains.
    pub fn domain() -> Self {
        Self::rule(Rule::Domain)
    }
    /// A header whose value is the slug. Only for requests that come from a service which sets it, and takes away what
    /// users have set.
    pub fn header(name: impl Into<String>) -> Self {
        Self::rule(Rule::Header(name.into().into()))
    }
    /// The path's segment after this prefix, as the slug: `/t/acme/notes` after `/t`.
    pub fn path_after(prefix: impl AsRef<str>) -> Self {
        Self::rule(Rule::PathAfter(prefix.as_ref().trim_end_matches('/').into()))
    }
    /// Anything else: a claim, a session. `None` asks the next rule.
    pub fn with(rule: impl Fn(&RequestView<'_>) -> Option<TenantRef<'static>> + Send + Sync + 'static) -> Self {
        Self::rule(Rule::With(Arc::new(rule)))
    }
    /// If these rules name nobody, those are asked.
    pub fn or(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.forwarded |= other.forwarded;
        self
    }
    /// All host rules of this chain go by `X-Forwarded-Host` where it is given, and by the request's own host where it is not.
    /// One that is given twice, or is a list, names nobody. Only behind a proxy that sets it itself, in place of what a user
    /// has sent: whoever reaches the program directly could say anything.
    pub fn behind_proxy(mut self) -> Self {
        self.forwarded = true;
        self
    }

    pub(super) fn ask<'a>(&self, request: &RequestView<'a>) -> Option<TenantRef<'a>> {
        for rule in &self.rules {
            match self.says(rule, request) {
                Said::Tenant(tenant) => return Some(tenant),
                Said::Nobody => return None,
                Said::NotMine => {}
            }
        }
        None
    }

    fn says<'a>(&self, rule: &Rule, request: &RequestView<'a>) -> Said<'a> {
        let named = match rule {
            Rule::Subdomain(suffix) => return self.host(request).map_or(Said::NotMine, |host| subdomain(host, suffix)),
            Rule::Domain => self.host(request).map(TenantRef::Domain),
            Rule::Header(name) => request.header(name).map(|slug| TenantRef::Slug(Cow::Borrowed(slug))),
            Rule::PathAfter(prefix) => after(request.path(), prefix).map(|slug| TenantRef::Slug(Cow::Borrowed(slug))),
            Rule::With(rule) => rule(request),
        };
        named.map_or(Said::NotMine, Said::Tenant)
    }

    fn host<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        const FORWARDED: &str = "x-forwarded-host";
        let host = match self.forwarded && request.has_header(FORWARDED) {
            // Several are what several proxies have said, or a user and a proxy: nobody's word is better than another's.
            true => request.header(FORWARDED).filter(|hosts| !hosts.contains(','))?.trim(),
            false => request.host()?,
        };
        Some(without_port(host)).filter(|host| !host.is_empty()).map(lowercase)
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

fn subdomain<'a>(host: Cow<'a, str>, suffix: &str) -> Said<'a> {
    if host == suffix {
        return Said::Nobody;
    }
    let Some(slug) = host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')) else { return Said::NotMine };
    let length = slug.len();
    Said::Tenant(TenantRef::Slug(match host {
        Cow::Borrowed(host) => Cow::Borrowed(&host[..length]),
        Cow::Owned(mut host) => {
            host.truncate(length);
            Cow::Owned(host)
        }
    }))
}

/// `//` and `/.` are no segments that a router would see.
fn after<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
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
    fn a_host_is_compared_without_port_case_and_final_dot() {
        let said = |host: &str| match subdomain(lowercase(without_port(host)), "example.org") {
            Said::Tenant(TenantRef::Slug(slug)) => slug.into_owned(),
            Said::Nobody => String::from("(nobody)"),
            _ => String::from("(not mine)"),
        };
        for (host, tenant) in [
            ("acme.example.org", "acme"),
            ("ACME.Example.ORG:8080", "acme"),
            ("acme.example.org.", "acme"),
            ("example.org:443", "(nobody)"),
            ("a.b.example.org", "a.b"),
            ("acmeexample.org", "(not mine)"),
            ("example.org.evil.net", "(not mine)"),
            ("[::1]:3000", "(not mine)"),
            (".example.org", ""),
        ] {
            assert_eq!(said(host), tenant, "{host}");
        }
    }

    #[test]
    fn the_segment_after_a_prefix_is_a_whole_one() {
        assert_eq!(after("/t/acme/notes", "/t"), Some("acme"));
        assert_eq!(after("/t/acme", "/t"), Some("acme"));
        for path in ["/t", "/t/", "/t//acme", "/tacme", "/x/t/acme"] {
            assert_eq!(after(path, "/t"), None, "{path}");
        }
    }
}
