//! [`TenantRegistry`]: finding tenants, their entries, and pages.
use crate::directory::{DatabaseKind, DatabaseStatus};
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use crate::testing::conformance::assertions::{expect_ok, expect_some};
use futures_util::TryStreamExt;

pub(super) async fn check(registry: &impl TenantRegistry, seeded: &[Tenant]) {
    check_unknown_names(registry).await;
    for tenant in seeded {
        check_find(registry, tenant).await;
        check_entries(registry, tenant.id()).await;
    }
    check_pages(registry, seeded).await;
}

async fn check_unknown_names(registry: &impl TenantRegistry) {
    let stranger = TenantId::new();
    let slug = |text: &'static str| TenantRef::Slug(text.into());
    let domain = |text: &'static str| TenantRef::Domain(text.into());
    let unknown = [
        TenantRef::Id(stranger),
        slug("nobody-has-this-slug"),
        slug(""),
        slug("No Slug'; --"),
        slug("nul\0"),
        domain("nobody.has.this.example"),
        domain(""),
        domain("no domain\0"),
    ];
    for name in unknown {
        let answer = expect_ok(registry.find(name.clone()).await, "find() of an unknown name is no error");
        assert!(answer.is_none(), "expected: find() returns None for {name}, which no tenant has; got: {answer:?}");
    }
    let entries = expect_ok(registry.databases(stranger).await, "databases() of an unknown tenant is no error");
    assert!(entries.is_empty(), "expected: an unknown tenant has no entry; got: {entries:?}");
}

async fn check_find(registry: &impl TenantRegistry, tenant: &Tenant) {
    let by_id = expect_ok(registry.find(tenant.into()).await, "find() by id returns a tenant");
    let by_id = expect_some(by_id, "find() by id finds every seeded tenant");
    assert_eq!(by_id, *tenant, "expected: find() by id returns the seeded tenant (left: actual, right: seeded)");
    let by_slug = expect_ok(registry.find(tenant.slug().into()).await, "find() by slug returns a tenant or None");
    if tenant.status() == TenantStatus::Deleted {
        let is_other = by_slug.is_none_or(|found| found.id() != tenant.id());
        let slug = tenant.slug();
        assert!(is_other, "expected: a deleted tenant is found by id only; got: find() by slug {slug} returned it");
    } else {
        let rule = "expected: find() by slug returns the seeded tenant (left: actual, right: seeded)";
        assert_eq!(by_slug.as_ref(), Some(tenant), "{rule}");
    }
}

async fn check_entries(registry: &impl TenantRegistry, tenant: TenantId) {
    let entries = expect_ok(registry.databases(tenant).await, "databases() lists entries");
    let are_in_use = entries.iter().all(|e| e.status != DatabaseStatus::Dropped);
    assert!(are_in_use, "expected: databases() lists no dropped entry; got: {entries:?}");
    let are_own = entries.iter().all(|e| e.tenant == tenant);
    assert!(are_own, "expected: databases() lists entries of this tenant only; got: {entries:?}");
    let primaries = entries.iter().filter(|e| e.kind == DatabaseKind::Primary).count();
    assert!(primaries <= 1, "expected: a tenant has at most one primary entry; got: {entries:?}");
    let position = entries.iter().position(|e| e.kind == DatabaseKind::Primary).unwrap_or(0);
    assert!(position == 0, "expected: databases() lists the primary entry first; got: {entries:?}");
    let primary = expect_ok(registry.primary(tenant).await, "primary() returns an entry or None");
    let first = entries.first().filter(|_| primaries == 1);
    assert_eq!(primary.as_ref(), first, "expected: primary() returns the primary entry of databases()");
}

async fn check_pages(registry: &impl TenantRegistry, seeded: &[Tenant]) {
    // Must come first: all() below never ends if page() repeats the tenant whose id was given.
    if let Some(first) = expect_ok(registry.page(None, 1).await, "page() lists tenants").first() {
        let second = expect_ok(registry.page(Some(first.id()), 1).await, "page() lists tenants");
        let are_above = second.iter().all(|t| t.id() > first.id());
        let id = first.id();
        assert!(are_above, "expected: page() lists tenants with an id above the given one; got: {second:?} after {id}");
    }
    let all: Vec<Tenant> = expect_ok(registry.all().try_collect().await, "all() lists tenants");
    let is_ascending = all.windows(2).all(|two| two[0].id() < two[1].id());
    assert!(is_ascending, "expected: pages list each tenant once, in ascending order of the ids; got: {all:?}");
    let are_alive = all.iter().all(|t| t.status() != TenantStatus::Deleted);
    assert!(are_alive, "expected: page() lists no deleted tenant; got: {all:?}");
    for tenant in seeded.iter().filter(|t| t.status() != TenantStatus::Deleted) {
        assert!(all.contains(tenant), "expected: pages list every tenant that is not deleted; missing: {tenant:?}");
    }
    let none = expect_ok(registry.page(None, 0).await, "page() with limit 0 is no error");
    assert!(none.is_empty(), "expected: page() with limit 0 is empty; got: {none:?}");
    let after = all.last().map(Tenant::id);
    let rest = registry.page(after.or(Some(TenantId::new())), 10).await;
    let rest = expect_ok(rest, "page() after the last tenant is no error");
    assert!(rest.is_empty(), "expected: page() after the last tenant is empty; got: {rest:?}");
    for size in [1, 2, 3] {
        let (mut after, mut listed) = (None, Vec::new());
        while listed.len() < all.len() {
            let page = expect_ok(registry.page(after, size).await, "page() lists tenants");
            let full = usize::try_from(size).unwrap_or(usize::MAX).min(all.len() - listed.len());
            assert_eq!(page.len(), full, "expected: a page has as many tenants as its limit allows");
            after = page.last().map(Tenant::id);
            listed.extend(page);
        }
        let rule = "expected: pages of any size list the same tenants (left: actual, right: expected)";
        assert_eq!(listed, all, "{rule}; page size {size}");
    }
}
