//! The repairs that another operation does: rotation, migration, closing again, restoring an entry, rekeying, set-up of
//! a server, and continuing an operation that is open.
//!
//! The subject is examined before and after the operation. Another change may happen between the first examination and
//! the begin of the operation; each of these operations checks in its first step whether it may run.
use super::drivers::Drivers;
use super::{Refused, Request};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::examine::Examiner;
use crate::doctor::finding::Finding;
use crate::doctor::plan::Plan;
use crate::doctor::report::RepairOutcome;
use crate::error::{ChangeError, ServerSetupError, StepError, StoreError, chain};
use crate::names::ServerName;
use crate::operation::{Lane, OperationId, OperationStatus, Subject};
use crate::operations::lifecycle::Verb;
use crate::operations::migrate::Migrate;
use crate::operations::rekey::RekeyVault;
use crate::operations::restore_entry::RestoreEntry;
use crate::operations::rotate::Rotate;
use crate::operations::verb::CallVerb;
use crate::saga::{CallOptions, Observer, Outcome, Started};
use crate::store::journal::Record;
use crate::tenant::TenantId;
use sqlx::postgres::PgConnectOptions;
use std::collections::HashMap;
use std::time::Duration;

/// Operations of a server among which a set-up that has just ended is looked for.
const RECENT: u32 = 20;

/// Connections of server admins, for one call.
pub(in crate::doctor) type Admins = HashMap<ServerName, PgConnectOptions>;

/// Does the repair of a finding by the operation for it, and returns what became of it.
pub(in crate::doctor) async fn act(
    examiner: &Examiner, drivers: &Drivers, admins: &Admins, finding: &Finding, plan: &Plan, reason: &str,
) -> RepairOutcome {
    let before = match look(examiner, finding).await {
        Ok(before) => before,
        Err(refused) => return refused,
    };
    let outcome = match begin(drivers, admins, Request::new(before, plan), reason).await {
        Ok(operation) => operation,
        Err(outcome) => return outcome,
    };
    if let Some(tenant) = finding.subject.tenant() {
        (drivers.changed)(tenant);
    }
    match examine(examiner, finding).await {
        Ok(found) if found.iter().any(|other| other.is_about(finding)) => {
            RepairOutcome::StillFound { operation: outcome }
        }
        Ok(found) if found.iter().any(|other| other.may_hide(finding.code)) => {
            failed(Some(outcome), Refused::Unseen.to_string())
        }
        Ok(_) => RepairOutcome::Repaired { operation: outcome },
        Err(error) => RepairOutcome::Failed { operation: Some(outcome), error: error.cause_text() },
    }
}

/// Examines the subject again, and returns the finding as it is now. The error is the outcome of a repair that must not
/// act.
async fn look(examiner: &Examiner, finding: &Finding) -> Result<Finding, RepairOutcome> {
    let found = examine(examiner, finding).await;
    let found = found.map_err(|error| failed(None, error.cause_text()))?;
    match super::compare(&found, finding) {
        Ok(before) => verify_logins_can_be_refused(&found, finding).map(|()| before.clone()),
        Err(Refused::Gone) => Err(RepairOutcome::Gone),
        Err(Refused::Changed) => Err(RepairOutcome::Changed),
        Err(unseen @ Refused::Unseen) => Err(failed(None, unseen.to_string())),
    }
}

/// Verifies, for a rotation and for closing a tenant again, that no role of the tenant has more rights than a tenant may
/// have. The operation could not refuse it, and would stay open and keep other repairs from beginning.
fn verify_logins_can_be_refused(found: &[Finding], finding: &Finding) -> Result<(), RepairOutcome> {
    let privileged = found.iter().find(|other| other.code == Code::RolePrivileged);
    match (&finding.repair, privileged.and_then(|other| other.object.as_ref())) {
        (Some(Repair::Rotate | Repair::CloseAgain), Some(role)) => {
            let error = format!("the role {role} has more rights than a tenant may have; take them first, then repair");
            Err(failed(None, error))
        }
        _ => Ok(()),
    }
}

