//! Tells all nodes that a tenant's schema has changed, by the state that the tenant's primary entry stores.
//!
//! The nodes then replace the sessions that they opened before: prepared statements and cached types of those may no
//! longer match the tables. Invariant: after the operation has ended or is parked, the entry has another state than
//! before if any migration was applied, also if the worker that applied it died.
use super::context::MigrateContext;
use crate::cluster::{read_ledger, schema_state};
use crate::error::StepError;
use crate::saga::Execution;

/// Records the state after `ran`. An operation that is to be undone or repeated is left to
/// [`record_unknown`] or to the repeated step.
pub(super) async fn record<T>(
    run: &Execution, context: &mut MigrateContext, ran: &Result<T, StepError>,
) -> Result<(), StepError> {
    match ran {
        Ok(_) => {
            let session = context.sessions.migrator(run).await?;
            let ledger = read_ledger(context.migrations, session).await?;
            let state = schema_state::of_ledger(ledger.iter().map(|row| (row.0, &*row.1, row.2)));
            store(run, context, &state).await
        }
        Err(error) if error.is_park() => record_unknown(run, context).await,
        Err(_) => Ok(()),
    }
}

/// Records that the operation may have applied some of its migrations. Reads nothing on the tenant's server, because an
/// undo must also work without it.
pub(super) async fn record_unknown(run: &Execution, context: &MigrateContext) -> Result<(), StepError> {
    store(run, context, &schema_state::unknown_after(run.operation())).await
}

async fn store(run: &Execution, context: &MigrateContext, state: &str) -> Result<(), StepError> {
    Ok(context.stores.registry.record_schema(context.sessions.tenant(), state, run.fencing_token()).await?)
}
