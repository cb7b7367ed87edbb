//! Tenants in a web stack: one set of types, to which axum (feature `axum`) and actix-web (feature `actix`) only add impls.
//!
//! [`Identify`] says how a request names its tenant, [`TenantLayer`] finds it and refuses who is unknown, suspended or
//! archived, and handlers take [`Tenant`](crate::Tenant) and [`TenantPool`](crate::TenantPool). There is no default tenant:
//! what no rule names has none, and a handler that wants one answers 404.
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! # async fn example(tenantry: tenantry::Tenantry) {
//! use axum::{Json, Router, routing::get};
//! use tenantry::web::{Identify, SetupRoutes, TenantLayer, TenantRejection};
//! use tenantry::{Tenant, TenantPool};
//!
//! async fn notes(tenant: Tenant, db: TenantPool) -> Result<Json<Vec<String>>, TenantRejection> {
//!     let rows = sqlx::query_scalar("SELECT text FROM notes").fetch_all(&db).await;
//!     Ok(Json(rows.map_err(|e| TenantRejection::from_sqlx(&e).unwrap_or(TenantRejection::Failed))?))
//! }
//! let tenants = TenantLayer::new(tenantry.resolver(), Identify::subdomain_of("example.org"));
//! let app: Router = Router::new()
//!     .route("/notes", get(notes))
//!     .layer(tenants)
//!     .merge(SetupRoutes::new(&tenantry));
//! # }
//! ```
//!
//! With actix-web never take `Option<TenantPool>` or `Option<Tenant>`: it makes `None` of every error there, of a layer that
//! is missing as well. Ask `Tenant::extract(&request)`, and let `TenantRejection::NotIdentified` alone be nobody.
//!
//! # The setup links in a log
//!
//! A token stands in the path of its link, so it reaches access logs, of this program and of what stands before it. It works
//! once and for a limited time; still, let logs cut paths below `/setup/` off, and keep the links out of tools that fetch
//! whatever they see. The pages say `Referrer-Policy: no-referrer` and `Cache-Control: no-store`. [`SetupRoutes`] says how to
//! do it in each framework.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "axum")]
mod axum;
mod html;
mod identify;
mod layer;
mod page;
mod rejection;
mod request;
mod setup;
#[cfg(feature = "actix")]
pub use actix::ActixTenantService;
#[cfg(feature = "axum")]
pub use axum::TenantService;
pub use identify::Identify;
pub use layer::TenantLayer;
pub use page::WebResponse;
pub use rejection::TenantRejection;
pub use request::RequestView;
pub use setup::{SetupPage, SetupRoutes};
