//! Which server takes a new tenant: a pure function, no trait.
use crate::names::{ServerName, Slug};

/// A server that may take one more tenant: ready, neither full nor draining.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// Which.
    pub server: ServerName,
    /// Tenants it has.
    pub tenants: u32,
    /// Most tenants.
    pub capacity: u32,
    /// Its weight, at least 1.
    pub weight: u32,
    /// The host's own words.
    pub labels: serde_json::Value,
}
impl Candidate {
    /// For tests of a host's own placement.
    pub fn new(server: ServerName, tenants: u32, capacity: u32, weight: u32, labels: serde_json::Value) -> Self {
        Self { server, tenants, capacity, weight, labels }
    }
}

/// What is known of a tenant before it has a place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlacementRequest {
    /// Its slug.
    pub slug: Slug,
    /// Its metadata.
    pub metadata: serde_json::Value,
}
impl PlacementRequest {
    /// For tests of a host's own placement.
    pub fn new(slug: Slug, metadata: serde_json::Value) -> Self {
        Self { slug, metadata }
    }
}

/// The default: fewest tenants by weight; the first one wins a tie.
pub fn least_loaded(_: &PlacementRequest, candidates: &[Candidate]) -> Option<ServerName> {
    let load = |c: &&Candidate| u64::from(c.tenants) * 1_000_000 / u64::from(c.weight.max(1));
    candidates.iter().min_by_key(load).map(|c| c.server.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_weight_takes_twice_the_tenants() {
        let candidate = |name: &str, tenants, weight| {
            Candidate::new(name.parse().unwrap(), tenants, 99, weight, serde_json::Value::Null)
        };
        let newcomer = PlacementRequest::new("acme".parse().unwrap(), serde_json::Value::Null);
        let mut servers = [candidate("big", 0, 2), candidate("small", 0, 1)];
        for _ in 0..30 {
            let chosen = least_loaded(&newcomer, &servers).unwrap();
            servers.iter_mut().find(|s| s.server == chosen).unwrap().tenants += 1;
        }
        assert_eq!((servers[0].tenants, servers[1].tenants), (20, 10));
        assert_eq!(least_loaded(&newcomer, &[]), None);
    }
}
