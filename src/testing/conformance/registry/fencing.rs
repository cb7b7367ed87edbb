//! Every write, by a list: refused under any epoch but the fenced one, and the same when it is repeated.
use super::subject::{Seen, Subject, server};
use crate::directory::{Generation, UserStatus};
use crate::error::StoreError;
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::store::registry::{Placement, RegistryWriter, ServerLoad, ServerRegistry};
use crate::tenant::TenantStatus;
use crate::testing::conformance::assertions::{expect_ok, expect_fenced};
use std::fmt::Debug;

#[derive(Clone, Copy, Debug)]
enum Write {
    Create,
    Publish,
    Discard,
    Update,
    Delete,
    AddDomain,
    RemoveDomain,
    AddDatabase,
    ReplaceDatabase,
    ReplaceLogin,
    AddUser,
    ReplaceUser,
}

impl Write {
    const ALL: [Self; 12] = [
        Self::Create,
        Self::Publish,
        Self::Discard,
        Self::Update,
        Self::Delete,
        Self::AddDomain,
        Self::RemoveDomain,
        Self::AddDatabase,
        Self::ReplaceDatabase,
        Self::ReplaceLogin,
        Self::AddUser,
        Self::ReplaceUser,
    ];

    /// A tenant on which this write changes something.
    async fn prepare(self, registry: &impl RegistryWriter, fencing_token: FencingToken) -> Subject {
        match self {
            Self::Create => Subject::new(),
            Self::Publish | Self::Discard | Self::AddDatabase => Subject::created(registry, fencing_token).await,
            Self::Delete => Subject::in_status(registry, TenantStatus::Purging, fencing_token).await,
            Self::ReplaceDatabase | Self::ReplaceLogin => {
                let subject = Subject::published(registry, fencing_token).await;
                expect_ok(registry.put_user(None, &subject.user(2), fencing_token).await, "a second login is added");
                subject
            }
            _ => Subject::published(registry, fencing_token).await,
        }
    }

    async fn make(
        self, registry: &impl RegistryWriter, s: &Subject, fencing_token: FencingToken,
    ) -> Result<(), StoreError> {
        let (by, changed) = (Some(fencing_token), |status| s.tenant.clone().with_name("Changed").with_status(status));
        match self {
            Self::Create => registry.create(&s.tenant, &[s.other_domain(), s.domain.clone()], fencing_token).await,
            Self::Publish => registry.publish(TenantStatus::Provisioning, &s.entry, fencing_token).await,
            Self::Discard => registry.discard(s.id(), fencing_token).await,
            Self::Update => registry.update(&s.tenant, &changed(TenantStatus::Suspended), by).await,
            Self::Delete => registry.update(&s.tenant, &changed(TenantStatus::Deleted), by).await,
            Self::AddDomain => registry.add_domain(s.id(), &s.other_domain(), by).await,
            Self::RemoveDomain => registry.remove_domain(s.id(), &s.domain, by).await,
            Self::AddDatabase => registry.put_database(None, &s.entry, by).await,
            Self::ReplaceDatabase => registry.put_database(Some(Generation(1)), &s.rotated(2), by).await,
            Self::ReplaceLogin => registry.replace_login(Generation(1), &s.rotated(2), fencing_token).await,
            Self::AddUser => registry.put_user(None, &s.user(2), fencing_token).await,
            Self::ReplaceUser => {
                let retiring = s.user(1).with_status(UserStatus::Retiring);
                registry.put_user(Some(UserStatus::Active), &retiring, fencing_token).await
            }
        }
    }
}

pub(super) async fn writes(registry: &impl RegistryWriter) {
    for write in Write::ALL {
        let fencing_token = FencingToken { operation: OperationId::new(), epoch: 2 };
        expect_ok(registry.fence(fencing_token.operation, 2).await, "a new operation is fenced");
        let subject = write.prepare(registry, fencing_token).await;
        sweep(
            write,
            fencing_token,
            async |fencing_token| write.make(registry, &subject, fencing_token).await,
            async |operation, epoch| registry.fence(operation, epoch).await,
            async || -> Seen { subject.seen(registry).await },
        )
        .await;
    }
}

