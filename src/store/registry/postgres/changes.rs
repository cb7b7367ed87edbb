//! Reports changes of tenants that any node makes, for nodes that cache lookups. The facade follows [`PgChanges`] and
//! passes each [`Change`] to the lookup cache.
//!
//! There are two sources. LISTEN is fast, but a notification can be missing, because the cluster's queue of
//! notifications can be full. The rows of `tenantry.tenant_changes` are read every two seconds and miss nothing (see
//! `polls`).
//!
//! Invariant: between [`Change::Missed`] and the next [`Change::Lost`], every committed change is reported, at the
//! latest by the next read of the table.
use super::polls::{ChangePoller, PollResult, QUEUE_ALMOST_FULL};
use crate::rt;
use crate::tenant::TenantId;
use futures_core::stream::{BoxStream, Stream};
use futures_util::{StreamExt, stream};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Channel on which the landlord's triggers notify the id of a changed tenant.
const CHANNEL: &str = "tenantry_changes";
/// Time after which a silent connection is checked with a query. The query may take as long again.
const CHECK_AFTER_IDLE: Duration = Duration::from_secs(5);
/// Pause between two attempts to connect.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// Default interval between two reads of the table of changes. A node must apply a suspension within five seconds, even
/// if no notification reaches it. Two seconds for the wait leave three for the read, the next lookup and a busy
/// landlord. One indexed read in this time is cheap for the landlord, even with many nodes.
pub(crate) const POLL: Duration = Duration::from_secs(2);

/// An event for a node that caches lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The tenant, one of its domains or one of its directory entries has changed, and the change is committed.
    Tenant(TenantId),
    /// From now on every change is reported. Anything that was cached before may be out of date.
    Missed,
    /// Changes may be missed from now on, until the next [`Missed`](Self::Missed).
    Lost,
}

/// Reports changes of the landlord's tables, whether this crate or a manual statement made them.
#[derive(Clone, Debug)]
pub struct PgChanges {
    landlord: PgPool,
    poll: Duration,
}

impl PgChanges {
    /// Uses a pool that can spare one connection while the stream of [`follow`](Self::follow) lives, and another one
    /// during each read.
    pub fn new(landlord: PgPool) -> Self {
        Self { landlord, poll: POLL }
    }

    /// Sets the interval between two reads of the table of changes, which find changes without a notification. The
    /// default is 2 s, so that a node learns of each change within five seconds. Zero counts as one millisecond.
    pub fn poll_every(self, poll: Duration) -> Self {
        Self { poll: poll.max(Duration::from_millis(1)), ..self }
    }

    /// Streams all changes from now on. The stream never ends. It yields [`Change::Missed`] once both sources work, and
    /// again each time that one of them works after a failure. A change may be reported twice: by its notification and
    /// by the next read.
    ///
    /// A silent connection is checked every 5 s, so a half-open one is found within 10 s.
    ///
    /// # Cancel safety
    /// Dropping the stream closes the connection.
    pub fn follow(&self) -> BoxStream<'static, Change> {
        let events =
            stream::select(listen_events(self.landlord.clone()), poll_events(self.landlord.clone(), self.poll));
        let changes =
            events.scan(State::default(), |state, event| std::future::ready(Some(stream::iter(state.apply(event)))));
        Box::pin(changes.flatten())
    }
}

/// An event of one of the two sources.
enum Event {
    /// Whether LISTEN works.
    Listening(bool),
    /// Whether reads of the table work.
    Reading(bool),
    /// These tenants have changed.
    Changed(Vec<TenantId>),
    /// Any tenant may have changed.
    Everything,
}

/// Whether each of the two sources works. The stream is complete only while both do.
#[derive(Default)]
struct State {
    is_listening: bool,
    is_reading: bool,
}

impl State {
    /// Applies an event, and returns the changes to report.
    fn apply(&mut self, event: Event) -> Vec<Change> {
        let was_complete = self.is_listening && self.is_reading;
        match event {
            Event::Changed(tenants) => return tenants.into_iter().map(Change::Tenant).collect(),
            Event::Everything => return if was_complete { vec![Change::Missed] } else { vec![] },
            Event::Listening(works) => self.is_listening = works,
            Event::Reading(works) => self.is_reading = works,
        }
        match (was_complete, self.is_listening && self.is_reading) {
            (false, true) => vec![Change::Missed],
            (true, false) => vec![Change::Lost],
            _ => vec![],
        }
    }
}

