//! How many connections this process may open to each server.
//!
//! Two limits count, and the smaller one holds: the resolver's own, the same for every server, and this node's share of
//! the limit in the server's row ([`DatabaseServer::max_connections`](crate::server::DatabaseServer)), which is for all
//! nodes together. The pool of a server is resized whenever one of them changes.
use crate::store::nodes::Share;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Host and port.
pub(super) type Address = (String, u16);

pub(super) struct ConnectionLimits(Mutex<State>);

struct State {
    own: u32,
    share: Share,
    /// The limits of the rows, by the address of the server.
    rows: HashMap<Address, u32>,
}

impl ConnectionLimits {
    /// The resolver's own limit, and all of each row's: a process that has heard of no other node is the only one.
    pub(super) fn new(own: u32) -> Self {
        Self(Mutex::new(State { own, share: Share::ALL, rows: HashMap::new() }))
    }
    pub(super) fn set_own(&self, own: u32) {
        self.lock().own = own;
    }
    pub(super) fn set_share(&self, share: Share) {
        self.lock().share = share;
    }
    /// Stores the limit of the row of the server at this address. Returns whether it is another one than before.
    pub(super) fn set_row(&self, address: &Address, total: u32) -> bool {
        self.lock().rows.insert(address.clone(), total) != Some(total)
    }
    /// Connections that this process may have to the server at this address. A node with a share may always have one,
    /// so that a limit below the number of nodes does not shut tenants out of some nodes.
    pub(super) fn limit(&self, address: &Address) -> u32 {
        let state = self.lock();
        let Some(total) = state.rows.get(address) else { return state.own };
        let least = u32::from(state.share > Share::NONE);
        state.own.min(state.share.of(*total).max(least))
    }
    /// The share that this many open connections need, if `own` is the resolver's limit for all nodes together.
    pub(super) fn share_of_open(&self, address: &Address, open: u32, own: u32) -> Share {
        Share::holding(open, self.lock().rows.get(address).map_or(own, |total| own.min(*total)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_the_smaller_of_own_limit_and_share_of_the_row() {
        let (limits, known, other) = (ConnectionLimits::new(20), ("db1".into(), 5432), ("db2".into(), 5432));
        assert!(limits.set_row(&known, 30) && !limits.set_row(&known, 30));
        assert_eq!((limits.limit(&known), limits.limit(&other)), (20, 20));
        limits.set_share(Share::equal(3));
        assert_eq!((limits.limit(&known), limits.limit(&other)), (9, 20));
        assert_eq!(limits.share_of_open(&known, 10, 20), Share::equal(2), "of 20, the smaller limit");
        assert!(limits.set_row(&known, 1));
        assert_eq!(limits.limit(&known), 1, "a node with a share can serve");
        limits.set_share(Share::NONE);
        assert_eq!(limits.limit(&known), 0);
    }
}
