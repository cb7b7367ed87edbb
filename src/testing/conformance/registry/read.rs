use crate::directory::{DatabaseKind, DatabaseStatus};
use crate::store::registry::{TenantRegistry, TenantRegistryExt};
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use crate::testing::conformance::assertions::{expect_ok, expect_some};
use futures_util::TryStreamExt;

pub(super) async fn check(registry: &impl TenantRegistry, seeded: &[Tenant]) {
    nobody(registry).await;
    for tenant in seeded {
        found(registry, tenant).await;
        entries(registry, tenant.id()).await;
    }
    pages(registry, seeded).await;
}

async fn nobody(registry: &impl TenantRegistry) {
    let stranger = TenantId::new();
    let slug = |text: &'static str| TenantRef::Slug(text.into());
    let domain = |text: &'static str| TenantRef::Domain(text.into());
    let nobody = [
        TenantRef::Id(stranger),
        slug("nobody-has-this-slug"),
        slug(""),
        slug("No Slug'; --"),
        slug("nul\0"),
        domain("nobody.has.this.example"),
        domain(""),
        domain("no domain\0"),
    ];
    for name in nobody {
        let answer = expect_ok(registry.find(name.clone()).await, "a name that is nobody's is no error");
        assert!(answer.is_none(), "expected: {name} is nobody; got: {answer:?}");
    }
    let entries = expect_ok(registry.databases(stranger).await, "the entries of nobody are no error");
    assert!(entries.is_empty(), "expected: nobody has no entry; got: {entries:?}");
}

async fn found(registry: &impl TenantRegistry, tenant: &Tenant) {
    let by_id = expect_some(expect_ok(registry.find(tenant.into()).await, "a tenant is found by id"), "a tenant is found by id");
    assert_eq!(by_id, *tenant, "expected: a tenant is found by id as it was seeded (left: actual, right: seeded)");
    let by_slug = expect_ok(registry.find(tenant.slug().into()).await, "a tenant is found by slug");
    if tenant.status() == TenantStatus::Deleted {
        let other = by_slug.is_none_or(|found| found.id() != tenant.id());
        assert!(other, "expected: a deleted tenant is found by id alone; got: {} by slug", tenant.slug());
    } else {
        assert_eq!(by_slug.as_ref(), Some(tenant), "expected: found by slug as by id (left: actual, right: seeded)");
    }
}

async fn entries(registry: &impl TenantRegistry, tenant: TenantId) {
    let entries = expect_ok(registry.databases(tenant).await, "entries are listed");
    let in_use = entries.iter().all(|e| e.status != DatabaseStatus::Dropped);
    assert!(in_use, "expected: dropped entries are not listed; got: {entries:?}");
    let own = entries.iter().all(|e| e.tenant == tenant);
    assert!(own, "expected: entries are the tenant's own; got: {entries:?}");
    let primaries = entries.iter().filter(|e| e.kind == DatabaseKind::Primary).count();
    assert!(primaries <= 1, "expected: at most one primary; got: {entries:?}");
    let first = entries.iter().position(|e| e.kind == DatabaseKind::Primary).unwrap_or(0);
    assert!(first == 0, "expected: the primary comes first; got: {entries:?}");
    let primary = expect_ok(registry.primary(tenant).await, "a primary is found");
    assert_eq!(primary.as_ref(), entries.first().filter(|_| primaries == 1), "expected: primary() is the first entry");
}

async fn pages(registry: &impl TenantRegistry, seeded: &[Tenant]) {
    // First, since whoever repeats the named one is read for ever.
    if let Some(first) = expect_ok(registry.page(None, 1).await, "a page is read").first() {
        let second = expect_ok(registry.page(Some(first.id()), 1).await, "a page is read");
        let behind = second.iter().all(|t| t.id() > first.id());
        assert!(behind, "expected: a page begins behind the id that is named; got: {second:?} after {}", first.id());
    }
    let all: Vec<Tenant> = expect_ok(registry.all().try_collect().await, "every tenant is listed");
    let ascending = all.windows(2).all(|two| two[0].id() < two[1].id());
    assert!(ascending, "expected: pages are ascending by id, each tenant once; got: {all:?}");
    let alive = all.iter().all(|t| t.status() != TenantStatus::Deleted);
    assert!(alive, "expected: no page lists a deleted tenant; got: {all:?}");
    for tenant in seeded.iter().filter(|t| t.status() != TenantStatus::Deleted) {
        assert!(all.contains(tenant), "expected: pages list every tenant; {tenant:?} was missed");
    }
    let none = expect_ok(registry.page(None, 0).await, "a page of none is no error");
    assert!(none.is_empty(), "expected: a page has at most its limit; got: {none:?} for 0");
    let after = all.last().map(Tenant::id);
    let rest =
        expect_ok(registry.page(after.or(Some(TenantId::new())), 10).await, "a page behind the last tenant is no error");
    assert!(rest.is_empty(), "expected: nothing comes after the last tenant; got: {rest:?}");
    for size in [1, 2, 3] {
        let (mut after, mut seen) = (None, Vec::new());
        while seen.len() < all.len() {
            let page = expect_ok(registry.page(after, size).await, "a page is read");
            let asked = usize::try_from(size).unwrap_or(usize::MAX).min(all.len() - seen.len());
            assert_eq!(page.len(), asked, "expected: a page is full while there are more tenants");
            after = page.last().map(Tenant::id);
            seen.extend(page);
        }
        assert_eq!(seen, all, "expected: pages of {size} list what larger ones do (left: actual, right: expected)");
    }
}
