//! The doctor's queries in a tenant's database.
use super::{ObservedObject, ObservedSequence};
use crate::error::ClusterError;
use sqlx::{FromRow, PgConnection};

/// Objects of each kind that each part of the query of [`read_objects`] returns at most. A database with more of them
/// returns this number.
pub(crate) const MAX_OBJECTS: usize = 101;

/// Reads objects, rights, indexes and triggers that deviate from those after a provisioning. Run it in a session of the
/// provisioner whose search path is `pg_catalog`: it reads no table of the tenant and runs no code of it.
pub(crate) async fn read_objects(session: &mut PgConnection) -> Result<Vec<ObservedObject>, ClusterError> {
    // The role names derive from the name of the current database, so that there are no parameters: the simple query
    // protocol needs one round trip.
    let rows = sqlx::raw_sql(include_str!("tenant.sql")).fetch_all(session).await;
    let rows = rows.and_then(|rows| rows.iter().map(ObservedObject::from_row).collect());
    rows.map_err(ClusterError::sql("observing a tenant's database"))
}

/// Sequences that [`read_sequences`] returns at most. A database with more of them returns this number.
pub(crate) const MAX_SEQUENCES: usize = 1001;

/// Reads the sequences. Run it in a session of the application's login.
pub(crate) async fn read_sequences(session: &mut PgConnection) -> Result<Vec<ObservedSequence>, ClusterError> {
    let rows = sqlx::query_as(include_str!("sequences.sql")).fetch_all(session).await;
    rows.map_err(ClusterError::sql("observing the sequences"))
}
