//! A small SaaS without a web framework: each handler takes a [`FormRequest`] and returns a [`WebResponse`]. `axum.rs`
//! and `actix.rs` route requests to the handlers.
//!
//! The bare host serves the sign-up with live progress, and `/admin`. Each tenant's own host serves login, notes and a
//! health check. Only the host of a request selects its tenant. Session cookies are valid on one tenant's host.
#![allow(clippy::print_stdout, reason = "an example prints; the tests do not call the functions that do")]
use minijinja::Environment;
use std::sync::{Arc, Mutex};
use tenantry::admin::AdminError;
use tenantry::error::{ChangeError, ProvisionError, StoreError};
use tenantry::sqlx;
use tenantry::web::{Identify, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use tenantry::{TenantPool, Tenantry};

mod admin;
mod data;
#[path = "../example_server/mod.rs"]
mod example_server;
mod form_request;
mod session;
mod setup_pages;
mod signup;
mod start;
mod tenant;
pub(crate) use example_server::exit::report;
pub(crate) use form_request::{FORM, FORM_TIME, FormRequest, HEAD_TIME, RESPONSE_TIME};
#[allow(unused_imports, reason = "only the tests use `raise_file_limit`")]
pub(crate) use start::raise_file_limit;
pub(crate) use start::run;

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("examples/saas/migrations");

pub(crate) type AnyError = Box<dyn std::error::Error>;

/// The state that all handlers share. Clones share it too.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    tenantry: Tenantry,
    pages: Environment<'static>,
    suffix: String,
    port: u16,
    admin_password: String,
    /// The operator's session. A process has at most one.
    admin: Mutex<Option<admin::AdminSession>>,
}

/// The reason for which a handler has no page to return.
pub(crate) enum Problem {
    /// The tenant cannot be served, for example because all its connections are in use.
    Tenant(TenantRejection),
    /// This page answers the request instead.
    Page(WebResponse),
    /// The same request may succeed a little later.
    Later(AnyError),
    /// Any other error.
    Other(AnyError),
}
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        // If no connection is free, the query fails with an error that contains the rejection.
        match TenantRejection::from_sqlx(&error) {
            Some(rejection) => Self::Tenant(rejection),
            None if matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => Self::Later(error.into()),
            None => Self::Other(error.into()),
        }
    }
}
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { Self::Later(error.into()) } else { Self::Other(error.into()) }
    }
}
impl From<ProvisionError> for Problem {
    fn from(error: ProvisionError) -> Self {
        if error.retry_after().is_some() { Self::Later(error.into()) } else { Self::Other(error.into()) }
    }
}
impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        if error.retry_after().is_some() { Self::Later(error.into()) } else { Self::Other(error.into()) }
    }
}
impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Database(error) => error.into(),
            error => Self::Other(error.into()),
        }
    }
}
impl From<minijinja::Error> for Problem {
    fn from(error: minijinja::Error) -> Self {
        Self::Other(error.into())
    }
}

pub(crate) type PageResult = Result<WebResponse, Problem>;

