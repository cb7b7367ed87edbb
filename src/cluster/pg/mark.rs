//! Identifying a cluster: the mark of the installation, whether it is a standby, and the system identifier.
//!
//! `set_up` writes the mark in the maintenance database. `relocate` reads all three before it accepts a server's new
//! address.
use super::ddl;
use crate::error::ClusterError;
use crate::names::ServerName;
use crate::sqlstate;
use sqlx::PgConnection;
use uuid::Uuid;

/// Whether the mark names this server of this installation; `false` without a mark. Run it in the maintenance database.
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

/// Makes sure that the maintenance database has this mark. Replaces another one, since a cluster has one mark.
pub(crate) async fn ensure_marked(
    session: &mut PgConnection, installation: Uuid, server: &ServerName,
) -> Result<(), ClusterError> {
    if is_marked(session, installation, server).await? {
        return Ok(());
    }
    ddl::mark_server(installation, server).run(session, "marking the maintenance database").await
}

/// Whether the cluster is in recovery, that is, a standby.
pub(crate) async fn is_in_recovery(session: &mut PgConnection) -> Result<bool, ClusterError> {
    let in_recovery = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(session).await;
    in_recovery.map_err(ClusterError::sql("asking whether the cluster is in recovery"))
}

/// The system identifier of the cluster; `None` if this role may not read it. PUBLIC may by default (PostgreSQL 15 to
/// 18), but a managed service may have revoked that.
pub(crate) async fn system_identifier(session: &mut PgConnection) -> Result<Option<i64>, ClusterError> {
    const IDENTIFIER: &str = "SELECT system_identifier FROM pg_control_system()";
    match sqlx::query_scalar(IDENTIFIER).fetch_one(session).await {
        Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => Ok(None),
        found => found.map(Some).map_err(ClusterError::sql("reading the system identifier")),
    }
}
