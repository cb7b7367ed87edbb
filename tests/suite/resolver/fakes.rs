//! A registry and a vault that count, wait and fail as a test says.
use async_trait::async_trait;
use secrecy::SecretString;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::directory::{Generation, TenantDatabase};
use tenantry::error::{StoreError, VaultError};
use tenantry::resolver::{PooledResolver, PooledResolverBuilder};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::{CredentialVault, Tenant, TenantId, TenantRef, TenantRegistry};

#[derive(Clone, Default)]
pub(crate) struct Fakes(Arc<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    tenants: Mutex<HashMap<TenantId, (Tenant, TenantDatabase)>>,
    secrets: Mutex<HashMap<CredentialId, String>>,
    gate: Arc<tokio::sync::RwLock<()>>,
    pub(crate) finds: AtomicUsize,
    pub(crate) opens: AtomicUsize,
    /// Calls of the registry that have begun and neither ended nor been dropped.
    pub(crate) running: AtomicUsize,
    pub(crate) down: AtomicBool,
    /// A rotation ends just before the next secret is asked for.
    pub(crate) rotating: AtomicBool,
}

impl std::ops::Deref for Fakes {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A tenant in the registry, with an entry that leads nowhere and a secret.
pub(crate) fn known(fakes: &Fakes, tenant: Tenant) -> Tenant {
    let (database, login) = (format!("t_{}", tenant.slug()).parse().unwrap(), "login".parse().unwrap());
    let credential = CredentialId::login(tenant.id(), &database, &login, 1);
    let entry = TenantDatabase::primary(tenant.id(), "127.0.0.1", 1, database, login, credential.clone());
    fakes.secrets.lock().unwrap().insert(credential, "a secret".into());
    fakes.tenants.lock().unwrap().insert(tenant.id(), (tenant.clone(), entry));
    tenant
}

/// A resolver that knows one active tenant.
pub(crate) fn active(slug: &str) -> (Fakes, PooledResolver) {
    let fakes = Fakes::default();
    known(&fakes, tenantry::testing::tenant(slug, TenantStatus::Active));
    let resolver = fakes.resolver().build();
    (fakes, resolver)
}

/// Nothing asks the registry any more.
pub(crate) async fn ended(fakes: &Fakes) {
    within("the registry is left alone", || fakes.running.load(SeqCst) == 0).await;
}

async fn within(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

impl Fakes {
    pub(crate) fn resolver(&self) -> PooledResolverBuilder {
        PooledResolver::builder(self.clone(), self.clone())
    }
    /// Until it is dropped, the registry has read what it answers, and does not answer.
    pub(crate) async fn hold(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }
    pub(crate) async fn asked_at_least(&self, times: usize) {
        within("the registry is asked", || self.finds.load(SeqCst) >= times).await;
    }
    pub(crate) fn replace(&self, tenant: Tenant) {
        let id = tenant.id();
        self.tenants.lock().unwrap().get_mut(&id).unwrap().0 = tenant;
    }
    pub(crate) fn set_status(&self, slug: &str, status: TenantStatus) -> Tenant {
        let tenant = self.by_name(&slug.into()).unwrap().0.with_status(status);
        self.replace(tenant.clone());
        tenant
    }
    pub(crate) fn entry<R>(&self, slug: &str, change: impl FnOnce(&mut TenantDatabase) -> R) -> R {
        let id = self.by_name(&slug.into()).unwrap().0.id();
        change(&mut self.tenants.lock().unwrap().get_mut(&id).unwrap().1)
    }
    pub(crate) fn secret(&self, id: CredentialId, secret: &str) {
        self.secrets.lock().unwrap().insert(id, secret.into());
    }

    /// The login of this secret is replaced, and the secret forgotten.
    fn rotate(&self, old: &CredentialId) {
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
        let _open = self.gate.read().await;
        if self.down.load(SeqCst) { Err(StoreError::unavailable("down")) } else { Ok(found) }
    }
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        Ok(self.by_name(&tenant.into()).map(|(_, entry)| entry).into_iter().collect())
    }
    async fn page(&self, _: Option<TenantId>, _: u32) -> Result<Vec<Tenant>, StoreError> {
        unreachable!("a resolver reads no pages")
    }
}

#[async_trait]
impl CredentialVault for Fakes {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        self.opens.fetch_add(1, SeqCst);
        if self.rotating.swap(false, SeqCst) {
            self.rotate(id);
        }
        let secret = self.secrets.lock().unwrap().get(id).cloned();
        secret.map(SecretString::from).ok_or_else(|| VaultError::Missing(id.clone()))
    }
}
