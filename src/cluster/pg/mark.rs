//! Which cluster this is: the mark of the installation, recovery, and the system identifier. Set-up writes the mark;
//! a relocation reads all three before it believes an address.
use super::ddl;
use crate::error::ClusterError;
use crate::names::ServerName;
use crate::sqlstate;
use sqlx::PgConnection;
use uuid::Uuid;

/// In the maintenance database: whether it is marked as this server of this installation. No mark is `false`.
pub(crate) async fn is_marked(
    session: &mut PgConnection, installation: Uuid, server: &ServerName,
) -> Result<bool, ClusterError> {
    const MARKED: &str = "SELECT count(*) > 0 AND coalesce(bool_and(installation = $1 AND server = $2), false) \
        FROM public.tenantry_mark";
    match sqlx::query_scalar(MARKED).bind(installation).bind(server.as_str()).fetch_one(session).await {
        Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_TABLE) => Ok(false),
        marked => marked.map_err(ClusterError::sql("reading the mark of the installation")),
    }
}

/// Marks the maintenance database. A cluster has one mark: the last one counts.
pub(crate) async fn ensure_marked(
    session: &mut PgConnection, installation: Uuid, server: &ServerName,
) -> Result<(), ClusterError> {
    if is_marked(session, installation, server).await? {
        return Ok(());
    }
    ddl::mark_server(installation, server).run(session, "marking the maintenance database").await
}

/// Whether the cluster is a standby.
pub(crate) async fn is_in_recovery(session: &mut PgConnection) -> Result<bool, ClusterError> {
    let recovers = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(session).await;
    recovers.map_err(ClusterError::sql("asking whether the cluster is in recovery"))
}

/// The system identifier; `None` where this role may not read it. PUBLIC may by default (15 to 18); a managed service may
/// have revoked that.
pub(crate) async fn system_identifier(session: &mut PgConnection) -> Result<Option<i64>, ClusterError> {
    const IDENTIFIER: &str = "SELECT system_identifier FROM pg_control_system()";
    match sqlx::query_scalar(IDENTIFIER).fetch_one(session).await {
        Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => Ok(None),
        found => found.map(Some).map_err(ClusterError::sql("reading the system identifier")),
    }
}
