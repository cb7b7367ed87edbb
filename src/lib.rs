//! Multi-tenancy for applications that give every tenant a PostgreSQL database of its own.
//!
//! One *landlord* database holds the list of tenants, the server and name of each tenant's database, and the sealed
//! credentials for it. [`Tenantry`] is the facade over the landlord: it resolves tenants to connections and runs
//! operations on them. Each part of it can also be used alone.
//!
//! ```no_run
//! # async fn example(landlord: sqlx::PgPool, admin: sqlx::postgres::PgConnectOptions) -> Result<(), Box<dyn std::error::Error>> {
//! use tenantry::{Tenantry, vault::LocalKeyring};
//!
//! tenantry::schema::install(&landlord).await?;
//! let tenantry = Tenantry::builder(landlord)
//!     .keys(LocalKeyring::from_env("TENANTRY_KEYS")?)
//!     .tenant_migrations(&sqlx::migrate!("examples/tenant_migrations"))
//!     .build()
//!     .await?;
//! let background = tokio::spawn(tenantry.run(std::future::pending::<()>()));
//! tenantry.servers().set_up("main", admin).capacity(500).await?;
//!
//! let acme = tenantry.provision("acme").admin("ada@acme.example").await?;
//! let db = tenantry.resolve("acme").await?;
//! sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind("hello").execute(&db).await?;
//! tenantry.suspend("acme").reason("unpaid").await?;
//! tenantry.activate(&acme.tenant).await?;
//! tenantry.purge(acme.tenant.id()).force().await?;
//! tenantry.close().await;
//! # background.abort();
//! # Ok(()) }
//! ```
//!
//! # What an application writes
//!
//! 1. At the start: [`schema::install`] the landlord's schema, build a [`Tenantry`] with a key ring and the tenants'
//!    migrations, spawn [`Tenantry::run`], and set up each database server once with
//!    [`servers().set_up`](servers::Servers::set_up).
//! 2. Migrations of the tenants' databases, as for any sqlx application ([`Builder::tenant_migrations`]).
//! 3. Requests: [`web::TenantLayer`] or [`Tenantry::resolve`] gives the tenant's [`TenantPool`], which goes where sqlx
//!    takes `&PgPool`.
//! 4. Calls on tenants: [`provision`](Tenantry::provision), [`suspend`](Tenantry::suspend),
//!    [`rotate`](Tenantry::rotate), [`purge`](Tenantry::purge), … Each can have an idempotency key, a reason and an
//!    observer of its events.
//! 5. What differs from the defaults, behind a trait: the delivery of setup links ([`tokens::LinkDelivery`]), steps of
//!    its own in a provisioning ([`step::Step`]), keys in a key management service ([`vault::KeyProvider`]), the
//!    tenants' table of admins ([`admin::AdminStore`]), or a registry over its own tables
//!    ([`registry::TenantRegistry`]).
//!
//! # Modules
//!
//! | module | what is there |
//! |---|---|
//! | [`manual`] | how the crate works: architecture, roles, operations, connections, threat model, promises |
//! | [`calls`] | what the methods of [`Tenantry`] return: calls, batches, reports |
//! | [`provision`], [`lifecycle`], [`migrate`], [`rotate`], [`temporary_login`], [`rekey`], [`servers`] | the operations: requests and results |
//! | [`setup_link`], [`tokens`], [`admin`] | one-time links, and the tenants' admins who follow them |
//! | [`doctor`] | compares the landlord with the servers and the tenants, and repairs what a reviewed plan selects |
//! | [`resolver`], [`pool`] | from a tenant to its connections |
//! | [`cli`] | the command line |
//! | [`web`], [`job`] | layers for axum, actix-web and background jobs |
//! | [`registry`], [`vault`], [`journal`], [`nodes`], [`schema`] | the stores in the landlord, each behind a trait |
//! | [`tenant`], [`names`], [`directory`], [`server`], [`operation`], [`secret`], [`placement`] | the data |
//! | [`error`] | one error for each group of calls |
//! | [`step`] | steps that the application adds to a provisioning |
//!
//! # How it is built
//!
//! - An operation (provision, suspend, rotate, …) is a saga: a list of steps, a journal in the landlord, and a lease
//!   with an epoch. The intent of a step is committed before the step acts. Every step can be repeated, and to undo a
//!   step is to ensure that its effect is absent. So any node can continue an operation whose process died. See
//!   [`manual::operations`].
//! - On a database server each tenant has a database and a few roles. PUBLIC may not connect to that database. See
//!   [`manual::roles`].
//! - All tenants of a process share one limit of connections per server. See [`manual::connections`].
//! - [`manual::architecture`] shows the layers of the source code and what a call does in each of them.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `axum` | [`web`]: a layer, extractors and the routes of the setup links for axum |
//! | `actix` | [`web`]: the same for actix-web |
//! | `job` | [`job`]: a tower layer that gives each background job its tenant |
//! | `metrics` | [`pool::metrics`]: the state of the connection pools through the `metrics` facade |
//! | `cli` | [`cli`]: the program `tenantry`, and its commands for an application's own program |
//! | `testing` | stores in memory, a conformance suite for each trait, and a harness that finds or starts a PostgreSQL |
//!
//! No feature is on by default, and no feature changes the behaviour of another. sqlx's `macros` feature is always on,
//! because `sqlx::Executor` has the same methods for every combination of drivers only with that feature.

