//! The setup links: each works once, whatever happens on the way, and what is no good link is one answer.
mod crashes;
pub(crate) mod hooks;
mod rivals;

use crate::auditor;
use crate::provision::migrated;
use secrecy::{ExposeSecret, SecretString};
use sqlx::Executor;
use std::collections::HashSet;
use std::time::Duration;
use tenantry::admin::{AdminStore, PgAdminStore};
use tenantry::error::ChangeError;
use tenantry::setup_link::SetupLinkError;
use tenantry::testing::Harness;
use tenantry::tokens::{PgTokenStore, SetupLink, Token, TokenClaim, TokenPurpose, TokenStore};
use tenantry::{Builder, OperationId, Tenantry, sqlx};

const EMAIL: &str = "ada@acme.example";

fn quick(builder: Builder) -> Builder {
    migrated(builder).lease(Duration::from_secs(2)).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

fn text(link: &SetupLink) -> &str {
    link.token().expose().expose_secret()
}

pub(crate) type Post = tokio::task::JoinHandle<Result<tenantry::Tenant, SetupLinkError>>;

/// A post of a password link, in a task of its own. It is answered within a minute, whatever stands still.
pub(crate) fn post(node: &Tenantry, token: &str, password: &str) -> Post {
    let (node, token, password) = (node.clone(), token.to_owned(), SecretString::from(password));
    tokio::spawn(async move {
        let answer = tokio::time::timeout(Duration::from_secs(60), node.follow_password_link(&token, &password)).await;
        answer.expect("an answer within a minute")
    })
}

/// A tenant with an admin, and the link that the provisioning has made.
async fn acme(tenantry: &Tenantry) -> SetupLink {
    tenantry.provision("acme").admin(EMAIL).await.unwrap().link.expect("a link")
}

async fn logs_in(tenantry: &Tenantry, password: &str) -> bool {
    let mut db = tenantry.resolve("acme").await.unwrap().acquire().await.unwrap();
    PgAdminStore::default().verify(&mut db, &EMAIL.parse().unwrap(), &password.into()).await.unwrap()
}

#[tokio::test]
async fn from_the_link_to_a_password_that_works() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    let before = auditor::login(&tenantry, "acme").await;
    let shown = tenantry.tokens().look(&TokenPurpose::credentials(), text(&link)).await.unwrap();
    assert_eq!(shown.expect("a look consumes nothing").email, EMAIL);

    let form = tenantry.follow_credentials_link(text(&link)).await.unwrap();
    assert_eq!(form.email, EMAIL);
    assert_ne!(before.get_username(), auditor::login(&tenantry, "acme").await.get_username(), "a login of its own");
    let again = tenantry.follow_credentials_link(text(&link)).await;
    assert!(matches!(again, Err(SetupLinkError::NotValid)), "{again:?}");

    let short = tenantry.follow_password_link(text(&form), &"short".into()).await;
    assert!(matches!(short, Err(SetupLinkError::Password(_))), "{short:?}");
    assert!(!logs_in(&tenantry, "short").await);
    let tenant = tenantry.follow_password_link(text(&form), &"correct horse battery".into()).await.unwrap();
    assert_eq!(tenant.slug().as_str(), "acme");
    assert!(logs_in(&tenantry, "correct horse battery").await);
    let late = tenantry.follow_password_link(text(&form), &"another long password".into()).await;
    assert!(matches!(late, Err(SetupLinkError::NotValid)), "{late:?}");
    assert!(logs_in(&tenantry, "correct horse battery").await);
    let kept: Vec<String> = auditor::landlord_only(harness.landlord()).await;
    let secrets: Vec<_> = kept.iter().filter(|row| row.starts_with("secret")).collect();
    assert_eq!(secrets, ["secret login"], "neither a link nor a password is kept");
}

#[tokio::test]
async fn what_is_no_good_link_is_one_answer_and_leaves_no_operation() {
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
    let mut mistyped = text(&link).to_owned();
    mistyped.pop();
    let unknown = Token::random(TokenPurpose::credentials());
    let texts = [
        "",
        "x",
        "tny_credentials_",
        &mistyped,
        text(&revoked),
        text(&expired),
        text(&password),
        unknown.expose().expose_secret(),
    ];
    for text in texts {
        let answer = tenantry.follow_credentials_link(text).await;
        assert!(matches!(answer, Err(SetupLinkError::NotValid)), "{answer:?}");
    }
    assert_eq!(auditor::operations(harness.landlord(), "setup_credentials", "undone").await, 0);
    tenantry.follow_credentials_link(text(&link)).await.expect("the good one is as good as before");
}

