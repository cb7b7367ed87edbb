use super::subject::{Subject, fencing_token};
use crate::directory::{TenantDatabase, UserStatus};
use crate::error::{NameConflict, StoreError};
use crate::operation::FencingToken;
use crate::store::registry::RegistryWriter;
use crate::tenant::{TenantRef, TenantStatus};
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners, expect_taken};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = fencing_token(registry).await;
    creation(registry, by).await;
    racing_creations(registry, by).await;
    discarding(registry, by).await;
    renaming(registry, by).await;
    racing_updates(registry, by).await;
    transitions(registry, by).await;
    deadlines(registry, by).await;
    deletion(registry, by).await;
    deletion_races(registry, by).await;
}

async fn creation(registry: &impl RegistryWriter, by: FencingToken) {
    let first = Subject::created(registry, by).await;
    let seen = first.seen(registry).await;
    assert_eq!(seen.tenant.as_ref(), Some(&first.tenant), "expected: a tenant reads back as it was created");
    let by_domain = expect_ok(registry.find((&first.domain).into()).await, "a tenant is found by domain");
    assert_eq!(by_domain.as_ref(), Some(&first.tenant), "expected: a tenant is found by its domain");

    let renamed = first.tenant.clone().with_name("Another");
    let one = [first.domain.clone()];
    expect_conflict(registry.create(&renamed, &one, by).await, "creating a tenant again with another name");
    let plain = first.tenant.clone().with_metadata(serde_json::Value::Null);
    expect_conflict(registry.create(&plain, &one, by).await, "creating a tenant again with other metadata");
    let published = Subject::published(registry, by).await;
    let late = published.tenant.clone().with_status(TenantStatus::Provisioning);
    expect_conflict(registry.create(&late, &[published.domain], by).await, "creating a tenant again that has been published");
    expect_conflict(registry.create(&first.tenant, &[], by).await, "creating a tenant again with other domains");
    assert_eq!(first.seen(registry).await, seen, "expected: a creation that is refused changes nothing");

    let second = Subject::new();
    let same_slug = second.tenant.clone().with_slug(first.tenant.slug().clone());
    let slug = NameConflict::Slug(first.tenant.slug().clone());
    expect_taken(registry.create(&same_slug, std::slice::from_ref(&second.domain), by).await, &slug, "another tenant's slug");
    let mixed = [second.domain.clone(), first.domain.clone()];
    let domain = NameConflict::Domain(first.domain.clone());
    expect_taken(registry.create(&second.tenant, &mixed, by).await, &domain, "another tenant's domain");
    let active = second.tenant.clone().with_status(TenantStatus::Active);
    expect_conflict(registry.create(&active, &[], by).await, "creating a tenant that is active at once");
    let nothing = second.seen(registry).await;
    let empty = nothing.tenant.is_none() && nothing.domains.is_empty();
    assert!(empty, "expected: a creation that is refused leaves nothing; got: {nothing:?}");
    let owner = expect_ok(registry.find((&second.domain).into()).await, "a free domain is looked up");
    assert!(owner.is_none(), "expected: a creation that is refused leaves no domain; got: {owner:?}");
    expect_ok(registry.create(&second.tenant, std::slice::from_ref(&second.domain), by).await, "what was refused is free");
}

async fn racing_creations(registry: &impl RegistryWriter, by: FencingToken) {
    let subjects: Vec<_> = (0..10).map(|_| Subject::new()).collect();
    let slug = subjects[0].tenant.slug().clone();
    let tenants: Vec<_> = subjects.iter().map(|s| s.tenant.clone().with_slug(slug.clone())).collect();
    let answers = join_all(tenants.iter().map(|t| registry.create(t, &[], by))).await;
    let is_slug = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Slug(s)) if *s == slug);
    expect_winners(answers, 1, is_slug, "of ten tenants with one slug one is created");

    let domain = [subjects[1].domain.clone()];
    let others: Vec<_> = (0..10).map(|_| Subject::new().tenant).collect();
    let answers = join_all(others.iter().map(|t| registry.create(t, &domain, by))).await;
    let is_domain = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Domain(d)) if *d == domain[0]);
    expect_winners(answers, 1, is_domain, "of ten tenants with one domain one is created");

    let one = Subject::new();
    let domains = [one.domain.clone(), one.other_domain()];
    let answers = join_all((0..10).map(|_| registry.create(&one.tenant, &domains, by))).await;
    expect_winners(answers, 10, |_| false, "ten creations of one tenant are one");
}

