use std::fmt;

/// A part of every server's connections, in ten-thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything: the only live node.
    pub const ALL: Self = Self(10_000);

    /// The least part of `total` that `connections` fit into.
    pub fn holding(connections: u32, total: u32) -> Self {
        match total {
            0 => Self::NONE,
            total => Self((u64::from(connections) * 10_000).div_ceil(total.into()).min(10_000) as u32),
        }
    }
    /// So many of `total` connections, rounded down.
    pub fn of(self, total: u32) -> u32 {
        (u64::from(total) * u64::from(self.0) / 10_000) as u32
    }
    pub(super) fn stored(self) -> i32 {
        self.0 as i32
    }
    pub(super) fn from_stored(stored: i32) -> Self {
        Self(stored.clamp(0, 10_000) as u32)
    }
    /// An equal part for each of so many nodes, but no more than `others` leave.
    #[cfg(feature = "testing")]
    pub(super) fn granted(nodes: usize, others: u64) -> Self {
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
    fn parts_of_a_server_never_add_up_to_more_than_it_has() {
        for (nodes, total) in (1..=40).flat_map(|nodes| [1, 7, 90, 497].map(|total| (nodes, total))) {
            let part = Share::granted(nodes, 0);
            assert!(part.of(total) * nodes as u32 <= total, "{nodes} nodes, {total} connections");
            assert!(Share::holding(part.of(total), total) <= part, "what fits into a part needs no more than it");
        }
        assert_eq!(Share::granted(2, 10_000), Share::NONE, "another one has all of it still");
        assert_eq!((Share::holding(90, 90), Share::holding(91, 90)), (Share::ALL, Share::ALL));
    }
}
