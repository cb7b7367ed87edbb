//! A worker that processes a password link dies or stalls at each point ([`POINTS`]).
//!
//! Whatever happens, the password whose post was accepted is the one that works afterwards.
use super::hooks::{Hooks, POINTS, Point};
use super::{EMAIL, acme, logs_in, post, quick, token_text};
use sqlx::Executor;
use std::time::Duration;
use tenantry::setup_link::SetupLinkError;
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

/// A lease that outlasts the test, so that none expires on a slow machine.
fn with_long_lease(builder: Builder) -> Builder {
    quick(builder).lease(Duration::from_secs(600))
}

/// Expires the leases of the dead workers and runs recovery until their operations have ended. An operation that
/// another post begins meanwhile keeps its worker.
async fn recover(harness: &Harness, tenantry: &Tenantry) {
    const EXPIRE: &str = "UPDATE tenantry.operations SET leased_until = now(), retry_at = NULL
        WHERE status = 'running' AND id = ANY($1)";
    let open = async || -> Vec<_> {
        tenantry.operations().open().await.unwrap().into_iter().map(|operation| operation.id.as_uuid()).collect()
    };
    let dead = open().await;
    loop {
        sqlx::query(EXPIRE).bind(&dead).execute(harness.landlord()).await.unwrap();
        tenantry.operations().recover().await.unwrap();
        if !open().await.iter().any(|id| dead.contains(id)) {
            return;
        }
    }
}

/// Whether a post may succeed although its worker dies at this point: it answers as soon as the token is used.
fn is_after_use(point: Point) -> bool {
    matches!(point, Point::BeforeForget | Point::AfterForget)
}

/// A node whose workers meet the hooks, a node without hooks, and a tenant with an admin.
async fn two_nodes(harness: &Harness, hooks: &Hooks) -> [Tenantry; 2] {
    let dying = harness.tenantry(|b| hooks.on(harness, with_long_lease(b))).await.unwrap();
    acme(&dying).await;
    [dying, harness.tenantry(with_long_lease).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_of_another_password_after_a_crash_is_refused_or_replaces_it() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let [dying, surviving] = two_nodes(&harness, &hooks).await;
    for point in POINTS {
        let (first, second) = (format!("first password {point:?}"), format!("second password {point:?}"));
        let link = surviving.tokens().issue_password("acme", EMAIL).await.unwrap();
        hooks.die_at(point);
        let died = post(&dying, token_text(&link), &first).await;
        assert!(
            is_after_use(point) || !matches!(died, Ok(Ok(_))),
            "{point:?}: the post succeeded although its worker should have died: {died:?}"
        );
        hooks.wait_until_reached().await;
        let other = post(&surviving, token_text(&link), &second);
        let accepted = if point == Point::BeforeSeal {
            // No password is sealed yet, so the second post waits until that operation ends.
            recover(&harness, &surviving).await;
            other.await.unwrap().is_ok()
        } else {
            let other = other.await.unwrap();
            assert!(
                matches!(other, Err(SetupLinkError::InUse { .. } | SetupLinkError::NotValid)),
                "{point:?}: another password was accepted although the first one is sealed: {other:?}"
            );
            recover(&harness, &surviving).await;
            let again = post(&surviving, token_text(&link), &second).await.unwrap();
            assert!(
                matches!(again, Err(SetupLinkError::NotValid)),
                "{point:?}: the link is still valid after recovery has used it: {again:?}"
            );
            false
        };
        assert_eq!(accepted, point == Point::BeforeSeal, "{point:?}: whether the second post was accepted");
        let working = (logs_in(&surviving, &first).await, logs_in(&surviving, &second).await);
        assert_eq!(working, (!accepted, accepted), "{point:?}: whether the first and the second password work");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_of_the_same_password_after_a_crash_gets_the_outcome() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let [dying, surviving] = two_nodes(&harness, &hooks).await;
    for point in POINTS {
        let password = format!("first password {point:?}");
        let link = surviving.tokens().issue_password("acme", EMAIL).await.unwrap();
        hooks.die_at(point);
        let died = post(&dying, token_text(&link), &password).await;
        assert!(
            is_after_use(point) || !matches!(died, Ok(Ok(_))),
            "{point:?}: the post succeeded although its worker should have died: {died:?}"
        );
        hooks.wait_until_reached().await;
        let same = post(&surviving, token_text(&link), &password);
        recover(&harness, &surviving).await;
        match same.await.unwrap() {
            Ok(tenant) => assert_eq!(tenant.slug().as_str(), "acme"),
            // The post arrived after recovery, or the worker before it died, had used the link.
            Err(SetupLinkError::NotValid) => assert_ne!(point, Point::BeforeSeal),
            Err(error) => panic!("{point:?}: {error:?}"),
        }
        recover(&harness, &surviving).await;
        assert!(logs_in(&surviving, &password).await, "{point:?}: the password does not work after recovery");
    }
}

/// Recovery undoes the operation because its deadline is over, while its first worker is about to set the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_worker_of_an_undone_operation_cannot_overwrite_an_accepted_password() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let [slow, surviving] = two_nodes(&harness, &hooks).await;
    let link = surviving.tokens().issue_password("acme", EMAIL).await.unwrap();
    hooks.stop_at(Point::BeforeSet);
    let first = post(&slow, token_text(&link), "the first password");
    hooks.wait_until_stopped().await;
    let old = "UPDATE tenantry.operations SET created_at = now() - interval '1 day', leased_until = now()
        WHERE status = 'running'";
    harness.landlord().execute(old).await.unwrap();
    let report = surviving.operations().recover().await.unwrap();
    assert_eq!((report.undone, report.finished), (1, 0), "operations that recovery has undone and finished");
    post(&surviving, token_text(&link), "the second password")
        .await
        .unwrap()
        .expect("the link is not valid again after the undo");
    hooks.release();
    let first = first.await.unwrap();
    assert!(first.is_err(), "{first:?}");
    assert!(logs_in(&surviving, "the second password").await, "the accepted password does not work");
    assert!(!logs_in(&surviving, "the first password").await);
}
