//! What has changed on any node, as it happens.
use crate::tenant::TenantId;
use crate::yields;
use futures_core::stream::BoxStream;
use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Where the landlord's triggers say whose row has changed.
const CHANNEL: &str = "tenantry_changes";
/// How long a silent connection counts as alive without an answer; as long again to answer.
const SILENCE: Duration = Duration::from_secs(5);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(500);

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
pub struct PgChanges(PgPool);

impl PgChanges {
    /// Over a pool that can spare one connection for as long as somebody follows.
    pub fn new(landlord: PgPool) -> Self {
        Self(landlord)
    }

    /// All changes from now on; never ends. It begins with [`Change::Missed`] once it listens, and says so again each
    /// time that the connection was lost: what happened in between is not told later.
    ///
    /// A connection that is silent is asked whether it lives every 5 s, so that one that is half open is found within 10.
    ///
    /// # Cancel safety
    /// Dropping the stream closes the connection.
    pub fn follow(&self) -> BoxStream<'static, Change> {
        let pool = self.0.clone();
        Box::pin(async_stream::stream! {
            loop {
                match timeout(SILENCE * 2, listen(&pool)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                    Ok(mut listener) => {
                        yield Change::Missed;
                        while let Some(told) = next(&mut listener).await {
                            yield told;
                        }
                        tracing::warn!("changes of other nodes are not heard until the landlord answers again");
                        yield Change::Lost;
                    }
                    Err(error) => tracing::debug!(%error, "cannot listen to the landlord"),
                }
                sleep(PAUSE).await;
            }
        })
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = yields::fewer(PgListener::connect_with(pool)).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// `None`: the connection is gone.
async fn next(listener: &mut PgListener) -> Option<Change> {
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            // Not one of ours: whoever may write to the landlord may send anything.
            Ok(Ok(Some(told))) => match told.payload().parse() {
                Ok(id) => return Some(Change::Tenant(id)),
                Err(_) => continue,
            },
            Ok(_) => return None,
            Err(_) => {}
        }
        match timeout(SILENCE, listener.execute("SELECT 1")).await {
            Ok(Ok(_)) => {}
            _ => return None,
        }
    }
}
