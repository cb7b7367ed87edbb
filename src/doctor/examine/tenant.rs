//! Examining one tenant.
use super::Examiner;
use crate::directory::TenantDatabase;
use crate::doctor::checks::{check_tenant, of_corrupt};
use crate::doctor::finding::{Finding, Findings};
use crate::doctor::observe::server::{self, ObservedServer};
use crate::doctor::observe::tenant::{self, Depth, TenantRows};
use crate::doctor::scope::Scope;
use crate::doctor::view::{LandlordView, Seen};
use crate::error::{StoreError, chain};
use crate::names::{DatabaseName, ServerName};
use crate::operation::{Lane, OperationStatus, Subject};
use crate::store::journal::{Record, temporary_logins};
use crate::store::registry::Placement;
use crate::tenant::TenantId;

/// What all parts of one examination share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) examiner: &'a Examiner,
    pub(super) landlord: &'a LandlordView,
    pub(super) scope: &'a Scope,
    /// Whether a repair examines its own subject. It has a worker permit and the subject's lane.
    pub(super) is_repair: bool,
}

/// The result for one tenant or server.
pub(super) enum Examined {
    Found(Vec<Finding>),
    /// An operation changes it now, or has changed it during the examination. Each intermediate state of an operation
    /// looks like a deviation.
    Busy,
}

/// Whether a worker works on the operation, or will continue it soon. Follow-up work changes nothing that is examined.
fn is_running(operation: &Record) -> bool {
    operation.lane != Lane::FollowUp && matches!(operation.status, OperationStatus::Running | OperationStatus::Undoing)
}

impl Context<'_> {
    /// Whether an operation changed the subject when the examination began.
    pub(super) fn is_busy(&self, subject: &Subject) -> bool {
        self.landlord.operations.iter().any(|operation| operation.subject == *subject && is_running(operation))
    }
    /// Whether an operation has begun to change the subject since the examination began. It is asked only if something
    /// was found.
    pub(super) async fn has_changed(&self, subject: &Subject) -> Result<bool, StoreError> {
        if self.is_repair {
            return Ok(false);
        }
        let history = self.examiner.stores.journal.history(subject).await?;
        Ok(history.iter().any(|operation| is_running(operation) || operation.begun_at > self.landlord.now))
    }
    /// The parked operation of the subject that is not follow-up work; of two, the one in the lane of changes.
    fn find_parked(&self, subject: &Subject) -> Option<&Record> {
        let is_parked = |operation: &&Record| {
            operation.status == OperationStatus::Parked
                && operation.lane != Lane::FollowUp
                && operation.subject == *subject
        };
        self.landlord.operations.iter().filter(is_parked).max_by_key(|operation| operation.lane == Lane::Change)
    }
    /// Adds to a server's view what the landlord knows about it.
    pub(super) fn complete(&self, observed: &mut ObservedServer) {
        observed.view.temporary_logins = self.landlord.operations.iter().flat_map(temporary_logins).collect();
        observed.view.has_admin = self.examiner.admins.contains(observed.view.name());
    }

    /// Examines a tenant on a server that was observed already.
    pub(super) async fn examine(
        &self, id: TenantId, placement: Option<Placement>, server: Option<&ObservedServer>,
    ) -> Result<Examined, StoreError> {
        if self.is_busy(&Subject::Tenant(id)) {
            return Ok(Examined::Busy);
        }
        match TenantRows::read(&self.examiner.stores, id, placement).await {
            Ok(rows) => self.examine_rows(rows, server).await,
            Err(error) => of_corrupt(&error).map(|finding| Examined::Found(vec![finding])).ok_or(error),
        }
    }

    /// Examines a tenant alone: observes of its server only what concerns this tenant.
    pub(super) async fn examine_alone(&self, id: TenantId) -> Result<Examined, StoreError> {
        let placement = self.examiner.stores.servers.placement(id).await;
        let read = async {
            if self.is_busy(&Subject::Tenant(id)) {
                return Ok(None);
            }
            TenantRows::read(&self.examiner.stores, id, placement?).await.map(Some)
        };
        let rows = match read.await {
            Ok(Some(rows)) => rows,
            Ok(None) => return Ok(Examined::Busy),
            Err(error) => return of_corrupt(&error).map(|finding| Examined::Found(vec![finding])).ok_or(error),
        };
        let server = match (&rows.placement, rows.unplaced_entry()) {
            (Some(placement), _) => self.observe_server_of(&placement.server, &placement.database).await?,
            (None, Some(entry)) => match &entry.server {
                Some(name) => self.observe_server_of(name, &entry.database).await?,
                None => None,
            },
            (None, None) => None,
        };
        self.examine_rows(rows, server.as_ref()).await
    }

    async fn observe_server_of(
        &self, name: &ServerName, database: &DatabaseName,
    ) -> Result<Option<ObservedServer>, StoreError> {
        let stores = &self.examiner.stores;
        let rows = stores.verified.list_unchecked().await?;
        let row = rows.readable.into_iter().find(|(server, _)| server.name == *name);
        let Some((row, is_trusted)) = row else { return Ok(None) };
        let mut observed = server::observe(stores, self.landlord, row, is_trusted, Some(database)).await;
        self.complete(&mut observed);
        Ok(Some(observed))
    }

    async fn examine_rows(&self, rows: TenantRows, server: Option<&ObservedServer>) -> Result<Examined, StoreError> {
        let subject = Subject::Tenant(rows.id);
        let expected = &self.examiner.expected;
        let depth = Depth { expected, skips_logins: self.scope.skips_logins, has_permit: self.is_repair };
        let mut view = tenant::observe(&self.examiner.stores, rows, self.landlord.now, server, depth).await;
        view.parked = self.find_parked(&subject).cloned();
        view.second = self.read_second(view.id).await;
        let mut findings = Findings::default();
        check_tenant(&view, expected, &mut findings);
        if !findings.list.is_empty() && self.has_changed(&subject).await? {
            return Ok(Examined::Busy);
        }
        Ok(Examined::Found(findings.list))
    }

    /// The tenant's primary entry in the application's second registry.
    async fn read_second(&self, id: TenantId) -> Seen<Option<TenantDatabase>> {
        let Some(second) = &self.scope.second else { return Seen::NotApplicable };
        match second.primary(id).await {
            Ok(entry) => Seen::Read(entry),
            Err(error) => Seen::Hidden(chain(&error)),
        }
    }
}
