use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::resolver::ConnectionResolver;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use sqlx::PgPool;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tenants that a test names, over pools that a test has: no landlord, no server, no key.
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
    /// An active tenant.
    ///
    /// # Panics
    /// As [`tenant`].
    pub fn tenant(self, slug: &str, pool: PgPool) -> Self {
        self.handle(TenantPool::from_pool(tenant(slug, TenantStatus::Active), pool))
    }
    /// A tenant that the test has made itself, found by id and slug.
    pub fn handle(self, pool: TenantPool) -> Self {
        let tenant = pool.tenant().clone();
        self.answer(&tenant, Ok(pool))
    }
    /// A suspended tenant.
    ///
    /// # Panics
    /// As [`tenant`].
    pub fn suspended(self, slug: &str) -> Self {
        let tenant = tenant(slug, TenantStatus::Suspended);
        self.answer(&tenant, Err(ResolveError::Suspended(tenant.clone())))
    }
    /// A tenant that is found by id and slug, and refused.
    pub fn refused(self, tenant: &Tenant, error: ResolveError) -> Self {
        self.answer(tenant, Err(error))
    }
    /// Another name of a tenant that was given before; of nobody, if it was not.
    pub fn domain(mut self, domain: &str, slug: &str) -> Self {
        let answer = self.names.get(&TenantRef::from(slug).into_owned()).cloned();
        self.names.extend(answer.map(|answer| (TenantRef::Domain(domain.to_owned().into()), answer)));
        self
    }

    fn answer(mut self, tenant: &Tenant, answer: Result<TenantPool, ResolveError>) -> Self {
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
    /// Resolves no more. The pools are the test's own and stay open.
    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// A tenant of a new id.
///
/// # Panics
/// If the text is no slug.
#[expect(clippy::expect_used, reason = "a test names its tenants in its own code")]
pub fn tenant(slug: &str, status: TenantStatus) -> Tenant {
    Tenant::new(TenantId::new(), slug.parse().expect("a slug"), status)
}
