//! Fencing: every write of [`RegistryWriter`] and [`ServerRegistry`] is refused under any epoch but the fenced one.
//! Under that one it can be repeated.
//!
//! [`Write`] and [`ServerWrite`] list the writes. [`check_write`] makes each of them under several epochs.
use super::subject::{Snapshot, Subject, server};
use crate::directory::{Generation, UserStatus};
use crate::error::StoreError;
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::store::registry::{Placement, RegistryWriter, ServerLoad, ServerRegistry};
use crate::tenant::TenantStatus;
use crate::testing::conformance::assertions::{expect_fenced, expect_ok};
use std::fmt::Debug;

/// A write of [`RegistryWriter`] that takes a fencing token.
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

    /// Stores a tenant in a state in which this write changes something.
    async fn prepare(self, registry: &impl RegistryWriter, fencing_token: FencingToken) -> Subject {
        match self {
            Self::Create => Subject::new(),
            Self::Publish | Self::Discard | Self::AddDatabase => {
                Subject::create_provisioning(registry, fencing_token).await
            }
            Self::Delete => Subject::create_in_status(registry, TenantStatus::Purging, fencing_token).await,
            Self::ReplaceDatabase | Self::ReplaceLogin => {
                let subject = Subject::create_active(registry, fencing_token).await;
                expect_ok(
                    registry.put_user(None, &subject.user(2), fencing_token).await,
                    "put_user() adds a second login",
                );
                subject
            }
            _ => Subject::create_active(registry, fencing_token).await,
        }
    }

    async fn perform(
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

pub(super) async fn check_writes(registry: &impl RegistryWriter) {
    for write in Write::ALL {
        let fencing_token = FencingToken { operation: OperationId::new(), epoch: 2 };
        expect_ok(registry.fence(fencing_token.operation, 2).await, "fence() stores the epoch of a new operation");
        let subject = write.prepare(registry, fencing_token).await;
        check_write(
            write,
            fencing_token,
            async |fencing_token| write.perform(registry, &subject, fencing_token).await,
            async |operation, epoch| registry.fence(operation, epoch).await,
            async || -> Snapshot { subject.snapshot(registry).await },
        )
        .await;
    }
}

/// A write of [`ServerRegistry`] that takes a fencing token.
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
        self, registry: &impl ServerRegistry, s: &DatabaseServer, placement: &Placement, fencing_token: FencingToken,
    ) {
        if !matches!(self, Self::Add) {
            expect_ok(registry.put_server(None, s, Some(fencing_token)).await, "put_server() adds a server");
        }
        if matches!(self, Self::Release) {
            expect_ok(registry.reserve(placement, fencing_token).await, "reserve() places a tenant");
        }
    }

    async fn perform(
        self, registry: &impl ServerRegistry, s: &DatabaseServer, placement: &Placement, fencing_token: FencingToken,
    ) -> Result<(), StoreError> {
        let draining = DatabaseServer { draining: true, ..s.clone() };
        match self {
            Self::Add => registry.put_server(None, s, Some(fencing_token)).await,
            Self::Replace => registry.put_server(Some(s), &draining, Some(fencing_token)).await,
            Self::Remove => registry.remove_server(&s.name, Some(fencing_token)).await,
            Self::Reserve => registry.reserve(placement, fencing_token).await,
            Self::Release => registry.release(placement.tenant, fencing_token).await,
        }
    }
}

pub(super) async fn check_server_writes(registry: &impl ServerRegistry) {
    for write in ServerWrite::ALL {
        let fencing_token = FencingToken { operation: OperationId::new(), epoch: 2 };
        expect_ok(registry.fence(fencing_token.operation, 2).await, "fence() stores the epoch of a new operation");
        let server = server(3);
        let placement = Subject::new().placement(&server.name);
        write.prepare(registry, &server, &placement, fencing_token).await;
        check_write(
            write,
            fencing_token,
            async |fencing_token| write.perform(registry, &server, &placement, fencing_token).await,
            async |operation, epoch| registry.fence(operation, epoch).await,
            async || -> (Option<ServerLoad>, Option<Placement>) {
                let load = expect_ok(registry.server(&server.name).await, "server() returns a server or None");
                (load, expect_ok(registry.placement(placement.tenant).await, "placement() returns a placement or None"))
            },
        )
        .await;
    }
}

/// Makes one write under other epochs, under the fenced one, and after a takeover. `read` returns the stored state.
/// `fencing_token` has epoch 2 and is fenced, and the write must change the state.
async fn check_write<T: Debug + PartialEq>(
    name: impl Debug, fencing_token: FencingToken, write: impl AsyncFn(FencingToken) -> Result<(), StoreError>,
    fence: impl AsyncFn(OperationId, i64) -> Result<(), StoreError>, read: impl AsyncFn() -> T,
) {
    let FencingToken { operation, epoch } = fencing_token;
    let at = |epoch| FencingToken { operation, epoch };
    let before = read().await;
    expect_fenced(
        write(FencingToken { operation: OperationId::new(), epoch }).await,
        &format!("{name:?} by an operation that never called fence()"),
    );
    expect_fenced(write(at(epoch - 1)).await, &format!("{name:?} under a lower epoch"));
    expect_fenced(write(at(epoch + 1)).await, &format!("{name:?} under a higher epoch that was not fenced"));
    expect_fenced(fence(operation, epoch - 1).await, "fence() with a lower epoch");
    assert_eq!(
        read().await,
        before,
        "expected: a {name:?} that fails with Fenced changes nothing (left: actual, right: before)"
    );

    expect_ok(write(fencing_token).await, &format!("{name:?} under the fenced epoch succeeds"));
    let after = read().await;
    assert_ne!(after, before, "expected: {name:?} changes something");
    expect_ok(write(fencing_token).await, &format!("{name:?} can be repeated"));
    expect_ok(fence(operation, epoch).await, "fence() can be repeated");
    expect_ok(write(fencing_token).await, &format!("{name:?} succeeds after fence() was repeated"));

    expect_ok(fence(operation, epoch + 1).await, "fence() raises the epoch");
    expect_fenced(write(fencing_token).await, &format!("{name:?} under the old epoch after a takeover"));
    expect_ok(write(at(epoch + 1)).await, &format!("{name:?} can be repeated under the newest epoch"));
    assert_eq!(read().await, after, "expected: a repeated {name:?} changes nothing (left: actual, right: before)");
}
