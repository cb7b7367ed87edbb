//! Concurrent posts through one password link: exactly one password is accepted, and that password works.
//!
//! Posts of the same password get the same answer. Passwords are compared after Unicode normalisation.
use super::hooks::{Hooks, Point};
use super::{EMAIL, acme, logs_in, post, quick, token_text};
use tenantry::setup_link::SetupLinkError;
use tenantry::sqlx;
use tenantry::testing::Harness;

/// The same text in NFC and in NFD.
const COMPOSED: &str = "caf\u{e9} \u{d55c}\u{ae00} batterie";
const DECOMPOSED: &str = "cafe\u{301} \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} batterie";

/// How many user-chosen passwords are stored in the landlord.
async fn count_stored_passwords(harness: &Harness) -> i64 {
    const KEPT: &str = "SELECT count(*) FROM tenantry.credentials WHERE purpose = 'new_password'";
    sqlx::query_scalar(KEPT).fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_posts_of_twelve_passwords_accept_one() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(quick).await.unwrap(), harness.tenantry(quick).await.unwrap()];
    acme(&nodes[0]).await;
    for round in 0..3 {
        let link = nodes[0].tokens().issue_password("acme", EMAIL).await.unwrap();
        let password = |n: usize| format!("a password of its own {round} {n}");
        let posts: Vec<_> = (0..12).map(|n| post(&nodes[n % 2], token_text(&link), &password(n))).collect();
        let (mut accepted, mut in_use) = (vec![], 0);
        for (n, post) in posts.into_iter().enumerate() {
            match post.await.unwrap() {
                Ok(_) => accepted.push(n),
                Err(SetupLinkError::InUse { .. }) => in_use += 1,
                // This post arrived after the link was used.
                Err(SetupLinkError::NotValid) => {}
                Err(error) => panic!("round {round}, post {n}: {error:?}"),
            }
        }
        let mut working = vec![];
        for n in 0..12 {
            if logs_in(&nodes[0], &password(n)).await {
                working.push(n);
            }
        }
        assert_eq!(accepted.len(), 1, "round {round}: {accepted:?} were accepted, {in_use} refused; {working:?} works");
        assert_eq!(accepted, working, "round {round}: the accepted password is the one that works");
    }
    assert_eq!(
        count_stored_passwords(&harness).await,
        0,
        "user-chosen passwords that are stored after their operations have ended"
    );
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
    let first = post(&one, token_text(&link), COMPOSED);
    hooks.wait_until_stopped().await;
    for node in [&one, &two] {
        let other = post(node, token_text(&link), "another password entirely").await.unwrap();
        let Err(error @ SetupLinkError::InUse { .. }) = other else { panic!("{other:?}") };
        assert!(!format!("{error} {error:?}").contains("batterie"), "the error contains a password");
    }
    let mut reads = hooks.subscribe_to_reads();
    let same = [post(&one, token_text(&link), DECOMPOSED), post(&two, token_text(&link), COMPOSED)];
    // Wait until both posts have compared their passwords with the sealed one, and so have joined the operation.
    let before = *reads.borrow();
    reads.wait_for(|now| now - before >= 2).await.unwrap();
    hooks.release();
    first.await.unwrap().expect("the first post was not accepted");
    for post in same {
        post.await.unwrap().expect("a post with the same password did not get the answer of the first one");
    }
    for password in [COMPOSED, DECOMPOSED] {
        assert!(logs_in(&two, password).await, "{password:?}");
    }
    assert!(!logs_in(&two, "another password entirely").await);
    let after_use = post(&two, token_text(&link), COMPOSED).await.unwrap();
    assert!(
        matches!(after_use, Err(SetupLinkError::NotValid)),
        "a used link accepted its own password again: {after_use:?}"
    );
}

#[tokio::test]
async fn post_before_the_first_password_is_sealed_waits_and_is_refused() {
    let harness = Harness::start().await.unwrap();
    let hooks = Hooks::new();
    let tenantry = harness.tenantry(|b| hooks.on(&harness, quick(b))).await.unwrap();
    acme(&tenantry).await;
    let link = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    hooks.stop_at(Point::BeforeSeal);
    let first = post(&tenantry, token_text(&link), "the first password");
    hooks.wait_until_stopped().await;
    let mut reads = hooks.subscribe_to_reads();
    let other = post(&tenantry, token_text(&link), "another password entirely");
    hooks.release();
    reads.changed().await.unwrap();
    first.await.unwrap().expect("the first post was not accepted");
    let other = other.await.unwrap();
    assert!(matches!(other, Err(SetupLinkError::InUse { .. } | SetupLinkError::NotValid)), "{other:?}");
    assert!(logs_in(&tenantry, "the first password").await);
    assert!(!logs_in(&tenantry, "another password entirely").await);
}

#[tokio::test]
async fn unusable_password_leaves_the_link_valid() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let link = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    for (password, why) in [
        ("correct\thorse battery", "contains a tab"),
        ("e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}", "has six characters in NFC"),
    ] {
        let refused = post(&tenantry, token_text(&link), password).await.unwrap();
        assert!(
            matches!(refused, Err(SetupLinkError::Password(_))),
            "a password that {why} was not refused: {refused:?}"
        );
    }
    post(&tenantry, token_text(&link), " correct horse battery ")
        .await
        .unwrap()
        .expect("the link is not valid after a refused password");
    assert!(logs_in(&tenantry, " correct horse battery ").await);
    assert!(
        !logs_in(&tenantry, "correct horse battery").await,
        "leading and trailing spaces of the password were ignored"
    );
}
