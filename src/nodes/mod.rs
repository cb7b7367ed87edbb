//! The live nodes of an application: budgets are divided by them, and a rotation waits for them.
use crate::error::StoreError;
use async_trait::async_trait;
use serde_json::Value;
use sqlx::{PgPool, Row};
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

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
    async fn leave(&self, id: NodeId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tenantry.nodes WHERE id = $1").bind(id.0).execute(&self.0).await?;
        Ok(())
    }
}
