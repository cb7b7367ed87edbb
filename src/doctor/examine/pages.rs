//! Reading the placements and the tenants of the landlord in pages.
//!
//! A page begins after the last readable row of the one before, so it may repeat unreadable rows. If a page has no readable
//! row at all, a longer one is read, so that unreadable rows do not hide the rows after them.
use crate::cluster::OperationContext;
use crate::error::{Rows, StoreError};
use crate::names::{DatabaseName, ServerName};
use crate::store::registry::{Placement, TenantRegistry};
use crate::tenant::{Tenant, TenantId};

/// Rows that one read of the registry returns.
pub(super) const PAGE: u32 = 200;
/// Rows that one read returns if none of a shorter page can be parsed.
const LONGEST: u32 = 6400;

/// Where the next page begins, and how long it is.
struct Position<K> {
    after: Option<K>,
    limit: u32,
    is_over: bool,
    is_incomplete: bool,
}

impl<K> Position<K> {
    fn new() -> Self {
        Self { after: None, limit: PAGE, is_over: false, is_incomplete: false }
    }
    /// Moves behind a page.
    fn advance<T>(&mut self, page: &Rows<T>, key: impl Fn(&T) -> K) {
        let is_short = page.readable.len() + page.unreadable.len() < self.limit as usize;
        match page.readable.last() {
            _ if is_short => self.is_over = true,
            Some(last) => (self.after, self.limit) = (Some(key(last)), PAGE),
            None if self.limit < LONGEST => self.limit *= 2,
            None => (self.is_over, self.is_incomplete) = (true, true),
        }
    }
}

/// The placements on one server.
pub(super) struct Placements {
    server: ServerName,
    position: Position<DatabaseName>,
}

impl Placements {
    pub(super) fn on(server: ServerName) -> Self {
        Self { server, position: Position::new() }
    }
    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self, stores: &OperationContext) -> Result<Option<Rows<Placement>>, StoreError> {
        let Position { after, limit, is_over, .. } = &self.position;
        if *is_over {
            return Ok(None);
        }
        let page = stores.servers.placements_on(&self.server, after.as_ref(), *limit).await?;
        self.position.advance(&page, |last| last.database.clone());
        Ok(Some(page))
    }
    /// Whether rows were left out, because too many before them cannot be parsed.
    pub(super) fn is_incomplete(&self) -> bool {
        self.position.is_incomplete
    }
}

/// All tenants.
pub(super) struct Tenants(Position<TenantId>);

impl Default for Tenants {
    fn default() -> Self {
        Self(Position::new())
    }
}

impl Tenants {
    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self, stores: &OperationContext) -> Result<Option<Rows<Tenant>>, StoreError> {
        let Position { after, limit, is_over, .. } = &self.0;
        if *is_over {
            return Ok(None);
        }
        let page = stores.registry.page(*after, *limit).await?;
        self.0.advance(&page, Tenant::id);
        Ok(Some(page))
    }
    /// Whether rows were left out, because too many before them cannot be parsed.
    pub(super) fn is_incomplete(&self) -> bool {
        self.0.is_incomplete
    }
}
