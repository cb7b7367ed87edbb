//! Setup links (credentials link, then password link): each works once, and every invalid link gets the same answer.
//!
//! Submodules: a worker that dies or stalls (`crashes`), stores that stop a worker at a chosen point (`hooks`),
//! concurrent posts (`rivals`). [`post`] is also used by the tests of the web layer.
mod crashes;
pub(crate) mod hooks;
mod rivals;

use crate::auditor;
use crate::provision::migrated;
use secrecy::{ExposeSecret, SecretString};
use sqlx::Executor;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tenantry::admin::{AdminStore, PgAdminStore};
use tenantry::error::ChangeError;
use tenantry::journal::{Begun, Intent, Journal, PgJournal};
use tenantry::operation::{Lane, Subject};
use tenantry::setup_link::SetupLinkError;
use tenantry::testing::Harness;
use tenantry::tokens::{PgTokenStore, SetupLink, Token, TokenClaim, TokenPurpose, TokenStore};
use tenantry::{Builder, OperationId, Tenantry, sqlx};

const EMAIL: &str = "ada@acme.example";

fn quick(builder: Builder) -> Builder {
    migrated(builder).lease(Duration::from_secs(2)).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

/// The link's secret token, as it appears in the URL.
fn token_text(link: &SetupLink) -> &str {
    link.token().expose().expose_secret()
}

/// The running task of a post.
pub(crate) type Post = tokio::task::JoinHandle<Result<tenantry::Tenant, SetupLinkError>>;

/// Posts a password through a password link, in a task of its own. The task panics if there is no answer within a
/// minute.
pub(crate) fn post(node: &Tenantry, token: &str, password: &str) -> Post {
    let (node, token, password) = (node.clone(), token.to_owned(), SecretString::from(password));
    tokio::spawn(async move {
        let answer = tokio::time::timeout(Duration::from_secs(60), node.follow_password_link(&token, &password)).await;
        answer.expect("no answer to a password link within a minute")
    })
}

/// Provisions the tenant `acme` with an admin and returns the credentials link.
async fn acme(tenantry: &Tenantry) -> SetupLink {
    tenantry.provision("acme").admin(EMAIL).await.unwrap().link.expect("no link for the admin")
}

/// Whether the admin of `acme` can log in with this password.
async fn logs_in(tenantry: &Tenantry, password: &str) -> bool {
    let mut db = tenantry.resolve("acme").await.unwrap().acquire().await.unwrap();
    PgAdminStore::default().verify(&mut db, &EMAIL.parse().unwrap(), &password.into()).await.unwrap()
}

#[tokio::test]
async fn credentials_and_password_link_set_a_working_password_once() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    let before = auditor::login(&tenantry, "acme").await;
    let shown = tenantry.tokens().look_up(&TokenPurpose::credentials(), token_text(&link)).await.unwrap();
    assert_eq!(shown.expect("the link is not valid before it is followed").email, EMAIL);

    let form = tenantry.follow_credentials_link(token_text(&link)).await.unwrap();
    assert_eq!(form.email, EMAIL);
    assert_ne!(
        before.get_username(),
        auditor::login(&tenantry, "acme").await.get_username(),
        "the credentials link did not rotate the login"
    );
    let again = tenantry.follow_credentials_link(token_text(&link)).await;
    assert!(matches!(again, Err(SetupLinkError::NotValid)), "{again:?}");

    let short = tenantry.follow_password_link(token_text(&form), &"short".into()).await;
    assert!(matches!(short, Err(SetupLinkError::Password(_))), "{short:?}");
    assert!(!logs_in(&tenantry, "short").await);
    let tenant = tenantry.follow_password_link(token_text(&form), &"correct horse battery".into()).await.unwrap();
    assert_eq!(tenant.slug().as_str(), "acme");
    assert!(logs_in(&tenantry, "correct horse battery").await);
    let after_use = tenantry.follow_password_link(token_text(&form), &"another long password".into()).await;
    assert!(matches!(after_use, Err(SetupLinkError::NotValid)), "{after_use:?}");
    assert!(logs_in(&tenantry, "correct horse battery").await);
    let rows: Vec<String> = auditor::landlord_only(harness.landlord()).await;
    let secrets: Vec<_> = rows.iter().filter(|row| row.starts_with("secret")).collect();
    assert_eq!(secrets, ["secret login"], "secrets of tenants in the vault");
}

