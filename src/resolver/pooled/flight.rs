//! One cold path per name at a time. Whoever waits drives it, so it goes on when the one who began it is dropped, and
//! ends when nobody waits any more.
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

type Outcome = Result<TenantPool, ResolveError>;
pub(super) type Flight = future::Shared<BoxFuture<'static, Outcome>>;
pub(super) type Flights = HashMap<TenantRef<'static>, (ReadStamp, WeakShared<BoxFuture<'static, Outcome>>)>;

impl PooledResolver {
    /// The flight that is on its way, or a new one.
    pub(super) fn board(&self, name: TenantRef<'static>) -> Result<Flight, ResolveError> {
        let mut state = self.0.state();
        if self.0.stop.is_cancelled() {
            return Err(ResolveError::Closed);
        }
        if let Some(flight) = state.flights.get(&name).and_then(|(_, flight)| flight.upgrade()) {
            return Ok(flight);
        }
        let read = state.cache.stamp(Instant::now());
        let landing = Landing { shared: self.0.clone(), name: name.clone(), read };
        let resolver = self.clone();
        let flight = async move {
            let landing = landing;
            resolver.load(&landing.name, read).await
        };
        let flight = flight.boxed().shared();
        state.flights.extend(flight.downgrade().map(|weak| (name, (read, weak))));
        Ok(flight)
    }
}

/// Takes the flight off the list when it ends, in whatever way.
struct Landing {
    shared: Arc<Shared>,
    name: TenantRef<'static>,
    read: ReadStamp,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.flights.get(&self.name).is_some_and(|(read, _)| *read == self.read) {
            state.flights.remove(&self.name);
        }
    }
}
