use crate::database::{TenantNames, UserStatus};
use crate::error::StepError;
use crate::ident::RoleName;
use crate::saga::Run;
use crate::tenant::{Tenant, TenantId};
use crate::worker::{Hold, Site, Workshop};

/// What one worker of a lifecycle operation holds.
pub(crate) struct World {
    pub(super) shop: Workshop,
    pub(super) tenant: TenantId,
    site: Site,
}

impl World {
    pub(super) fn new(shop: Workshop, run: &Run) -> Result<Self, StepError> {
        let site = Site::new(shop.clone(), run)?;
        Ok(Self { shop, tenant: site.tenant(), site })
    }

    /// The tenant as it stands now.
    pub(super) async fn tenant(&self) -> Result<Tenant, StepError> {
        let gone = || StepError::fail("the tenant is gone");
        self.shop.registry.find(self.tenant.into()).await?.ok_or_else(gone)
    }

    /// Its names on a server; `None` if it has no place there, and so nothing of ours.
    pub(super) async fn names(&mut self) -> Result<Option<TenantNames>, StepError> {
        Ok(self.site.try_place().await?.map(|place| place.names.clone()))
    }

    /// This worker's hold of the tenant's server.
    pub(super) async fn hold(&mut self, run: &Run) -> Result<&mut Hold, StepError> {
        self.site.hold(run).await
    }

    /// Every login that may exist on the server: pending and retiring ones too.
    pub(super) async fn logins(&self) -> Result<Vec<RoleName>, StepError> {
        let users = self.shop.registry.users(self.tenant).await?;
        Ok(users.into_iter().filter(|u| u.status != UserStatus::Dropped).map(|u| u.role).collect())
    }

    /// The login of the current generation.
    pub(super) async fn current(&self) -> Result<Option<RoleName>, StepError> {
        let users = self.shop.registry.users(self.tenant).await?;
        Ok(users.into_iter().find(|u| u.status == UserStatus::Active).map(|u| u.role))
    }
}