impl App {
    /// An application whose tenants have the hosts `{slug}.{suffix}:{port}`.
    pub(crate) fn new(
        tenantry: &Tenantry, suffix: String, port: u16, admin_password: String,
    ) -> Result<Self, minijinja::Error> {
        let (tenantry, pages) = (tenantry.clone(), pages()?);
        Ok(Self(Arc::new(Inner { tenantry, pages, suffix, port, admin_password, admin: Mutex::new(None) })))
    }
    pub(crate) fn admin_password(&self) -> &str {
        &self.0.admin_password
    }
    /// The layer that finds the tenant of a request. Only the subdomain selects the tenant.
    pub(crate) fn tenants(&self) -> TenantLayer {
        let (app, identify) = (self.clone(), Identify::subdomain_of(&self.0.suffix));
        TenantLayer::new(self.0.tenantry.resolver(), identify).on_reject(move |rejection| app.rejection_page(rejection))
    }
    /// The routes of the setup links, with pages that look like the others.
    pub(crate) fn setup_routes(&self) -> SetupRoutes {
        let app = self.clone();
        SetupRoutes::new(&self.0.tenantry).pages(move |page| app.setup_page(page))
    }
    /// The page for a path that does not exist.
    pub(crate) fn not_found(&self) -> WebResponse {
        self.text(404, "Nothing here", "This page does not exist.")
    }
    fn rejection_page(&self, rejection: &TenantRejection) -> WebResponse {
        let plain = WebResponse::from(rejection);
        let text = rejection.to_string();
        let text = format!("{}{}.", text[..1].to_uppercase(), &text[1..]);
        let mut page = self.text(plain.status, "We are sorry", &text);
        page.headers.extend(plain.headers.into_iter().filter(|(name, _)| name == "retry-after"));
        page
    }
    /// Converts a handler's result into a response. Prints errors that are not the client's.
    pub(crate) fn respond(&self, result: PageResult) -> WebResponse {
        match result {
            Ok(page) | Err(Problem::Page(page)) => page,
            Err(Problem::Tenant(rejection)) => self.rejection_page(&rejection),
            Err(Problem::Later(error)) => {
                print_error_chain(&*error);
                self.unavailable()
            }
            Err(Problem::Other(error)) => {
                print_error_chain(&*error);
                self.text(500, "Something went wrong", "Please try again.")
            }
        }
    }
    /// The page with status 503, for a database or landlord that does not answer in time.
    pub(crate) fn unavailable(&self) -> WebResponse {
        self.text(503, "We are sorry", "This is not possible at the moment. Please try again.")
            .header("retry-after", "5")
    }
    /// The page for a form that could not be read, with status 400, 408 or 413.
    pub(crate) fn unreadable_form(&self, status: u16) -> WebResponse {
        let text = match status {
            408 => "The form took too long to arrive.",
            413 => "The form is too large.",
            _ => "The form could not be read.",
        };
        self.text(status, "Please try again", text)
    }
    fn text(&self, status: u16, title: &str, text: &str) -> WebResponse {
        let context = minijinja::context! { title, text };
        self.page(status, "text.html", context).unwrap_or_else(|_| WebResponse::text(status, text))
    }
    fn page(&self, status: u16, name: &str, context: minijinja::Value) -> Result<WebResponse, minijinja::Error> {
        const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
            img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
        let html = self.0.pages.get_template(name)?.render(context)?;
        let page = WebResponse::html(status, html).header("content-security-policy", POLICY);
        Ok(page.header("x-content-type-options", "nosniff").header("cache-control", "no-store"))
    }
    fn origin_of(&self, slug: &str) -> String {
        format!("http://{slug}.{}:{}", self.0.suffix, self.0.port)
    }

    pub(crate) fn style() -> WebResponse {
        let mut page = WebResponse::text(200, include_str!("style.css"));
        page.headers = vec![("content-type".into(), "text/css; charset=utf-8".into())];
        page
    }
    pub(crate) fn script() -> WebResponse {
        let mut page = WebResponse::text(200, include_str!("progress.js"));
        page.headers = vec![("content-type".into(), "text/javascript; charset=utf-8".into())];
        page
    }
    /// Checks whether the tenant's database answers.
    pub(crate) async fn health(&self, db: &TenantPool) -> PageResult {
        sqlx::query("SELECT 1").execute(db).await?;
        Ok(WebResponse::text(200, "ok"))
    }
}

#[allow(clippy::print_stderr, reason = "an example prints its errors")]
fn print_error_chain(error: &(dyn std::error::Error + 'static)) {
    eprintln!("{}", example_server::exit::chain(error));
}

fn pages() -> Result<Environment<'static>, minijinja::Error> {
    let mut pages = Environment::new();
    for (name, text) in [
        ("layout.html", include_str!("pages/layout.html")),
        ("signup.html", include_str!("pages/signup.html")),
        ("operation.html", include_str!("pages/operation.html")),
        ("login.html", include_str!("pages/login.html")),
        ("notes.html", include_str!("pages/notes.html")),
        ("admin.html", include_str!("pages/admin.html")),
        ("admin_login.html", include_str!("pages/admin_login.html")),
        ("confirm.html", include_str!("pages/confirm.html")),
        ("setup.html", include_str!("pages/setup.html")),
        ("text.html", include_str!("pages/text.html")),
    ] {
        pages.add_template(name, text)?;
    }
    Ok(pages)
}
