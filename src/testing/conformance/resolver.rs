//! The conformance suite of [`ConnectionResolver`]: the outcome for each status, dropped callers, unknown names, and
//! closing.
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::resolver::ConnectionResolver;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use futures_util::FutureExt;
use futures_util::future::join_all;

type Outcome = Result<TenantPool, ResolveError>;

/// Checks a [`ConnectionResolver`]. `seeded` are tenants of any status that the resolver finds by id and by slug. The
/// suite opens no connection, and closes the resolver at its end.
///
/// # Panics
/// If the implementation breaks the contract of [`ConnectionResolver`]. The message names the rule.
pub async fn resolver(resolver: impl ConnectionResolver, seeded: &[Tenant]) {
    for tenant in seeded {
        check_status(&resolver, tenant).await;
        check_dropped_callers(&resolver, tenant).await;
    }
    check_unknown_names(&resolver).await;
    check_close(&resolver, seeded).await;
}

async fn check_status(resolver: &impl ConnectionResolver, tenant: &Tenant) {
    for name in [TenantRef::from(tenant), TenantRef::from(tenant.slug())] {
        check_outcome(tenant, resolver.resolve(name.clone()).await, &name);
        if let Some(cached) = resolver.cached(&name) {
            check_outcome(tenant, Ok(cached), &name);
        }
        resolver.invalidate(tenant.id());
        check_outcome(tenant, resolver.resolve(name.clone()).await, &name);
    }
}

fn check_outcome(tenant: &Tenant, outcome: Outcome, name: &TenantRef<'_>) {
    let status = tenant.status();
    let is_right = match (&outcome, status) {
        (Ok(pool), TenantStatus::Active) => pool.tenant() == tenant,
        (Err(ResolveError::Provisioning(found)), TenantStatus::Provisioning)
        | (Err(ResolveError::Suspended(found)), TenantStatus::Suspended)
        | (Err(ResolveError::Archived(found)), TenantStatus::Archived) => found == tenant,
        (Err(ResolveError::Unknown), TenantStatus::Purging | TenantStatus::Deleted) => true,
        _ => false,
    };
    assert!(is_right, "expected: the outcome of {name} follows from its status, {status}; got: {outcome:?}");
}

/// Dropping the future of one caller must not fail the calls of the others.
async fn check_dropped_callers(resolver: &impl ConnectionResolver, tenant: &Tenant) {
    let name = || TenantRef::from(tenant.slug());
    resolver.invalidate(tenant.id());
    let mut first = resolver.resolve(name());
    let outcome = (&mut first).now_or_never();
    let others = join_all((0..20).map(|_| resolver.resolve(name())));
    drop(first);
    for outcome in others.await.into_iter().chain(outcome) {
        check_outcome(tenant, outcome, &name());
    }
}

async fn check_unknown_names(resolver: &impl ConnectionResolver) {
    for name in [TenantId::new().into(), "nobody-has-this".into(), TenantRef::Domain("nobody.example".into())] {
        let outcome = resolver.resolve(name.clone()).await;
        let is_unknown = matches!(outcome, Err(ResolveError::Unknown));
        assert!(is_unknown, "expected: {name}, which no tenant has, is Unknown; got: {outcome:?}");
        assert!(resolver.cached(&name).is_none(), "expected: no handle is cached for {name}, which no tenant has");
    }
    for text in ["", "A", "../acme", "acme\0", "www", "a'; --", &"a".repeat(500)] {
        for name in [TenantRef::from(text), TenantRef::Domain(text.into())] {
            let outcome = resolver.resolve(name.clone()).await;
            let is_refused = matches!(outcome, Err(ResolveError::Unknown | ResolveError::Invalid(_)));
            assert!(is_refused, "expected: {name}, which no tenant can have, is Unknown or Invalid; got: {outcome:?}");
        }
    }
}

async fn check_close(resolver: &impl ConnectionResolver, seeded: &[Tenant]) {
    resolver.close().await;
    resolver.close().await;
    for name in seeded.iter().map(TenantRef::from) {
        let outcome = resolver.resolve(name.clone()).await;
        let is_closed = matches!(outcome, Err(ResolveError::Closed));
        assert!(is_closed, "expected: after close(), resolving {name} fails with Closed; got: {outcome:?}");
        assert!(resolver.cached(&name).is_none(), "expected: after close(), no handle of {name} is cached");
    }
}
