use crate::database::{DatabaseServer, DatabaseUser, TenantNames, UserStatus};
use crate::error::StepError;
use crate::ident::RoleName;
use crate::saga::Run;
use crate::tenant::{Tenant, TenantId};
use crate::worker::{Hold, Workshop};

/// What one worker of a lifecycle operation holds.
pub(crate) struct World {
    pub(super) shop: Workshop,
    pub(super) tenant: TenantId,
    place: Option<(DatabaseServer, TenantNames)>,
    hold: Option<Hold>,
}

impl World {
    pub(super) fn new(shop: Workshop, run: &Run) -> Result<Self, StepError> {
        let tenant =
            run.subject().tenant().ok_or_else(|| StepError::fail("a lifecycle operation is about a tenant"))?;
        Ok(Self { shop, tenant, place: None, hold: None })
    }

    /// The tenant as it stands now.
    pub(super) async fn tenant(&self) -> Result<Tenant, StepError> {
        let gone = || StepError::fail("the tenant is gone");
        self.shop.registry.find(self.tenant.into()).await?.ok_or_else(gone)
    }

    /// Its names on a server; `None` if it has no place there, and so nothing of ours.
    pub(super) async fn names(&mut self) -> Result<Option<TenantNames>, StepError> {
        if self.place.is_none()
            && let Some(placement) = self.shop.servers.placement(self.tenant).await?
        {
            let unknown = || StepError::fail("the tenant's server is not registered any more");
            let load = self.shop.servers.server(&placement.server).await?.ok_or_else(unknown)?;
            self.place = Some((load.server, TenantNames::of(&placement.database).map_err(StepError::fail)?));
        }
        Ok(self.place.as_ref().map(|(_, names)| names.clone()))
    }

    /// This worker's hold of the tenant's server.
    pub(super) async fn hold(&mut self, run: &Run) -> Result<&mut Hold, StepError> {
        if self.hold.is_none() {
            self.names().await?;
            let none = || StepError::fail("the tenant has no place");
            let (server, names) = self.place.clone().ok_or_else(none)?;
            self.hold = Some(self.shop.hold(run, server, &names).await?);
        }
        self.hold.as_mut().ok_or_else(|| StepError::retry("no hold"))
    }

    /// Every login that may exist on the server: pending and retiring ones too.
    pub(super) async fn logins(&self) -> Result<Vec<RoleName>, StepError> {
        let users = self.shop.registry.users(self.tenant).await?;
        Ok(users.into_iter().filter(|u| u.status != UserStatus::Dropped).map(|u| u.role).collect())
    }

    /// The login of the current generation.
    pub(super) async fn current(&self) -> Result<Option<RoleName>, StepError> {
        let users: Vec<DatabaseUser> = self.shop.registry.users(self.tenant).await?;
        Ok(users.into_iter().find(|u| u.status == UserStatus::Active).map(|u| u.role))
    }
}
