//! Reads the landlord: its clock, keys, open operations, retiring logins, live nodes and the sessions that block others.
use super::clock;
use crate::cluster::OperationContext;
use crate::cluster::pg::observe::{Blocker, read_landlord_blockers};
use crate::doctor::checks::may_be_overdue;
use crate::doctor::view::{KeyView, LandlordView, Seen};
use crate::error::{KeyError, Rows, StoreError, UnreadableRow, VaultError, chain};
use crate::store::nodes::Nodes;
use crate::store::registry::Retirement;
use crate::store::schema::LandlordPool;
use sqlx::{Executor, PgConnection};
use std::collections::HashSet;
use std::time::Duration;

/// A node without a heartbeat for this long is not live.
const LIVE: Duration = Duration::from_secs(15);
/// Retiring logins that one read returns.
const PAGE: u32 = 500;
/// Retiring logins beyond their time that one examination keeps. More of them are counted.
const MAX_OVERDUE: usize = 1000;

/// Reads the landlord.
///
/// # Errors
/// If it does not answer. What only a right hides is in the view.
pub(in crate::doctor) async fn observe(
    stores: &OperationContext, landlord: &LandlordPool, nodes: &dyn Nodes,
) -> Result<LandlordView, StoreError> {
    let clock = clock::read(stores).await?;
    let installation = stores.servers.installation().await?;
    let operations = stores.journal.open().await?;
    let retiring = read_overdue(stores).await?;
    let live_nodes = nodes.read_live(LIVE).await?.len();
    let unreadable = operations.unreadable.into_iter().chain(retiring.unreadable).collect();
    Ok(LandlordView {
        installation,
        now: clock.time,
        keys: observe_keys(stores).await?,
        operations: operations.readable,
        retiring: retiring.overdue,
        more_retiring: retiring.more,
        live_nodes: u32::try_from(live_nodes).unwrap_or(u32::MAX),
        blockers: observe_blockers(landlord).await,
        unreadable,
        clock,
    })
}

/// The retiring logins that are not dropped in time.
#[derive(Default)]
struct Overdue {
    overdue: Vec<Retirement>,
    /// Number of further ones.
    more: u64,
    unreadable: Vec<UnreadableRow>,
    /// Ids of the unreadable rows.
    ids: HashSet<String>,
}

/// Reads all retiring logins in pages, and keeps those that may be findings. A fleet that rotates has thousands of them
/// that wait for their time.
async fn read_overdue(stores: &OperationContext) -> Result<Overdue, StoreError> {
    let (mut found, mut after) = (Overdue::default(), None);
    loop {
        let position = after.as_ref().map(|(server, role)| (server, role));
        let page = stores.registry.retiring_after(position, PAGE).await?;
        after = page.readable.last().map(|last| (last.user.server.clone(), last.user.role.clone()));
        found.add(page);
        if after.is_none() {
            return Ok(found);
        }
    }
}

impl Overdue {
    fn add(&mut self, page: Rows<Retirement>) {
        for retirement in page.readable.into_iter().filter(may_be_overdue) {
            match self.overdue.len() < MAX_OVERDUE {
                true => self.overdue.push(retirement),
                false => self.more += 1,
            }
        }
        // A page repeats the rows after the last readable one of the page before.
        for row in page.unreadable {
            if self.ids.insert(row.id().to_owned()) {
                self.unreadable.push(row);
            }
        }
    }
}

async fn observe_keys(stores: &OperationContext) -> Result<KeyView, StoreError> {
    let read = async {
        stores.vault.check_keys().await?;
        let in_use = stores.vault.keys_in_use().await?;
        Ok::<_, VaultError>(KeyView::Usable { in_use, primary: stores.vault.primary_key().await? })
    };
    match read.await {
        Ok(keys) => Ok(keys),
        Err(VaultError::Key(KeyError::Unknown(key))) => Ok(KeyView::Missing(key)),
        Err(VaultError::Key(KeyError::WrongBytes(key))) => Ok(KeyView::Wrong(key)),
        Err(VaultError::Store(error)) if error.is_transient() => Err(error),
        Err(error) => Ok(KeyView::Hidden(chain(&error))),
    }
}

/// The application's pool may have any search path, so the statement sets its own.
async fn observe_blockers(landlord: &LandlordPool) -> Seen<Vec<Blocker>> {
    let read = async |session: &mut PgConnection| {
        session.execute(sqlx::raw_sql("SET LOCAL search_path = pg_catalog, pg_temp")).await?;
        Ok::<_, StoreError>(read_landlord_blockers(session).await?)
    };
    match landlord.transaction("BEGIN READ ONLY", read).await {
        Ok(blockers) => Seen::Read(blockers),
        Err(error) => Seen::Hidden(chain(&error)),
    }
}