// Tests and benchmarks use parts that applications cannot reach; without the feature these look unused.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub, dead_code, unused_imports))]

#[cfg(feature = "cli")]
pub mod cli;
pub(crate) mod cluster;
pub(crate) mod connect;
pub mod directory;
pub mod doctor;
pub mod error;
mod facade;
#[cfg(feature = "job")]
pub mod job;
pub(crate) mod json;
pub mod manual;
pub mod names;
pub mod operation;
mod operations;
pub mod placement;
pub mod pool;
mod query;
pub mod resolver;
pub(crate) mod rt;
#[cfg(not(feature = "testing"))]
mod saga;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod saga;
pub mod secret;
pub mod server;
pub mod setup_link;
pub(crate) mod sql;
#[cfg(not(feature = "testing"))]
mod sqlstate;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod sqlstate;
mod store;
pub mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "axum", feature = "actix"))]
pub mod web;

/// What the methods of [`Tenantry`] return: calls that start when they are awaited, and their reports.
pub mod calls {
    /// Type parameters of [`Call`] and [`Batch`]: one marker type for each kind of call.
    #[doc(hidden)]
    pub use crate::facade::BatchVerb;
    pub use crate::facade::{Batch, BatchReport, Call, HealthIssue, Operations, Tokens};
    pub use crate::operations::abandon::Abandoned;
    #[doc(hidden)]
    pub use crate::operations::{
        lifecycle::{Activate, Archive, Purge, Restore, Suspend},
        migrate::Migrate,
        rekey::RekeyVault,
        rotate::Rotate,
        servers::RotateServer,
        temporary_login::IssueLogin,
        verb::CallVerb,
    };
    pub use crate::saga::RecoveryReport;
}
/// Results of suspending, archiving and purging a tenant.
pub mod lifecycle {
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub use crate::operations::lifecycle::{Lifecycle, Verb};
    pub use crate::operations::lifecycle::{Purged, ShutOut};
}

pub use cluster::OperationContext;
pub use error::Error;
pub use facade::{Builder, Tenantry};
pub use operation::OperationId;
pub use operations::{migrate, provision, rekey, rotate, servers, step, temporary_login};
pub use pool::TenantPool;
pub use resolver::ConnectionResolver;
/// The version of sqlx whose types are in this API.
pub use sqlx;
pub use store::registry::TenantRegistry;
pub use store::vault::CredentialVault;
pub use store::{admin, journal, nodes, registry, schema, tokens, vault};
pub use tenant::{Tenant, TenantId, TenantRef};
