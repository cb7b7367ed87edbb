//! [`RegistryWriter`]: adding and removing domains.
use super::subject::{Subject, create_token};
use crate::error::{NameConflict, StoreError};
use crate::store::registry::RegistryWriter;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_taken, expect_winners};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = create_token(registry).await;
    let (one, other) = (Subject::create_active(registry, by).await, Subject::create_active(registry, by).await);
    for _ in 0..2 {
        let added = registry.add_domain(one.id(), &one.other_domain(), None).await;
        expect_ok(added, "add_domain() succeeds outside any operation and can be repeated");
    }
    let domains = expect_ok(registry.domains(one.id()).await, "domains() lists domains");
    let expected = [one.other_domain(), one.domain.clone()];
    assert_eq!(domains, expected, "expected: domains() lists all domains in ascending order");
    let found = expect_ok(registry.find((&one.other_domain()).into()).await, "find() by domain returns a tenant");
    assert_eq!(found.as_ref(), Some(&one.tenant), "expected: find() finds a tenant by each of its domains");

    let domain = NameConflict::Domain(one.domain.clone());
    let taken = registry.add_domain(other.id(), &one.domain, Some(by)).await;
    expect_taken(taken, &domain, "add_domain() of another tenant's domain");
    let stranger = Subject::new();
    let unknown = registry.add_domain(stranger.id(), &stranger.domain, None).await;
    expect_conflict(unknown, "add_domain() to an unknown tenant");

    let foreign = registry.remove_domain(other.id(), &one.domain, None).await;
    expect_ok(foreign, "remove_domain() of another tenant's domain is no error");
    let found = expect_ok(registry.find((&one.domain).into()).await, "find() by domain returns a tenant");
    assert_eq!(found.as_ref(), Some(&one.tenant), "expected: remove_domain() does not touch another tenant's domain");
    for _ in 0..2 {
        let removed = registry.remove_domain(one.id(), &one.domain, None).await;
        expect_ok(removed, "remove_domain() succeeds outside any operation and can be repeated");
    }
    expect_ok(registry.add_domain(other.id(), &one.domain, None).await, "another tenant can get a removed domain");

    let wanted = Subject::new().domain;
    let mut rivals = Vec::new();
    for _ in 0..5 {
        rivals.push(Subject::create_active(registry, by).await);
    }
    let answers = join_all(rivals.iter().map(|r| registry.add_domain(r.id(), &wanted, None))).await;
    let is_domain = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Domain(d)) if *d == wanted);
    expect_winners(answers, 1, is_domain, "only one of five tenants gets a domain");
}
