//! A node's share of a server's connections, as an integer, so that shares can be added and compared exactly.
//!
//! Invariant: conversions between shares and connections round so that the connections of all shares fit the total.
use std::fmt;

/// A node's share of every server's connections, in ten-thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// No connections.
    pub const NONE: Self = Self(0);
    /// All connections: the share of the only live node.
    pub const ALL: Self = Self(10_000);

    /// An equal part for each of so many nodes, at least one.
    pub fn equal(nodes: usize) -> Self {
        Self(10_000 / u32::try_from(nodes.max(1)).unwrap_or(10_000))
    }
    /// The smallest share of `total` that `connections` fit into.
    pub fn holding(connections: u32, total: u32) -> Self {
        match total {
            0 => Self::NONE,
            total => Self((u64::from(connections) * 10_000).div_ceil(total.into()).min(10_000) as u32),
        }
    }
    /// The number of connections that this share of `total` allows, rounded down.
    pub fn of(self, total: u32) -> u32 {
        (u64::from(total) * u64::from(self.0) / 10_000) as u32
    }
    pub(super) fn to_stored(self) -> i32 {
        self.0 as i32
    }
    pub(super) fn from_stored(stored: i32) -> Self {
        Self(stored.clamp(0, 10_000) as u32)
    }
    /// An equal share for each of `nodes`, but no more than is left when the other nodes hold `others` ten-thousandths.
    #[cfg(feature = "testing")]
    pub(super) fn grant(nodes: usize, others: u64) -> Self {
        let free = 10_000_u64.saturating_sub(others);
        Self((10_000 / nodes.max(1) as u64).min(free) as u32)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_nodes_never_exceed_the_total() {
        for (nodes, total) in (1..=40).flat_map(|nodes| [1, 7, 90, 497].map(|total| (nodes, total))) {
            let part = Share::grant(nodes, 0);
            assert!(part.of(total) * nodes as u32 <= total, "{nodes} nodes, {total} connections");
            assert!(
                Share::holding(part.of(total), total) <= part,
                "connections that fit into a share need no larger one"
            );
        }
        assert_eq!(Share::grant(2, 10_000), Share::NONE, "another node still holds all connections");
        assert_eq!((Share::holding(90, 90), Share::holding(91, 90)), (Share::ALL, Share::ALL));
    }
}
