use super::subject::{Subject, fencing_token};
use crate::error::{NameConflict, StoreError};
use crate::store::registry::RegistryWriter;
use crate::testing::conformance::answer::{conflict, done, race, taken};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = fencing_token(registry).await;
    let (one, other) = (Subject::published(registry, by).await, Subject::published(registry, by).await);
    done(registry.add_domain(one.id(), &one.other_domain(), None).await, "a domain is added by hand");
    done(registry.add_domain(one.id(), &one.other_domain(), None).await, "adding a domain is idempotent");
    let domains = done(registry.domains(one.id()).await, "domains are listed");
    assert_eq!(domains, [one.other_domain(), one.domain.clone()], "promised: domains are listed, sorted");
    let found = done(registry.find((&one.other_domain()).into()).await, "a tenant is found by domain");
    assert_eq!(found.as_ref(), Some(&one.tenant), "promised: a tenant is found by each of its domains");

    let domain = NameConflict::Domain(one.domain.clone());
    taken(registry.add_domain(other.id(), &one.domain, Some(by)).await, &domain, "another tenant's domain");
    let stranger = Subject::new();
    conflict(registry.add_domain(stranger.id(), &stranger.domain, None).await, "adding a domain to nobody");

    done(registry.remove_domain(other.id(), &one.domain, None).await, "removing another tenant's domain is no error");
    let found = done(registry.find((&one.domain).into()).await, "a tenant is found by domain");
    assert_eq!(found.as_ref(), Some(&one.tenant), "promised: another tenant's domain is left alone");
    done(registry.remove_domain(one.id(), &one.domain, None).await, "a domain is removed by hand");
    done(registry.remove_domain(one.id(), &one.domain, None).await, "removing a domain is idempotent");
    done(registry.add_domain(other.id(), &one.domain, None).await, "a removed domain is free");

    let wanted = Subject::new().domain;
    let mut rivals = Vec::new();
    for _ in 0..5 {
        rivals.push(Subject::published(registry, by).await);
    }
    let answers = join_all(rivals.iter().map(|r| registry.add_domain(r.id(), &wanted, None))).await;
    let is_domain = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Domain(d)) if *d == wanted);
    race(answers, 1, is_domain, "of five tenants one gets a domain");
}
