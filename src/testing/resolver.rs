//! A [`ConnectionResolver`] over a fixed map, for tests of handlers and jobs.
//!
//! A test adds tenants and their pools, and passes the resolver to the code under test. It needs no landlord, no server
//! and no key.
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::resolver::ConnectionResolver;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use sqlx::PgPool;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Resolves the tenants that the test has added, to the pools that the test supplies. Any other name is
/// [`ResolveError::Unknown`]. It has no cache, so `invalidate` has no effect.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use sqlx::PgPool;
/// use tenantry::ConnectionResolver;
/// use tenantry::error::ResolveError;
/// use tenantry::testing::FixedResolver;
///
/// let pool = PgPool::connect_lazy("postgres://localhost/test").unwrap(); // or the one of #[sqlx::test]
/// let resolver = FixedResolver::default().tenant("acme", pool).suspended("late");
/// assert_eq!(resolver.resolve("acme".into()).await.unwrap().tenant().slug().as_str(), "acme");
/// assert!(matches!(resolver.resolve("late".into()).await, Err(ResolveError::Suspended(_))));
/// assert!(matches!(resolver.resolve("nobody".into()).await, Err(ResolveError::Unknown)));
/// # }
/// ```
#[derive(Debug, Default)]
pub struct FixedResolver {
    names: HashMap<TenantRef<'static>, Result<TenantPool, ResolveError>>,
    closed: AtomicBool,
}

impl FixedResolver {
    /// Adds an active tenant with a new id, found by id and slug. Its handle uses `pool`.
    ///
    /// # Panics
    /// If `slug` is not a valid slug.
    pub fn tenant(self, slug: &str, pool: PgPool) -> Self {
        self.handle(TenantPool::from_pool(tenant(slug, TenantStatus::Active), pool))
    }
    /// Adds a handle that the test has created, found by the id and the slug of its tenant.
    pub fn handle(self, pool: TenantPool) -> Self {
        let tenant = pool.tenant().clone();
        self.insert(&tenant, Ok(pool))
    }
    /// Adds a suspended tenant with a new id: resolving its id or slug fails with [`ResolveError::Suspended`].
    ///
    /// # Panics
    /// If `slug` is not a valid slug.
    pub fn suspended(self, slug: &str) -> Self {
        let tenant = tenant(slug, TenantStatus::Suspended);
        self.insert(&tenant, Err(ResolveError::Suspended(tenant.clone())))
    }
    /// Adds a tenant whose id and slug resolve to this error.
    pub fn refused(self, tenant: &Tenant, error: ResolveError) -> Self {
        self.insert(tenant, Err(error))
    }
    /// Adds a domain of the tenant with this slug. Add the tenant first: without it, this call has no effect.
    pub fn domain(mut self, domain: &str, slug: &str) -> Self {
        let answer = self.names.get(&TenantRef::from(slug).into_owned()).cloned();
        self.names.extend(answer.map(|answer| (TenantRef::Domain(domain.to_owned().into()), answer)));
        self
    }

    fn insert(mut self, tenant: &Tenant, answer: Result<TenantPool, ResolveError>) -> Self {
        self.names.insert(TenantRef::Id(tenant.id()), answer.clone());
        self.names.insert(TenantRef::from(tenant.slug()).into_owned(), answer);
        self
    }
}

#[async_trait]
impl ConnectionResolver for FixedResolver {
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        let names: &HashMap<TenantRef<'_>, _> = &self.names;
        let open = !self.closed.load(Ordering::Acquire);
        names.get(tenant).filter(|_| open).and_then(|answer| answer.clone().ok())
    }
    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ResolveError::Closed);
        }
        self.names.get(&tenant.into_owned()).cloned().unwrap_or(Err(ResolveError::Unknown))
    }
    fn invalidate(&self, _: TenantId) {}
    fn invalidate_all(&self) {}
    /// From now on, `resolve` fails with [`ResolveError::Closed`]. The pools belong to the test and stay open.
    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// Creates a tenant with a new id, without storing it.
///
/// # Panics
/// If `slug` is not a valid slug.
#[expect(clippy::expect_used, reason = "the slug is a literal in the test's code")]
pub fn tenant(slug: &str, status: TenantStatus) -> Tenant {
    Tenant::new(TenantId::new(), slug.parse().expect("the text is a valid slug"), status)
}
