//! Sessions of the application's login in a tenant's database, for calls of the [`AdminStore`].
//!
//! `password.rs` sets a password in such a session, and `issue.rs` looks an admin's address up.
//!
//! Invariant: a session is opened only under a worker permit of the server.
//!
//! [`AdminStore`]: crate::store::admin::AdminStore
use crate::cluster::OperationContext;
use crate::error::{ClusterError, StepError, VaultError};
use crate::operation::Lane;
use crate::pool::connect;
use crate::tenant::TenantId;
use sqlx::{ConnectOptions, PgConnection};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Maximum time to connect to the tenant's database.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects with the application's login, once a worker permit of the server is free: however many links are posted at
/// once, they have no more sessions than other changes of this process may have. A concurrent rotation may have
/// replaced that login; then the error is a retry, and the next call reads the new one.
pub(super) async fn connect_as_application(
    stores: &OperationContext, tenant: TenantId, application_name: &str,
) -> Result<(PgConnection, OwnedSemaphorePermit), StepError> {
    let missing = || StepError::fail("the tenant has no directory entry for a primary database");
    let entry = stores.registry.primary(tenant).await?.ok_or_else(missing)?;
    let entry = stores.locate(entry).await?.map_err(StepError::fail)?;
    let server = entry.server.as_ref().map_or(entry.host.as_str(), |name| name.as_str());
    let permit = stores.take_worker_permit(server, Lane::Change).await?;
    let login = stores.vault.open(&entry.credential).await.map_err(|e| match e {
        VaultError::Missing(_) => StepError::retry(e),
        e => e.into(),
    })?;
    let options = connect::connect_options(&entry, &login).application_name(application_name);
    match tokio::time::timeout(CONNECT_TIMEOUT, crate::rt::poll_batched(options.connect())).await {
        Ok(Ok(session)) => Ok((session, permit)),
        Ok(Err(error)) if crate::sqlstate::is_refused_login(&error) => Err(StepError::retry(error)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ClusterError::Deadline { phase: "connecting", limit: CONNECT_TIMEOUT }.into()),
    }
}
