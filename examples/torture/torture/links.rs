//! Checks of the setup link that a run has followed.
//!
//! After the fault and recovery, 64 clients follow the same link at once. Whatever happened to the first attempt, the
//! link must have done its work exactly once at the end.
use super::AnyError;
use super::auditor::Findings;
use super::lane::Lane;
use super::saga::{Saga, settle};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;
use std::time::Duration;
use tenantry::setup_link::SetupLinkError;
use tenantry::{Tenantry, sqlx};

/// Clients that follow the link at once.
const CLIENTS: usize = 64;
const LIMIT: Duration = Duration::from_secs(60);

/// The token of the tenant's latest undelivered setup link.
pub(crate) async fn token(tenantry: &Tenantry, slug: &str) -> Result<SecretString, AnyError> {
    let tenant = tenantry.registry().find(slug.into()).await?.ok_or("the tenant of the run does not exist")?;
    let link = tenantry.tokens().undelivered(tenant.id()).await?.ok_or("the tenant has no undelivered setup link")?;
    Ok(link.token().expose().expose_secret().into())
}

/// Follows the link. Returns the path of the password form, or for a password link the tenant's id.
async fn follow_link(tenantry: &Tenantry, token: &SecretString, is_password: bool) -> Result<String, SetupLinkError> {
    let token = token.expose_secret();
    match is_password {
        true => tenantry.follow_password_link(token, &"correct horse battery".into()).await.map(|t| t.id().to_string()),
        false => tenantry.follow_credentials_link(token).await.map(|form| form.expose_path()),
    }
}

/// Follows the tenant's link and waits until its operation has ended, so that this process sends all its statements.
pub(crate) async fn follow(tenantry: &Tenantry, slug: &str, is_password: bool) -> Result<(), AnyError> {
    follow_link(tenantry, &token(tenantry, slug).await?, is_password).await?;
    // The call returns before the last step of the operation.
    while tenantry.operations().open().await?.iter().any(|o| o.reason.as_deref() == Some("setup link")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Checks that the link is either used or still valid, lets [`CLIENTS`] follow it at once, and checks that its work was
/// done exactly once.
pub(crate) async fn check_links(
    lane: &Lane, saga: Saga, slug: &str, token: &SecretString,
) -> Result<Findings, AnyError> {
    let is_password = saga.base() == Saga::PasswordLink;
    let purpose = if is_password { "password" } else { "credentials" };
    let (mut found, was_valid) = (vec![], count_links(lane, slug, purpose).await? == (0, 1));
    let answers = (0..CLIENTS).map(|_| follow_link(&lane.rescuer, token, is_password));
    let (mut destinations, mut refused) = (BTreeSet::new(), 0);
    for answer in futures_util::future::join_all(answers).await {
        match answer {
            Ok(destination) => drop(destinations.insert(destination)),
            Err(SetupLinkError::NotValid) => refused += 1,
            Err(error) => found.push(format!("a concurrent client at the link got an unexpected error: {error}")),
        }
    }
    settle(&lane.rescuer, LIMIT).await?;
    if destinations.len() != usize::from(was_valid) || !was_valid && refused < CLIENTS {
        found.push(format!(
            "{CLIENTS} clients followed a link (valid before: {was_valid}): {} destinations, {refused} refused",
            destinations.len()
        ));
    }
    match count_links(lane, slug, purpose).await? {
        (1, 0) => {}
        (used, valid) => {
            found.push(format!("expected one used {purpose} link, found {used} used and {valid} valid ones"))
        }
    }
    if !is_password && count_links(lane, slug, "password").await? != (0, 1) {
        found.push("the credentials link did not lead to exactly one password link".into());
    }
    const DONE: &str = "SELECT count(*) FROM tenantry.operations o JOIN tenantry.setup_tokens s
        ON o.idempotency_key = 'setup/' || s.id JOIN tenantry.tenants t ON t.id = s.tenant_id
        WHERE t.slug = $1 AND t.status <> 'deleted' AND s.purpose = $2 AND o.kind = $3 AND o.status = 'done'";
    let done = sqlx::query_scalar(DONE).bind(slug).bind(purpose).bind(saga.kind());
    match done.fetch_one(&lane.landlord).await? {
        1_i64 => {}
        n => found.push(format!("the operation of the link was completed {n} times instead of once")),
    }
    Ok(found)
}

/// Numbers of the tenant's used and of its valid links of this purpose.
async fn count_links(lane: &Lane, slug: &str, purpose: &str) -> Result<(i64, i64), AnyError> {
    const STANDS: &str = "SELECT count(*) FILTER (WHERE used_at IS NOT NULL), count(*) FILTER (WHERE used_at IS NULL)
        FROM tenantry.setup_tokens s JOIN tenantry.tenants t ON t.id = s.tenant_id
        WHERE t.slug = $1 AND t.status <> 'deleted' AND s.purpose = $2 AND s.revoked_at IS NULL";
    Ok(sqlx::query_as(STANDS).bind(slug).bind(purpose).fetch_one(&lane.landlord).await?)
}
