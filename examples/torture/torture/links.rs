//! Whoever has a setup link comes again, many at once, whatever became of the first one: it does its work once.
use super::Anything;
use super::auditor::Findings;
use super::lane::Lane;
use super::saga::{Saga, settle};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;
use std::time::Duration;
use tenantry::setup_link::SetupLinkError;
use tenantry::{Tenantry, sqlx};

/// At one link, at once.
const CLIENTS: usize = 64;
const LIMIT: Duration = Duration::from_secs(60);

/// The link that the tenant's admin has been given last.
pub(crate) async fn token(tenantry: &Tenantry, slug: &str) -> Result<SecretString, Anything> {
    let tenant = tenantry.registry().find(slug.into()).await?.ok_or("no such tenant")?;
    let link = tenantry.tokens().undelivered(tenant.id()).await?.ok_or("no link")?;
    Ok(link.token().expose().expose_secret().into())
}

/// Where it leads, for whoever may join.
async fn answer(tenantry: &Tenantry, token: &SecretString, is_password: bool) -> Result<String, SetupLinkError> {
    let token = token.expose_secret();
    match is_password {
        true => tenantry.follow_password_link(token, &"correct horse battery".into()).await.map(|t| t.id().to_string()),
        false => tenantry.follow_credentials_link(token).await.map(|form| form.expose_path()),
    }
}

/// What is done is done in this process before it ends.
pub(crate) async fn follow(tenantry: &Tenantry, slug: &str, is_password: bool) -> Result<(), Anything> {
    answer(tenantry, &token(tenantry, slug).await?, is_password).await?;
    // It has answered before the last step.
    while tenantry.operations().open().await?.iter().any(|o| o.reason.as_deref() == Some("setup link")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Used, or as good as before; and 64 clients at once find it so: what it does, it has done once.
pub(crate) async fn judge(lane: &Lane, saga: Saga, slug: &str, token: &SecretString) -> Result<Findings, Anything> {
    let is_password = saga.base() == Saga::PasswordLink;
    let purpose = if is_password { "password" } else { "credentials" };
    let (mut found, was_good) = (vec![], stands(lane, slug, purpose).await? == (0, 1));
    let answers = (0..CLIENTS).map(|_| answer(&lane.rescuer, token, is_password));
    let (mut led_to, mut refused) = (BTreeSet::new(), 0);
    for answer in futures_util::future::join_all(answers).await {
        match answer {
            Ok(place) => drop(led_to.insert(place)),
            Err(SetupLinkError::NotValid) => refused += 1,
            Err(error) => found.push(format!("one of many at the link was told: {error}")),
        }
    }
    settle(&lane.rescuer, LIMIT).await?;
    if led_to.len() != usize::from(was_good) || !was_good && refused < CLIENTS {
        found.push(format!("{CLIENTS} at a link (good: {was_good}) were led to {} places", led_to.len()));
    }
    match stands(lane, slug, purpose).await? {
        (1, 0) => {}
        (used, good) => found.push(format!("{used} used links, {good} good ones")),
    }
    if !is_password && stands(lane, slug, "password").await? != (0, 1) {
        found.push("it led to another number of forms than one".into());
    }
    const DONE: &str = "SELECT count(*) FROM tenantry.operations o JOIN tenantry.setup_tokens s
        ON o.idempotency_key = 'setup/' || s.id JOIN tenantry.tenants t ON t.id = s.tenant_id
        WHERE t.slug = $1 AND t.status <> 'deleted' AND s.purpose = $2 AND o.kind = $3 AND o.status = 'done'";
    let done = sqlx::query_scalar(DONE).bind(slug).bind(purpose).bind(saga.kind());
    match done.fetch_one(&lane.landlord).await? {
        1_i64 => {}
        n => found.push(format!("its work was done {n} times")),
    }
    Ok(found)
}

/// How many of the tenant's links of this purpose are used, and how many are good.
async fn stands(lane: &Lane, slug: &str, purpose: &str) -> Result<(i64, i64), Anything> {
    const STANDS: &str = "SELECT count(*) FILTER (WHERE used_at IS NOT NULL), count(*) FILTER (WHERE used_at IS NULL)
        FROM tenantry.setup_tokens s JOIN tenantry.tenants t ON t.id = s.tenant_id
        WHERE t.slug = $1 AND t.status <> 'deleted' AND s.purpose = $2 AND s.revoked_at IS NULL";
    Ok(sqlx::query_as(STANDS).bind(slug).bind(purpose).fetch_one(&lane.landlord).await?)
}
