//! The choice of a server for a new tenant.
//!
//! Provisioning calls the application's placement function, or [`least_loaded`] if there is none, with all servers that
//! can take a tenant.
//!
//! Invariant: a placement function has no side effects. The landlord checks the capacity again when it stores the
//! choice.
use crate::names::{ServerName, Slug};

/// A server that can take another tenant: it is ready, not full and not draining.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// Name of the server.
    pub server: ServerName,
    /// Number of tenants on the server.
    pub tenants: u32,
    /// Maximum number of tenants on the server.
    pub capacity: u32,
    /// Relative share of new tenants, at least 1.
    pub weight: u32,
    /// The free-form JSON with which the application registered the server.
    pub labels: serde_json::Value,
}
impl Candidate {
    /// Creates a candidate for tests of a custom placement function.
    pub fn new(server: ServerName, tenants: u32, capacity: u32, weight: u32, labels: serde_json::Value) -> Self {
        Self { server, tenants, capacity, weight, labels }
    }
}

/// The new tenant, as a placement function sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlacementRequest {
    /// Slug of the tenant.
    pub slug: Slug,
    /// The metadata that the caller gave for the tenant.
    pub metadata: serde_json::Value,
}
impl PlacementRequest {
    /// Creates a request for tests of a custom placement function.
    pub fn new(slug: Slug, metadata: serde_json::Value) -> Self {
        Self { slug, metadata }
    }
}

/// The default placement function: returns the candidate with the fewest tenants in proportion to its weight. If
/// several are equal, returns the first one. `None` if there is no candidate.
pub fn least_loaded(_: &PlacementRequest, candidates: &[Candidate]) -> Option<ServerName> {
    let load = |c: &&Candidate| u64::from(c.tenants) * 1_000_000 / u64::from(c.weight.max(1));
    candidates.iter().min_by_key(load).map(|c| c.server.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_loaded_places_tenants_in_proportion_to_weight() {
        let candidate = |name: &str, tenants, weight| {
            Candidate::new(name.parse().unwrap(), tenants, 99, weight, serde_json::Value::Null)
        };
        let request = PlacementRequest::new("acme".parse().unwrap(), serde_json::Value::Null);
        let mut servers = [candidate("big", 0, 2), candidate("small", 0, 1)];
        for _ in 0..30 {
            let chosen = least_loaded(&request, &servers).unwrap();
            servers.iter_mut().find(|s| s.server == chosen).unwrap().tenants += 1;
        }
        assert_eq!((servers[0].tenants, servers[1].tenants), (20, 10));
        assert_eq!(least_loaded(&request, &[]), None);
    }
}
