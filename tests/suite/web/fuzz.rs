//! Random requests with misleading hosts, targets and headers, against both frameworks.
//!
//! Each request is generated together with its meaning, so the test knows which tenant the configured rule must name.
//! No other part of the request may select a tenant.
use super::apps::{Answer, Ask, answers};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The meaning of a generated host.
#[derive(Clone, Debug, PartialEq)]
enum Host {
    /// A subdomain of `example.org`, with these labels before it.
    Below(&'static str),
    /// `example.org` itself.
    Bare,
    /// A host outside of `example.org`.
    Elsewhere(&'static str),
    /// Not a valid host. A rule may treat it as unknown or skip it, but it never selects a tenant.
    Invalid,
}
use Host::{Bare, Below, Elsewhere, Invalid};

const HOSTS: &[(&str, Host)] = &[
    ("acme.example.org", Below("acme")),
    ("other.example.org", Below("other")),
    ("late.example.org", Below("late")),
    ("old.example.org", Below("old")),
    ("nobody.example.org", Below("nobody")),
    ("www.acme.example.org", Below("www.acme")),
    ("acme.other.example.org", Below("acme.other")),
    ("acme.example.org.example.org", Below("acme.example.org")),
    ("acme..example.org", Below("acme.")),
    (".example.org", Below("")),
    ("*.example.org", Below("*")),
    ("xn--acm-epa.example.org", Below("xn--acm-epa")),
    ("acm\u{e9}.example.org", Invalid),
    ("example.org", Bare),
    ("acme.test", Elsewhere("acme.test")),
    ("other.test", Elsewhere("other.test")),
    ("www.acme.test", Elsewhere("www.acme.test")),
    ("acmeexample.org", Elsewhere("acmeexample.org")),
    ("acme.example.org.evil.net", Elsewhere("acme.example.org.evil.net")),
    ("acme.test.example.net", Elsewhere("acme.test.example.net")),
    ("localhost", Elsewhere("localhost")),
    ("127.0.0.1", Elsewhere("127.0.0.1")),
    ("[::1]", Elsewhere("[::1]")),
    ("", Invalid),
];
/// Suffixes that do not change which host is meant.
const ENDS: &[&str] = &["", "", "", ":80", ":65535", ":", ".", ".:8080"];
/// Prefixes and suffixes that make a host invalid.
const SPOILERS: &[(&str, &str)] = &[
    ("user@", ""),
    ("user:secret@", ""),
    ("", ".."),
    ("", ":80:80"),
    ("", ":x"),
    ("", "/x"),
    ("", "%00"),
    ("", ",other.example.org"),
    ("http://", ""),
    ("%", ""),
];
const SLUGS: &[&str] = &["acme", "other", "late", "old", "nobody", "ACME", "%61cme", "acme.", "acme,other", "a;b", "*"];

struct Generator(SmallRng);
impl Generator {
    /// A random element.
    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.0.random_range(0..all.len())]
    }
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_range(0..n) == 0
    }
    /// A random host with its meaning.
    fn host(&mut self) -> (String, Host) {
        let (name, meaning) = self.pick(HOSTS).clone();
        let mixed_case =
            name.chars().map(|c| if self.one_in(4) { c.to_ascii_uppercase() } else { c }).collect::<String>();
        if self.one_in(5) {
            let (before, after) = self.pick(SPOILERS);
            return (format!("{before}{mixed_case}{after}"), Invalid);
        }
        (format!("{mixed_case}{}", self.pick(ENDS)), meaning)
    }
    /// Mostly one value, sometimes none or two.
    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = *self.pick(&[1, 1, 1, 1, 0, 2]);
        (0..n).map(|_| make(self)).collect()
    }
    fn slug(&mut self) -> String {
        (*self.pick(SLUGS)).into()
    }
}

const ROUTES: &[&str] = &["", "/reversed", "/domain", "/header", "/t/", "/claim", "/proxied", "/chain"];