async fn discarding(registry: &impl RegistryWriter, by: FencingToken) {
    let gone = Subject::created(registry, by).await;
    expect_ok(registry.put_database(None, &gone.entry, Some(by)).await, "an entry is added in provisioning");
    expect_ok(registry.discard(gone.id(), by).await, "a tenant in provisioning is discarded");
    let seen = gone.seen(registry).await;
    let nothing =
        seen.tenant.is_none() && seen.domains.is_empty() && seen.databases.is_empty() && seen.users.is_empty();
    assert!(nothing, "expected: a discarded tenant has never been; got: {seen:?}");
    let again = Subject::new().tenant.with_slug(gone.tenant.slug().clone());
    expect_ok(
        registry.create(&again, std::slice::from_ref(&gone.domain), by).await,
        "slug and domain of a discarded tenant are free",
    );
    expect_ok(registry.discard(Subject::new().id(), by).await, "discarding nobody is no error");

    for status in TenantStatus::ALL.into_iter().filter(|s| *s != TenantStatus::Provisioning) {
        let subject = Subject::in_status(registry, status, by).await;
        let before = subject.seen(registry).await;
        expect_conflict(registry.discard(subject.id(), by).await, &format!("discarding a tenant that is {status}"));
        assert_eq!(subject.seen(registry).await, before, "expected: a discard that is refused changes nothing");
    }
}

async fn renaming(registry: &impl RegistryWriter, by: FencingToken) {
    let (one, other) = (Subject::published(registry, by).await, Subject::published(registry, by).await);
    let renamed = one.tenant.clone().with_slug(Subject::new().tenant.slug().clone());
    expect_ok(registry.update(&one.tenant, &renamed, None).await, "a slug is changed by hand");
    expect_ok(registry.update(&one.tenant, &renamed, None).await, "a change of slug is idempotent");
    let at_new = expect_ok(registry.find(renamed.slug().into()).await, "a new slug is looked up");
    assert_eq!(at_new.as_ref(), Some(&renamed), "expected: a tenant is found under its new slug");
    let at_old = expect_ok(registry.find(one.tenant.slug().into()).await, "an old slug is looked up");
    assert!(at_old.is_none(), "expected: a tenant is not found under its old slug; got: {at_old:?}");

    let stale = one.tenant.clone().with_name("Stale");
    expect_conflict(registry.update(&one.tenant, &stale, None).await, "changing a tenant that has changed meanwhile");
    for old in [renamed.clone().with_status(TenantStatus::Suspended), renamed.clone().with_metadata(1.into())] {
        let answer = registry.update(&old, &old.clone().with_name("Stale"), None).await;
        expect_conflict(answer, "changing a tenant from a status or metadata that it does not have");
    }
    let onto = renamed.clone().with_slug(other.tenant.slug().clone());
    let slug = NameConflict::Slug(other.tenant.slug().clone());
    expect_taken(registry.update(&renamed, &onto, None).await, &slug, "renaming to another tenant's slug");
    expect_conflict(registry.update(&renamed, &other.tenant, None).await, "changing a tenant's id");
    let stranger = Subject::new().tenant;
    expect_conflict(registry.update(&stranger, &stranger.clone().with_name("x"), None).await, "changing nobody");
    let found = expect_ok(registry.find(one.id().into()).await, "a tenant is found by id");
    assert_eq!(found, Some(renamed), "expected: a change that is refused changes nothing");
}

