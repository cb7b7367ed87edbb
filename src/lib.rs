//! Multi-tenancy for applications that give every tenant a PostgreSQL database of its own.
//!
//! A *landlord* database holds who the tenants are, where each one's database is, and with which sealed credentials it
//! is reached. [`Tenantry`] assembles the pieces over it; each piece also works alone.
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
//! # How it is built
//!
//! An operation is a saga: a plain list of steps, a journal in the landlord, a lease with an epoch. Intent is stored
//! before effect, steps may be repeated, undo means "ensure absent". See [`saga`]. A tenant server has roles of a few
//! kinds, and PUBLIC has nothing: see [`rights`].
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `axum` | [`web`]: a layer, extractors and the setup links for axum |
//! | `actix` | [`web`]: the same for actix-web |
//! | `job` | [`job`]: a tower layer that gives each background job its tenant |
//! | `metrics` | [`resolver::metrics`]: how the budgets of connections stand |
//! | `testing` | stores in memory, a conformance suite for each trait, a harness that finds or starts a PostgreSQL |
//!
//! No feature is on by default, and none changes what another does. sqlx's `macros` feature is always on: it alone keeps
//! `sqlx::Executor` one trait for every combination of drivers.

pub(crate) mod cluster;
pub mod directory;
pub mod error;
mod facade;
#[cfg(feature = "job")]
pub mod job;
pub mod manual;
pub mod names;
pub mod operation;
mod operations;
pub mod placement;
pub mod pool;
pub mod resolver;
pub(crate) mod rt;
pub mod saga;
pub mod secret;
pub mod server;
pub mod setup_link;
pub(crate) mod sql;
pub mod sqlstate;
mod store;
pub mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "axum", feature = "actix"))]
pub mod web;

/// The types that the methods of [`Tenantry`] return: calls that start when they are awaited, and their reports.
pub mod calls {
    pub use crate::facade::{
        Activate, Archive, Batch, BatchReport, BatchVerb, Call, CallVerb, HealthIssue, Migrate, Operations, Purge,
        RekeyVault, Restore, Rotate, RotateServer, Rotations, Suspend, Tokens,
    };
}

pub use cluster::OperationContext;
pub use error::Error;
pub use facade::{Builder, Tenantry};
pub use operation::OperationId;
pub use operations::{lifecycle, migrate, provision, rekey, rotate, servers, step};
pub use pool::TenantPool;
pub use resolver::ConnectionResolver;
/// The sqlx whose types stand in this API.
pub use sqlx;
pub use store::registry::TenantRegistry;
pub use store::vault::CredentialVault;
pub use store::{admin, journal, nodes, registry, schema, tokens, vault};
pub use tenant::{Tenant, TenantId, TenantRef};
