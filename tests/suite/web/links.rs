//! Setup links over HTTP (`SetupRoutes`), in axum and in actix-web, with a real landlord and real tenants.
//!
//! Invalid links of every kind must get the same answer, and every page has headers that keep the token private.
use super::apps::{Answer, Ask, link};
use crate::provision::migrated;
use crate::setup::hooks::{Hooks, Point};
use secrecy::ExposeSecret;
use std::time::Duration;
use tenantry::admin::{AdminStore, PgAdminStore};
use tenantry::testing::Harness;
use tenantry::tokens::{SetupLink, Token, TokenPurpose};
use tenantry::web::SetupRoutes;
use tenantry::{Builder, Tenantry, sqlx};

const EMAIL: &str = "ada@acme.example";

fn quick(builder: Builder) -> Builder {
    migrated(builder).lease(Duration::from_secs(2)).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

/// Asserts the headers that keep a page with a token out of caches, referrers and frames, and that it has no inline
/// script.
fn assert_shielded(answer: &Answer) {
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("content-security-policy", "default-src 'none'"),
    ] {
        let actual = answer.header(name).unwrap_or_default();
        assert!(actual.contains(value), "header {name} is {actual:?} in {answer:?}");
    }
    assert!(
        !answer.body.contains("<script") && !answer.body.contains("style="),
        "the page has an inline script or style"
    );
}

/// Whether the admin of this tenant can log in with this password.
async fn logs_in(tenantry: &Tenantry, slug: &str, password: &str) -> bool {
    let mut db = tenantry.resolve(slug).await.unwrap().acquire().await.unwrap();
    PgAdminStore::default().verify(&mut db, &EMAIL.parse().unwrap(), &password.into()).await.unwrap()
}

#[tokio::test]
async fn setup_links_set_a_password_once_in_both_frameworks() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry);
    for (axum, slug) in [(true, "over-axum"), (false, "over-actix")] {
        let setup = tenantry.provision(slug).name("Acme & Sons").admin(EMAIL).await.unwrap().link.unwrap();
        let path = setup.expose_path();
        for _ in 0..3 {
            let shown = link(axum, &routes, Ask::get("acme.example.org", &path, &[])).await;
            assert_eq!(shown.status, 200, "a mail scanner's GET consumes nothing: {shown:?}");
            assert!(shown.body.contains("Acme &amp; Sons"), "{}", shown.body);
            assert_shielded(&shown);
        }
        let followed = link(axum, &routes, Ask::post(&path, "")).await;
        assert_eq!(followed.status, 303, "{followed:?}");
        assert_shielded(&followed);
        let form = followed.header("location").unwrap().to_owned();
        assert!(form.starts_with("/setup/password/tny_password_"));

        let short = link(axum, &routes, Ask::post(&form, "password=short")).await;
        assert_eq!(short.status, 422);
        assert!(short.body.contains("at least 12 characters"), "{}", short.body);
        let nothing = link(axum, &routes, Ask::post(&form, "")).await;
        assert_eq!(nothing.status, 422);
        let huge = link(axum, &routes, Ask::post(&form, vec![b'x'; 200_000])).await;
        assert_eq!(huge.status, 413);
        let set = link(axum, &routes, Ask::post(&form, "password=correct+horse%20battery%26")).await;
        assert_eq!(set.status, 200, "{set:?}");
        assert!(set.body.contains("href=\"/login\""), "{}", set.body);
        assert_shielded(&set);
        assert!(logs_in(&tenantry, slug, "correct horse battery&").await);
        for (path, body) in [(&form, "password=another+long+password"), (&path, "")] {
            assert_eq!(link(axum, &routes, Ask::post(path, body)).await.status, 404, "status of a used link");
        }
        let style = link(axum, &routes, Ask::get("acme.example.org", "/setup/style.css", &[])).await;
        assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    }
}

