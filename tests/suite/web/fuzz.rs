//! Whatever a request says, it is the tenant's that the configured rule names, or nobody's.
use super::apps::{Answer, Ask, answers};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What a host is, known because it was made so.
#[derive(Clone, Debug, PartialEq)]
enum Host {
    /// This label, or these, before `.example.org`.
    Below(&'static str),
    Bare,
    Elsewhere(&'static str),
    /// No host that a rule could read: it may be unknown, and is never a tenant.
    Spoilt,
}
use Host::{Bare, Below, Elsewhere, Spoilt};

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
    ("acm\u{e9}.example.org", Spoilt),
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
    ("", Spoilt),
];
/// The same host still.
const ENDS: &[&str] = &["", "", "", ":80", ":65535", ":", ".", ".:8080"];
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

struct Dice(SmallRng);
impl Dice {
    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.0.random_range(0..all.len())]
    }
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_range(0..n) == 0
    }
    fn host(&mut self) -> (String, Host) {
        let (name, means) = self.of(HOSTS).clone();
        let cased = name.chars().map(|c| if self.one_in(4) { c.to_ascii_uppercase() } else { c }).collect::<String>();
        if self.one_in(5) {
            let (before, after) = self.of(SPOILERS);
            return (format!("{before}{cased}{after}"), Spoilt);
        }
        (format!("{cased}{}", self.of(ENDS)), means)
    }
    /// Mostly one, sometimes none or two.
    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = *self.of(&[1, 1, 1, 1, 0, 2]);
        (0..n).map(|_| make(self)).collect()
    }
    fn slug(&mut self) -> String {
        (*self.of(SLUGS)).into()
    }
}

const ROUTES: &[&str] = &["", "/domain", "/header", "/t/", "/claim", "/proxied", "/chain"];

/// A request as it was made, and its route.
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
    fn random(dice: &mut Dice) -> Self {
        let target = dice.host();
        // What is no URI never reaches a rule.
        let fits = format!("http://{}/", target.0).parse::<axum::http::Uri>().is_ok_and(|uri| uri.host().is_some());
        Self {
            route: ROUTES[dice.0.random_range(0..ROUTES.len())],
            segment: dice.slug(),
            target: Some(target).filter(|(_, means)| fits && *means != Spoilt && dice.one_in(4)),
            hosts: dice.some(Dice::host),
            forwarded: dice.some(Dice::host),
            tenants: dice.some(Dice::slug),
            claims: dice.some(Dice::slug),
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

    /// The host that the request itself is for; `None`: two of them, or none.
    fn host(&self) -> Option<&Host> {
        match (&self.target, &*self.hosts) {
            (Some((_, means)), _) => Some(means),
            (None, [(_, means)]) => Some(means),
            _ => None,
        }
    }
    fn forwarded(&self) -> Option<&Host> {
        match &*self.forwarded {
            [] => self.host(),
            [(_, means)] => Some(means),
            _ => None,
        }
    }

    /// All that may come.
    fn expected(&self) -> Vec<End> {
        match self.route {
            "" => below(self.host(), &|| domain(self.host())),
            "/proxied" => below(self.forwarded(), &|| vec![End::Nobody]),
            "/domain" => domain(self.host()),
            "/header" => match &*self.tenants {
                [slug] => vec![whose(slug)],
                _ => vec![End::Nobody],
            },
            "/t/" => vec![whose(&self.segment)],
            "/claim" => vec![self.claims.first().map_or(End::Nobody, |slug| whose(slug))],
            "/chain" => below(self.host(), &|| match self.claims.first() {
                Some(slug) => vec![whose(slug)],
                None => domain(self.host()),
            }),
            other => panic!("{other}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum End {
    Served(&'static str),
    Nobody,
    Refused(u16),
}
fn whose(slug: &str) -> End {
    match slug {
        "acme" => End::Served("acme"),
        "other" => End::Served("other"),
        "late" => End::Refused(503),
        "old" => End::Refused(410),
        _ => End::Refused(404),
    }
}
/// The rule for subdomains, and what comes after it.
fn below(host: Option<&Host>, next: &dyn Fn() -> Vec<End>) -> Vec<End> {
    match host {
        Some(Below(slug)) => vec![whose(slug)],
        Some(Bare) => vec![End::Nobody],
        Some(Spoilt) => [next(), vec![End::Refused(404)]].concat(),
        Some(Elsewhere(_)) | None => next(),
    }
}
fn domain(host: Option<&Host>) -> Vec<End> {
    match host {
        Some(Elsewhere("acme.test")) => vec![End::Served("acme")],
        Some(Spoilt) => vec![End::Refused(404), End::Nobody],
        Some(_) => vec![End::Refused(404)],
        None => vec![End::Nobody],
    }
}

fn end(answer: &Answer) -> End {
    match (answer.status, &*answer.body) {
        (200, "(nobody)") => End::Nobody,
        (200, "acme") => End::Served("acme"),
        (200, "other") => End::Served("other"),
        (200, body) => panic!("served for {body}"),
        (status, _) => End::Refused(status),
    }
}

#[tokio::test]
async fn whatever_a_request_says_it_is_the_tenants_that_the_rule_names_or_nobodys() {
    let mut dice = Dice(SmallRng::seed_from_u64(20261126));
    let cases: Vec<Case> = (0..6000).map(|_| Case::random(&mut dice)).collect();
    let asks: Vec<Ask> = cases.iter().map(Case::ask).collect();
    let mut served = 0;
    for (framework, answers) in ["axum", "actix"].into_iter().zip(answers(&asks).await) {
        for (case, answer) in cases.iter().zip(answers) {
            let (expected, end) = (case.expected(), end(&answer));
            assert!(expected.contains(&end), "{framework}: {end:?}, not {expected:?}, for {case:?}");
            served += usize::from(matches!(end, End::Served(_)));
        }
    }
    assert!(served > 1000, "the rules name tenants: {served}");
}
