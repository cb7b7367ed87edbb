//! Posts of one password link at the same time: one password is accepted, and that one works.
use super::hooks::{Hooks, Point};
use super::{EMAIL, acme, logs_in, post, quick, text};
use tenantry::setup_link::SetupLinkError;
use tenantry::sqlx;
use tenantry::testing::Harness;

/// The same text in NFC and in NFD.
const COMPOSED: &str = "caf\u{e9} \u{d55c}\u{ae00} batterie";
const DECOMPOSED: &str = "cafe\u{301} \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} batterie";

/// How many secrets the landlord keeps that a user has chosen.
async fn kept_passwords(harness: &Harness) -> i64 {
    const KEPT: &str = "SELECT count(*) FROM tenantry.credentials WHERE purpose = 'new_password'";
    sqlx::query_scalar(KEPT).fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_posts_with_twelve_passwords_accept_the_one_that_works() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(quick).await.unwrap(), harness.tenantry(quick).await.unwrap()];
    acme(&nodes[0]).await;
    for round in 0..3 {
        let link = nodes[0].tokens().issue_password("acme", EMAIL).await.unwrap();
        let password = |n: usize| format!("a password of its own {round} {n}");
        let posts: Vec<_> = (0..12).map(|n| post(&nodes[n % 2], text(&link), &password(n))).collect();
        let (mut accepted, mut in_use) = (vec![], 0);
        for (n, post) in posts.into_iter().enumerate() {
            match post.await.unwrap() {
                Ok(_) => accepted.push(n),
                Err(SetupLinkError::InUse { .. }) => in_use += 1,
                // It came when the link was used.
                Err(SetupLinkError::NotValid) => {}
                Err(error) => panic!("round {round}, post {n}: {error:?}"),
            }
        }
        let mut works = vec![];
        for n in 0..12 {
            if logs_in(&nodes[0], &password(n)).await {
                works.push(n);
            }
        }
        assert_eq!(accepted.len(), 1, "round {round}: {accepted:?} were accepted, {in_use} refused; {works:?} works");
        assert_eq!(accepted, works, "round {round}: the accepted password is the one that works");
    }
    assert_eq!(kept_passwords(&harness).await, 0, "no password is kept after its operation");
}

#[tokio::test]
async fn post_with_another_password_is_refused_while_the_first_one_is_set() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let one = harness.tenantry(|b| hooks.on(&harness, quick(b))).await.unwrap();
    let two = harness.tenantry(|b| hooks.on(&harness, quick(b))).await.unwrap();
    acme(&one).await;
    let link = one.tokens().issue_password("acme", EMAIL).await.unwrap();
    hooks.stop_at(Point::BeforeSet);
    let first = post(&one, text(&link), COMPOSED);
    hooks.stopped().await;
    for node in [&one, &two] {
        let other = post(node, text(&link), "another password entirely").await.unwrap();
        let Err(error @ SetupLinkError::InUse { .. }) = other else { panic!("{other:?}") };
        assert!(!format!("{error} {error:?}").contains("batterie"), "the error tells no password");
    }
    let mut opened = hooks.opened();
    let same = [post(&one, text(&link), DECOMPOSED), post(&two, text(&link), COMPOSED)];
    // Each of them has compared its password with the sealed one, and so has joined.
    let before = *opened.borrow();
    opened.wait_for(|now| now - before >= 2).await.unwrap();
    hooks.release();
    first.await.unwrap().expect("the first post is accepted");
    for post in same {
        post.await.unwrap().expect("a post with the same password gets the outcome of the first one");
    }
    for password in [COMPOSED, DECOMPOSED] {
        assert!(logs_in(&two, password).await, "{password:?}");
    }
    assert!(!logs_in(&two, "another password entirely").await);
    let late = post(&two, text(&link), COMPOSED).await.unwrap();
    assert!(
        matches!(late, Err(SetupLinkError::NotValid)),
        "a used link is not valid, also for its own password: {late:?}"
    );
}

#[tokio::test]
async fn post_that_comes_before_the_first_password_is_sealed_waits_and_is_refused() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let tenantry = harness.tenantry(|b| hooks.on(&harness, quick(b))).await.unwrap();
    acme(&tenantry).await;
    let link = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    hooks.stop_at(Point::BeforeSeal);
    let first = post(&tenantry, text(&link), "the first password");
    hooks.stopped().await;
    let mut opened = hooks.opened();
    let other = post(&tenantry, text(&link), "another password entirely");
    hooks.release();
    opened.changed().await.unwrap();
    first.await.unwrap().expect("the first post is accepted");
    let other = other.await.unwrap();
    assert!(matches!(other, Err(SetupLinkError::InUse { .. } | SetupLinkError::NotValid)), "{other:?}");
    assert!(logs_in(&tenantry, "the first password").await);
    assert!(!logs_in(&tenantry, "another password entirely").await);
}

#[tokio::test]
async fn password_with_a_character_that_cannot_be_used_leaves_the_link_as_it_was() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let link = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    for (password, why) in
        [("correct\thorse battery", "a tab"), ("e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}", "6")]
    {
        let refused = post(&tenantry, text(&link), password).await.unwrap();
        assert!(matches!(refused, Err(SetupLinkError::Password(_))), "{why}: {refused:?}");
    }
    post(&tenantry, text(&link), " correct horse battery ").await.unwrap().expect("the link is as good as before");
    assert!(logs_in(&tenantry, " correct horse battery ").await);
    assert!(!logs_in(&tenantry, "correct horse battery").await, "spaces at the ends are part of a password");
}