/// As the documentation of `issue_for` says.
#[tokio::test]
async fn a_purpose_of_the_hosts_own_works_once_and_opens_nothing_else() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let invite: TokenPurpose = "invite".parse().unwrap();
    let link = tenantry.tokens().issue_for(invite.clone(), "acme", "bob@acme.example").await.unwrap();
    assert!(link.expose_path().starts_with("/setup/invite/tny_invite_"));
    let setup = tenantry.follow_credentials_link(text(&link)).await;
    let password = tenantry.follow_password_link(text(&link), &"correct horse battery".into()).await;
    assert!(matches!((setup, password), (Err(SetupLinkError::NotValid), Err(SetupLinkError::NotValid))));
    assert!(tenantry.tokens().look(&TokenPurpose::credentials(), text(&link)).await.unwrap().is_none());

    let issued = tenantry.tokens().look(&invite, text(&link)).await.unwrap().expect("a good link");
    let (store, by) = (PgTokenStore::new(harness.landlord().clone()), OperationId::from_uuid(issued.id.as_uuid()));
    for _ in 0..2 {
        // The second time is after a crash.
        let claim = store.claim(&Token::hash_of(text(&link)), by).await.unwrap();
        assert!(matches!(claim, TokenClaim::Claimed(issued) if issued.email == "bob@acme.example"));
    }
    store.use_up(issued.id, by).await.unwrap();
    assert!(tenantry.tokens().look(&invite, text(&link)).await.unwrap().is_none());
    assert_eq!(store.claim(&Token::hash_of(text(&link)), by).await.unwrap(), TokenClaim::NotValid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clicks_are_one_rotation_and_lead_to_one_form() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(quick).await.unwrap(), harness.tenantry(quick).await.unwrap()];
    let link = acme(&nodes[0]).await;
    let clicks = (0..16).map(|n| {
        let (node, token) = (nodes[n % 2].clone(), text(&link).to_owned());
        tokio::spawn(async move { node.follow_credentials_link(&token).await })
    });
    let mut forms = HashSet::new();
    for click in clicks.collect::<Vec<_>>() {
        match click.await.unwrap() {
            Ok(form) => drop(forms.insert(text(&form).to_owned())),
            // It came when all was done.
            Err(SetupLinkError::NotValid) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(forms.len(), 1, "whoever joined got the same link");
    let generations: i64 = sqlx::query_scalar("SELECT max(generation) FROM tenantry.tenant_database_users")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(generations, 2, "rotated once");
}

#[tokio::test]
async fn a_tenant_that_is_refused_keeps_its_link_until_it_is_active_again() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    tenantry.suspend("acme").await.unwrap();
    let refused = tenantry.follow_credentials_link(text(&link)).await;
    assert!(
        matches!(&refused, Err(SetupLinkError::Refused(tenant)) if tenant.slug().as_str() == "acme"),
        "{refused:?}"
    );
    tenantry.activate("acme").await.unwrap();
    tenantry.follow_credentials_link(text(&link)).await.unwrap();
}

/// Incident 1: the old login cannot be dropped.
#[tokio::test]
async fn a_login_that_cannot_be_dropped_keeps_nobody_from_the_form() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let link = acme(&tenantry).await;
    let db = tenantry.resolve("acme").await.unwrap();
    let mut holder = db.begin().await.unwrap();
    holder.execute("INSERT INTO notes (text) VALUES ('in the middle of something')").await.unwrap();
    let form = tenantry.follow_credentials_link(text(&link)).await.unwrap();
    holder.commit().await.expect("nobody is cut off within the grace");
    tenantry.follow_password_link(text(&form), &"correct horse battery".into()).await.unwrap();
    assert!(logs_in(&tenantry, "correct horse battery").await);
}

#[tokio::test]
async fn an_admin_who_is_gone_gets_no_password() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    acme(&tenantry).await;
    let stranger = tenantry.tokens().issue_password("acme", "nobody@acme.example").await.unwrap();
    let answer = tenantry.follow_password_link(text(&stranger), &"correct horse battery".into()).await;
    assert!(matches!(answer, Err(SetupLinkError::NotValid)), "{answer:?}");
    assert!(matches!(tenantry.tokens().issue_password("acme", "no address").await, Err(ChangeError::Invalid { .. })));
}
