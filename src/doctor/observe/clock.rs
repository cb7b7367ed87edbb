//! Reads the landlord's clock together with this process's own, for the finding that they differ. Every other deadline of
//! the crate is read from the landlord's clock alone: this is the only file outside the in-memory stores that reads a
//! local one, and a test holds that.
use crate::cluster::OperationContext;
use crate::doctor::view::Clock;
use crate::error::StoreError;
use std::time::Instant;
use time::OffsetDateTime;

/// Reads both clocks. The tolerance is half of the time that the landlord took to answer.
///
/// # Errors
/// If the landlord does not answer.
#[expect(clippy::disallowed_methods, reason = "the difference between this clock and the landlord's is the finding")]
pub(super) async fn read(stores: &OperationContext) -> Result<Clock, StoreError> {
    let asked = Instant::now();
    let time = stores.journal.now().await?;
    let tolerance = asked.elapsed() / 2;
    Ok(Clock { time, at: asked + tolerance, tolerance, node_time: OffsetDateTime::now_utc() - tolerance })
}
