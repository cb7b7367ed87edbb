//! [`RegistryWriter`]: creating, discarding, changing and deleting tenants.
use super::subject::{Subject, create_token};
use crate::directory::{TenantDatabase, UserStatus};
use crate::error::{NameConflict, StoreError};
use crate::operation::FencingToken;
use crate::store::registry::RegistryWriter;
use crate::tenant::{TenantRef, TenantStatus};
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_taken, expect_winners};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = create_token(registry).await;
    check_create(registry, by).await;
    check_concurrent_create(registry, by).await;
    check_discard(registry, by).await;
    check_update(registry, by).await;
    check_concurrent_updates(registry, by).await;
    check_transitions(registry, by).await;
    check_deadlines(registry, by).await;
    check_deletion(registry, by).await;
    check_deletion_with_concurrent_add_domain(registry, by).await;
}

async fn check_create(registry: &impl RegistryWriter, by: FencingToken) {
    let first = Subject::create_provisioning(registry, by).await;
    let stored = first.snapshot(registry).await;
    assert_eq!(stored.tenant.as_ref(), Some(&first.tenant), "expected: find() returns the tenant as it was created");
    let by_domain = expect_ok(registry.find((&first.domain).into()).await, "find() by domain returns a tenant");
    assert_eq!(by_domain.as_ref(), Some(&first.tenant), "expected: find() finds a tenant by its domain");

    let renamed = first.tenant.clone().with_name("Another");
    let one = [first.domain.clone()];
    expect_conflict(registry.create(&renamed, &one, by).await, "create() of an existing tenant with another name");
    let plain = first.tenant.clone().with_metadata(serde_json::Value::Null);
    expect_conflict(registry.create(&plain, &one, by).await, "create() of an existing tenant with other metadata");
    let published = Subject::create_active(registry, by).await;
    let existing = published.tenant.clone().with_status(TenantStatus::Provisioning);
    expect_conflict(
        registry.create(&existing, &[published.domain], by).await,
        "create() of a tenant that is active already",
    );
    expect_conflict(registry.create(&first.tenant, &[], by).await, "create() of an existing tenant with other domains");
    assert_eq!(first.snapshot(registry).await, stored, "expected: a refused create() changes nothing");

    check_taken_names(registry, &first, by).await;
}
async fn check_taken_names(registry: &impl RegistryWriter, first: &Subject, by: FencingToken) {
    let second = Subject::new();
    let same_slug = second.tenant.clone().with_slug(first.tenant.slug().clone());
    let slug = NameConflict::Slug(first.tenant.slug().clone());
    expect_taken(
        registry.create(&same_slug, std::slice::from_ref(&second.domain), by).await,
        &slug,
        "create() with another tenant's slug",
    );
    let mixed = [second.domain.clone(), first.domain.clone()];
    let domain = NameConflict::Domain(first.domain.clone());
    expect_taken(registry.create(&second.tenant, &mixed, by).await, &domain, "create() with another tenant's domain");
    let active = second.tenant.clone().with_status(TenantStatus::Active);
    expect_conflict(registry.create(&active, &[], by).await, "create() of a tenant that is not in provisioning");
    let stored = second.snapshot(registry).await;
    let is_absent = stored.tenant.is_none() && stored.domains.is_empty();
    assert!(is_absent, "expected: a refused create() stores nothing; got: {stored:?}");
    let owner = expect_ok(registry.find((&second.domain).into()).await, "find() by an unused domain is no error");
    assert!(owner.is_none(), "expected: a refused create() stores no domain; got: {owner:?}");
    expect_ok(
        registry.create(&second.tenant, std::slice::from_ref(&second.domain), by).await,
        "create() succeeds with names that a refused call has used",
    );
}

async fn check_concurrent_create(registry: &impl RegistryWriter, by: FencingToken) {
    let subjects: Vec<_> = (0..10).map(|_| Subject::new()).collect();
    let slug = subjects[0].tenant.slug().clone();
    let tenants: Vec<_> = subjects.iter().map(|s| s.tenant.clone().with_slug(slug.clone())).collect();
    let answers = join_all(tenants.iter().map(|t| registry.create(t, &[], by))).await;
    let is_slug = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Slug(s)) if *s == slug);
    expect_winners(answers, 1, is_slug, "only one of ten concurrent tenants gets a slug");

    let domain = [subjects[1].domain.clone()];
    let others: Vec<_> = (0..10).map(|_| Subject::new().tenant).collect();
    let answers = join_all(others.iter().map(|t| registry.create(t, &domain, by))).await;
    let is_domain = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Domain(d)) if *d == domain[0]);
    expect_winners(answers, 1, is_domain, "only one of ten concurrent tenants gets a domain");

    let one = Subject::new();
    let domains = [one.domain.clone(), one.other_domain()];
    let answers = join_all((0..10).map(|_| registry.create(&one.tenant, &domains, by))).await;
    expect_winners(answers, 10, |_| false, "concurrent calls of create() with one tenant all succeed");
}