/// Events from LISTEN. A lost connection is opened again after a pause.
fn listen_events(landlord: PgPool) -> BoxStream<'static, Event> {
    Box::pin(async_stream::stream! {
        loop {
            match timeout(CHECK_AFTER_IDLE * 2, listen(&landlord)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(mut listener) => {
                    yield Event::Listening(true);
                    while let Some(tenant) = next_notification(&mut listener).await {
                        yield Event::Changed(vec![tenant]);
                    }
                    tracing::warn!("LISTEN on the landlord was interrupted; polling finds changes until it reconnects");
                    yield Event::Listening(false);
                }
                Err(error) => tracing::debug!(%error, "cannot LISTEN on the landlord; trying again"),
            }
            sleep(RECONNECT_DELAY).await;
        }
    })
}

/// Events from reads of the table of changes.
fn poll_events(landlord: PgPool, every: Duration) -> impl Stream<Item = Event> + Send + 'static {
    async_stream::stream! {
        let mut poller = ChangePoller::new(landlord);
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            tick.tick().await;
            let result = poller.next().await;
            if let (Err(error), false) = (&result, failed) {
                tracing::warn!(%error, "cannot read tenantry.tenant_changes; trying again until the landlord answers");
            }
            failed = result.is_err();
            match result {
                Ok(PollResult::Tenants(tenants)) => {
                    yield Event::Reading(true);
                    yield Event::Changed(tenants);
                }
                Ok(PollResult::Everything) => {
                    yield Event::Everything;
                    yield Event::Reading(true);
                }
                Err(_) => yield Event::Reading(false),
            }
        }
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = rt::poll_batched(PgListener::connect_with(pool)).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Waits for the next notification that names a tenant. `None` if the connection is lost.
async fn next_notification(listener: &mut PgListener) -> Option<TenantId> {
    loop {
        match timeout(CHECK_AFTER_IDLE, listener.try_recv()).await {
            // A payload that is not a tenant's id is ignored: any role that can connect to the landlord may notify the
            // channel.
            Ok(Ok(Some(notification))) => match notification.payload().parse() {
                Ok(id) => return Some(id),
                Err(_) => continue,
            },
            Ok(_) => return None,
            Err(_) => {}
        }
        match timeout(CHECK_AFTER_IDLE, check_listener(listener)).await {
            Ok(Ok(())) => {}
            _ => return None,
        }
    }
}

/// Checks that the connection answers, and skips the queue of notifications if it fills up.
///
/// PostgreSQL keeps each notification until every listener of the cluster has read it. A transaction that fails because
/// the queue is full wakes no listener, so this session might never read its part and would keep the queue full.
/// Therefore it stops listening and listens again, which moves it to the queue's end. The table of changes reports the
/// skipped changes.
async fn check_listener(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let usage: f64 = sqlx::query_scalar("SELECT pg_notification_queue_usage()").fetch_one(&mut *listener).await?;
    if usage >= QUEUE_ALMOST_FULL {
        listener.unlisten_all().await?;
        listener.listen(CHANNEL).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_reports_missed_when_both_sources_work_and_lost_when_one_fails() {
        let mut state = State::default();
        assert_eq!(state.apply(Event::Listening(true)), []);
        assert_eq!(state.apply(Event::Everything), [], "the stream has not been complete yet, so no change was missed");
        assert_eq!(state.apply(Event::Reading(true)), [Change::Missed]);
        assert_eq!(state.apply(Event::Reading(true)), []);
        assert_eq!(state.apply(Event::Everything), [Change::Missed]);
        assert_eq!(state.apply(Event::Reading(false)), [Change::Lost]);
        assert_eq!(state.apply(Event::Listening(false)), []);
        assert_eq!(state.apply(Event::Listening(true)), []);
        assert_eq!(state.apply(Event::Reading(true)), [Change::Missed]);
    }
}
