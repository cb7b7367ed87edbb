//! A fake registry and vault for resolver tests. A test counts their calls, blocks their answers, or makes them fail.
//!
//! [`active`] gives a resolver over them with one tenant. No tenant leads to a real database unless a test sets its
//! entry.
use async_trait::async_trait;
use secrecy::SecretString;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::directory::{Generation, TenantDatabase};
use tenantry::error::{Rows, StoreError, VaultError};
use tenantry::resolver::{PooledResolver, PooledResolverBuilder};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::{CredentialVault, Tenant, TenantId, TenantRef, TenantRegistry};

/// A handle: clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Fakes(Arc<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    tenants: Mutex<HashMap<TenantId, (Tenant, TenantDatabase)>>,
    secrets: Mutex<HashMap<CredentialId, String>>,
    /// `find` takes it for reading before it answers, so a writer blocks all answers.
    answers_lock: Arc<tokio::sync::RwLock<()>>,
    /// Calls of `TenantRegistry::find` that have read their answer.
    pub(crate) finds: AtomicUsize,
    /// Calls of `CredentialVault::open`.
    pub(crate) opens: AtomicUsize,
    /// Calls of `find` that have begun and neither returned nor been dropped.
    pub(crate) running: AtomicUsize,
    /// `find` fails with `StoreError::Unavailable` while this is set.
    pub(crate) down: AtomicBool,
    /// Replaces the login just before the next call of `open` reads its secret. Cleared by that call.
    pub(crate) rotating: AtomicBool,
}

impl std::ops::Deref for Fakes {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Adds a tenant with a secret and with an entry whose port refuses connections.
pub(crate) fn add_tenant(fakes: &Fakes, tenant: Tenant) -> Tenant {
    let (database, login) = (format!("t_{}", tenant.slug()).parse().unwrap(), "login".parse().unwrap());
    let credential = CredentialId::login(tenant.id(), &database, &login, 1);
    let entry = TenantDatabase::primary(tenant.id(), "127.0.0.1", 1, database, login, credential.clone());
    fakes.secrets.lock().unwrap().insert(credential, "a secret".into());
    fakes.tenants.lock().unwrap().insert(tenant.id(), (tenant.clone(), entry));
    tenant
}

/// A resolver over fakes that contain one active tenant.
pub(crate) fn active(slug: &str) -> (Fakes, PooledResolver) {
    let fakes = Fakes::default();
    add_tenant(&fakes, tenantry::testing::tenant(slug, TenantStatus::Active));
    let resolver = fakes.resolver().build();
    (fakes, resolver)
}

/// Waits until no call of `find` is running.
pub(crate) async fn wait_until_registry_is_idle(fakes: &Fakes) {
    wait_until("no registry call is running", || fakes.running.load(SeqCst) == 0).await;
}

/// Polls the condition; panics after 5 s.
async fn wait_until(what: &str, is_met: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not reached within 5 s: {what}");
}

impl Fakes {
    pub(crate) fn resolver(&self) -> PooledResolverBuilder {
        PooledResolver::builder(self.clone(), self.clone())
    }
    /// Until the guard is dropped, `find` reads its answer and then waits instead of returning it.
    pub(crate) async fn block_answers(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.answers_lock.clone().write_owned().await
    }
    /// Waits until `find` has read at least this many answers.
    pub(crate) async fn wait_for_finds(&self, times: usize) {
        wait_until("the registry has been called often enough", || self.finds.load(SeqCst) >= times).await;
    }
    /// Replaces the stored tenant of the same id.
    pub(crate) fn replace(&self, tenant: Tenant) {
        let id = tenant.id();
        self.tenants.lock().unwrap().get_mut(&id).unwrap().0 = tenant;
    }
    /// Sets the stored status and returns the changed tenant.
    pub(crate) fn set_status(&self, slug: &str, status: TenantStatus) -> Tenant {
        let tenant = self.by_name(&slug.into()).unwrap().0.with_status(status);
        self.replace(tenant.clone());
        tenant
    }
    /// Changes the tenant's primary database entry and returns the closure's result.
    pub(crate) fn entry<R>(&self, slug: &str, change: impl FnOnce(&mut TenantDatabase) -> R) -> R {
        let id = self.by_name(&slug.into()).unwrap().0.id();
        change(&mut self.tenants.lock().unwrap().get_mut(&id).unwrap().1)
    }
    /// Stores a secret.
    pub(crate) fn secret(&self, id: CredentialId, secret: &str) {
        self.secrets.lock().unwrap().insert(id, secret.into());
    }

    /// Gives the login of this secret a new generation and a new secret, and deletes the old secret.
    fn rotate_login(&self, old: &CredentialId) {
        let (mut tenants, mut secrets) = (self.tenants.lock().unwrap(), self.secrets.lock().unwrap());
        for (_, entry) in tenants.values_mut().filter(|(_, entry)| entry.credential == *old) {
            entry.generation = Generation(entry.generation.0 + 1);
            entry.credential = CredentialId::login(entry.tenant, &entry.database, &entry.login, entry.generation.0);
            secrets.remove(old);
            secrets.insert(entry.credential.clone(), "another secret".into());
        }
    }

    fn by_name(&self, name: &TenantRef<'_>) -> Option<(Tenant, TenantDatabase)> {
        let tenants = self.tenants.lock().unwrap();
        let named = |tenant: &Tenant| match name {
            TenantRef::Id(id) => tenant.id() == *id,
            TenantRef::Slug(slug) => tenant.slug().as_str() == slug,
            TenantRef::Domain(_) => false,
        };
        tenants.values().find(|(tenant, _)| named(tenant)).cloned()
    }
}

/// Counts a running call of `find` down when the call returns or is dropped.
struct Running<'a>(&'a AtomicUsize);
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl TenantRegistry for Fakes {
    async fn find(&self, name: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        self.running.fetch_add(1, SeqCst);
        let _running = Running(&self.running);
        let found = self.by_name(&name).map(|(tenant, _)| tenant);
        self.finds.fetch_add(1, SeqCst);
        let _unblocked = self.answers_lock.read().await;
        if self.down.load(SeqCst) { Err(StoreError::unavailable("down")) } else { Ok(found) }
    }
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        Ok(self.by_name(&tenant.into()).map(|(_, entry)| entry).into_iter().collect())
    }
    async fn page(&self, _: Option<TenantId>, _: u32) -> Result<Rows<Tenant>, StoreError> {
        unreachable!("a resolver never calls page()")
    }
}

#[async_trait]
impl CredentialVault for Fakes {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        self.opens.fetch_add(1, SeqCst);
        if self.rotating.swap(false, SeqCst) {
            self.rotate_login(id);
        }
        let secret = self.secrets.lock().unwrap().get(id).cloned();
        secret.map(SecretString::from).ok_or_else(|| VaultError::Missing(id.clone()))
    }
}
