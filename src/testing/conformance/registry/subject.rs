//! A tenant with all that it may have, under names that nobody else has, and how it gets to where a check needs it.
#![expect(clippy::expect_used, reason = "names that are made here are valid")]
use crate::directory::{DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::StoreError;
use crate::names::{DatabaseName, Domain, RoleName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::secret::CredentialId;
use crate::server::{DatabaseServer, ServerNames, ServerStatus};
use crate::store::registry::{Placement, RegistryWriter, ServerRegistry};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use crate::testing::conformance::assertions::expect_ok;

#[derive(Clone)]
pub(super) struct Subject {
    pub(super) tenant: Tenant,
    pub(super) domain: Domain,
    /// Its primary, on a server of ours, of generation 1.
    pub(super) entry: TenantDatabase,
}

/// All that a registry says of a tenant.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) tenant: Option<Tenant>,
    pub(super) domains: Vec<Domain>,
    pub(super) databases: Vec<TenantDatabase>,
    pub(super) users: Vec<DatabaseUser>,
}

impl Subject {
    pub(super) fn new() -> Self {
        let id = TenantId::new();
        // The random end of the id: its beginning is the time.
        let name = format!("t{}", &id.as_uuid().simple().to_string()[16..]);
        let database: DatabaseName = name.parse().expect("a database's name");
        let login: RoleName = format!("{name}_v1").parse().expect("a role's name");
        let credential = CredentialId::login(id, &database, &login, 1);
        let entry = TenantDatabase::primary(id, "db.example.test", 5432, database, login, credential);
        Self {
            tenant: Tenant::new(id, name.parse().expect("a slug"), TenantStatus::Provisioning)
                .with_name("Acme & Söhne")
                .with_metadata(serde_json::json!({ "region": "eu", "seats": [1, 2.5, null] })),
            domain: format!("{name}.example.test").parse().expect("a domain"),
            entry: TenantDatabase { server: Some("conformance".parse().expect("a server's name")), ..entry },
        }
    }

    pub(super) fn id(&self) -> TenantId {
        self.tenant.id()
    }

    pub(super) fn other_domain(&self) -> Domain {
        format!("also-{}", self.domain).parse().expect("a domain")
    }

    /// The login of a generation, about to be made.
    pub(super) fn user(&self, generation: i64) -> DatabaseUser {
        let role = format!("{}_v{generation}", self.entry.database).parse().expect("a role's name");
        let server = self.entry.server.clone().expect("a server of ours");
        DatabaseUser::pending(self.id(), server, self.entry.database.clone(), role, Generation(generation))
    }

    /// The entry after a rotation to a generation.
    pub(super) fn rotated(&self, generation: i64) -> TenantDatabase {
        let login = self.user(generation).role;
        let credential = CredentialId::login(self.id(), &self.entry.database, &login, generation);
        TenantDatabase { login, credential, generation: Generation(generation), ..self.entry.clone() }
    }

    pub(super) fn placement(&self, server: &ServerName) -> Placement {
        Placement::new(self.id(), server.clone(), self.entry.database.clone())
    }

    /// Provisioning, with a domain and a pending login.
    pub(super) async fn created(registry: &impl RegistryWriter, fencing_token: FencingToken) -> Self {
        let subject = Self::new();
        let domains = [subject.domain.clone()];
        expect_ok(registry.create(&subject.tenant, &domains, fencing_token).await, "a new tenant is created");
        expect_ok(registry.put_user(None, &subject.user(1), fencing_token).await, "a login is added");
        subject
    }

    /// Active, with a domain, a primary and its login.
    pub(super) async fn published(registry: &impl RegistryWriter, fencing_token: FencingToken) -> Self {
        let subject = Self::created(registry, fencing_token).await;
        let published = registry.publish(TenantStatus::Provisioning, &subject.entry, fencing_token).await;
        expect_ok(published, "a tenant in provisioning is published");
        Self { tenant: subject.tenant.clone().with_status(TenantStatus::Active), ..subject }
    }

    /// In any status, by the shortest way of the transition table.
    pub(super) async fn in_status(
        registry: &impl RegistryWriter, status: TenantStatus, fencing_token: FencingToken,
    ) -> Self {
        use TenantStatus::*;
        if status == Provisioning {
            return Self::created(registry, fencing_token).await;
        }
        let mut subject = Self::published(registry, fencing_token).await;
        let way: &[_] = match status {
            Active => &[],
            Deleted => &[Purging, Deleted],
            other => &[other],
        };
        for next in way {
            subject.becomes(registry, *next, fencing_token).await;
        }
        subject
    }

    pub(super) async fn becomes(
        &mut self, registry: &impl RegistryWriter, next: TenantStatus, fencing_token: FencingToken,
    ) {
        let changed = self.tenant.clone().with_status(next);
        let answer = registry.update(&self.tenant, &changed, Some(fencing_token)).await;
        expect_ok(answer, "a status changes as the transition table allows");
        self.tenant = changed;
    }

    pub(super) async fn seen(&self, registry: &impl RegistryWriter) -> Seen {
        Seen {
            tenant: expect_ok(registry.find(self.id().into()).await, "a tenant is found by id"),
            domains: expect_ok(registry.domains(self.id()).await, "domains are listed"),
            databases: expect_ok(registry.databases(self.id()).await, "entries are listed"),
            users: expect_ok(registry.users(self.id()).await, "users are listed"),
        }
    }
}

impl Seen {
    pub(super) fn logins(&self) -> Vec<(i64, UserStatus)> {
        self.users.iter().map(|u| (u.generation.0, u.status)).collect()
    }
}

/// A fencing_token that the registry knows.
pub(super) async fn fencing_token(registry: &impl RegistryWriter) -> FencingToken {
    fence(1, async |operation, epoch| registry.fence(operation, epoch).await).await
}

/// The same of a registry of servers.
pub(super) async fn server_writer(registry: &impl ServerRegistry) -> FencingToken {
    fence(1, async |operation, epoch| registry.fence(operation, epoch).await).await
}

async fn fence(epoch: i64, raise: impl AsyncFn(OperationId, i64) -> Result<(), StoreError>) -> FencingToken {
    let operation = OperationId::new();
    expect_ok(raise(operation, epoch).await, "a new operation is fenced");
    FencingToken { operation, epoch }
}

/// A server that takes tenants.
pub(super) fn server(capacity: u32) -> DatabaseServer {
    let name = format!("s{}", &TenantId::new().as_uuid().simple().to_string()[16..]);
    let names = ServerNames::with_prefix(&name).expect("names of roles");
    let server = DatabaseServer::new(name.parse().expect("a server's name"), "db.example.test", 5432, names);
    DatabaseServer { status: ServerStatus::Ready, capacity, ..server }
}
