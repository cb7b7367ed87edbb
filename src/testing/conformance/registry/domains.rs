use super::subject::{Subject, fencing_token};
use crate::error::{NameConflict, StoreError};
use crate::store::registry::RegistryWriter;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners, expect_taken};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = fencing_token(registry).await;
    let (one, other) = (Subject::published(registry, by).await, Subject::published(registry, by).await);
    expect_ok(registry.add_domain(one.id(), &one.other_domain(), None).await, "a domain is added by hand");
    expect_ok(registry.add_domain(one.id(), &one.other_domain(), None).await, "adding a domain is idempotent");
    let domains = expect_ok(registry.domains(one.id()).await, "domains are listed");
    assert_eq!(domains, [one.other_domain(), one.domain.clone()], "expected: domains are listed, sorted");
    let found = expect_ok(registry.find((&one.other_domain()).into()).await, "a tenant is found by domain");
    assert_eq!(found.as_ref(), Some(&one.tenant), "expected: a tenant is found by each of its domains");

    let domain = NameConflict::Domain(one.domain.clone());
    expect_taken(registry.add_domain(other.id(), &one.domain, Some(by)).await, &domain, "another tenant's domain");
    let stranger = Subject::new();
    expect_conflict(registry.add_domain(stranger.id(), &stranger.domain, None).await, "adding a domain to nobody");

    expect_ok(registry.remove_domain(other.id(), &one.domain, None).await, "removing another tenant's domain is no error");
    let found = expect_ok(registry.find((&one.domain).into()).await, "a tenant is found by domain");
    assert_eq!(found.as_ref(), Some(&one.tenant), "expected: another tenant's domain is left alone");
    expect_ok(registry.remove_domain(one.id(), &one.domain, None).await, "a domain is removed by hand");
    expect_ok(registry.remove_domain(one.id(), &one.domain, None).await, "removing a domain is idempotent");
    expect_ok(registry.add_domain(other.id(), &one.domain, None).await, "a removed domain is free");

    let wanted = Subject::new().domain;
    let mut rivals = Vec::new();
    for _ in 0..5 {
        rivals.push(Subject::published(registry, by).await);
    }
    let answers = join_all(rivals.iter().map(|r| registry.add_domain(r.id(), &wanted, None))).await;
    let is_domain = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Domain(d)) if *d == wanted);
    expect_winners(answers, 1, is_domain, "of five tenants one gets a domain");
}
