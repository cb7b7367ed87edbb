//! Examining one tenant.
use super::Examiner;
use super::looks::Examined;
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
use crate::server::DatabaseServer;
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

/// Operations that are read to find out whether a subject has changed. If there are more, it has.
const RECENT: u32 = 20;

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
    /// Whether an operation has changed the subject since the landlord was read: one that is running, has ended, or is in
    /// another state than it was. It is asked only if something was found.
    pub(super) async fn has_changed(&self, subject: &Subject) -> Result<bool, StoreError> {
        if self.is_repair {
            return Ok(false);
        }
        let LandlordView { now, operations, .. } = self.landlord;
        let recent = self.examiner.stores.journal.active_since(subject, *now, RECENT).await?;
        let state = |record: &Record| (record.id, record.epoch, record.status, record.done);
        let was_seen = |record: &Record| operations.iter().any(|before| state(before) == state(record));
        let changes =
            |record: &Record| record.lane != Lane::FollowUp && (is_running(record, *now) || !was_seen(record));
        Ok(recent.len() >= RECENT as usize || recent.iter().any(changes))
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
        self.examine_rows_alone(rows, true).await
    }

    /// Looks once more at a tenant, on its server if that was observed. `was_open` is whether an earlier look has read the
    /// server: what it has found there is not gone if the server cannot be read any more.
    pub(super) async fn examine_again(
        &self, id: TenantId, server: Option<&ObservedServer>, was_open: bool,
    ) -> Result<Examined, StoreError> {
        if self.is_busy(&Subject::Tenant(id)) {
            return Ok(Examined::Busy);
        }
        let read = async {
            let placement = self.examiner.stores.servers.placement(id).await?;
            TenantRows::read(&self.examiner.stores, id, placement).await
        };
        let rows = match read.await {
            Ok(rows) => rows,
            Err(error) => return of_corrupt(&error).map(|finding| Examined::Found(finding.into())).ok_or(error),
        };
        let is_there = |server: &&ObservedServer| {
            rows.placement.as_ref().is_some_and(|placement| placement.server == *server.view.name())
        };
        let Some(server) = server.filter(is_there) else { return self.examine_rows_alone(rows, was_open).await };
        let unseen = unseen_server(&rows, Some(server)).filter(|_| was_open);
        self.examine_rows(rows, Some(server)).await.map(|examined| examined.with(unseen))
    }

    /// Examines a tenant, after it has observed of its server what concerns this tenant. `reports_unseen` is whether a
    /// server that cannot be read is a finding about the tenant.
    async fn examine_rows_alone(&self, rows: TenantRows, reports_unseen: bool) -> Result<Examined, StoreError> {
        let server = match (&rows.placement, rows.unplaced_entry()) {
            (Some(placement), _) => self.observe_server_of(&placement.server, &placement.database).await?,
            (None, Some(entry)) => match &entry.server {
                Some(name) => self.observe_server_of(name, &entry.database).await?,
                None => None,
            },
            (None, None) => None,
        };
        let unseen = unseen_server(&rows, server.as_ref()).filter(|_| reports_unseen);
        self.examine_rows(rows, server.as_ref()).await.map(|examined| examined.with(unseen))
    }

    /// The row of a server now, with whether it may be used.
    pub(super) async fn find_server(&self, name: &ServerName) -> Result<Option<(DatabaseServer, bool)>, StoreError> {
        let rows = self.examiner.stores.verified.list_unchecked().await?;
        Ok(rows.readable.into_iter().find(|(server, _)| server.name == *name))
    }

    async fn observe_server_of(
        &self, name: &ServerName, database: &DatabaseName,
    ) -> Result<Option<ObservedServer>, StoreError> {
        let Some((row, is_trusted)) = self.find_server(name).await? else { return Ok(None) };
        let stores = &self.examiner.stores;
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
    let draft = match &rows.tenant {
        Some(tenant) => draft.of_tenant(tenant.slug()),
        None => draft,
    };
    Some(draft.noted("reason", reason).no_repair(
        "the tenant's server could not be examined; examine the server, remove the cause, then examine the tenant again",
    ))
}
