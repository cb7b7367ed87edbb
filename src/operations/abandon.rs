//! Ending an open operation without undoing it, and reporting what it may have left.
//!
//! The facade calls [`abandon`] for an administrator. It is the way out of an operation that can neither go forward nor
//! be undone, or whose kind this program does not know.
//!
//! Invariant: the journal raises the epoch in the statement that ends the operation, so no worker of it writes to the
//! landlord afterwards.
use crate::cluster::OperationContext;
use crate::directory::UserStatus;
use crate::error::{OperationError, StepError, StoreError};
use crate::names::{DatabaseName, RoleName, ServerName, TenantNames};
use crate::operation::{OperationId, OperationState, Subject};
use crate::saga::AnySaga;
use crate::secret::CredentialId;
use crate::store::journal::Record;
use crate::tenant::TenantId;

/// An operation that was ended without being undone, and the names of what it may have made, changed or removed in part.
/// They are read from the landlord; no server is asked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Abandoned {
    /// The operation, with status abandoned.
    pub operation: OperationState,
    /// The steps that may have begun and are not undone, in the order in which they ran. If this program does not know
    /// the kind of the operation, only the last one.
    pub steps: Vec<String>,
    /// The server on which the operation worked, if the landlord names one.
    pub server: Option<ServerName>,
    /// The tenant's database, or the maintenance database of a server.
    pub database: Option<DatabaseName>,
    /// Roles of the tenant or of the provisioner that may exist on the server.
    pub roles: Vec<RoleName>,
    /// Secrets that the vault may have.
    pub secrets: Vec<CredentialId>,
}

/// Ends the operation, tells its new epoch to every store, and reads what it may have left. `saga` is the operation's
/// saga, if this program has it. It may be repeated.
pub(crate) async fn abandon(
    stores: &OperationContext, saga: Option<&dyn AnySaga>, id: OperationId, reason: &str,
) -> Result<Abandoned, OperationError> {
    let record = stores.journal.abandon(id, reason).await?;
    stores.fence(record.fencing_token()).await.map_err(to_store_error)?;
    let names = match &record.subject {
        Subject::Tenant(tenant) => names_of_tenant(stores, *tenant, &record).await?,
        Subject::Server(server) => names_of_server(stores, server).await?,
        Subject::Vault | Subject::Link(_) | Subject::Landlord => Names::default(),
    };
    let Names { server, database, roles, secrets } = names;
    Ok(Abandoned { steps: begun_steps(saga, &record), operation: record.state(), server, database, roles, secrets })
}

fn begun_steps(saga: Option<&dyn AnySaga>, record: &Record) -> Vec<String> {
    match saga {
        Some(saga) => saga.step_names().into_iter().take(record.intended as usize).map(String::from).collect(),
        None => vec![record.step.clone()],
    }
}

#[derive(Default)]
struct Names {
    server: Option<ServerName>,
    database: Option<DatabaseName>,
    roles: Vec<RoleName>,
    secrets: Vec<CredentialId>,
}

async fn names_of_tenant(
    stores: &OperationContext, tenant: TenantId, record: &Record,
) -> Result<Names, OperationError> {
    let Some(location) = stores.find_location(tenant).await.map_err(to_store_error)? else {
        return Ok(Names::default());
    };
    let TenantNames { database, roles: group, migrator } = location.names;
    let (mut roles, mut secrets) = (vec![group.owner, group.app, migrator], vec![]);
    for user in stores.registry.users(tenant).await?.into_iter().filter(|u| u.status != UserStatus::Dropped) {
        secrets.push(CredentialId::login(tenant, &database, &user.role, user.generation.0));
        roles.push(user.role);
    }
    if record.request.get("admin").is_some_and(|admin| !admin.is_null()) {
        secrets.push(CredentialId::setup_link(tenant, record.id));
    }
    Ok(Names { server: Some(location.server.name), database: Some(database), roles, secrets })
}

async fn names_of_server(stores: &OperationContext, name: &ServerName) -> Result<Names, OperationError> {
    let Some(load) = stores.servers.server(name).await? else {
        return Ok(Names { server: Some(name.clone()), ..Names::default() });
    };
    let (names, version) = (load.server.names, load.server.secret_version);
    let secrets = [&names.blue, &names.green].map(|login| CredentialId::provisioner(name, login, version)).to_vec();
    let roles = vec![names.admin, names.blue, names.green];
    Ok(Names { server: Some(name.clone()), database: Some(names.maintenance), roles, secrets })
}

fn to_store_error(error: StepError) -> StoreError {
    let is_transient = error.is_retry();
    match error.into_cause().downcast::<StoreError>() {
        Ok(error) => *error,
        Err(other) if is_transient => StoreError::unavailable(other),
        Err(other) => StoreError::refused(other),
    }
}
