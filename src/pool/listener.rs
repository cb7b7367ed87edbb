//! `LISTEN` in a tenant's database, on a connection of the tenant's budget.
//!
//! `TenantPool` creates a [`TenantListener`]. It uses sqlx's `PgListener` over the connection that it took from the
//! tenant's share, and takes another connection itself when that one is lost or its share is retired.
//!
//! Invariant: a connection that has listened is cleared before its next use, as every lent connection is.
use super::acquire::BorrowedConnection;
use super::{AcquireError, Source, TenantPool};
use sqlx::Executor;
use sqlx::postgres::{PgListener, PgNotification};
use std::fmt;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time after which a silent connection is checked with a query. The query may take as long again.
const CHECK_AFTER_IDLE: Duration = Duration::from_secs(30);

/// Receives the notifications (`NOTIFY`) of a tenant's database. Created by [`TenantPool::listener`].
///
/// It has a connection of its own, which counts against the tenant's and the server's connection limits until the
/// listener is dropped. It follows the tenant: after a new login, a new address or a migration it connects again. While
/// the tenant is suspended, [`recv`](Self::recv) fails with the reason. All this happens inside `recv`, so call it in a
/// loop: the connection of a listener that is not polled keeps its old login in use, and a rotation then waits for its
/// whole grace period before it ends that connection.
///
/// ```no_run
/// # async fn example(db: tenantry::TenantPool) -> sqlx::Result<()> {
/// let mut orders = db.listener().await?;
/// orders.listen("orders").await?;
/// loop {
///     match orders.recv().await? {
///         Some(order) => println!("{}", order.payload()),
///         // Notifications may have been missed: read the table of orders.
///         None => {}
///     }
/// }
/// # }
/// ```
pub struct TenantListener {
    /// Of the primary: a standby has no notifications.
    pool: TenantPool,
    channels: Vec<String>,
    session: Option<Session>,
}

/// One connection of a listener.
struct Session {
    /// `None` only in `drop`.
    listener: Option<PgListener>,
    /// Cancelled when the tenant's share is retired. Never, for a pool of the application's own.
    retired: CancellationToken,
}

impl TenantListener {
    pub(super) async fn connect(pool: TenantPool) -> Result<Self, sqlx::Error> {
        let mut this = Self { pool, channels: vec![], session: None };
        this.reconnect().await?;
        Ok(this)
    }

    /// Receives the notifications of one more channel, from now on.
    ///
    /// # Errors
    /// The server's own, or as [`TenantPool::acquire`] if the listener has no connection at the moment. The listener then
    /// does not have the channel.
    ///
    /// # Cancel safety
    /// After the future is dropped, the listener may or may not receive the channel's notifications.
    pub async fn listen(&mut self, channel: &str) -> Result<(), sqlx::Error> {
        if self.session.is_none() {
            self.reconnect().await?;
        }
        if let Some(listener) = self.session.as_mut().and_then(|session| session.listener.as_mut()) {
            listener.listen(channel).await.inspect_err(|error| {
                if crate::sqlstate::is_connection_lost(error) {
                    self.session = None;
                }
            })?;
        }
        self.channels.push(channel.into());
        Ok(())
    }

    /// Waits for the next notification. `None`: the listener has connected again, and notifications may have been
    /// missed in between; read what they are about.
    ///
    /// A lost connection is noticed at once, or within a minute if the server has vanished without closing it.
    ///
    /// # Errors
    /// As [`TenantPool::acquire`], if there is no new connection. For a suspended tenant it is an
    /// [`AcquireError::Refused`], after the resolver is closed it is
    /// [`AcquireError::Closed`]. The listener stays usable: the next call connects again.
    ///
    /// # Cancel safety
    /// No notification is lost.
    pub async fn recv(&mut self) -> Result<Option<PgNotification>, sqlx::Error> {
        if let Some(session) = &mut self.session
            && let Some(notification) = session.next().await
        {
            return Ok(Some(notification));
        }
        self.session = None;
        self.reconnect().await?;
        Ok(None)
    }

    async fn reconnect(&mut self) -> Result<(), sqlx::Error> {
        let mut session = match &self.pool.0.source {
            Source::Own(pool) => Session::new(PgListener::connect_with(pool).await?, CancellationToken::new()),
            Source::Budget(_) => self.pool.checkout().await?.into_listener().await?,
        };
        if let Some(listener) = &mut session.listener
            && !self.channels.is_empty()
        {
            listener.listen_all(self.channels.iter().map(String::as_str)).await?;
        }
        self.session = Some(session);
        Ok(())
    }
}

impl BorrowedConnection<'_> {
    async fn into_listener(self) -> Result<Session, sqlx::Error> {
        match self {
            Self::Budget(checked_out) => {
                let (listener, retired) = checked_out.into_listener().await?;
                Ok(Session::new(listener, retired))
            }
            // The tenant has got a pool of the application's own since this handle was resolved.
            Self::Own(_) => Err(AcquireError::Closed.into()),
        }
    }
}

impl Session {
    fn new(mut listener: PgListener, retired: CancellationToken) -> Self {
        // It must not connect by itself: its login may be old by then.
        listener.eager_reconnect(false);
        Self { listener: Some(listener), retired }
    }

    /// The next notification; `None` if this connection must not be used any more.
    async fn next(&mut self) -> Option<PgNotification> {
        let listener = self.listener.as_mut()?;
        loop {
            let received = tokio::select! {
                biased;
                () = self.retired.cancelled() => return None,
                received = timeout(CHECK_AFTER_IDLE, listener.try_recv()) => received,
            };
            match received {
                Ok(Ok(Some(notification))) => return Some(notification),
                Ok(_) => return None,
                Err(_) => {}
            }
            match timeout(CHECK_AFTER_IDLE, listener.execute("SELECT 1")).await {
                Ok(Ok(_)) => {}
                _ => return None,
            }
        }
    }
}

/// sqlx returns the connection in a spawned task and panics without a runtime, as when the program ends. Without one the
/// connection stays open until the process ends.
impl Drop for Session {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take_if(|_| Handle::try_current().is_err()) {
            std::mem::forget(listener);
        }
    }
}

impl fmt::Debug for TenantListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantListener").field("channels", &self.channels).finish_non_exhaustive()
    }
}
