//! Single-flight: at most one load per name runs at a time, and all callers that resolve the name share its result.
//!
//! A flight is a shared future that its waiting callers poll; no task runs it. It continues while at least one caller
//! waits, also if the caller that started it is dropped, and it is dropped with its last caller. The map of flights
//! holds weak references only, so it never keeps a flight alive.
use super::cache::ReadStamp;
use super::{PooledResolver, Shared};
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::tenant::TenantRef;
use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use futures_util::future::{self, WeakShared};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

type LoadResult = Result<TenantPool, ResolveError>;
pub(super) type Flight = future::Shared<BoxFuture<'static, LoadResult>>;
pub(super) type Flights = HashMap<TenantRef<'static>, (ReadStamp, WeakShared<BoxFuture<'static, LoadResult>>)>;

impl PooledResolver {
    /// Joins the load of the name that is running, or starts one. [`ResolveError::Closed`] once the resolver closes.
    pub(super) fn join_flight(&self, name: TenantRef<'static>) -> Result<Flight, ResolveError> {
        let mut state = self.0.lock_state();
        if self.0.stop.is_cancelled() {
            return Err(ResolveError::Closed);
        }
        if let Some(flight) = state.flights.get(&name).and_then(|(_, flight)| flight.upgrade()) {
            return Ok(flight);
        }
        let read = state.cache.stamp(Instant::now());
        let guard = FlightGuard { shared: self.0.clone(), name: name.clone(), read };
        let resolver = self.clone();
        let flight = async move {
            let guard = guard;
            resolver.load(&guard.name, read).await
        };
        let flight = flight.boxed().shared();
        state.flights.extend(flight.downgrade().map(|weak| (name, (read, weak))));
        Ok(flight)
    }
}

/// Removes the flight from the map when it completes or is dropped, unless a newer flight of the name has replaced it.
struct FlightGuard {
    shared: Arc<Shared>,
    name: TenantRef<'static>,
    read: ReadStamp,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        let mut state = self.shared.lock_state();
        if state.flights.get(&self.name).is_some_and(|(read, _)| *read == self.read) {
            state.flights.remove(&self.name);
        }
    }
}