/// Paths of invalid links, one of each kind.
async fn invalid_links(harness: &Harness, tenantry: &Tenantry) -> Vec<String> {
    let path = |link: &SetupLink| link.expose_path();
    let used = tenantry.provision("acme").admin(EMAIL).await.unwrap().link.unwrap();
    tenantry.follow_credentials_link(used.token().expose().expose_secret()).await.unwrap();
    let expired = tenantry.tokens().issue("acme", "eve@acme.example").await.unwrap();
    sqlx::query("UPDATE tenantry.setup_tokens SET expires_at = now() - interval '1 second' WHERE id = $1")
        .bind(expired.id.as_uuid())
        .execute(harness.landlord())
        .await
        .unwrap();
    let revoked = tenantry.tokens().issue("acme", "bob@acme.example").await.unwrap();
    tenantry.tokens().revoke(revoked.id).await.unwrap();
    let good = tenantry.tokens().issue("acme", EMAIL).await.unwrap();
    let mut mistyped = path(&good);
    mistyped.pop();
    let unknown = Token::random(TokenPurpose::credentials());
    let unknown = format!("/setup/credentials/{}", unknown.expose().expose_secret());
    let other_purpose = path(&good).replace("/setup/credentials/", "/setup/password/");
    vec![path(&used), path(&expired), path(&revoked), mistyped, unknown, other_purpose, "/setup/credentials/x".into()]
}

#[tokio::test]
async fn invalid_links_of_every_kind_get_identical_answers() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry);
    let paths = invalid_links(&harness, &tenantry).await;
    for axum in [true, false] {
        let mut answers = vec![];
        for path in &paths {
            answers.push(link(axum, &routes, Ask::get("acme.example.org", path, &[])).await);
            answers.push(link(axum, &routes, Ask::post(path, "password=correct+horse+battery")).await);
        }
        assert_eq!(answers[0].status, 404);
        assert_shielded(&answers[0]);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "status, headers or body differ: {answers:?}");
    }
}

/// Through both frameworks. `examples/torture` with `--once` does the same with 64 clients and 100 links.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_posts_follow_each_link_once() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry);
    for slug in ["acme", "globex"] {
        let provisioned = tenantry.provision(slug).admin(EMAIL).await.unwrap();
        let path = provisioned.link.unwrap().expose_path();
        let posts = (0..16).map(|n| link(n % 2 == 0, &routes, Ask::post(&path, "")));
        let mut forms = std::collections::HashSet::new();
        for answer in futures_util::future::join_all(posts).await {
            match answer.status {
                303 => drop(forms.insert(answer.header("location").unwrap().to_owned())),
                // This post arrived after the link was used.
                404 => {}
                _ => panic!("{answer:?}"),
            }
        }
        assert_eq!(forms.len(), 1, "concurrent posts got different forms: {forms:?}");
        let users = tenantry.registry_writer().users(provisioned.tenant.id()).await.unwrap();
        assert_eq!(
            users.iter().map(|user| user.generation.0).max(),
            Some(2),
            "newest generation of the login after one rotation"
        );
    }
}

#[tokio::test]
async fn post_through_a_link_in_use_answers_409_with_the_form() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let tenantry = harness.tenantry(|b| hooks.on(&harness, quick(b))).await.unwrap();
    let routes = SetupRoutes::new(&tenantry);
    tenantry.provision("acme").admin(EMAIL).await.unwrap();
    let issued = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    let form = issued.expose_path();
    hooks.stop_at(Point::BeforeSet);
    let first = crate::setup::post(&tenantry, issued.token().expose().expose_secret(), "correct horse battery");
    hooks.wait_until_stopped().await;
    for axum in [true, false] {
        let other = link(axum, &routes, Ask::post(&form, "password=another+long+password"));
        let other = tokio::time::timeout(Duration::from_secs(60), other).await.expect("no answer within a minute");
        assert_eq!(other.status, 409, "{other:?}");
        assert!(other.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok()), "{other:?}");
        assert!(other.body.contains("using this link") && other.body.contains("<form"), "{}", other.body);
        assert!(!other.body.contains("horse") && !other.body.contains("another long"), "{}", other.body);
        assert_shielded(&other);
    }
    hooks.release();
    first.await.unwrap().expect("the first post was not accepted");
    assert!(logs_in(&tenantry, "acme", "correct horse battery").await);
}

