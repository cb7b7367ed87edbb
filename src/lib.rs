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

pub mod admin;
pub mod database;
pub mod error;
pub mod ident;
#[cfg(feature = "job")]
pub mod job;
pub mod lifecycle;
pub mod migrate;
pub mod nodes;
pub mod operation;
pub(crate) mod pg;
pub mod placement;
pub mod provision;
pub mod registry;
pub mod rekey;
pub mod resolver;
pub mod rights;
pub mod rotate;
pub mod saga;
pub mod schema;
pub mod secret;
pub mod servers;
pub mod setup;
pub mod sqlstate;
pub mod step;
pub mod tenant;
pub mod tenantry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tokens;
pub mod vault;
#[cfg(any(feature = "axum", feature = "actix"))]
pub mod web;
pub mod worker;
pub(crate) mod yields;

pub use error::Error;
pub use operation::OperationId;
pub use registry::TenantRegistry;
pub use resolver::{ConnectionResolver, TenantPool, pool};
/// The sqlx whose types stand in this API.
pub use sqlx;
pub use tenant::{Tenant, TenantId, TenantRef};
pub use tenantry::{Builder, Tenantry};
pub use vault::CredentialVault;