#[derive(Clone, Copy, Debug)]
enum ServerWrite {
    Add,
    Replace,
    Remove,
    Reserve,
    Release,
}

impl ServerWrite {
    const ALL: [Self; 5] = [Self::Add, Self::Replace, Self::Remove, Self::Reserve, Self::Release];

    async fn prepare(
        self, registry: &impl ServerRegistry, s: &DatabaseServer, place: &Placement, fencing_token: FencingToken,
    ) {
        if !matches!(self, Self::Add) {
            expect_ok(registry.put_server(None, s, Some(fencing_token)).await, "a server is added");
        }
        if matches!(self, Self::Release) {
            expect_ok(registry.reserve(place, fencing_token).await, "a place is reserved");
        }
    }

    async fn make(
        self, registry: &impl ServerRegistry, s: &DatabaseServer, place: &Placement, fencing_token: FencingToken,
    ) -> Result<(), StoreError> {
        let draining = DatabaseServer { draining: true, ..s.clone() };
        match self {
            Self::Add => registry.put_server(None, s, Some(fencing_token)).await,
            Self::Replace => registry.put_server(Some(s), &draining, Some(fencing_token)).await,
            Self::Remove => registry.remove_server(&s.name, Some(fencing_token)).await,
            Self::Reserve => registry.reserve(place, fencing_token).await,
            Self::Release => registry.release(place.tenant, fencing_token).await,
        }
    }
}

pub(super) async fn server_writes(registry: &impl ServerRegistry) {
    for write in ServerWrite::ALL {
        let fencing_token = FencingToken { operation: OperationId::new(), epoch: 2 };
        expect_ok(registry.fence(fencing_token.operation, 2).await, "a new operation is fenced");
        let server = server(3);
        let place = Subject::new().placement(&server.name);
        write.prepare(registry, &server, &place, fencing_token).await;
        sweep(
            write,
            fencing_token,
            async |fencing_token| write.make(registry, &server, &place, fencing_token).await,
            async |operation, epoch| registry.fence(operation, epoch).await,
            async || -> (Option<ServerLoad>, Option<Placement>) {
                let load = expect_ok(registry.server(&server.name).await, "a server is found");
                (load, expect_ok(registry.placement(place.tenant).await, "a place is found"))
            },
        )
        .await;
    }
}

/// The fencing_token has epoch 2, and the write changes something.
async fn sweep<T: Debug + PartialEq>(
    name: impl Debug, fencing_token: FencingToken, make: impl AsyncFn(FencingToken) -> Result<(), StoreError>,
    fence: impl AsyncFn(OperationId, i64) -> Result<(), StoreError>, seen: impl AsyncFn() -> T,
) {
    let FencingToken { operation, epoch } = fencing_token;
    let at = |epoch| FencingToken { operation, epoch };
    let before = seen().await;
    expect_fenced(make(FencingToken { operation: OperationId::new(), epoch }).await, &format!("{name:?} without a fence"));
    expect_fenced(make(at(epoch - 1)).await, &format!("{name:?} below the epoch"));
    expect_fenced(make(at(epoch + 1)).await, &format!("{name:?} above the epoch, which it did not fence"));
    expect_fenced(fence(operation, epoch - 1).await, "a fence below the epoch");
    assert_eq!(seen().await, before, "expected: a {name:?} that is Fenced changes nothing (left: actual, right: before)");

    expect_ok(make(fencing_token).await, &format!("{name:?} under the epoch succeeds"));
    let after = seen().await;
    assert_ne!(after, before, "expected: {name:?} changes something");
    expect_ok(make(fencing_token).await, &format!("{name:?} is idempotent"));
    expect_ok(fence(operation, epoch).await, "a fence is idempotent");
    expect_ok(make(fencing_token).await, &format!("{name:?} goes on under the same epoch"));

    expect_ok(fence(operation, epoch + 1).await, "a fence rises");
    expect_fenced(make(fencing_token).await, &format!("{name:?} after a takeover"));
    expect_ok(make(at(epoch + 1)).await, &format!("{name:?} is repeated by the next worker"));
    assert_eq!(seen().await, after, "expected: a repeated {name:?} changes nothing (left: actual, right: before)");
}
