//! Tenants in a web application. The types are the same for axum (feature `axum`) and actix-web (feature `actix`); each
//! feature only adds the framework's impls.
//!
//! [`Identify`] defines how a request names its tenant. [`TenantLayer`] resolves that tenant and rejects requests for
//! tenants that are unknown, suspended or archived. Handlers take [`Tenant`](crate::Tenant) and
//! [`TenantPool`](crate::TenantPool). There is no default tenant: if no rule names one, a handler that needs a tenant
//! responds with 404. [`SetupRoutes`] serves the setup links.
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
//! # Optional tenants with actix-web
//!
//! With actix-web never take `Option<TenantPool>` or `Option<Tenant>`. actix-web turns every error of the extractor
//! into `None`, including a suspended tenant and a missing layer. Call `Tenant::extract(&request)` instead, and treat
//! only `TenantRejection::NotIdentified` as "no tenant".
//!
//! # Setup links in access logs
//!
//! A setup link has its token in the path, so access logs of this program and of proxies in front of it may contain
//! tokens. A token works once and for a limited time. Still, configure logs to leave out paths below `/setup/`, and
//! keep the links away from tools that fetch every URL that they find. [`SetupRoutes`] describes how to do this in each
//! framework. The pages themselves send `Referrer-Policy: no-referrer` and `Cache-Control: no-store`.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "axum")]
mod axum;
mod identify;
mod layer;
mod page;
mod rejection;
mod request;
mod setup;
pub use identify::Identify;
pub use layer::TenantLayer;
pub use page::WebResponse;
pub use rejection::TenantRejection;
pub use request::RequestView;
pub use setup::{SetupPage, SetupRoutes};