async fn check_discard(registry: &impl RegistryWriter, by: FencingToken) {
    let discarded = Subject::create_provisioning(registry, by).await;
    expect_ok(
        registry.put_database(None, &discarded.entry, Some(by)).await,
        "put_database() adds an entry of a tenant in provisioning",
    );
    expect_ok(registry.discard(discarded.id(), by).await, "discard() removes a tenant in provisioning");
    let stored = discarded.snapshot(registry).await;
    let is_absent =
        stored.tenant.is_none() && stored.domains.is_empty() && stored.databases.is_empty() && stored.users.is_empty();
    assert!(is_absent, "expected: discard() leaves nothing of the tenant; got: {stored:?}");
    let again = Subject::new().tenant.with_slug(discarded.tenant.slug().clone());
    expect_ok(
        registry.create(&again, std::slice::from_ref(&discarded.domain), by).await,
        "create() succeeds with the slug and the domain of a discarded tenant",
    );
    expect_ok(registry.discard(Subject::new().id(), by).await, "discard() of an unknown tenant is no error");

    for status in TenantStatus::ALL.into_iter().filter(|s| *s != TenantStatus::Provisioning) {
        let subject = Subject::create_in_status(registry, status, by).await;
        let before = subject.snapshot(registry).await;
        expect_conflict(registry.discard(subject.id(), by).await, &format!("discard() of a tenant that is {status}"));
        assert_eq!(subject.snapshot(registry).await, before, "expected: a refused discard() changes nothing");
    }
}

async fn check_update(registry: &impl RegistryWriter, by: FencingToken) {
    let (one, other) = (Subject::create_active(registry, by).await, Subject::create_active(registry, by).await);
    let renamed = one.tenant.clone().with_slug(Subject::new().tenant.slug().clone());
    expect_ok(registry.update(&one.tenant, &renamed, None).await, "update() changes a slug outside any operation");
    expect_ok(registry.update(&one.tenant, &renamed, None).await, "update() can be repeated");
    let at_new = expect_ok(registry.find(renamed.slug().into()).await, "find() by slug is no error");
    assert_eq!(at_new.as_ref(), Some(&renamed), "expected: find() finds a tenant by its new slug");
    let at_old = expect_ok(registry.find(one.tenant.slug().into()).await, "find() by slug is no error");
    assert!(at_old.is_none(), "expected: find() does not find a tenant by its old slug; got: {at_old:?}");

    let stale = one.tenant.clone().with_name("Stale");
    expect_conflict(registry.update(&one.tenant, &stale, None).await, "update() that expects a former state");
    for old in [renamed.clone().with_status(TenantStatus::Suspended), renamed.clone().with_metadata(1.into())] {
        let answer = registry.update(&old, &old.clone().with_name("Stale"), None).await;
        expect_conflict(answer, "update() that expects another status or other metadata");
    }
    let onto = renamed.clone().with_slug(other.tenant.slug().clone());
    let slug = NameConflict::Slug(other.tenant.slug().clone());
    expect_taken(registry.update(&renamed, &onto, None).await, &slug, "update() to another tenant's slug");
    expect_conflict(registry.update(&renamed, &other.tenant, None).await, "update() that changes the id");
    let stranger = Subject::new().tenant;
    expect_conflict(
        registry.update(&stranger, &stranger.clone().with_name("x"), None).await,
        "update() of an unknown tenant",
    );
    let found = expect_ok(registry.find(one.id().into()).await, "find() by id returns a tenant");
    assert_eq!(found, Some(renamed), "expected: a refused update() changes nothing");
}

