//! Reading the placements and the tenants of the landlord in pages.
//!
//! A page begins after the last readable row of the one before, so it may repeat unreadable rows. The stores read on until
//! a page has a readable row, so unreadable rows hide none of the rows after them.
use crate::cluster::OperationContext;
use crate::error::{Rows, StoreError};
use crate::names::{DatabaseName, ServerName};
use crate::store::registry::{Placement, TenantRegistry};
use crate::tenant::{Tenant, TenantId};

/// Rows that one read of the registry returns.
pub(super) const PAGE: u32 = 200;

/// The placements on one server.
pub(super) struct Placements {
    server: ServerName,
    after: Option<DatabaseName>,
    is_over: bool,
}

impl Placements {
    pub(super) fn on(server: ServerName) -> Self {
        Self { server, after: None, is_over: false }
    }
    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self, stores: &OperationContext) -> Result<Option<Rows<Placement>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let page = stores.servers.placements_on(&self.server, self.after.as_ref(), PAGE).await?;
        self.after = page.readable.last().map(|last| last.database.clone());
        self.is_over = self.after.is_none();
        Ok(Some(page))
    }
}

/// All tenants.
#[derive(Default)]
pub(super) struct Tenants {
    after: Option<TenantId>,
    is_over: bool,
}

impl Tenants {
    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self, stores: &OperationContext) -> Result<Option<Rows<Tenant>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let page = stores.registry.page(self.after, PAGE).await?;
        self.after = page.readable.last().map(Tenant::id);
        self.is_over = self.after.is_none();
        Ok(Some(page))
    }
}
