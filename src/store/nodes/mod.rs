//! The live nodes of an application: budgets are divided by them, and a rotation waits for them.
use crate::error::StoreError;
use async_trait::async_trait;
use serde_json::Value;
use sqlx::{Executor, PgPool, Row};
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

mod share;
pub use share::Share;
#[cfg(feature = "testing")]
mod memory;
#[cfg(feature = "testing")]
pub use memory::MemoryNodes;

/// A process's id, made anew at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Uuid);
impl NodeId {
    /// From a stored row.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// One process that runs the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// For people: host name and process id.
    pub name: String,
    /// What others need to know of it: a rotation's acknowledgement, its share of a budget.
    pub facts: Value,
}
impl Node {
    /// This process, under a new id.
    pub fn here() -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| String::from("unknown"));
        let name = format!("{host}/{}", std::process::id());
        Self { id: NodeId(Uuid::now_v7()), name, facts: Value::Object(Default::default()) }
    }
}

/// A node that has given a sign of life.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LiveNode {
    /// Which.
    pub node: Node,
    /// Its last sign of life, by the store's clock.
    pub seen_at: OffsetDateTime,
}

/// Heartbeats. Every call is one atomic write or read; dropping its future leaves all or nothing of it.
#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// A sign of life, with what others need to know. The first one makes the node known.
    async fn beat(&self, node: &Node) -> Result<(), StoreError>;
    /// Nodes with a sign of life within this time, oldest first; forgets those silent for a day.
    async fn live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError>;
    /// What this node may take of every server's connections: an equal part for each live node, but never what another
    /// one still has. `held` is what it has open at this moment; a node whose part has become smaller keeps being counted
    /// with it, and says so again when it has closed what is too much. So the parts never add up to more than all.
    ///
    /// A node that has not [`beat`](Self::beat) has no part. One that is silent for longer than `within` loses its own to
    /// the others, and must ask again before it opens anything.
    async fn claim(&self, id: NodeId, held: Share, within: Duration) -> Result<Share, StoreError>;
    /// This node ends. Unknown already: `Ok`.
    async fn leave(&self, id: NodeId) -> Result<(), StoreError>;
}

/// Heartbeats in the landlord's own table.
#[derive(Clone, Debug)]
pub struct PgNodes(PgPool);
impl PgNodes {
    /// Over the host's own pool.
    pub fn new(landlord: PgPool) -> Self {
        Self(landlord)
    }
}

const BEAT: &str = "INSERT INTO tenantry.nodes (id, name, facts) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), facts = EXCLUDED.facts, name = EXCLUDED.name";
const LIVE: &str = "WITH silent AS (
    DELETE FROM tenantry.nodes WHERE seen_at < now() - interval '1 day'
)
SELECT id, name, facts, seen_at FROM tenantry.nodes WHERE seen_at >= now() - make_interval(secs => $1) ORDER BY id";
/// `now()` is when the transaction began, before its wait.
const CLAIM: &str = "WITH live AS (
    SELECT id, share FROM tenantry.nodes
    WHERE id = $1 OR seen_at >= clock_timestamp() - make_interval(secs => $3)
), granted AS (
    SELECT greatest(0, least(10000 / count(*), 10000 - coalesce(sum(share) FILTER (WHERE id <> $1), 0)))::integer AS share
    FROM live
)
UPDATE tenantry.nodes n SET share = greatest($2, granted.share) FROM granted WHERE n.id = $1 RETURNING granted.share";

#[async_trait]
impl Nodes for PgNodes {
    async fn beat(&self, node: &Node) -> Result<(), StoreError> {
        sqlx::query(BEAT).bind(node.id.0).bind(&node.name).bind(&node.facts).execute(&self.0).await?;
        Ok(())
    }
    async fn live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError> {
        let rows = sqlx::query(LIVE).bind(within.as_secs_f64()).fetch_all(&self.0).await?;
        let live = |row: &sqlx::postgres::PgRow| {
            let node =
                Node { id: NodeId(row.try_get("id")?), name: row.try_get("name")?, facts: row.try_get("facts")? };
            Ok(LiveNode { node, seen_at: row.try_get("seen_at")? })
        };
        rows.iter().map(live).collect()
    }
    async fn claim(&self, id: NodeId, held: Share, within: Duration) -> Result<Share, StoreError> {
        // One after the other: two nodes that ask at once must not both take what is free. A statement after the lock
        // sees what the node before has committed.
        let mut tx = self.0.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
        tx.execute("LOCK TABLE tenantry.nodes IN SHARE ROW EXCLUSIVE MODE").await?;
        let claim = sqlx::query_scalar(CLAIM).bind(id.0).bind(held.stored()).bind(within.as_secs_f64());
        let granted: Option<i32> = claim.fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(granted.map_or(Share::NONE, Share::from_stored))
    }
    async fn leave(&self, id: NodeId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tenantry.nodes WHERE id = $1").bind(id.0).execute(&self.0).await?;
        Ok(())
    }
}