async fn check_concurrent_updates(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let changes: Vec<_> = (0..10).map(|n| subject.tenant.clone().with_name(format!("Name {n}"))).collect();
    let answers = join_all(changes.iter().map(|w| registry.update(&subject.tenant, w, None))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(answers, 1, is_conflict, "only one of ten concurrent changes of one state takes effect");
}

async fn check_transitions(registry: &impl RegistryWriter, by: FencingToken) {
    for (from, to) in TenantStatus::ALL.into_iter().flat_map(|a| TenantStatus::ALL.map(|b| (a, b))) {
        let subject = Subject::create_in_status(registry, from, by).await;
        let before = subject.snapshot(registry).await;
        let changed = subject.tenant.clone().with_status(to);
        let answer = registry.update(&subject.tenant, &changed, Some(by)).await;
        let by_publish = (from, to) == (TenantStatus::Provisioning, TenantStatus::Active);
        if from == to || (from.can_become(to) && !by_publish) {
            expect_ok(answer, &format!("update() changes the status from {from} to {to}"));
            let found = expect_ok(registry.find(subject.id().into()).await, "find() by id returns a tenant");
            assert_eq!(found, Some(changed), "expected: find() returns the changed status");
        } else {
            expect_conflict(answer, &format!("update() of the status from {from} to {to}"));
            assert_eq!(subject.snapshot(registry).await, before, "expected: a refused update() changes nothing");
        }
    }
}

async fn check_deadlines(registry: &impl RegistryWriter, by: FencingToken) {
    let deadline = Some(time::macros::datetime!(2031-05-06 07:08:09.123456 UTC));
    let active = Subject::create_active(registry, by).await;
    let refused = registry.update(&active.tenant, &active.tenant.clone().with_kept_until(deadline), None).await;
    expect_conflict(refused, "update() that gives an active tenant a deadline");
    let archived = Subject::create_in_status(registry, TenantStatus::Archived, by).await.tenant;
    let kept = archived.clone().with_kept_until(deadline);
    expect_ok(registry.update(&archived, &kept, Some(by)).await, "update() gives an archived tenant a deadline");
    expect_ok(registry.update(&archived, &kept, Some(by)).await, "update() can be repeated");
    let found = expect_ok(registry.find(archived.id().into()).await, "find() by id returns a tenant");
    assert_eq!(found, Some(kept.clone()), "expected: find() returns the deadline to the microsecond");
    let stale = registry.update(&archived, &archived.clone().with_name("Stale"), None).await;
    expect_conflict(stale, "update() that expects a former deadline");
    let back = kept.clone().with_status(TenantStatus::Active);
    expect_conflict(
        registry.update(&kept, &back, Some(by)).await,
        "update() that makes an archived tenant active and keeps its deadline",
    );
    let back = back.with_kept_until(None);
    expect_ok(
        registry.update(&kept, &back, Some(by)).await,
        "update() makes an archived tenant active without a deadline",
    );
}

async fn check_deletion(registry: &impl RegistryWriter, by: FencingToken) {
    let deleted = Subject::create_in_status(registry, TenantStatus::Deleted, by).await;
    let stored = deleted.snapshot(registry).await;
    assert_eq!(
        stored.tenant.as_ref(),
        Some(&deleted.tenant),
        "expected: find() still finds a deleted tenant by its id"
    );
    assert!(stored.domains.is_empty(), "expected: a deletion removes the tenant's domains; got: {:?}", stored.domains);
    assert!(
        stored.databases.is_empty(),
        "expected: a deletion sets the tenant's entries to Dropped; got: {:?}",
        stored.databases
    );
    let logins = stored.logins();
    let dropped = [(1, UserStatus::Dropped)];
    assert_eq!(logins, dropped, "expected: a deletion sets the tenant's logins to Dropped and keeps their rows");
    for name in [TenantRef::from(deleted.tenant.slug()), TenantRef::from(&deleted.domain)] {
        let found = expect_ok(registry.find(name.clone()).await, "find() by a freed name is no error");
        assert!(found.is_none(), "expected: a deleted tenant is found by id only; got: {found:?} for {name}");
    }
    expect_conflict(registry.add_domain(deleted.id(), &deleted.domain, None).await, "add_domain() to a deleted tenant");
    expect_conflict(
        registry.put_user(None, &deleted.user(2), by).await,
        "put_user() that adds a login to a deleted tenant",
    );
    let back = registry.put_database(Some(deleted.entry.generation), &deleted.entry, None).await;
    expect_conflict(back, "put_database() that brings a deleted tenant's entry back");
    let elsewhere = TenantDatabase { server: None, host: "elsewhere.test".into(), ..deleted.entry.clone() };
    expect_conflict(
        registry.put_database(None, &elsewhere, None).await,
        "put_database() that adds an entry to a deleted tenant",
    );
    let new_owner = Subject::new().tenant.with_slug(deleted.tenant.slug().clone());
    expect_ok(
        registry.create(&new_owner, std::slice::from_ref(&deleted.domain), by).await,
        "create() succeeds with the slug and the domain of a deleted tenant",
    );
}

async fn check_deletion_with_concurrent_add_domain(registry: &impl RegistryWriter, by: FencingToken) {
    for _ in 0..5 {
        let subject = Subject::create_in_status(registry, TenantStatus::Purging, by).await;
        let deleted = subject.tenant.clone().with_status(TenantStatus::Deleted);
        let domain = subject.other_domain();
        let add = registry.add_domain(subject.id(), &domain, None);
        let delete = registry.update(&subject.tenant, &deleted, Some(by));
        let (added, updated) = futures_util::future::join(add, delete).await;
        expect_ok(updated, "update() deletes a tenant while a domain is added");
        if added.is_err() {
            expect_conflict(added, "add_domain() to a deleted tenant");
        }
        let left = subject.snapshot(registry).await.domains;
        assert!(
            left.is_empty(),
            "expected: a deletion removes also a domain that is added at the same moment; got: {left:?}"
        );
    }
}