/// An operation that is running keeps its subject from being examined, so it is examined alone.
async fn examine(examiner: &Examiner, finding: &Finding) -> Result<Vec<Finding>, StepError> {
    match finding.repair {
        Some(Repair::RecoverOperation { .. }) => examiner.examine_operations(&finding.subject).await,
        _ => examiner.examine_subject(&finding.subject, None).await,
    }
}

fn failed(operation: Option<OperationId>, error: String) -> RepairOutcome {
    RepairOutcome::Failed { operation, error }
}

/// Begins the operation and drives it to its end. Returns its id if it is done. The intent of a new operation stores the
/// reason and the finding, so the state before.
async fn begin(
    drivers: &Drivers, admins: &Admins, request: Request, reason: &str,
) -> Result<OperationId, RepairOutcome> {
    let stored = serde_json::to_value(&request).map_err(|error| failed(None, error.to_string()))?;
    let options = CallOptions::new().reason(reason).cause(stored);
    let finding = request.finding;
    let none = || failed(None, format!("{} has no such repair", finding.subject));
    let tenant = || finding.subject.tenant().ok_or_else(none);
    match finding.repair.as_ref().ok_or_else(none)? {
        Repair::Rotate => rotate(drivers, tenant()?, finding.code, &options).await,
        Repair::Migrate => drive(drivers, &drivers.migration, Migrate::new(tenant()?.into()), &options).await,
        Repair::RestoreEntry => drive(drivers, &drivers.restore_entry, RestoreEntry(tenant()?), &options).await,
        Repair::Rekey => drive(drivers, &drivers.rekey, RekeyVault::new(), &options).await,
        Repair::CloseAgain => {
            let started = drivers.lifecycle.begin(Verb::CloseAgain, tenant()?.into(), &options).await;
            drive_started(drivers, started).await
        }
        Repair::ResumeOperation { operation } => resume(drivers, *operation, reason).await,
        Repair::RecoverOperation { operation } => take_over(drivers, *operation, reason).await,
        Repair::SetUpServer => set_up(drivers, admins, &finding.subject, options).await,
        _ => Err(none()),
    }
}

/// Nodes may have sessions that they opened while the old login was in order, so these get the usual grace period. A
/// login that does not exist has none.
async fn rotate(
    drivers: &Drivers, tenant: TenantId, code: Code, options: &CallOptions,
) -> Result<OperationId, RepairOutcome> {
    let mut request = Rotate::new(tenant.into());
    if code == Code::LoginMissing {
        request.grace = Duration::ZERO;
    }
    drive(drivers, &drivers.rotation, request, options).await
}

async fn drive<V: CallVerb<Error = ChangeError>>(
    drivers: &Drivers, driver: &V::Driver, request: V, options: &CallOptions,
) -> Result<OperationId, RepairOutcome> {
    drive_started(drivers, request.begin(driver, options).await).await
}

async fn drive_started(drivers: &Drivers, started: Result<Started, ChangeError>) -> Result<OperationId, RepairOutcome> {
    match started {
        Ok(Started::New(operation)) => {
            let id = operation.record().id;
            let driven = operation.drive(&drivers.engine, &Observer::none()).await;
            require_done(driven.map_err(|error| failed(Some(id), chain(&error)))?)
        }
        Ok(Started::Joined(record)) => Err(RepairOutcome::Busy { operation: record.id }),
        Err(ChangeError::Busy { operation, .. }) => Err(RepairOutcome::Busy { operation }),
        Err(error) => Err(failed(None, chain(&error))),
    }
}

fn require_done(outcome: Outcome) -> Result<OperationId, RepairOutcome> {
    let Outcome { record, failure, .. } = outcome;
    match failure {
        Some(failure) => Err(failed(Some(record.id), chain(&failure))),
        None if record.status == OperationStatus::Done => Ok(record.id),
        None => Err(failed(Some(record.id), chain(&record.to_failure(record.failure_state())))),
    }
}

