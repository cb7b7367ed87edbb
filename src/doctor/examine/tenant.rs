//! Examining one tenant.
use super::Examiner;
use crate::directory::TenantDatabase;
use crate::doctor::checks::{check_tenant, of_corrupt};
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
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
use time::OffsetDateTime;

/// Findings of one tenant that a plan holds at most. A tenant can make as many deviations in its own database as it
/// likes, and must not displace the findings of the others.
const MAX_FINDINGS_OF_TENANT: usize = 100;

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
    Found(Findings),
    /// An operation changes it now, or has changed it during the examination. Each intermediate state of an operation
    /// looks like a deviation.
    Busy,
}

/// Whether a worker works on the operation at this moment. One that has failed and waits for its next attempt is not
/// running: it may wait for hours, and its subject must be examined meanwhile. Follow-up work changes nothing that is
/// examined.
fn is_running(operation: &Record, now: OffsetDateTime) -> bool {
    operation.lane != Lane::FollowUp
        && matches!(operation.status, OperationStatus::Running | OperationStatus::Undoing)
        && operation.retry_at.is_none()
        && operation.leased_until > now
}

impl Context<'_> {
    /// Whether an operation changed the subject when the examination began.
    pub(super) fn is_busy(&self, subject: &Subject) -> bool {
        let now = self.landlord.now;
        self.landlord.operations.iter().any(|operation| operation.subject == *subject && is_running(operation, now))
    }
    /// Whether an operation has begun to change the subject since the examination began. It is asked only if something
    /// was found.
    pub(super) async fn has_changed(&self, subject: &Subject) -> Result<bool, StoreError> {
        if self.is_repair {
            return Ok(false);
        }
        let history = self.examiner.stores.journal.history(subject).await?;
        let now = self.landlord.now;
        Ok(history.iter().any(|operation| is_running(operation, now) || operation.begun_at > now))
    }
    /// The parked operation of the subject that is not follow-up work. While an operation in the other lane is open (a
    /// suspension or a purge, for example), the change that it has parked must not continue, so that one counts.
    fn find_parked(&self, subject: &Subject) -> Option<&Record> {
        let of_subject = |operation: &&Record| operation.subject == *subject;
        let is_preempted =
            self.landlord.operations.iter().filter(of_subject).any(|operation| operation.lane == Lane::Preempt);
        let is_parked = |operation: &&Record| {
            operation.status == OperationStatus::Parked
                && operation.lane != Lane::FollowUp
                && operation.subject == *subject
                && !(is_preempted && operation.lane == Lane::Change)
        };
        self.landlord.operations.iter().filter(is_parked).max_by_key(|operation| operation.lane == Lane::Change)
    }
    /// Whether an operation that changes the subject is open: it runs, waits for its next attempt, or is parked.
    fn has_open_operation(&self, subject: &Subject) -> bool {
        let mut operations = self.landlord.operations.iter();
        operations.any(|operation| operation.subject == *subject && operation.lane != Lane::FollowUp)
    }
    /// Adds to a server's view what the landlord knows about it.
    pub(super) fn complete(&self, observed: &mut ObservedServer) {
        // A parked operation uses no login: one that can still log in is a finding.
        let open = self.landlord.operations.iter().filter(|operation| operation.status != OperationStatus::Parked);
        observed.view.temporary_logins = open.flat_map(temporary_logins).collect();
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
            Err(error) => of_corrupt(&error).map(|finding| Examined::Found(finding.into())).ok_or(error),
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
            Err(error) => return of_corrupt(&error).map(|finding| Examined::Found(finding.into())).ok_or(error),
        };
        let server = match (&rows.placement, rows.unplaced_entry()) {
            (Some(placement), _) => self.observe_server_of(&placement.server, &placement.database).await?,
            (None, Some(entry)) => match &entry.server {
                Some(name) => self.observe_server_of(name, &entry.database).await?,
                None => None,
            },
            (None, None) => None,
        };
        let unseen = unseen_server(&rows, server.as_ref());
        match (self.examine_rows(rows, server.as_ref()).await?, unseen) {
            (Examined::Found(mut findings), Some(finding)) => {
                findings.push(finding);
                Ok(Examined::Found(findings))
            }
            (examined, _) => Ok(examined),
        }
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
        view.has_open_operation = self.has_open_operation(&subject);
        view.second = self.read_second(view.id).await;
        let mut findings = Findings::default();
        check_tenant(&view, expected, &mut findings);
        // A repair looks for one finding, and would take it for gone if it were left out.
        if !self.is_repair {
            findings.keep(MAX_FINDINGS_OF_TENANT);
        }
        if !findings.list.is_empty() && self.has_changed(&subject).await? {
            return Ok(Examined::Busy);
        }
        Ok(Examined::Found(findings))
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

/// That the server of a tenant could not be read, so that nothing is known about the tenant there. For an examination of
/// one tenant, which does not report the server itself.
fn unseen_server(rows: &TenantRows, server: Option<&ObservedServer>) -> Option<Finding> {
    let is_managed = rows.placement.is_some() || rows.unplaced_entry().is_some();
    if !is_managed || server.is_some_and(|server| server.view.is_open()) {
        return None;
    }
    let reason = server.map_or("no such server is registered", |server| server.view.access.obstacle());
    let draft = Draft::new(Code::CannotSee, Subject::Tenant(rows.id)).object("server");
    Some(draft.noted("reason", reason).no_repair(
        "the tenant's server could not be examined; examine the server, remove the cause, then examine the tenant again",
    ))
}
