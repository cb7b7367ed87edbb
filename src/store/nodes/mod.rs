//! The live nodes of an application: heartbeats, and each node's share of the connections.
//!
//! The facade's background tasks call [`Nodes::record_heartbeat`] at each heartbeat. Each second they call
//! [`Nodes::claim_share`], with `share_connections`, or else [`Nodes::list_live`], to compute an equal [`Share`] for
//! each live node. The pools open no more connections than the share allows.
//!
//! Invariant: the claimed shares of the live nodes never add up to more than all connections of a server.
use crate::error::StoreError;
use crate::store::schema::LandlordPool;
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, PgPool, Row};
use std::sync::OnceLock;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

mod share;
pub use share::Share;
#[cfg(feature = "testing")]
mod memory;
#[cfg(feature = "testing")]
pub use memory::MemoryNodes;

/// Id of a process. Each start of the application gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Uuid);
impl NodeId {
    /// Creates the id from the UUID of a stored row.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The id as a UUID, to be stored.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// One process that runs the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Id of this process.
    pub id: NodeId,
    /// Name for logs and reports: host name and process id.
    pub name: String,
}
impl Node {
    /// Describes this process, with a new id. The host name is taken from the environment variable `HOSTNAME`, or else
    /// from the kernel.
    pub fn here() -> Self {
        Self { id: NodeId(Uuid::now_v7()), name: Self::process_name().to_owned() }
    }
    /// The name of this process: host name and process id.
    pub(crate) fn process_name() -> &'static str {
        static NAME: OnceLock<String> = OnceLock::new();
        NAME.get_or_init(|| {
            // A shell does not export HOSTNAME, so a program started by hand has it only from the kernel.
            let host = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
            let host = host.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
            format!("{}/{}", host.as_deref().unwrap_or("unknown"), std::process::id())
        })
    }
}

/// A node with a recent heartbeat.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LiveNode {
    /// The node, as its last heartbeat described it.
    pub node: Node,
    /// Time of its last heartbeat, by the store's clock.
    pub seen_at: OffsetDateTime,
}

/// Stores heartbeats and shares. Every call is one atomic write or read: if its future is dropped, either all of it or
/// nothing has taken effect.
#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// Records a heartbeat with the node's current name. The first one registers the node.
    async fn record_heartbeat(&self, node: &Node) -> Result<(), StoreError>;
    /// Nodes with a heartbeat within this time, oldest node first. Also deletes nodes without a heartbeat for a day.
    async fn list_live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError>;
    /// As [`list_live`](Self::list_live), but deletes nothing.
    async fn read_live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError>;
    /// Claims this node's share of every server's connections, and returns it: an equal part for each live node, but
    /// never what another node still holds. `held` is the share that the node's open connections need at this moment.
    /// If the granted share is smaller, the store keeps counting the node with `held`; the node closes connections and
    /// calls this again. So the shares never add up to more than the whole.
    ///
    /// A node that has never called [`record_heartbeat`](Self::record_heartbeat) gets no share. A node without a
    /// heartbeat for longer than `within` loses its share to the others, and must call this again before it opens a
    /// connection.
    async fn claim_share(&self, id: NodeId, held: Share, within: Duration) -> Result<Share, StoreError>;
    /// Removes this node, because its process ends. An unknown node is `Ok`.
    async fn leave(&self, id: NodeId) -> Result<(), StoreError>;
}

/// Heartbeats and shares in the landlord's table `tenantry.nodes`.
#[derive(Clone, Debug)]
pub struct PgNodes(LandlordPool);
impl PgNodes {
    /// Uses the application's pool to the landlord.
    pub fn new(landlord: PgPool) -> Self {
        Self::over(LandlordPool::new(landlord))
    }
    pub(crate) fn over(landlord: LandlordPool) -> Self {
        Self(landlord)
    }
}

const BEAT: &str = "INSERT INTO tenantry.nodes (id, name) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), name = EXCLUDED.name";
const LIVE: &str = "WITH silent AS (
    DELETE FROM tenantry.nodes WHERE seen_at < now() - interval '1 day'
)
SELECT id, name, seen_at FROM tenantry.nodes WHERE seen_at >= now() - make_interval(secs => $1) ORDER BY id";
const READ: &str =
    "SELECT id, name, seen_at FROM tenantry.nodes WHERE seen_at >= now() - make_interval(secs => $1) ORDER BY id";
/// `clock_timestamp()`, because `now()` is the start of the transaction, before it waited for the table lock. A node
/// whose heartbeat became too old during that wait would still count as live.
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
    async fn record_heartbeat(&self, node: &Node) -> Result<(), StoreError> {
        sqlx::query(BEAT).bind(node.id.0).bind(&node.name).execute(&self.0).await?;
        Ok(())
    }
    async fn list_live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError> {
        let rows = sqlx::query(LIVE).bind(within.as_secs_f64()).fetch_all(&self.0).await?;
        rows.iter().map(parse_live).collect()
    }
    async fn read_live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError> {
        let rows = sqlx::query(READ).bind(within.as_secs_f64()).fetch_all(&self.0).await?;
        rows.iter().map(parse_live).collect()
    }
    async fn claim_share(&self, id: NodeId, held: Share, within: Duration) -> Result<Share, StoreError> {
        // The lock makes claims take turns. Without it, two nodes that claim at the same moment would both get the free
        // part. READ COMMITTED lets the statement after the lock see what the previous node committed.
        let claim = sqlx::query_scalar(CLAIM).bind(id.0).bind(held.to_stored()).bind(within.as_secs_f64());
        let run = async |session: &mut PgConnection| {
            session.execute("LOCK TABLE tenantry.nodes IN SHARE ROW EXCLUSIVE MODE").await?;
            Ok::<Option<i32>, StoreError>(claim.fetch_optional(session).await?)
        };
        let granted = self.0.transaction("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", run).await?;
        Ok(granted.map_or(Share::NONE, Share::from_stored))
    }
    async fn leave(&self, id: NodeId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tenantry.nodes WHERE id = $1").bind(id.0).execute(&self.0).await?;
        Ok(())
    }
}

fn parse_live(row: &PgRow) -> Result<LiveNode, StoreError> {
    let node = Node { id: NodeId(row.try_get("id")?), name: row.try_get("name")? };
    Ok(LiveNode { node, seen_at: row.try_get("seen_at")? })
}
