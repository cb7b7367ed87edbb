//! The doctor's queries on a PostgreSQL server. Each reads catalogs only and changes nothing.
//!
//! The doctor runs them in sessions of the provisioner, or in one of the application's login where the text says so. One
//! query answers one group of checks, and it reads all databases of the server at once. `only` restricts it to one
//! database, for an examination of a single tenant.
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::ServerNames;
use sqlx::{Executor, PgConnection};

mod facts;
mod tenant;
#[cfg(test)]
pub(crate) use facts::Membership;
pub(crate) use facts::{
    Blocker, Entrant, Holder, INVALID, ObservedDatabase, ObservedObject, ObservedRole, ObservedSequence, ServerFacts,
};
pub(crate) use tenant::{MAX_OBJECTS, MAX_SEQUENCES, read_objects, read_sequences};

/// Reads the facts about the whole cluster, and makes the session read-only afterwards. It must be the first statement of
/// its session, because it reads whether sessions are read-only by default.
pub(crate) async fn read_server(session: &mut PgConnection) -> Result<ServerFacts, ClusterError> {
    let facts = sqlx::query_as(include_str!("server.sql")).fetch_one(&mut *session).await;
    let facts = facts.map_err(ClusterError::sql("observing the server"))?;
    let read_only = session.execute(sqlx::raw_sql("SET default_transaction_read_only = on")).await;
    read_only.map_err(ClusterError::sql("making the session read-only"))?;
    Ok(facts)
}

/// Reads the databases, except templates, `postgres` and the current one.
pub(crate) async fn read_databases(
    session: &mut PgConnection, admin: &RoleName, only: Option<&DatabaseName>,
) -> Result<Vec<ObservedDatabase>, ClusterError> {
    let read = sqlx::query_as(include_str!("databases.sql")).bind(admin.as_str()).bind(only.map(DatabaseName::as_str));
    read.fetch_all(session).await.map_err(ClusterError::sql("observing the databases"))
}

/// Reads the roles that are relevant for this installation. With `only`, these are the roles whose names begin with the
/// name of that database, their members, and the members of the admin role.
pub(crate) async fn read_roles(
    session: &mut PgConnection, names: &ServerNames, only: Option<&DatabaseName>,
) -> Result<Vec<ObservedRole>, ClusterError> {
    let read = sqlx::query_as(include_str!("roles.sql"));
    let read = read.bind(names.admin.as_str()).bind(names.blue.as_str()).bind(names.green.as_str());
    let read = read.bind(only.map(DatabaseName::as_str)).fetch_all(session).await;
    read.map_err(ClusterError::sql("observing the roles"))
}

/// Reads which roles that are no superusers can log in and enter the open databases of the admin role. It follows grants
/// and inherited memberships, instead of asking for the right of each role on each database, and does not see the members
/// of the admin role itself.
pub(crate) async fn read_entrants(
    session: &mut PgConnection, admin: &RoleName, only: Option<&DatabaseName>,
) -> Result<Vec<Entrant>, ClusterError> {
    let read = sqlx::query_as(include_str!("entrants.sql")).bind(admin.as_str()).bind(only.map(DatabaseName::as_str));
    read.fetch_all(session).await.map_err(ClusterError::sql("observing which roles can enter the databases"))
}

/// Reads the sessions in databases of the admin role for which others wait.
pub(crate) async fn read_blockers(session: &mut PgConnection, admin: &RoleName) -> Result<Vec<Blocker>, ClusterError> {
    let read = sqlx::query_as(include_str!("blockers.sql")).bind(admin.as_str()).fetch_all(session).await;
    read.map_err(ClusterError::sql("observing the sessions that block others"))
}

/// Reads the sessions in the landlord for which others wait. The session's search path must be `pg_catalog`.
pub(crate) async fn read_landlord_blockers(session: &mut PgConnection) -> Result<Vec<Blocker>, sqlx::Error> {
    sqlx::query_as(include_str!("landlord_blockers.sql")).fetch_all(session).await
}

/// Reads the prepared transactions in databases of the admin role, and all replication slots.
pub(crate) async fn read_holders(session: &mut PgConnection, admin: &RoleName) -> Result<Vec<Holder>, ClusterError> {
    let read = sqlx::query_as(include_str!("held.sql")).bind(admin.as_str()).fetch_all(session).await;
    read.map_err(ClusterError::sql("observing prepared transactions and replication slots"))
}