/// A visitor of a reset page types an address that looks like the admin's and belongs to another mailbox.
#[tokio::test]
async fn password_link_for_a_unicode_case_variant_of_an_address_leaves_the_admin_alone() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").admin("mike@acme.example").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let owner =
        harness.server().admin_options().database(auditor::login(&tenantry, "acme").await.get_database().unwrap());
    let mut owner = sqlx::ConnectOptions::connect(&owner).await.unwrap();
    // A collation whose `lower` turns the Kelvin sign into k. A server may be built without ICU.
    const FOLDING_COLLATION: &str = "DO $$ DECLARE found text; BEGIN
        SELECT collname INTO found FROM pg_collation WHERE collname IN ('und-x-icu', 'pg_c_utf8', 'C.utf8')
            AND collencoding IN (-1, 6) ORDER BY collname COLLATE \"C\" DESC LIMIT 1;
        IF found IS NOT NULL THEN
            EXECUTE format('ALTER TABLE public.tenant_users ALTER email TYPE text COLLATE %I', found);
        END IF;
    END $$";
    owner.execute(FOLDING_COLLATION).await.unwrap();
    let own = tenantry.tokens().issue_password("acme", "Mike@ACME.example").await.unwrap();
    assert_eq!(own.email, "mike@acme.example", "the link is for the stored address, not for the typed one");
    let refused = tenantry.tokens().issue_password("acme", "mi\u{212a}e@acme.example").await;
    assert!(matches!(&refused, Err(ChangeError::NoAdmin(_))), "{refused:?}");
    // A link of another admin of an earlier time, whose address is not stored any more.
    let issue = tenantry.tokens().issue_for(TokenPurpose::password(), "acme", "mi\u{212a}e@acme.example");
    let other = issue.await.unwrap();

    let followed = tenantry.follow_password_link(token_text(&other), &"the intruder's password".into()).await;
    assert!(matches!(followed, Err(SetupLinkError::NotValid)), "{followed:?}");
    let followed = tenantry.follow_password_link(token_text(&own), &"correct horse battery".into()).await;
    followed.expect("the link to the other address has revoked the admin's own link");
    let mut session = db.acquire().await.unwrap();
    for (password, expected) in [("the intruder's password", false), ("correct horse battery", true)] {
        let email = "mike@acme.example".parse().unwrap();
        let accepted = PgAdminStore::default().verify(&mut session, &email, &password.into()).await.unwrap();
        assert_eq!(accepted, expected, "mike logs in with {password:?}");
    }
}

/// A lock on the table of users keeps every session that sets a password waiting, so all sessions are seen at once.
#[tokio::test]
async fn burst_of_password_posts_has_no_more_sessions_than_workers() {
    const SESSIONS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name ~ '^tenantry/'";
    let harness = Harness::start().await.unwrap();
    // The default lease: forty hashes on a slow machine take longer than a short one.
    let tenantry = harness.tenantry(|b| migrated(b).workers(2)).await.unwrap();
    acme(&tenantry).await;
    let mut login = tenantry.resolve("acme").await.unwrap().acquire().await.unwrap();
    let mut links = vec![];
    for n in 0..40 {
        let email = format!("user{n}@acme.example");
        PgAdminStore::default().ensure_admin(&mut login, &email.parse().unwrap()).await.unwrap();
        links.push(tenantry.tokens().issue_password("acme", &email).await.unwrap());
    }
    let database = auditor::login(&tenantry, "acme").await.get_database().unwrap().to_owned();
    let mut holder =
        sqlx::ConnectOptions::connect(&harness.server().admin_options().database(&database)).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE tenant_users").await.unwrap();
    let posts: Vec<_> =
        links.into_iter().map(|link| post(&tenantry, token_text(&link), "correct horse battery")).collect();
    // Not a connection of the landlord's pool, which the posts need.
    let mut watcher = auditor::superuser(&harness).await;
    let (begun, mut most, mut both_wait) = (Instant::now(), 0, None);
    while both_wait.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(3)) {
        most = most.max(sqlx::query_scalar::<_, i64>(SESSIONS).bind(&database).fetch_one(&mut watcher).await.unwrap());
        both_wait = both_wait.or((most >= 2).then(Instant::now));
        assert!(begun.elapsed() < Duration::from_secs(60), "40 posts had {most} sessions at once in 60 s");
    }
    assert_eq!(most, 2, "sessions of 40 posts at once; the node has two workers");
    holder.execute("ROLLBACK").await.unwrap();
    for post in posts {
        post.await.unwrap().unwrap();
    }
}

