//! The two web examples (`examples/axum.rs`, `examples/actix.rs`) over TCP: sign-up, notes, and forged requests.
//!
//! Submodules: a landlord outage (`away`), bad request bodies and idle connections (`bodies`), a running example and an
//! HTTP client (`site`).
mod away;
mod bodies;
mod site;

use crate::web::apps::Answer;
use site::{SUFFIX, Site};
use tenantry::testing::Harness;

/// The text between the first occurrence of `before` and the next occurrence of `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before:?} in {text}"));
    rest.split_once(after).unwrap().0
}
/// The CSRF token of the page's form.
fn csrf(page: &Answer) -> &str {
    between(&page.body, "name=\"csrf\" value=\"", "\"")
}

/// The session cookie as a browser would send it back. Asserts that it is `HttpOnly`, `SameSite=Lax` and has no
/// `Domain`.
fn cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {answer:?}"));
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
    assert!(!cookie.to_ascii_lowercase().contains("domain"), "the cookie is sent to other hosts: {cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

/// Signs up a tenant, follows both setup links, and logs in. Returns the session cookie.
async fn sign_up(site: &Site, slug: &str) -> String {
    let (bare, host) = (site.host(""), site.host(slug));
    assert_eq!(site.get(&bare, "/", "").await.status, 200);
    let form = format!("company=Acme+%26+Sons&slug={slug}&email=ada%40acme.example");
    assert_eq!(site.post_from("http://evil.test", &bare, "/signup", "", &form).await.status, 403);
    let accepted = site.post(&bare, "/signup", "", &form).await;
    assert_eq!(accepted.status, 303, "{accepted:?}");
    let at = accepted.header("location").unwrap().to_owned();
    let events = site.get(&bare, &format!("{at}/events"), "").await;
    assert!(events.body.contains("data: 100 ") && events.body.ends_with("event: end\ndata: .\n\n"), "{events:?}");
    assert_eq!(site.post(&bare, "/signup", "", &form).await.status, 409, "a second sign-up with the same slug");

    let ready = site.get(&bare, &at, "").await;
    let link = between(&ready.body, "class=\"link\" href=\"", "\"");
    let link = link.strip_prefix(&format!("http://{host}")).expect("the link does not lead to the tenant's own host");
    assert_eq!(site.get(&host, link, "").await.status, 200);
    let form = site.post(&host, link, "", "").await;
    assert_eq!(form.status, 303, "{form:?}");
    let form = form.header("location").unwrap();
    // The password has a space at each end: setting it and logging in must not trim it.
    let set = site.post(&host, form, "", "password=+correct+horse+battery+").await;
    assert!(set.status == 200 && set.body.contains("href=\"/login\""), "{set:?}");

    let login = "email=ada%40acme.example&password=+correct+horse+battery+";
    let foreign = site.post_from("http://evil.test", &host, "/login", "", login).await;
    assert!(foreign.status == 401 && foreign.header("set-cookie").is_none(), "{foreign:?}");
    assert_eq!(site.post(&host, "/login", "", &login.replace("horse", "hose")).await.status, 401);
    assert_eq!(site.post(&host, "/login", "", &login.replace("battery+", "battery")).await.status, 401);
    let inside = site.post(&host, "/login", "", login).await;
    assert_eq!((inside.status, inside.header("location")), (303, Some("/notes")));
    cookie(&inside)
}

/// Writes the first note, after attempts from foreign origins and without the CSRF token.
async fn first_note(site: &Site, slug: &str, session: &str) {
    let host = site.host(slug);
    let notes = site.get(&host, "/notes", session).await;
    assert!(notes.status == 200 && notes.body.contains("No notes yet"), "{notes:?}");
    let form = format!("csrf={}&text=%3Cb%3EHello%3C%2Fb%3E", csrf(&notes));
    for origin in ["http://evil.test", "null", &format!("http://{}", site.host(""))] {
        assert_eq!(site.post_from(origin, &host, "/notes", session, &form).await.status, 403, "{origin}");
    }
    assert_eq!(site.post(&host, "/notes", session, "text=Hello").await.status, 403, "a post without the CSRF token");
    assert_eq!(site.post(&host, "/notes", session, &form).await.status, 303);
    let notes = site.get(&host, "/notes", session).await;
    assert_eq!(
        notes.body.matches("&lt;b&gt;Hello&lt;&#x2f;b&gt;").count(),
        1,
        "the note does not appear once, escaped: {}",
        notes.body
    );
}

/// Uses the session cookie and its CSRF token at another tenant's host and at the bare host.
async fn assert_session_is_useless_elsewhere(site: &Site, slug: &str, other: &str, session: &str) {
    let form = format!("csrf={}&text=Hello", csrf(&site.get(&site.host(slug), "/notes", session).await));
    let other_host = site.host(other);
    for answer in
        [site.get(&other_host, "/notes", session).await, site.post(&other_host, "/notes", session, &form).await]
    {
        assert_eq!((answer.status, answer.header("location")), (303, Some("/login")), "{answer:?}");
    }
    assert_eq!(site.get(&site.host(""), "/notes", session).await.status, 404);
    let forged = format!("x-forwarded-host: {}\r\n", site.host(slug));
    assert_eq!(site.ask("GET", &other_host, "/notes", &format!("{forged}cookie: {session}\r\n"), "").await.status, 303);
    assert_eq!(site.ask("GET", &site.host(""), "/notes", &forged, "").await.status, 404);
}

/// The operator logs in on the bare host, after forged attempts, and runs each operation on the tenant.
async fn operator(site: &Site, slug: &str, session: &str) {
    let (bare, host) = (site.host(""), site.host(slug));
    let password = format!("password={}", site.admin_password);
    assert_eq!(site.post(&bare, "/admin/login", "", "password=x").await.status, 401);
    assert_eq!(site.post_from("http://evil.test", &bare, "/admin/login", "", &password).await.status, 401);
    assert_eq!(site.post(&host, "/admin/login", "", &password).await.status, 401, "operator log-in on a tenant's host");
    let admin = cookie(&site.post(&bare, "/admin/login", "", &password).await);
    let page = site.get(&bare, "/admin", &admin).await;
    assert!(page.body.contains(&format!("/admin/{slug}/suspend")), "{}", page.body);
    let form = format!("csrf={}", csrf(&page));
    assert_eq!(site.post(&bare, &format!("/admin/{slug}/suspend"), &admin, "").await.status, 403);
    assert_eq!(site.post(&host, &format!("/admin/{slug}/suspend"), &admin, &form).await.status, 303);
    assert_eq!(
        site.get(&host, "/notes", session).await.status,
        200,
        "a forged request of the operator changed the tenant"
    );
    let unconfirmed = site.post(&bare, &format!("/admin/{slug}/archive"), &admin, &form).await;
    assert!(unconfirmed.status == 200 && unconfirmed.body.contains("name=\"confirmed\""), "{unconfirmed:?}");
    assert_eq!(site.get(&host, "/notes", session).await.status, 200, "archived without a confirmation");
    let form = format!("{form}&confirmed=yes");
    for (verb, message, notes_status) in [
        ("rotate", "has login 3 now", 200),
        ("suspend", "is suspended", 503),
        ("activate", "is active", 200),
        ("archive", "is archived", 410),
        ("suspend", "does not allow this operation", 410),
    ] {
        let done = site.post(&bare, &format!("/admin/{slug}/{verb}"), &admin, &form).await;
        assert_eq!((done.status, done.header("location")), (303, Some("/admin")), "{verb}: {done:?}");
        let page = site.get(&bare, "/admin", &admin).await;
        assert!(page.body.contains(message), "{verb}: {}", between(&page.body, "<main", "</main>"));
        let again = site.get(&bare, "/admin", &admin).await;
        assert!(!again.body.contains(&format!("{slug} {message}")), "{verb}: the message is shown twice");
        let notes = site.get(&host, "/notes", session).await;
        assert_eq!(notes.status, notes_status, "status of /notes after {verb}");
        assert_eq!(notes.header("retry-after").is_some(), notes_status == 503, "Retry-After after {verb}");
    }
}

/// A path that does not exist has a page with the style of all others, on the bare host and on a tenant's.
async fn assert_unknown_paths_have_a_page(site: &Site, slug: &str) {
    for host in [site.host(""), site.host(slug)] {
        for path in ["/nothing", "/admin/acme/nothing/deeper"] {
            let answer = site.get(&host, path, "").await;
            assert!(answer.status == 404 && answer.body.contains("/style.css"), "{host}{path}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_serve_sign_up_notes_and_operator_and_refuse_forged_requests() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&site::MIGRATIONS)).await.unwrap();
    tenantry.provision("other").admin("ada@acme.example").await.unwrap();
    for (site, slug) in [(Site::axum(&tenantry).await, "over-axum"), (Site::actix(&tenantry).await, "over-actix")] {
        assert!(site.host(slug).contains(SUFFIX));
        let session = sign_up(&site, slug).await;
        first_note(&site, slug, &session).await;
        assert_unknown_paths_have_a_page(&site, slug).await;
        assert_session_is_useless_elsewhere(&site, slug, "other", &session).await;
        operator(&site, slug, &session).await;
        site.stop().await;
    }
    tenantry.close().await;
}
