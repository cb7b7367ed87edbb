//! [`Nodes`] in memory, for tests. Same semantics as [`PgNodes`](super::PgNodes), with this process's clock.
#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::{LiveNode, Node, NodeId, Nodes, Share};
use crate::error::StoreError;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;

/// Heartbeats and shares in memory, by this process's clock.
#[derive(Debug, Default)]
pub struct MemoryNodes(Mutex<BTreeMap<NodeId, (LiveNode, Share)>>);
impl MemoryNodes {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, (LiveNode, Share)>> {
        // A poisoned lock is used anyway: no code panics while it holds the lock, so the map is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Nodes for MemoryNodes {
    async fn record_heartbeat(&self, node: &Node) -> Result<(), StoreError> {
        let live = LiveNode { node: node.clone(), seen_at: OffsetDateTime::now_utc() };
        let mut nodes = self.nodes();
        let share = nodes.get(&node.id).map_or(Share::NONE, |(_, share)| *share);
        nodes.insert(node.id, (live, share));
        Ok(())
    }
    async fn list_live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError> {
        let since = OffsetDateTime::now_utc() - within;
        Ok(self.nodes().values().map(|(n, _)| n).filter(|n| n.seen_at >= since).cloned().collect())
    }
    async fn read_live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError> {
        self.list_live(within).await
    }
    async fn claim_share(&self, id: NodeId, held: Share, within: Duration) -> Result<Share, StoreError> {
        let (mut nodes, since) = (self.nodes(), OffsetDateTime::now_utc() - within);
        let live = nodes.iter().filter(|(other, (n, _))| **other == id || n.seen_at >= since);
        let (all, others) = live.fold((0, 0), |(all, others), (other, (_, share))| {
            (all + 1, others + if *other == id { 0 } else { share.to_stored() as u64 })
        });
        let granted = Share::grant(all, others);
        match nodes.get_mut(&id) {
            Some((_, share)) => *share = held.max(granted),
            None => return Ok(Share::NONE),
        }
        Ok(granted)
    }
    async fn leave(&self, id: NodeId) -> Result<(), StoreError> {
        self.nodes().remove(&id);
        Ok(())
    }
}