/// A generated request. Each host comes with its meaning.
#[derive(Debug)]
struct Case {
    route: &'static str,
    segment: String,
    target: Option<(String, Host)>,
    hosts: Vec<(String, Host)>,
    forwarded: Vec<(String, Host)>,
    tenants: Vec<String>,
    claims: Vec<String>,
}

impl Case {
    fn random(generator: &mut Generator) -> Self {
        let target = generator.host();
        // An absolute target must be a valid URI, or the framework refuses the request before any rule sees it.
        let is_uri = format!("http://{}/", target.0).parse::<axum::http::Uri>().is_ok_and(|uri| uri.host().is_some());
        Self {
            route: ROUTES[generator.0.random_range(0..ROUTES.len())],
            segment: generator.slug(),
            target: Some(target).filter(|(_, meaning)| is_uri && *meaning != Invalid && generator.one_in(4)),
            hosts: generator.some(Generator::host),
            forwarded: generator.some(Generator::host),
            tenants: generator.some(Generator::slug),
            claims: generator.some(Generator::slug),
        }
    }

    fn ask(&self) -> Ask {
        let segment = if self.route == "/t/" { self.segment.as_str() } else { "" };
        let query = "?tenant=other&host=other.example.org&x-forwarded-host=other.example.org";
        let path = format!("{}{segment}/open{query}", self.route);
        let path = self.target.as_ref().map_or(path.clone(), |(host, _)| format!("http://{host}{path}"));
        let mut headers: Vec<(String, String)> = vec![
            ("forwarded".into(), "for=1.2.3.4;host=other.example.org".into()),
            ("x-original-host".into(), "other.example.org".into()),
            ("x-host".into(), "other.example.org".into()),
            ("referer".into(), "http://other.example.org/".into()),
            ("origin".into(), "http://other.example.org".into()),
        ];
        headers.extend(self.forwarded.iter().map(|(host, _)| ("x-forwarded-host".into(), host.clone())));
        headers.extend(self.tenants.iter().map(|slug| ("x-tenant".into(), slug.clone())));
        headers.extend(self.claims.iter().map(|slug| ("authorization".into(), slug.clone())));
        Ask::of(self.hosts.iter().map(|(host, _)| host.clone()).collect(), path, headers)
    }

    /// The host to which the request is addressed. `None`: no `Host` header.
    fn host(&self) -> Option<&Host> {
        match (&self.target, &*self.hosts) {
            (Some((_, meaning)), _) => Some(meaning),
            (None, [(_, meaning)]) => Some(meaning),
            _ => None,
        }
    }
    /// The host for a rule behind a proxy: from X-Forwarded-Host, else the request's own.
    fn forwarded(&self) -> Option<&Host> {
        match &*self.forwarded {
            [] => self.host(),
            [(_, meaning)] => Some(meaning),
            _ => None,
        }
    }

    /// Whether a header that the route's rules read occurs twice.
    fn has_repeated_header(&self) -> bool {
        let hosts = self.hosts.len() > 1;
        match self.route {
            "/proxied" => hosts || self.forwarded.len() > 1,
            "/header" => self.tenants.len() > 1,
            "/t/" | "/claim" => false,
            _ => hosts,
        }
    }