/// Lets a parked operation continue in the direction that it had. The reason is an event of that operation, which also has
/// the step, the status and the error that it had before.
async fn resume(drivers: &Drivers, id: OperationId, reason: &str) -> Result<OperationId, RepairOutcome> {
    let journal = &drivers.stores.journal;
    let record = journal.read(id).await.map_err(|error| failed(Some(id), chain(&error)))?;
    let record = record.filter(|record| record.status == OperationStatus::Parked).ok_or(RepairOutcome::Changed)?;
    let open = journal.open().await.map_err(|error| failed(Some(id), chain(&error)))?;
    let preempts = |other: &&Record| other.lane == Lane::Preempt && other.id != id && other.subject == record.subject;
    if let Some(preempting) = open.iter().find(preempts) {
        // It has parked the operation, and continues or ends it.
        return Err(RepairOutcome::Busy { operation: preempting.id });
    }
    if drivers.recoverer.saga(&record.kind).is_none() {
        return Err(failed(Some(id), format!("this program does not have the steps of {:?}", record.kind)));
    }
    annotate(drivers, id, reason).await?;
    let continued = match record.is_backward() {
        true => journal.undo_parked(id).await,
        false => journal.resume_parked(id).await,
    };
    match continued {
        Ok(_) => recover(drivers, id).await,
        // Another caller was faster.
        Err(StoreError::Conflict(_)) => Err(RepairOutcome::Changed),
        Err(error) => Err(failed(Some(id), chain(&error))),
    }
}

/// Stores the reason as an event of an open operation.
async fn annotate(drivers: &Drivers, id: OperationId, reason: &str) -> Result<(), RepairOutcome> {
    drivers.stores.journal.annotate(id, reason).await.map_err(|error| match error {
        // It has ended.
        StoreError::Conflict(_) => RepairOutcome::Changed,
        error => failed(Some(id), chain(&error)),
    })
}

/// As [`recover`], after the reason was stored.
async fn take_over(drivers: &Drivers, id: OperationId, reason: &str) -> Result<OperationId, RepairOutcome> {
    annotate(drivers, id, reason).await?;
    recover(drivers, id).await
}

/// Takes over an operation whose worker has died. An operation that is undone has ended too.
async fn recover(drivers: &Drivers, id: OperationId) -> Result<OperationId, RepairOutcome> {
    match drivers.recoverer.resume(id).await {
        Ok(Some(outcome)) if outcome.record.status == OperationStatus::Undone => Ok(id),
        Ok(Some(outcome)) => require_done(outcome),
        Ok(None) => Err(RepairOutcome::Busy { operation: id }),
        Err(error) => Err(failed(Some(id), chain(&error))),
    }
}

/// Sets the server up again with the admin's connection of this call.
async fn set_up(
    drivers: &Drivers, admins: &Admins, subject: &Subject, options: CallOptions,
) -> Result<OperationId, RepairOutcome> {
    let Subject::Server(name) = subject else {
        return Err(failed(None, format!("{subject} is not a server")));
    };
    let Some(admin) = admins.get(name) else {
        return Err(failed(None, format!("give an admin's connection for the server {name}")));
    };
    let load = drivers.stores.servers.server(name).await.map_err(|error| failed(None, chain(&error)))?;
    let server = load.ok_or(RepairOutcome::Changed)?.server;
    let journal = &drivers.stores.journal;
    let began = journal.now().await.map_err(|error| failed(None, chain(&error)))?;
    // The admin may connect by another address than the application.
    let set_up = drivers.servers.set_up(name.as_str(), admin.clone()).address(server.host, server.port);
    set_up.options(options).await.map_err(|error| match error {
        ServerSetupError::Busy { operation, .. } => RepairOutcome::Busy { operation },
        error => failed(None, chain(&error)),
    })?;
    let recent = journal.active_since(subject, began, RECENT).await;
    let recent = recent.map_err(|error| failed(None, chain(&error)))?;
    let newest = recent.iter().find(|record| record.status == OperationStatus::Done);
    newest.map(|record| record.id).ok_or_else(|| failed(None, String::from("the set-up is not in the journal")))
}
