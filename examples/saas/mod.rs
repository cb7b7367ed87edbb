//! A small SaaS, without a web framework: pages in, pages out. `axum.rs` and `actix.rs` put it on the wire.
//!
//! On the bare host: sign-up with live progress, and `/admin`. On each tenant's own host: login, notes, health.
#![allow(clippy::print_stdout, reason = "an example talks; in the tests it is not even asked")]
use minijinja::Environment;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::admin::AdminError;
use tenantry::error::{ChangeError, ProvisionError, StoreError};
use tenantry::sqlx;
use tenantry::vault::LocalKeyring;
use tenantry::web::{Identify, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use tenantry::{TenantPool, Tenantry};

mod admin;
#[path = "../place/mod.rs"]
mod place;
mod seen;
mod session;
mod signup;
mod tenant;
pub(crate) use seen::{FORM, FORM_TIME, HEAD_TIME, Seen, TIME};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("examples/saas/migrations");

pub(crate) type Anything = Box<dyn std::error::Error>;

/// What every handler has. A handle.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    tenantry: Tenantry,
    pages: Environment<'static>,
    suffix: String,
    port: u16,
    admin_password: String,
    /// The one session of the one administrator of this process: its cookie and its token against forged forms.
    admin: Mutex<Option<(String, String)>>,
}

/// What a handler returns when it cannot do its work.
pub(crate) enum Problem {
    Tenant(TenantRejection),
    Page(WebResponse),
    /// The same may succeed a little later.
    Later(Anything),
    Other(Anything),
}
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        // "Too busy" comes with the query.
        match TenantRejection::from_sqlx(&error) {
            Some(rejection) => Self::Tenant(rejection),
            None if matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => Self::Later(error.into()),
            None => Self::Other(error.into()),
        }
    }
}
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::LostWrites => Self::Later(error.into()),
            error => Self::Other(error.into()),
        }
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

pub(crate) type Answer = Result<WebResponse, Problem>;

impl App {
    /// Tenants live at `{slug}.{suffix}:{port}`.
    pub(crate) fn new(tenantry: &Tenantry, suffix: String, port: u16) -> Result<Self, minijinja::Error> {
        let (tenantry, pages, admin_password) = (tenantry.clone(), pages()?, session::random());
        Ok(Self(Arc::new(Inner { tenantry, pages, suffix, port, admin_password, admin: Mutex::new(None) })))
    }
    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }
    pub(crate) fn admin_password(&self) -> &str {
        &self.0.admin_password
    }
    /// Whose host it is says whose request it is; nothing else does.
    pub(crate) fn tenants(&self) -> TenantLayer {
        let (app, identify) = (self.clone(), Identify::subdomain_of(&self.0.suffix));
        TenantLayer::new(self.0.tenantry.resolver(), identify).on_reject(move |rejection| app.rejected(rejection))
    }
    pub(crate) fn setup_routes(&self) -> SetupRoutes {
        SetupRoutes::new(&self.0.tenantry)
    }
    fn rejected(&self, rejection: &TenantRejection) -> WebResponse {
        let plain = WebResponse::from(rejection);
        let text = rejection.to_string();
        let text = format!("{}{}.", text[..1].to_uppercase(), &text[1..]);
        let mut page = self.text(plain.status, "We are sorry", &text);
        page.headers.extend(plain.headers.into_iter().filter(|(name, _)| name == "retry-after"));
        page
    }
    /// Whatever went wrong as a page.
    pub(crate) fn answer(&self, answer: Answer) -> WebResponse {
        match answer {
            Ok(page) | Err(Problem::Page(page)) => page,
            Err(Problem::Tenant(rejection)) => self.rejected(&rejection),
            Err(Problem::Later(error)) => {
                eprintln_chain(&*error);
                self.later()
            }
            Err(Problem::Other(error)) => {
                eprintln_chain(&*error);
                self.text(500, "Something went wrong", "Please try again.")
            }
        }
    }
    /// Something does not answer, or not in time.
    pub(crate) fn later(&self) -> WebResponse {
        self.text(503, "We are sorry", "This is not possible at the moment. Please try again.")
            .header("retry-after", "5")
    }
    /// A form that did not arrive as it should.
    pub(crate) fn unread(&self, status: u16) -> WebResponse {
        let text = match status {
            408 => "The form took too long to arrive.",
            413 => "The form is too large.",
            _ => "The form did not arrive in one piece.",
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
    /// Whether the tenant's database answers.
    pub(crate) async fn health(&self, db: &TenantPool) -> Answer {
        sqlx::query("SELECT 1").execute(db).await?;
        Ok(WebResponse::text(200, "ok"))
    }
}

#[allow(clippy::print_stderr, reason = "an example talks")]
fn eprintln_chain(error: &(dyn std::error::Error + 'static)) {
    let causes = std::iter::successors(Some(error), |e| e.source());
    eprintln!("{}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
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
        ("text.html", include_str!("pages/text.html")),
    ] {
        pages.add_template(name, text)?;
    }
    Ok(pages)
}

/// Finds a server as the quickstart does, makes a landlord there, lets `serve` do its work until Ctrl-C, and removes
/// everything again.
pub(crate) async fn run<F: Future<Output = Result<(), Anything>>>(
    serve: impl FnOnce(App) -> F,
) -> Result<(), Anything> {
    raise_file_limit();
    let place = place::Place::find("tenantry_saas").await?;
    println!("Server: {}", place.describe());
    let landlord = place.landlord().await?;
    tenantry::schema::install(&landlord).await?;
    let tenantry = Tenantry::builder(landlord.clone())
        // A throwaway key: what it seals is lost with this process. A host reads its own: LocalKeyring::from_env.
        .keys(LocalKeyring::random())
        .tenant_migrations(&MIGRATIONS)
        .build()
        .await?;
    tenantry.servers().set_up("main", place.admin()).prefix(place.prefix()).await?;
    let background = tokio::spawn(tenantry.run(std::future::pending::<()>()));
    let suffix = std::env::var("HOST_SUFFIX").unwrap_or_else(|_| String::from("localhost"));
    let port = std::env::var("PORT").ok().map(|port| port.parse()).transpose()?.unwrap_or(3000);
    let app = App::new(&tenantry, suffix, port)?;
    println!("Sign up at   http://{}:{}/", app.0.suffix, app.0.port);
    println!("Administer   http://{}:{}/admin  with the password {}", app.0.suffix, app.0.port, app.admin_password());
    println!("Ctrl-C ends it and removes everything that it made.");
    let served = serve(app.clone()).await;
    remove_tenants(&tenantry).await;
    tenantry.close().await;
    background.await??;
    landlord.close().await;
    place.remove().await?;
    served
}

/// Each connection is a file, and many shells stop a program at 1024 of them.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }) {
        println!("The limit of open files stays: {error}");
    }
}

async fn remove_tenants(tenantry: &Tenantry) {
    use tenantry::registry::TenantRegistryExt;
    let registry = tenantry.registry();
    let mut all = registry.all();
    while let Some(Ok(tenant)) = futures_util::StreamExt::next(&mut all).await {
        let purged = tokio::time::timeout(Duration::from_secs(30), tenantry.purge(&tenant).force()).await;
        if !matches!(purged, Ok(Ok(_))) {
            println!("{} stays: {purged:?}", tenant.slug());
        }
    }
}