#[tokio::test]
async fn too_many_attempts_from_one_address_are_refused() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry).attempts(3).client_address(|r| r.header("x-client")?.parse().ok());
    let ask = |client| Ask::get("acme.example.org", "/setup/credentials/x", &[("x-client", client)]);
    for _ in 0..3 {
        assert_eq!(link(true, &routes, ask("10.0.0.1")).await.status, 404);
    }
    let fourth = link(true, &routes, ask("10.0.0.1")).await;
    assert_eq!(fourth.status, 429);
    assert!(fourth.header("retry-after").is_some_and(|s| (1..=60).contains(&s.parse::<u64>().unwrap())), "{fourth:?}");
    assert_eq!(link(true, &routes, ask("10.0.0.2")).await.status, 404, "another address is refused too");
}

/// actix-web builds the application, and with it the routes, once for each worker.
#[tokio::test]
async fn attempts_are_counted_together_over_all_routes_of_a_process() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let client = ("x-client", "10.0.0.1");
    let ask = || Ask::get("acme.example.org", "/setup/credentials/x", &[client]);
    let mut statuses = vec![];
    for worker in 0..4 {
        let routes = SetupRoutes::new(&tenantry).attempts(3).client_address(|r| r.header("x-client")?.parse().ok());
        statuses.push(link(worker % 2 == 0, &routes, ask()).await.status);
    }
    assert_eq!(statuses, [404, 404, 404, 429], "statuses of one client's attempts at four workers");
}

/// No client address is known, so only the limit of the tenant can refuse.
#[tokio::test]
async fn too_many_attempts_at_the_links_of_one_tenant_are_refused() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry).attempts(3).client_address(|_| None);
    let acme = tenantry.provision("acme").admin(EMAIL).await.unwrap().link.unwrap().expose_path();
    let second = tenantry.tokens().issue("acme", "eve@acme.example").await.unwrap().expose_path();
    let other = tenantry.provision("other").admin(EMAIL).await.unwrap().link.unwrap().expose_path();
    let mut statuses = vec![];
    for path in [&acme, &second, &acme, &second, &other] {
        statuses.push(link(true, &routes, Ask::get("acme.example.org", path, &[])).await.status);
    }
    assert_eq!(
        statuses,
        [200, 200, 200, 429, 200],
        "the fourth attempt at links of acme, then one at another tenant's"
    );
}

#[tokio::test]
async fn suspended_tenant_and_closed_landlord_answer_503_and_leave_the_link_valid() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry);
    let setup = tenantry.provision("acme").admin(EMAIL).await.unwrap().link.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let refused = link(true, &routes, Ask::post(&setup.expose_path(), "")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    tenantry.activate("acme").await.unwrap();
    assert_eq!(link(false, &routes, Ask::post(&setup.expose_path(), "")).await.status, 303);

    harness.landlord().close().await;
    let unavailable = link(true, &routes, Ask::get("acme.example.org", &setup.expose_path(), &[])).await;
    assert_eq!(unavailable.status, 503, "{unavailable:?}");
}

#[tokio::test]
async fn link_events_are_stored_in_the_background() {
    use tenantry::tokens::TokenEventKind::{Followed, Reused, Shown};
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let routes = SetupRoutes::new(&tenantry).client_address(|r| r.header("x-client")?.parse().ok());
    let setup = tenantry.provision("acme").admin(EMAIL).await.unwrap();
    let (tenant, path) = (setup.tenant.id(), setup.link.unwrap().expose_path());
    let client = [("x-client", "10.0.0.9")];
    assert_eq!(link(true, &routes, Ask::get("acme.example.org", &path, &client)).await.status, 200);
    assert_eq!(link(true, &routes, Ask::post(&path, "")).await.status, 303);
    assert_eq!(link(false, &routes, Ask::get("acme.example.org", &path, &client)).await.status, 404);
    assert!(
        tenantry.tokens().events(tenant, 9).await.unwrap().is_empty(),
        "an event was stored before run() was started"
    );
    let background = tokio::spawn(tenantry.run(std::future::pending::<()>()));
    let events = loop {
        let events = tenantry.tokens().events(tenant, 9).await.unwrap();
        if events.len() == 3 {
            break events;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        events.iter().map(|e| e.what).collect::<Vec<_>>(),
        [Reused, Followed, Shown],
        "newest first: {events:?}"
    );
    assert_eq!(events[0].client.as_deref(), Some("10.0.0.9"));
    assert_eq!(tenantry.dropped_link_notes(), 0);
    tenantry.close().await;
    background.await.unwrap().unwrap();
}