    /// All permitted outcomes.
    fn expected(&self) -> Vec<Outcome> {
        if self.has_repeated_header() {
            return vec![Outcome::Refused(400)];
        }
        let mut outcomes = self.outcomes_of_rules();
        // A host that is not readable text, or a list of hosts behind a proxy.
        let host = if self.route == "/proxied" { self.forwarded() } else { self.host() };
        if matches!(host, Some(Invalid)) || self.hosts.iter().any(|(_, meaning)| *meaning == Invalid) {
            outcomes.push(Outcome::Refused(400));
        }
        outcomes
    }
    fn outcomes_of_rules(&self) -> Vec<Outcome> {
        match self.route {
            "" | "/reversed" => subdomain_outcomes(self.host(), &|| domain_outcomes(self.host())),
            "/proxied" => subdomain_outcomes(self.forwarded(), &|| vec![Outcome::NoTenant]),
            "/domain" => domain_outcomes(self.host()),
            "/header" => match &*self.tenants {
                [slug] => vec![outcome_for_slug(slug)],
                _ => vec![Outcome::NoTenant],
            },
            "/t/" => vec![outcome_for_slug(&self.segment)],
            "/claim" => vec![self.claims.first().map_or(Outcome::NoTenant, |slug| outcome_for_slug(slug))],
            "/chain" => subdomain_outcomes(self.host(), &|| match self.claims.first() {
                Some(slug) => vec![outcome_for_slug(slug)],
                None => domain_outcomes(self.host()),
            }),
            other => panic!("{other}"),
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// Served for this tenant.
    Served(&'static str),
    /// Served without a tenant.
    NoTenant,
    /// Refused with this status.
    Refused(u16),
}
/// The outcome when a rule names this slug.
fn outcome_for_slug(slug: &str) -> Outcome {
    match slug {
        "acme" => Outcome::Served("acme"),
        "other" => Outcome::Served("other"),
        "late" => Outcome::Refused(503),
        "old" => Outcome::Refused(410),
        _ => Outcome::Refused(404),
    }
}
/// The outcome of the subdomain rule, followed by the rule `next` where the first does not decide.
fn subdomain_outcomes(host: Option<&Host>, next: &dyn Fn() -> Vec<Outcome>) -> Vec<Outcome> {
    match host {
        Some(Below(slug)) => vec![outcome_for_slug(slug)],
        Some(Bare) => vec![Outcome::NoTenant],
        Some(Invalid) => [next(), vec![Outcome::Refused(404)]].concat(),
        Some(Elsewhere(_)) | None => next(),
    }
}
/// The outcome of the custom-domain rule.
fn domain_outcomes(host: Option<&Host>) -> Vec<Outcome> {
    match host {
        Some(Elsewhere("acme.test")) => vec![Outcome::Served("acme")],
        // Custom domains of `other`. A chain with a rule for subdomains of `example.org` never asks for them.
        Some(Below("late") | Bare) => vec![Outcome::Served("other")],
        Some(Invalid) => vec![Outcome::Refused(404), Outcome::NoTenant],
        Some(_) => vec![Outcome::Refused(404)],
        None => vec![Outcome::NoTenant],
    }
}

/// The outcome that this answer reports.
fn outcome(answer: &Answer) -> Outcome {
    match (answer.status, &*answer.body) {
        (200, "(nobody)") => Outcome::NoTenant,
        (200, "acme") => Outcome::Served("acme"),
        (200, "other") => Outcome::Served("other"),
        (200, body) => panic!("a request was served for the tenant {body}, which must be refused"),
        (status, _) => Outcome::Refused(status),
    }
}

#[tokio::test]
async fn random_requests_are_served_only_for_the_tenant_that_the_rule_names() {
    let mut generator = Generator(SmallRng::seed_from_u64(20261126));
    let cases: Vec<Case> = (0..6000).map(|_| Case::random(&mut generator)).collect();
    let asks: Vec<Ask> = cases.iter().map(Case::ask).collect();
    let mut served = 0;
    for (framework, answers) in ["axum", "actix"].into_iter().zip(answers(&asks).await) {
        for (case, answer) in cases.iter().zip(answers) {
            let (expected, outcome) = (case.expected(), outcome(&answer));
            assert!(
                expected.contains(&outcome),
                "{framework}: got {outcome:?}, expected one of {expected:?}, for {case:?}"
            );
            served += usize::from(matches!(outcome, Outcome::Served(_)));
        }
    }
    assert!(served > 1000, "only {served} requests were served for a tenant; the test is too weak");
}