/// No session may be needed to find out that a password is too short: the tenant's database refuses all of them.
#[expect(clippy::disallowed_methods, reason = "the name of the database is the crate's own")]
#[tokio::test]
async fn password_that_breaks_a_rule_is_refused_without_a_session() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let link = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    let database = auditor::login(&tenantry, "acme").await.get_database().unwrap().to_owned();
    let admin = harness.server().admin_options();
    let mut admin = sqlx::ConnectOptions::connect(&admin).await.unwrap();
    let close = format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS false");
    admin.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(close))).await.unwrap();
    let refused = tenantry.follow_password_link(token_text(&link), &"short".into()).await;
    assert!(matches!(refused, Err(SetupLinkError::Password(_))), "{refused:?}");
}

#[tokio::test]
async fn password_link_is_not_blocked_by_a_callers_operation_with_a_similar_key() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let link = tenantry.tokens().issue_password("acme", EMAIL).await.unwrap();
    tenantry.provision("umbrella").key(format!("setup/{}", link.id)).await.unwrap();
    tenantry.follow_password_link(token_text(&link), &"correct horse battery".into()).await.unwrap();
    assert!(logs_in(&tenantry, "correct horse battery").await);
}

#[tokio::test]
async fn invalid_links_get_the_same_answer_and_begin_no_operation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    let revoked = tenantry.tokens().issue("acme", "bob@acme.example").await.unwrap();
    tenantry.tokens().revoke(revoked.id).await.unwrap();
    let expired = tenantry.tokens().issue("acme", "eve@acme.example").await.unwrap();
    sqlx::query("UPDATE tenantry.setup_tokens SET expires_at = now() - interval '1 second' WHERE id = $1")
        .bind(expired.id.as_uuid())
        .execute(harness.landlord())
        .await
        .unwrap();
    let password = tenantry.tokens().issue_password("acme", "ada@acme.example").await.unwrap();
    let mut mistyped = token_text(&link).to_owned();
    mistyped.pop();
    let unknown = Token::random(TokenPurpose::credentials());
    let texts = [
        "",
        "x",
        "tny_credentials_",
        &mistyped,
        token_text(&revoked),
        token_text(&expired),
        token_text(&password),
        unknown.expose().expose_secret(),
    ];
    for token_text in texts {
        let answer = tenantry.follow_credentials_link(token_text).await;
        assert!(matches!(answer, Err(SetupLinkError::NotValid)), "{answer:?}");
    }
    assert_eq!(auditor::operations(harness.landlord(), "setup_credentials", "undone").await, 0);
    tenantry
        .follow_credentials_link(token_text(&link))
        .await
        .expect("the valid link does not work after posts of invalid ones");
}

