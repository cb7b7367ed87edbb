#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::{LiveNode, Node, NodeId, Nodes};
use crate::error::StoreError;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;

/// Heartbeats in memory, by this process's clock.
#[derive(Debug, Default)]
pub struct MemoryNodes(Mutex<BTreeMap<NodeId, LiveNode>>);
impl MemoryNodes {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, LiveNode>> {
        // Nothing under this lock panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Nodes for MemoryNodes {
    async fn beat(&self, node: &Node) -> Result<(), StoreError> {
        let live = LiveNode { node: node.clone(), seen_at: OffsetDateTime::now_utc() };
        self.nodes().insert(node.id, live);
        Ok(())
    }
    async fn live(&self, within: Duration) -> Result<Vec<LiveNode>, StoreError> {
        let since = OffsetDateTime::now_utc() - within;
        Ok(self.nodes().values().filter(|n| n.seen_at >= since).cloned().collect())
    }
    async fn leave(&self, id: NodeId) -> Result<(), StoreError> {
        self.nodes().remove(&id);
        Ok(())
    }
}
