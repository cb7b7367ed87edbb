//! A worker of a password link dies or stalls at each point: the accepted password is the one that works.
use super::hooks::{Hooks, POINTS, Point};
use super::{EMAIL, acme, logs_in, post, quick, text};
use sqlx::Executor;
use std::time::Duration;
use tenantry::setup_link::SetupLinkError;
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

/// No lease ends by itself, however slow the machine is.
fn leased(builder: Builder) -> Builder {
    quick(builder).lease(Duration::from_secs(600))
}

/// The worker is dead, so its lease counts as over; recovery brings every operation to its end.
async fn recover(harness: &Harness, tenantry: &Tenantry) {
    loop {
        let over = "UPDATE tenantry.operations SET leased_until = now(), retry_at = NULL WHERE status = 'running'";
        harness.landlord().execute(over).await.unwrap();
        tenantry.operations().recover().await.unwrap();
        if tenantry.operations().open().await.unwrap().is_empty() {
            return;
        }
    }
}

/// A node of hooks that die, another one that does not, and an admin.
async fn two_nodes(harness: &Harness, hooks: &Hooks) -> [Tenantry; 2] {
    let dies = harness.tenantry(|b| hooks.on(harness, leased(b))).await.unwrap();
    acme(&dies).await;
    [dies, harness.tenantry(leased).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_of_another_password_after_a_crash_is_refused_or_replaces_it() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let [dies, lives] = two_nodes(&harness, &hooks).await;
    for point in POINTS {
        let (first, second) = (format!("first password {point:?}"), format!("second password {point:?}"));
        let link = lives.tokens().issue_password("acme", EMAIL).await.unwrap();
        hooks.die_at(point);
        let died = post(&dies, text(&link), &first).await;
        assert!(!matches!(died, Ok(Ok(_))) && !hooks.is_armed(), "{point:?}: its worker has died; {died:?}");
        let other = post(&lives, text(&link), &second);
        let accepted = if point == Point::BeforeSeal {
            // It waits for the operation that has no password.
            recover(&harness, &lives).await;
            other.await.unwrap().is_ok()
        } else {
            let other = other.await.unwrap();
            assert!(
                matches!(other, Err(SetupLinkError::InUse { .. } | SetupLinkError::NotValid)),
                "{point:?}: the password that is sealed already may become effective; {other:?}"
            );
            recover(&harness, &lives).await;
            let again = post(&lives, text(&link), &second).await.unwrap();
            assert!(matches!(again, Err(SetupLinkError::NotValid)), "{point:?}: recovery has used the link; {again:?}");
            false
        };
        assert_eq!(accepted, point == Point::BeforeSeal, "{point:?}");
        let works = (logs_in(&lives, &first).await, logs_in(&lives, &second).await);
        assert_eq!(works, (!accepted, accepted), "{point:?}: the first and the second password");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_of_the_same_password_after_a_crash_gets_the_outcome() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let [dies, lives] = two_nodes(&harness, &hooks).await;
    for point in POINTS {
        let password = format!("first password {point:?}");
        let link = lives.tokens().issue_password("acme", EMAIL).await.unwrap();
        hooks.die_at(point);
        assert!(!matches!(post(&dies, text(&link), &password).await, Ok(Ok(_))), "{point:?}: its worker has died");
        let same = post(&lives, text(&link), &password);
        recover(&harness, &lives).await;
        match same.await.unwrap() {
            Ok(tenant) => assert_eq!(tenant.slug().as_str(), "acme"),
            // The post came when recovery had used the link, or the dead worker had.
            Err(SetupLinkError::NotValid) => assert_ne!(point, Point::BeforeSeal),
            Err(error) => panic!("{point:?}: {error:?}"),
        }
        recover(&harness, &lives).await;
        assert!(logs_in(&lives, &password).await, "{point:?}");
    }
}

/// The operation is undone for its age while its first worker is about to set the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_worker_of_an_undone_operation_cannot_overwrite_an_accepted_password() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let [slow, lives] = two_nodes(&harness, &hooks).await;
    let link = lives.tokens().issue_password("acme", EMAIL).await.unwrap();
    hooks.stop_at(Point::BeforeSet);
    let first = post(&slow, text(&link), "the first password");
    hooks.stopped().await;
    let old = "UPDATE tenantry.operations SET created_at = now() - interval '1 day', leased_until = now()
        WHERE status = 'running'";
    harness.landlord().execute(old).await.unwrap();
    let report = lives.operations().recover().await.unwrap();
    assert_eq!((report.undone, report.finished), (1, 0), "its deadline is over");
    post(&lives, text(&link), "the second password").await.unwrap().expect("the link is good again");
    hooks.release();
    let first = first.await.unwrap();
    assert!(first.is_err(), "{first:?}");
    assert!(logs_in(&lives, "the second password").await, "the accepted password works");
    assert!(!logs_in(&lives, "the first password").await);
}
