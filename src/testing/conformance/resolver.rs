use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::resolver::ConnectionResolver;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use futures_util::FutureExt;
use futures_util::future::join_all;

type Outcome = Result<TenantPool, ResolveError>;

/// What a [`ConnectionResolver`] does. `seeded` are tenants that it knows by id and slug, of any status; no connection
/// is opened. It is closed at the end.
///
/// # Panics
/// With the rule that was broken.
pub async fn resolver(resolver: impl ConnectionResolver, seeded: &[Tenant]) {
    for tenant in seeded {
        answers_by_status(&resolver, tenant).await;
        survives_dropped_waiters(&resolver, tenant).await;
    }
    nobody_is_unknown(&resolver).await;
    closes(&resolver, seeded).await;
}

async fn answers_by_status(resolver: &impl ConnectionResolver, tenant: &Tenant) {
    for name in [TenantRef::from(tenant), TenantRef::from(tenant.slug())] {
        check(tenant, resolver.resolve(name.clone()).await, &name);
        if let Some(cached) = resolver.cached(&name) {
            check(tenant, Ok(cached), &name);
        }
        resolver.invalidate(tenant.id());
        check(tenant, resolver.resolve(name.clone()).await, &name);
    }
}

fn check(tenant: &Tenant, seen: Outcome, name: &TenantRef<'_>) {
    let status = tenant.status();
    let right = match (&seen, status) {
        (Ok(pool), TenantStatus::Active) => pool.tenant() == tenant,
        (Err(ResolveError::Provisioning(seen)), TenantStatus::Provisioning)
        | (Err(ResolveError::Suspended(seen)), TenantStatus::Suspended)
        | (Err(ResolveError::Archived(seen)), TenantStatus::Archived) => seen == tenant,
        (Err(ResolveError::Unknown), TenantStatus::Purging | TenantStatus::Deleted) => true,
        _ => false,
    };
    assert!(right, "expected: {name}, which is {status}, resolves so; got: {seen:?}");
}

/// Some begin and hang up; the others are answered all the same.
async fn survives_dropped_waiters(resolver: &impl ConnectionResolver, tenant: &Tenant) {
    let name = || TenantRef::from(tenant.slug());
    resolver.invalidate(tenant.id());
    let mut first = resolver.resolve(name());
    let begun = (&mut first).now_or_never();
    let others = join_all((0..20).map(|_| resolver.resolve(name())));
    drop(first);
    for seen in others.await.into_iter().chain(begun) {
        check(tenant, seen, &name());
    }
}

async fn nobody_is_unknown(resolver: &impl ConnectionResolver) {
    for name in [TenantId::new().into(), "nobody-has-this".into(), TenantRef::Domain("nobody.example".into())] {
        let seen = resolver.resolve(name.clone()).await;
        assert!(matches!(seen, Err(ResolveError::Unknown)), "{name}, which is nobody's, resolved to {seen:?}");
        assert!(resolver.cached(&name).is_none(), "{name}, which is nobody's, is cached");
    }
    for text in ["", "A", "../acme", "acme\0", "www", "a'; --", &"a".repeat(500)] {
        for name in [TenantRef::from(text), TenantRef::Domain(text.into())] {
            let seen = resolver.resolve(name.clone()).await;
            let refused = matches!(seen, Err(ResolveError::Unknown | ResolveError::Invalid(_)));
            assert!(refused, "{name}, which can be nobody's name, resolved to {seen:?}");
        }
    }
}

async fn closes(resolver: &impl ConnectionResolver, seeded: &[Tenant]) {
    resolver.close().await;
    resolver.close().await;
    for name in seeded.iter().map(TenantRef::from) {
        let seen = resolver.resolve(name.clone()).await;
        assert!(matches!(seen, Err(ResolveError::Closed)), "after close() {name} resolved to {seen:?}");
        assert!(resolver.cached(&name).is_none(), "after close() {name} is cached");
    }
}
