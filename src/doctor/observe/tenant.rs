//! Reads one tenant: its rows in the landlord, its password, and its database as the provisioner and as the application.
//!
//! Invariant: the provisioner enters only an open database of the admin role without a login event trigger, and reads only
//! catalogs there. Whatever touches tables uses the application's own login.
use super::login;
use super::server::ObservedServer;
use crate::cluster::OperationContext;
use crate::cluster::pg::observe::{INVALID, ObservedDatabase, ObservedObject, read_objects};
use crate::cluster::pg::session;
use crate::directory::{DatabaseStatus, TenantDatabase};
use crate::doctor::view::{Expected, SecretView, Seen, TenantView};
use crate::error::{KeyError, StoreError, VaultError, chain};
use crate::names::TenantNames;
use crate::operation::Lane;
use crate::store::registry::Placement;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use futures_util::future::try_join3;
use secrecy::SecretString;
use std::time::Duration;
use time::OffsetDateTime;

/// Time limit for the sessions in one tenant's database.
const LIMIT: Duration = Duration::from_secs(20);

/// The rows of a tenant in the landlord.
pub(in crate::doctor) struct TenantRows {
    pub(in crate::doctor) id: TenantId,
    pub(in crate::doctor) tenant: Option<Tenant>,
    pub(in crate::doctor) placement: Option<Placement>,
    pub(in crate::doctor) entries: Vec<TenantDatabase>,
    users: Vec<crate::directory::DatabaseUser>,
}

impl TenantRows {
    pub(in crate::doctor) async fn read(
        stores: &OperationContext, id: TenantId, placement: Option<Placement>,
    ) -> Result<Self, StoreError> {
        let registry = &stores.registry;
        let rows = try_join3(registry.find(id.into()), registry.databases(id), registry.users(id)).await?;
        let (tenant, entries, users) = rows;
        Ok(Self { id, tenant, placement, entries, users })
    }
    /// The entry on a registered server, if the tenant has no placement.
    pub(in crate::doctor) fn unplaced_entry(&self) -> Option<&TenantDatabase> {
        let is_managed = |entry: &&TenantDatabase| entry.status == DatabaseStatus::Active && entry.server.is_some();
        let primary = self.entries.iter().find(|entry| entry.kind == crate::directory::DatabaseKind::Primary);
        primary.filter(|_| self.placement.is_none()).filter(is_managed)
    }
    /// The view of the rows alone.
    fn into_view<'a>(self, now: OffsetDateTime, server: Option<&'a ObservedServer>) -> TenantView<'a> {
        let unplaced = self.unplaced_entry().map(|entry| &entry.database);
        let database = self.placement.as_ref().map(|placement| &placement.database).or(unplaced);
        let names = database.and_then(|database| TenantNames::of(database).ok());
        let Self { id, tenant, placement, entries, users } = self;
        TenantView {
            now,
            id,
            tenant,
            placement,
            names,
            entries,
            users,
            parked: None,
            has_open_operation: false,
            secret: Seen::NotApplicable,
            server: server.map(|server| &server.view),
            objects: Seen::NotApplicable,
            login: Seen::NotApplicable,
            second: Seen::NotApplicable,
        }
    }
}

/// How a tenant is observed.
#[derive(Clone, Copy)]
pub(in crate::doctor) struct Depth<'a> {
    pub(in crate::doctor) expected: &'a Expected,
    /// Whether no session of the application's login is opened.
    pub(in crate::doctor) skips_logins: bool,
    /// Whether the caller has a worker permit for the server already.
    pub(in crate::doctor) has_permit: bool,
}

/// Reads the tenant's password and its database. What could not be read is in the view.
pub(in crate::doctor) async fn observe<'a>(
    stores: &OperationContext, rows: TenantRows, now: OffsetDateTime, server: Option<&'a ObservedServer>,
    depth: Depth<'_>,
) -> TenantView<'a> {
    let mut view = rows.into_view(now, server);
    let entry = view.managed_entry().filter(|_| view.is(TenantStatus::Active)).cloned();
    let password = match &entry {
        Some(entry) => Some(open_secret(stores, entry).await),
        None => None,
    };
    let password = password.and_then(|(secret, password)| {
        view.secret = secret;
        password
    });
    let Some(server) = server.filter(|server| server.view.is_open()) else { return view };
    let _permit = match depth.has_permit {
        true => None,
        false => match stores.take_worker_permit(server.view.server.name.as_str(), Lane::Change).await {
            Ok(permit) => Some(permit),
            Err(error) => {
                view.objects = Seen::Hidden(error.cause_text());
                return view;
            }
        },
    };
    view.objects = within(observe_objects(server, &view)).await;
    if let (Some(entry), Some(password), false) = (entry, password, depth.skips_logins) {
        view.login = match view.database() {
            Some(database) if database.is_open && database.connection_limit != INVALID => {
                within(login::observe(server.view.server.locate(entry), &password, depth.expected)).await
            }
            _ => Seen::NotApplicable,
        };
    }
    view
}

async fn within<T>(read: impl Future<Output = Seen<T>>) -> Seen<T> {
    let late = |_| Seen::Hidden(format!("the database did not answer within {LIMIT:?}"));
    tokio::time::timeout(LIMIT, read).await.unwrap_or_else(late)
}

async fn open_secret(stores: &OperationContext, entry: &TenantDatabase) -> (Seen<SecretView>, Option<SecretString>) {
    let secret = match stores.vault.open(&entry.credential).await {
        Ok(password) => return (Seen::Read(SecretView::Opens), Some(password)),
        Err(VaultError::Missing(_)) => SecretView::Missing,
        Err(VaultError::Key(KeyError::Unknown(key) | KeyError::WrongBytes(key))) => SecretView::NeedsKey(key),
        Err(VaultError::DoesNotOpen(_) | VaultError::Key(KeyError::Refused(_))) => SecretView::DoesNotOpen,
        Err(VaultError::Store(StoreError::Corrupt(_))) => SecretView::DoesNotOpen,
        Err(error) => return (Seen::Hidden(chain(&error)), None),
    };
    (Seen::Read(secret), None)
}

/// Reads the objects in the database of an active or suspended tenant.
async fn observe_objects(server: &ObservedServer, view: &TenantView<'_>) -> Seen<Vec<ObservedObject>> {
    let applies = view.is(TenantStatus::Active) || view.is(TenantStatus::Suspended);
    let (Some(names), Some(database), true) = (&view.names, view.database(), applies) else {
        return Seen::NotApplicable;
    };
    if let Some(reason) = find_obstacle(server, database) {
        return reason.map_or(Seen::NotApplicable, |reason| Seen::Hidden(reason.into()));
    }
    let Some(observer) = &server.observer else { return Seen::NotApplicable };
    let mut opened = match observer.open_tenant(&names.database).await {
        Ok(opened) => opened,
        Err(error) => return Seen::Hidden(chain(&error)),
    };
    let objects = read_objects(&mut opened).await;
    session::close(opened).await;
    match objects {
        Ok(objects) => Seen::Read(objects),
        Err(error) => Seen::Hidden(chain(&error)),
    }
}

/// Why the provisioner does not enter a database. `Some(None)` if a finding of its own says so already.
fn find_obstacle(server: &ObservedServer, database: &ObservedDatabase) -> Option<Option<&'static str>> {
    match database {
        database if !database.is_open || database.connection_limit == INVALID => Some(None),
        database if !server.view.owns(database) => Some(Some("the admin role does not own the database")),
        database if database.has_login_trigger => {
            Some(Some("a login event trigger of the database would run with the provisioner's rights"))
        }
        _ => None,
    }
}
