//! The tenants and servers that the checks of registries use, with new names for each.
//!
//! A [`Subject`] is a tenant with its domain and entry; its constructors bring it into the state that a check needs. A
//! [`Snapshot`] is what the registry stores about it, so a check can compare the state before and after a call.
#![expect(clippy::expect_used, reason = "the names that this module creates are valid")]
use crate::directory::{DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::StoreError;
use crate::names::{DatabaseName, Domain, RoleName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::secret::CredentialId;
use crate::server::{DatabaseServer, ServerNames, ServerStatus};
use crate::store::registry::{Placement, RegistryWriter, ServerRegistry};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use crate::testing::conformance::assertions::expect_ok;

/// A tenant, with the domain and the entry that the constructors store for it.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) tenant: Tenant,
    pub(super) domain: Domain,
    /// The primary entry, on the registered server `conformance`, of generation 1.
    pub(super) entry: TenantDatabase,
}

/// Everything that a registry stores about a tenant.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) tenant: Option<Tenant>,
    pub(super) domains: Vec<Domain>,
    pub(super) databases: Vec<TenantDatabase>,
    pub(super) users: Vec<DatabaseUser>,
}

impl Subject {
    /// A subject that is not stored yet.
    pub(super) fn new() -> Self {
        let id = TenantId::new();
        // The second half of the id, which is random. The first half is the time, so ids of one test would share it.
        let name = format!("t{}", &id.as_uuid().simple().to_string()[16..]);
        let database: DatabaseName = name.parse().expect("the name is a valid database name");
        let login: RoleName = format!("{name}_v1").parse().expect("the name is a valid role name");
        let credential = CredentialId::login(id, &database, &login, 1);
        let entry = TenantDatabase::primary(id, "db.example.test", 5432, database, login, credential);
        Self {
            tenant: Tenant::new(id, name.parse().expect("the name is a valid slug"), TenantStatus::Provisioning)
                .with_name("Acme & Söhne")
                .with_metadata(serde_json::json!({ "region": "eu", "seats": [1, 2.5, null] })),
            domain: format!("{name}.example.test").parse().expect("the name is a valid domain"),
            entry: TenantDatabase {
                server: Some("conformance".parse().expect("the name is a valid server name")),
                ..entry
            },
        }
    }

    pub(super) fn id(&self) -> TenantId {
        self.tenant.id()
    }

    /// A second domain, which the constructors do not store.
    pub(super) fn other_domain(&self) -> Domain {
        format!("also-{}", self.domain).parse().expect("the name is a valid domain")
    }

    /// The login of a generation, in status `Pending`.
    pub(super) fn user(&self, generation: i64) -> DatabaseUser {
        let role = format!("{}_v{generation}", self.entry.database).parse().expect("the name is a valid role name");
        let server = self.entry.server.clone().expect("the entry names a registered server");
        DatabaseUser::pending(self.id(), server, self.entry.database.clone(), role, Generation(generation))
    }

    /// The entry as it is after a rotation to this generation.
    pub(super) fn rotated(&self, generation: i64) -> TenantDatabase {
        let login = self.user(generation).role;
        let credential = CredentialId::login(self.id(), &self.entry.database, &login, generation);
        TenantDatabase { login, credential, generation: Generation(generation), ..self.entry.clone() }
    }

    pub(super) fn placement(&self, server: &ServerName) -> Placement {
        Placement::new(self.id(), server.clone(), self.entry.database.clone())
    }

    /// Stores a tenant in provisioning, with a domain and a pending login.
    pub(super) async fn create_provisioning(registry: &impl RegistryWriter, token: FencingToken) -> Self {
        let subject = Self::new();
        let domains = [subject.domain.clone()];
        expect_ok(registry.create(&subject.tenant, &domains, token).await, "create() stores a new tenant");
        expect_ok(registry.put_user(None, &subject.user(1), token).await, "put_user() adds a login");
        subject
    }

    /// Stores an active tenant, with a domain, a primary entry and its login.
    pub(super) async fn create_active(registry: &impl RegistryWriter, token: FencingToken) -> Self {
        let subject = Self::create_provisioning(registry, token).await;
        let published = registry.publish(TenantStatus::Provisioning, &subject.entry, token).await;
        expect_ok(published, "publish() makes a tenant in provisioning active");
        Self { tenant: subject.tenant.clone().with_status(TenantStatus::Active), ..subject }
    }

    /// Stores a tenant in any status, through as few changes as the transition table allows.
    pub(super) async fn create_in_status(
        registry: &impl RegistryWriter, status: TenantStatus, token: FencingToken,
    ) -> Self {
        use TenantStatus::*;
        if status == Provisioning {
            return Self::create_provisioning(registry, token).await;
        }
        let mut subject = Self::create_active(registry, token).await;
        let path: &[_] = match status {
            Active => &[],
            Deleted => &[Purging, Deleted],
            other => &[other],
        };
        for next in path {
            subject.change_status(registry, *next, token).await;
        }
        subject
    }

    /// Changes the stored status, and `self.tenant` with it.
    pub(super) async fn change_status(
        &mut self, registry: &impl RegistryWriter, next: TenantStatus, token: FencingToken,
    ) {
        let changed = self.tenant.clone().with_status(next);
        let answer = registry.update(&self.tenant, &changed, Some(token)).await;
        expect_ok(answer, "update() changes the status as the transition table allows");
        self.tenant = changed;
    }

    /// Reads everything that the registry stores about the tenant.
    pub(super) async fn snapshot(&self, registry: &impl RegistryWriter) -> Snapshot {
        Snapshot {
            tenant: expect_ok(registry.find(self.id().into()).await, "find() by id returns a tenant or None"),
            domains: expect_ok(registry.domains(self.id()).await, "domains() lists domains"),
            databases: expect_ok(registry.databases(self.id()).await, "databases() lists entries"),
            users: expect_ok(registry.users(self.id()).await, "users() lists logins"),
        }
    }
}

impl Snapshot {
    /// Generation and status of each login.
    pub(super) fn logins(&self) -> Vec<(i64, UserStatus)> {
        self.users.iter().map(|u| (u.generation.0, u.status)).collect()
    }
}

/// Fences a new operation at epoch 1, and returns its token.
pub(super) async fn create_token(registry: &impl RegistryWriter) -> FencingToken {
    fence(1, async |operation, epoch| registry.fence(operation, epoch).await).await
}

/// As [`create_token`], in a registry of servers.
pub(super) async fn create_server_token(registry: &impl ServerRegistry) -> FencingToken {
    fence(1, async |operation, epoch| registry.fence(operation, epoch).await).await
}

async fn fence(epoch: i64, raise: impl AsyncFn(OperationId, i64) -> Result<(), StoreError>) -> FencingToken {
    let operation = OperationId::new();
    expect_ok(raise(operation, epoch).await, "fence() stores the epoch of a new operation");
    FencingToken { operation, epoch }
}

/// A ready server with this capacity, which is not stored yet.
pub(super) fn server(capacity: u32) -> DatabaseServer {
    let name = format!("s{}", &TenantId::new().as_uuid().simple().to_string()[16..]);
    let names = ServerNames::with_prefix(&name).expect("the prefix is valid");
    let server =
        DatabaseServer::new(name.parse().expect("the name is a valid server name"), "db.example.test", 5432, names);
    DatabaseServer { status: ServerStatus::Ready, capacity, ..server }
}
