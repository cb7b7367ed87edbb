//! The web integration for axum and actix-web: both must give the same answer to every request in [`LIST`].
//!
//! Submodules: the two applications (`apps`), the examples over TCP (`examples`), random requests (`fuzz`), background
//! jobs (`jobs`), setup links (`links`), methods and look-ups of the setup routes (`link_requests`).
mod apps;
mod examples;
mod fuzz;
mod jobs;
mod link_requests;
mod links;

use apps::{Ask, answers};

type Headers = &'static [(&'static str, &'static str)];
type Case = (&'static str, &'static str, Headers, u16, &'static str);

/// Host, path and headers of a request; the expected status; and a text that the body contains: the slug that the
/// handler saw, or a part of the error page.
const LIST: &[Case] = &[
    ("acme.example.org", "/tenant", &[], 200, "acme"),
    ("ACME.example.org:8080", "/tenant", &[], 200, "acme"),
    ("acme.example.org", "/db", &[], 200, "acme"),
    ("example.org", "/tenant", &[], 404, "belongs to no tenant"),
    ("example.org", "/open", &[], 200, "(nobody)"),
    ("acme.example.org", "/open", &[], 200, "acme"),
    ("nobody.example.org", "/open", &[], 404, "no such tenant"),
    ("not_a_slug!.example.org", "/open", &[], 404, "no such tenant"),
    ("a.b.example.org", "/open", &[], 404, "no such tenant"),
    ("late.example.org", "/tenant", &[], 503, "suspended"),
    ("late.example.org", "/billing", &[], 200, "late"),
    ("late.example.org", "/billing/db", &[], 503, "suspended"),
    ("old.example.org", "/tenant", &[], 410, "archived"),
    ("old.example.org", "/billing", &[], 410, "archived"),
    ("down.example.org", "/tenant", &[], 503, "not available"),
    ("acme.example.org", "/busy", &[], 503, "too busy"),
    ("acme.example.org", "/without", &[], 500, "TenantLayer is missing"),
    // Two rules: subdomain, then custom domain. On the bare host the first rule decides, and no further rule applies.
    ("acme.test", "/tenant", &[], 200, "acme"),
    ("unknown.test", "/tenant", &[], 404, "no such tenant"),
    // The custom-domain rule before the subdomain rule. Tenant `other` has the domains `example.org` and
    // `late.example.org`, which are the application's.
    ("late.example.org", "/reversed/tenant", &[], 503, "suspended"),
    ("late.example.org", "/reversed/open", &[], 503, "suspended"),
    ("example.org", "/reversed/open", &[], 200, "(nobody)"),
    ("acme.test", "/reversed/tenant", &[], 200, "acme"),
    // Headers that a client can set freely are ignored.
    ("example.org", "/tenant", &[("x-forwarded-host", "acme.example.org")], 404, "belongs to no tenant"),
    ("acme.example.org", "/tenant", &[("x-forwarded-host", "other.example.org")], 200, "acme"),
    ("acme.example.org", "/tenant", &[("forwarded", "host=other.example.org"), ("x-tenant", "other")], 200, "acme"),
    // `behind_proxy` uses X-Forwarded-Host, if it contains exactly one host.
    ("proxy.internal", "/proxied/tenant", &[("x-forwarded-host", "acme.example.org")], 200, "acme"),
    (
        "proxy.internal",
        "/proxied/tenant",
        &[("x-forwarded-host", "acme.example.org, other.example.org")],
        400,
        "repeated",
    ),
    (
        "acme.example.org",
        "/proxied/tenant",
        &[("x-forwarded-host", "other.example.org"), ("x-forwarded-host", "late.example.org")],
        400,
        "repeated",
    ),
    ("acme.example.org", "/proxied/tenant", &[], 200, "acme"),
    // Identification by header, by path, and by a claim that an earlier layer has stored.
    ("api.internal", "/header/tenant", &[("x-tenant", "acme")], 200, "acme"),
    ("api.internal", "/header/tenant", &[("x-tenant", "acme"), ("x-tenant", "other")], 400, "repeated"),
    ("acme.example.org", "/header/tenant", &[], 404, "belongs"),
    // A second `Host` header, also one that equals the first, and also for a rule that could use the first one.
    ("acme.example.org", "/tenant", &[("host", "other.example.org")], 400, "repeated"),
    ("acme.example.org", "/open", &[("host", "acme.example.org")], 400, "repeated"),
    ("acme.example.org", "/chain/open", &[("host", "acme.test"), ("authorization", "acme")], 400, "repeated"),
    ("acme.test", "/domain/open", &[("host", "other.test")], 400, "repeated"),
    ("example.org", "/t/acme/tenant", &[], 200, "acme"),
    ("other.example.org", "/t/acme/tenant", &[], 200, "acme"),
    ("example.org", "/t/nobody/tenant", &[], 404, "no such tenant"),
    ("example.org", "/claim/tenant", &[("authorization", "acme")], 200, "acme"),
    ("example.org", "/claim/tenant", &[], 404, "belongs"),
    // `on_reject` replaces the rejections of the layer and of handlers.
    ("late.example.org", "/own/tenant", &[], 402, "pay first, late"),
    ("acme.example.org", "/own/busy", &[], 429, "come back later"),
    ("acme.example.org", "/own/wrapped", &[], 429, "come back later"),
    ("acme.example.org", "/wrapped", &[], 503, "too busy"),
    ("old.example.org", "/own/tenant", &[], 418, "own answer"),
];

#[tokio::test]
async fn axum_and_actix_give_the_same_answers() {
    let asks: Vec<Ask> = LIST.iter().map(|(host, path, headers, ..)| Ask::get(host, path, headers)).collect();
    let [axum, actix] = answers(&asks).await;
    for (at, (host, path, headers, status, text)) in LIST.iter().enumerate() {
        for (framework, answer) in [("axum", &axum[at]), ("actix", &actix[at])] {
            let case = format!("{framework}: {host}{path} {headers:?} got {answer:?}");
            assert_eq!(answer.status, *status, "{case}");
            assert!(answer.body.contains(text), "{case}");
            let has_retry_after =
                answer.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok_and(|s| s > 0));
            assert_eq!(has_retry_after, *status == 503, "{case}");
        }
        assert_eq!(axum[at].body, actix[at].body, "{host}{path}: axum and actix-web have different bodies");
    }
}
