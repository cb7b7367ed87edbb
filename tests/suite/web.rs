//! Tenants in a web stack: one list of requests and answers, and both frameworks.
mod apps;
mod examples;
mod fuzz;
mod jobs;
mod links;

use apps::{Ask, answers};

type Headers = &'static [(&'static str, &'static str)];
type Case = (&'static str, &'static str, Headers, u16, &'static str);

/// What is asked, and what must come: a status, and the tenant that a handler saw or a part of the text.
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
    // A domain of its own, after the subdomain rule; the bare host asks no further rule.
    ("acme.test", "/tenant", &[], 200, "acme"),
    ("unknown.test", "/tenant", &[], 404, "no such tenant"),
    // What others say counts for nothing.
    ("example.org", "/tenant", &[("x-forwarded-host", "acme.example.org")], 404, "belongs to no tenant"),
    ("acme.example.org", "/tenant", &[("x-forwarded-host", "other.example.org")], 200, "acme"),
    ("acme.example.org", "/tenant", &[("forwarded", "host=other.example.org"), ("x-tenant", "other")], 200, "acme"),
    // Where it was asked for, it counts if it is one host.
    ("proxy.internal", "/proxied/tenant", &[("x-forwarded-host", "acme.example.org")], 200, "acme"),
    (
        "proxy.internal",
        "/proxied/tenant",
        &[("x-forwarded-host", "acme.example.org, other.example.org")],
        404,
        "belongs",
    ),
    (
        "acme.example.org",
        "/proxied/tenant",
        &[("x-forwarded-host", "other.example.org"), ("x-forwarded-host", "late.example.org")],
        404,
        "belongs",
    ),
    ("acme.example.org", "/proxied/tenant", &[], 200, "acme"),
    // By header, by path, by what an earlier layer has found out.
    ("api.internal", "/header/tenant", &[("x-tenant", "acme")], 200, "acme"),
    ("api.internal", "/header/tenant", &[("x-tenant", "acme"), ("x-tenant", "other")], 404, "belongs"),
    ("acme.example.org", "/header/tenant", &[], 404, "belongs"),
    ("example.org", "/t/acme/tenant", &[], 200, "acme"),
    ("other.example.org", "/t/acme/tenant", &[], 200, "acme"),
    ("example.org", "/t/nobody/tenant", &[], 404, "no such tenant"),
    ("example.org", "/claim/tenant", &[("authorization", "acme")], 200, "acme"),
    ("example.org", "/claim/tenant", &[], 404, "belongs"),
    // The host's own answer, to the layer's rejections and to those of handlers.
    ("late.example.org", "/own/tenant", &[], 402, "pay first, late"),
    ("acme.example.org", "/own/busy", &[], 429, "come back later"),
    ("acme.example.org", "/own/wrapped", &[], 429, "come back later"),
    ("acme.example.org", "/wrapped", &[], 503, "too busy"),
    ("old.example.org", "/own/tenant", &[], 418, "own answer"),
];

#[tokio::test]
async fn both_frameworks_give_the_same_answers() {
    let asks: Vec<Ask> = LIST.iter().map(|(host, path, headers, ..)| Ask::get(host, path, headers)).collect();
    let [axum, actix] = answers(&asks).await;
    for (at, (host, path, headers, status, text)) in LIST.iter().enumerate() {
        for (framework, answer) in [("axum", &axum[at]), ("actix", &actix[at])] {
            let what = format!("{framework}: {host}{path} {headers:?} answers {answer:?}");
            assert_eq!(answer.status, *status, "{what}");
            assert!(answer.body.contains(text), "{what}");
            let waits = answer.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok_and(|s| s > 0));
            assert_eq!(waits, *status == 503, "{what}");
        }
        assert_eq!(axum[at].body, actix[at].body, "{host}{path}");
    }
}
