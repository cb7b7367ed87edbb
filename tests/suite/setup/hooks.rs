//! A vault and an admin store that stop or kill a worker at a chosen [`Point`] of a password link's operation.
//!
//! A test builds a node with [`Hooks::on`], arms one point, and posts a password.
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::admin::{AdminError, AdminStore, PgAdminStore};
use tenantry::error::VaultError;
use tenantry::names::{Email, RoleName};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::secret::{CredentialId, KeyId, Purpose};
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, KeyDisposal, PgVault, VaultWriter};
use tenantry::{Builder, TenantId};
use tokio::sync::{Notify, watch};

/// A point in the operation: before or after a worker seals, sets or deletes the new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    BeforeSeal,
    AfterSeal,
    BeforeSet,
    AfterSet,
    BeforeForget,
    AfterForget,
}
pub(crate) const POINTS: [Point; 6] =
    [Point::BeforeSeal, Point::AfterSeal, Point::BeforeSet, Point::AfterSet, Point::BeforeForget, Point::AfterForget];

/// What happens to a worker at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It panics and does nothing more.
    Die,
    /// It waits until the test releases it.
    Stop,
}

/// Armed for the next worker that reaches a point. Clones share their state.
#[derive(Clone)]
pub(crate) struct Hooks(Arc<Inner>);
struct Inner {
    armed: Mutex<Option<(Point, Fault)>>,
    stopped: Notify,
    released: Notify,
    /// How often a sealed new password was read, by a worker or to compare it with a posted one.
    opened: watch::Sender<u32>,
}

impl Hooks {
    pub(crate) fn new() -> Self {
        let (armed, stopped, released) = (Mutex::default(), Notify::new(), Notify::new());
        Self(Arc::new(Inner { armed, stopped, released, opened: watch::channel(0).0 }))
    }
    /// A node whose workers meet these hooks.
    pub(crate) fn on(&self, harness: &Harness, builder: Builder) -> Builder {
        let keys = Arc::new(harness.keys().clone());
        let vault = HookedVault(PgVault::new(harness.landlord().clone(), keys), self.clone());
        builder.vault(vault).admin_store(HookedAdmins(PgAdminStore::default(), self.clone()))
    }
    /// The next worker at this point panics, without a message, and so does nothing more.
    pub(crate) fn die_at(&self, point: Point) {
        *self.0.armed.lock().unwrap() = Some((point, Fault::Die));
    }
    /// The next worker at this point waits until it is released.
    pub(crate) fn stop_at(&self, point: Point) {
        *self.0.armed.lock().unwrap() = Some((point, Fault::Stop));
    }
    /// Waits until a worker has reached the armed point.
    pub(crate) async fn wait_until_reached(&self) {
        let reached = async {
            while self.0.armed.lock().unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("no worker has reached the armed point");
    }
    /// Waits until a worker has stopped at its point.
    pub(crate) async fn wait_until_stopped(&self) {
        self.0.stopped.notified().await;
    }
    /// Lets the stopped worker continue.
    pub(crate) fn release(&self) {
        self.0.released.notify_one();
    }
    /// A receiver that reports further reads of sealed passwords.
    pub(crate) fn subscribe_to_reads(&self) -> watch::Receiver<u32> {
        let mut opened = self.0.opened.subscribe();
        opened.mark_unchanged();
        opened
    }

    /// Applies the armed fault, if it is for this point.
    async fn reach(&self, point: Point) {
        let fault = self.0.armed.lock().unwrap().take_if(|armed| armed.0 == point);
        match fault.map(|(_, fault)| fault) {
            Some(Fault::Die) => std::panic::resume_unwind(Box::new("died")),
            Some(Fault::Stop) => {
                self.0.stopped.notify_one();
                self.0.released.notified().await;
            }
            None => {}
        }
    }
}

struct HookedAdmins(PgAdminStore, Hooks);
#[async_trait]
impl AdminStore for HookedAdmins {
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError> {
        self.0.prepare(db, app).await
    }
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError> {
        self.0.ensure_admin(db, email).await
    }
    async fn find_admin(&self, db: &mut PgConnection, email: &Email) -> Result<Option<Email>, AdminError> {
        self.0.find_admin(db, email).await
    }
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError> {
        self.1.reach(Point::BeforeSet).await;
        self.0.set_password(db, email, password).await?;
        self.1.reach(Point::AfterSet).await;
        Ok(())
    }
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError> {
        self.0.verify(db, email, password).await
    }
}

struct HookedVault(PgVault, Hooks);
#[async_trait]
impl CredentialVault for HookedVault {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        let opened = self.0.open(id).await;
        if id.purpose == Purpose::NewPassword && opened.is_ok() {
            self.1.0.opened.send_modify(|count| *count += 1);
        }
        opened
    }
}
#[async_trait]
impl VaultWriter for HookedVault {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError> {
        self.0.fence(operation, epoch).await
    }
    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError> {
        if id.purpose != Purpose::NewPassword {
            return self.0.put(id, secret, writer).await;
        }
        self.1.reach(Point::BeforeSeal).await;
        let stored = self.0.put(id, secret, writer).await?;
        self.1.reach(Point::AfterSeal).await;
        Ok(stored)
    }
    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError> {
        if id.purpose != Purpose::NewPassword {
            return self.0.forget(id, writer).await;
        }
        self.1.reach(Point::BeforeForget).await;
        self.0.forget(id, writer).await?;
        self.1.reach(Point::AfterForget).await;
        Ok(())
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError> {
        self.0.forget_tenant(tenant, writer).await
    }
    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError> {
        self.0.rewrap(limit).await
    }
    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError> {
        self.0.keys_in_use().await
    }
    async fn check_keys(&self) -> Result<(), VaultError> {
        self.0.check_keys().await
    }
}