/// The example in the documentation of `issue_for`.
#[tokio::test]
async fn link_with_a_host_purpose_works_once_and_only_for_that_purpose() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let invite: TokenPurpose = "invite".parse().unwrap();
    let link = tenantry.tokens().issue_for(invite.clone(), "acme", "bob@acme.example").await.unwrap();
    assert!(link.expose_path().starts_with("/setup/invite/tny_invite_"));
    let setup = tenantry.follow_credentials_link(token_text(&link)).await;
    let password = tenantry.follow_password_link(token_text(&link), &"correct horse battery".into()).await;
    assert!(matches!((setup, password), (Err(SetupLinkError::NotValid), Err(SetupLinkError::NotValid))));
    assert!(tenantry.tokens().look_up(&TokenPurpose::credentials(), token_text(&link)).await.unwrap().is_none());

    let issued = tenantry
        .tokens()
        .look_up(&invite, token_text(&link))
        .await
        .unwrap()
        .expect("the link is not valid for its own purpose");
    let (store, by) = (PgTokenStore::new(harness.landlord().clone()), OperationId::from_uuid(issued.id.as_uuid()));
    for _ in 0..2 {
        // The second claim is the retry after a crash: the same operation gets the link again.
        let claim = store.claim(&Token::hash_of(token_text(&link)), by).await.unwrap();
        assert!(matches!(claim, TokenClaim::Claimed(issued) if issued.email == "bob@acme.example"));
    }
    store.use_up(issued.id, by).await.unwrap();
    assert!(tenantry.tokens().look_up(&invite, token_text(&link)).await.unwrap().is_none());
    assert_eq!(store.claim(&Token::hash_of(token_text(&link)), by).await.unwrap(), TokenClaim::NotValid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_uses_of_a_credentials_link_rotate_once_and_return_the_same_password_link() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(quick).await.unwrap(), harness.tenantry(quick).await.unwrap()];
    let link = acme(&nodes[0]).await;
    let clicks = (0..16).map(|n| {
        let (node, token) = (nodes[n % 2].clone(), token_text(&link).to_owned());
        tokio::spawn(async move { node.follow_credentials_link(&token).await })
    });
    let mut forms = HashSet::new();
    for click in clicks.collect::<Vec<_>>() {
        match click.await.unwrap() {
            Ok(form) => drop(forms.insert(token_text(&form).to_owned())),
            // This click arrived after the link was used.
            Err(SetupLinkError::NotValid) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(forms.len(), 1, "concurrent clicks got different password links");
    let generations: i64 = sqlx::query_scalar("SELECT max(generation) FROM tenantry.tenant_database_users")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(generations, 2, "newest generation of the login after one rotation");
}

#[tokio::test]
async fn link_of_a_suspended_tenant_works_after_activation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    tenantry.suspend("acme").await.unwrap();
    let refused = tenantry.follow_credentials_link(token_text(&link)).await;
    assert!(
        matches!(&refused, Err(SetupLinkError::Refused(tenant)) if tenant.slug().as_str() == "acme"),
        "{refused:?}"
    );
    tenantry.activate("acme").await.unwrap();
    tenantry.follow_credentials_link(token_text(&link)).await.unwrap();
}

/// Another operation of the tenant is open, so the link waits. The tenant is suspended during that wait.
#[tokio::test]
async fn credentials_link_of_a_tenant_suspended_while_it_waits_is_refused() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    let tenant = tenantry.registry().find("acme".into()).await.unwrap().unwrap().id();
    let open = Intent::new(OperationId::new(), "by hand", Lane::Change, Subject::Tenant(tenant));
    let begun = PgJournal::new(harness.landlord().clone()).begin(&open).await.unwrap();
    assert!(matches!(begun, Begun::New(_)), "another operation is open: {begun:?}");
    let (node, token) = (tenantry.clone(), token_text(&link).to_owned());
    let follow = tokio::spawn(async move { node.follow_credentials_link(&token).await });
    // The link has found its tenant active by then. If it has not, the answer is the same.
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::query("UPDATE tenantry.tenants SET status = 'suspended' WHERE id = $1")
        .bind(tenant.as_uuid())
        .execute(harness.landlord())
        .await
        .unwrap();
    let answer = follow.await.unwrap();
    assert!(matches!(answer, Err(SetupLinkError::Refused(_))), "{answer:?}");
}

/// An open transaction prevents the drop of the old login.
#[tokio::test]
async fn credentials_link_works_while_the_old_login_cannot_be_dropped() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    let db = tenantry.resolve("acme").await.unwrap();
    let mut holder = db.begin().await.unwrap();
    holder.execute("INSERT INTO notes (text) VALUES ('in the middle of something')").await.unwrap();
    let form = tenantry.follow_credentials_link(token_text(&link)).await.unwrap();
    holder.commit().await.expect("a session of the old login was terminated within the grace");
    tenantry.follow_password_link(token_text(&form), &"correct horse battery".into()).await.unwrap();
    assert!(logs_in(&tenantry, "correct horse battery").await);
}

#[tokio::test]
async fn password_link_of_an_unknown_admin_is_not_valid() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let refused = tenantry.tokens().issue_password("acme", "unknown@acme.example").await;
    assert!(matches!(&refused, Err(ChangeError::NoAdmin(_))), "{refused:?}");
    // The admin was removed after the link was issued.
    let issue = tenantry.tokens().issue_for(TokenPurpose::password(), "acme", "unknown@acme.example");
    let unknown_admin = issue.await.unwrap();
    let answer = tenantry.follow_password_link(token_text(&unknown_admin), &"correct horse battery".into()).await;
    assert!(matches!(answer, Err(SetupLinkError::NotValid)), "{answer:?}");
    assert!(matches!(tenantry.tokens().issue_password("acme", "no address").await, Err(ChangeError::Invalid { .. })));
}
