//! Changes of tenants, on whichever node they are made, as they happen.
//!
//! Two sources: LISTEN, which is fast and may stay silent (the cluster's queue of notifications can be full), and the
//! rows of `tenantry.tenant_changes`, which are read every two seconds and miss nothing (see `polls`).
use super::polls::{FULL, Found, Polls};
use crate::rt;
use crate::tenant::TenantId;
use futures_core::stream::{BoxStream, Stream};
use futures_util::{StreamExt, stream};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Where the landlord's triggers say whose row has changed.
const CHANNEL: &str = "tenantry_changes";
/// How long a silent connection counts as alive without an answer; as long again to answer.
const SILENCE: Duration = Duration::from_secs(5);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(500);
/// A node must know of a suspension within five seconds, also when no notification reaches it: two for the wait, the rest
/// for the read, the next resolve and a busy landlord. One indexed read for each node in this time costs nothing.
pub(crate) const POLL: Duration = Duration::from_secs(2);

/// What a node that caches must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Somebody changed this tenant, a domain or a directory entry of it; the change is committed.
    Tenant(TenantId),
    /// From here on every change is told. What was known before may have changed without a word.
    Missed,
    /// Changes may go by unseen, until the next [`Missed`](Self::Missed).
    Lost,
}

/// Changes of the landlord's tables by whomever, statements by hand included.
#[derive(Clone, Debug)]
pub struct PgChanges {
    landlord: PgPool,
    poll: Duration,
}

impl PgChanges {
    /// Over a pool that can spare one connection for as long as [`follow`](Self::follow) runs, and one more for each read.
    pub fn new(landlord: PgPool) -> Self {
        Self { landlord, poll: POLL }
    }

    /// How often the table of changes is read, for changes without a notification; 2 s by default, so that a node
    /// knows of each change within five. Zero counts as one millisecond.
    pub fn poll_every(self, poll: Duration) -> Self {
        Self { poll: poll.max(Duration::from_millis(1)), ..self }
    }

    /// All changes from now on; never ends. It begins with [`Change::Missed`] once it listens and reads the table of
    /// changes, and repeats that each time that one of the two has failed in between. A change may be reported twice: by
    /// its notification, and by the next read.
    ///
    /// A connection that is silent is asked whether it lives every 5 s, so that one that is half open is found within 10.
    ///
    /// # Cancel safety
    /// Dropping the stream closes the connection.
    pub fn follow(&self) -> BoxStream<'static, Change> {
        let events = stream::select(listened(self.landlord.clone()), polled(self.landlord.clone(), self.poll));
        let changes =
            events.scan(State::default(), |state, event| std::future::ready(Some(stream::iter(state.after(event)))));
        Box::pin(changes.flatten())
    }
}

/// What one of the two sources says.
enum Event {
    Listens(bool),
    Reads(bool),
    Changed(Vec<TenantId>),
    Everything,
}

/// Which of the two sources work. The stream is complete only while both do.
#[derive(Default)]
struct State {
    listens: bool,
    reads: bool,
}

impl State {
    fn after(&mut self, event: Event) -> Vec<Change> {
        let was_complete = self.listens && self.reads;
        match event {
            Event::Changed(tenants) => return tenants.into_iter().map(Change::Tenant).collect(),
            Event::Everything => return if was_complete { vec![Change::Missed] } else { vec![] },
            Event::Listens(works) => self.listens = works,
            Event::Reads(works) => self.reads = works,
        }
        match (was_complete, self.listens && self.reads) {
            (false, true) => vec![Change::Missed],
            (true, false) => vec![Change::Lost],
            _ => vec![],
        }
    }
}

/// By LISTEN; a lost connection is opened again.
fn listened(landlord: PgPool) -> BoxStream<'static, Event> {
    Box::pin(async_stream::stream! {
        loop {
            match timeout(SILENCE * 2, listen(&landlord)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(mut listener) => {
                    yield Event::Listens(true);
                    while let Some(tenant) = next(&mut listener).await {
                        yield Event::Changed(vec![tenant]);
                    }
                    tracing::warn!("changes of other nodes are not heard until the landlord answers again");
                    yield Event::Listens(false);
                }
                Err(error) => tracing::debug!(%error, "cannot listen to the landlord"),
            }
            sleep(PAUSE).await;
        }
    })
}

/// By the table of changes.
fn polled(landlord: PgPool, every: Duration) -> impl Stream<Item = Event> + Send + 'static {
    async_stream::stream! {
        let mut polls = Polls::new(landlord);
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            tick.tick().await;
            let found = polls.next().await;
            if let (Err(error), false) = (&found, failed) {
                tracing::warn!(%error, "the landlord's table of changes is not read until the landlord answers again");
            }
            failed = found.is_err();
            match found {
                Ok(Found::Tenants(tenants)) => {
                    yield Event::Reads(true);
                    yield Event::Changed(tenants);
                }
                Ok(Found::Everything) => {
                    yield Event::Everything;
                    yield Event::Reads(true);
                }
                Err(_) => yield Event::Reads(false),
            }
        }
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = rt::poll_batched(PgListener::connect_with(pool)).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// `None`: the connection is gone.
async fn next(listener: &mut PgListener) -> Option<TenantId> {
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            // Not one of ours: whoever may write to the landlord may send anything.
            Ok(Ok(Some(told))) => match told.payload().parse() {
                Ok(id) => return Some(id),
                Err(_) => continue,
            },
            Ok(_) => return None,
            Err(_) => {}
        }
        match timeout(SILENCE, check_listener(listener)).await {
            Ok(Ok(())) => {}
            _ => return None,
        }
    }
}

/// An answer shows that the connection lives. The server keeps each notification until every listener of the cluster has
/// read it, and a transaction that failed because the queue is full wakes none: so on a queue that fills up the session
/// stops listening and listens again, from the queue's end. The table of changes has what was notified in between.
async fn check_listener(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let usage: f64 = sqlx::query_scalar("SELECT pg_notification_queue_usage()").fetch_one(&mut *listener).await?;
    if usage >= FULL {
        listener.unlisten_all().await?;
        listener.listen(CHANNEL).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_reports_missed_and_lost_when_both_sources_work_and_when_one_fails() {
        let mut state = State::default();
        assert_eq!(state.after(Event::Listens(true)), []);
        assert_eq!(state.after(Event::Everything), [], "nothing was reported yet that could have been missed");
        assert_eq!(state.after(Event::Reads(true)), [Change::Missed]);
        assert_eq!(state.after(Event::Reads(true)), []);
        assert_eq!(state.after(Event::Everything), [Change::Missed]);
        assert_eq!(state.after(Event::Reads(false)), [Change::Lost]);
        assert_eq!(state.after(Event::Listens(false)), []);
        assert_eq!(state.after(Event::Listens(true)), []);
        assert_eq!(state.after(Event::Reads(true)), [Change::Missed]);
    }
}