async fn racing_updates(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    let wishes: Vec<_> = (0..10).map(|n| subject.tenant.clone().with_name(format!("Name {n}"))).collect();
    let answers = join_all(wishes.iter().map(|w| registry.update(&subject.tenant, w, None))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(answers, 1, is_conflict, "of ten different changes of one state one takes place");
}

async fn transitions(registry: &impl RegistryWriter, by: FencingToken) {
    for (from, to) in TenantStatus::ALL.into_iter().flat_map(|a| TenantStatus::ALL.map(|b| (a, b))) {
        let subject = Subject::in_status(registry, from, by).await;
        let before = subject.seen(registry).await;
        let changed = subject.tenant.clone().with_status(to);
        let answer = registry.update(&subject.tenant, &changed, Some(by)).await;
        let by_publish = (from, to) == (TenantStatus::Provisioning, TenantStatus::Active);
        if from == to || (from.can_become(to) && !by_publish) {
            expect_ok(answer, &format!("a tenant that is {from} becomes {to}"));
            let found = expect_ok(registry.find(subject.id().into()).await, "a tenant is found by id");
            assert_eq!(found, Some(changed), "expected: a change of status reads back");
        } else {
            expect_conflict(answer, &format!("from {from} to {to} by an update"));
            assert_eq!(subject.seen(registry).await, before, "expected: a change that is refused changes nothing");
        }
    }
}

async fn deadlines(registry: &impl RegistryWriter, by: FencingToken) {
    let deadline = Some(time::macros::datetime!(2031-05-06 07:08:09.123456 UTC));
    let active = Subject::published(registry, by).await;
    let refused = registry.update(&active.tenant, &active.tenant.clone().with_kept_until(deadline), None).await;
    expect_conflict(refused, "giving an active tenant a deadline");
    let archived = Subject::in_status(registry, TenantStatus::Archived, by).await.tenant;
    let kept = archived.clone().with_kept_until(deadline);
    expect_ok(registry.update(&archived, &kept, Some(by)).await, "an archived tenant gets a deadline");
    expect_ok(registry.update(&archived, &kept, Some(by)).await, "giving a deadline is idempotent");
    let found = expect_ok(registry.find(archived.id().into()).await, "a tenant is found by id");
    assert_eq!(found, Some(kept.clone()), "expected: a deadline reads back to the microsecond");
    let stale = registry.update(&archived, &archived.clone().with_name("Stale"), None).await;
    expect_conflict(stale, "changing a tenant whose deadline has changed meanwhile");
    let back = kept.clone().with_status(TenantStatus::Active);
    expect_conflict(registry.update(&kept, &back, Some(by)).await, "letting a tenant in again with its deadline");
    let back = back.with_kept_until(None);
    expect_ok(registry.update(&kept, &back, Some(by)).await, "an archived tenant is let in again without its deadline");
}

async fn deletion(registry: &impl RegistryWriter, by: FencingToken) {
    let gone = Subject::in_status(registry, TenantStatus::Deleted, by).await;
    let seen = gone.seen(registry).await;
    assert_eq!(seen.tenant.as_ref(), Some(&gone.tenant), "expected: a deleted tenant is found by id: history");
    assert!(seen.domains.is_empty(), "expected: a deleted tenant's domains are free; got: {:?}", seen.domains);
    assert!(seen.databases.is_empty(), "expected: a deleted tenant's entries are dropped; got: {:?}", seen.databases);
    let logins = seen.logins();
    let dropped = [(1, UserStatus::Dropped)];
    assert_eq!(logins, dropped, "expected: a deleted tenant's users are dropped, and stay as history");
    for name in [TenantRef::from(gone.tenant.slug()), TenantRef::from(&gone.domain)] {
        let found = expect_ok(registry.find(name.clone()).await, "a freed name is looked up");
        assert!(found.is_none(), "expected: a deleted tenant is found by id alone; got: {found:?} at {name}");
    }
    expect_conflict(registry.add_domain(gone.id(), &gone.domain, None).await, "adding a domain to a deleted tenant");
    expect_conflict(registry.put_user(None, &gone.user(2), by).await, "adding a login to a deleted tenant");
    let back = registry.put_database(Some(gone.entry.generation), &gone.entry, None).await;
    expect_conflict(back, "bringing back a deleted tenant's entry");
    let elsewhere = TenantDatabase { server: None, host: "elsewhere.test".into(), ..gone.entry.clone() };
    expect_conflict(registry.put_database(None, &elsewhere, None).await, "adding an entry to a deleted tenant");
    let heir = Subject::new().tenant.with_slug(gone.tenant.slug().clone());
    expect_ok(
        registry.create(&heir, std::slice::from_ref(&gone.domain), by).await,
        "slug and domain of a deleted tenant are free",
    );
}

async fn deletion_races(registry: &impl RegistryWriter, by: FencingToken) {
    for _ in 0..5 {
        let subject = Subject::in_status(registry, TenantStatus::Purging, by).await;
        let deleted = subject.tenant.clone().with_status(TenantStatus::Deleted);
        let domain = subject.other_domain();
        let add = registry.add_domain(subject.id(), &domain, None);
        let delete = registry.update(&subject.tenant, &deleted, Some(by));
        let (added, gone) = futures_util::future::join(add, delete).await;
        expect_ok(gone, "a deletion and a new domain race");
        if added.is_err() {
            expect_conflict(added, "adding a domain to a deleted tenant");
        }
        let left = subject.seen(registry).await.domains;
        assert!(left.is_empty(), "expected: a deleted tenant keeps no domain, not one of this moment; got: {left:?}");
    }
}
