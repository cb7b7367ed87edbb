//! The same application in axum and in actix-web, called in process, without a network.
//!
//! [`answers`] sends requests to both; [`link`] mounts only the setup links. Both return the answers in a common form.
use ::axum::Router;
use ::axum::body::{Body, to_bytes};
use ::axum::http::Request;
use ::axum::response::{IntoResponse, Response};
use ::axum::routing::get;
use actix_web::{App, HttpMessage, HttpResponse, web};
use std::sync::Arc;
use tenantry::error::{ResolveError, StoreError};
use tenantry::pool::AcquireError;
use tenantry::sqlx::{self, PgPool};
use tenantry::tenant::TenantStatus;
use tenantry::testing::{FixedResolver, tenant};
use tenantry::web::{Identify, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use tenantry::{ConnectionResolver, Tenant, TenantPool, TenantRef};
use tower::ServiceExt;

/// A request, independent of the framework.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: &'static str,
    hosts: Vec<String>,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}
impl Ask {
    /// A GET request with one `Host` header.
    pub(super) fn get(host: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Self::of(vec![host.into()], path.into(), headers)
    }
    /// A GET request with any number of `Host` headers. The target is a path or an absolute URI.
    pub(super) fn of(hosts: Vec<String>, path: String, headers: Vec<(String, String)>) -> Self {
        Self { method: "GET", hosts, path, headers, body: vec![] }
    }
    /// The same request with another method.
    pub(super) fn with_method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }
    /// A form post to `acme.example.org`.
    pub(super) fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        Self { method: "POST", body: body.into(), ..Self::get("acme.example.org", path, &form) }
    }
}

/// A response, independent of the framework.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}
impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What the application's authentication layer stores in the request's extensions.
#[derive(Clone)]
struct Claims(String);

/// Active tenants `acme` and `other`, suspended `late`, archived `old`, and `down`, whose look-up fails.
fn resolver() -> Arc<dyn ConnectionResolver> {
    let pool = || PgPool::connect_lazy("postgres://nowhere").unwrap();
    let landlord = ResolveError::Landlord(StoreError::unavailable("away"));
    let old = tenant("old", TenantStatus::Archived);
    let resolver = FixedResolver::default().tenant("acme", pool()).tenant("other", pool()).suspended("late");
    let resolver = resolver
        .refused(&old, ResolveError::Archived(old.clone()))
        .domain("acme.test", "acme")
        .domain("late.example.org", "other")
        .domain("example.org", "other");
    Arc::new(resolver.refused(&tenant("down", TenantStatus::Active), landlord))
}

/// One layer per way to identify the tenant.
struct Layers {
    host: TenantLayer,
    header: TenantLayer,
    path: TenantLayer,
    claim: TenantLayer,
    proxied: TenantLayer,
    domain: TenantLayer,
    reversed: TenantLayer,
    chain: TenantLayer,
    own: TenantLayer,
}
fn layers() -> Layers {
    let resolver = resolver();
    let layer = |identify| TenantLayer::new(resolver.clone(), identify);
    let host = || Identify::subdomain_of("example.org").or(Identify::domain());
    let claim = || Identify::with(|r| r.extension(|c: &Claims| TenantRef::Slug(c.0.clone().into())));
    Layers {
        host: layer(host()),
        header: layer(Identify::header("x-tenant")),
        path: layer(Identify::path_after("/t")),
        claim: layer(claim()),
        proxied: layer(Identify::subdomain_of("example.org").behind_proxy()),
        domain: layer(Identify::domain()),
        reversed: layer(Identify::domain().or(Identify::subdomain_of("example.org"))),
        chain: layer(Identify::subdomain_of("example.org").or(claim()).or(Identify::domain())),
        own: layer(host()).on_reject(|rejection| match rejection {
            TenantRejection::Suspended(tenant) => WebResponse::html(402, format!("pay first, {}", tenant.slug())),
            TenantRejection::Archived(_) => WebResponse::text(418, "own answer"),
            TenantRejection::OverBudget(_) => WebResponse::text(429, "come back later"),
            other => WebResponse::from(other),
        }),
    }
}

/// The rejection of a request whose query got no connection.
fn busy() -> TenantRejection {
    // A query on a closed pool. It becomes the same rejection as one that timed out.
    let error: sqlx::Error = AcquireError::Closed.into();
    TenantRejection::from_sqlx(&error).expect("the error is not recognised as an AcquireError")
}

/// An error type of the application that contains a rejection.
#[derive(Debug)]
enum AppError {
    Tenant(TenantRejection),
}
impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an error of the application")
    }
}
impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let Self::Tenant(rejection) = self;
        rejection.into_response()
    }
}
impl actix_web::ResponseError for AppError {
    fn error_response(&self) -> HttpResponse {
        let Self::Tenant(rejection) = self;
        rejection.error_response()
    }
}
async fn wrapped(_: TenantPool) -> Result<&'static str, AppError> {
    Err(AppError::Tenant(busy()))
}

async fn slug(tenant: Tenant) -> String {
    tenant.slug().to_string()
}
async fn db(db: TenantPool) -> String {
    db.tenant().slug().to_string()
}

fn axum_app() -> Router {
    async fn open(tenant: Option<Tenant>) -> String {
        tenant.map_or_else(|| "(nobody)".into(), |tenant| tenant.slug().to_string())
    }
    async fn claims(mut request: Request<Body>, next: ::axum::middleware::Next) -> Response {
        let claim = request.headers().get("authorization").and_then(|v| v.to_str().ok()).map(|v| Claims(v.into()));
        request.extensions_mut().extend(
            claim
                .map(|claim| {
                    let mut extensions = ::axum::http::Extensions::new();
                    extensions.insert(claim);
                    extensions
                })
                .unwrap_or_default(),
        );
        next.run(request).await
    }
    let layers = layers();
    let handlers = || {
        let busy = get(async || busy().into_response());
        let router = Router::new().route("/tenant", get(slug)).route("/db", get(db)).route("/open", get(open));
        router.route("/busy", busy).route("/wrapped", get(wrapped))
    };
    let billing = Router::new().route("/", get(slug)).route("/db", get(db));
    Router::new()
        .merge(handlers().layer(layers.host.clone()))
        .nest("/billing", billing.layer(layers.host.admit(TenantStatus::Suspended)))
        .nest("/header", handlers().layer(layers.header))
        .nest("/t/{tenant}", handlers().layer(layers.path))
        .nest("/claim", handlers().layer(layers.claim).layer(::axum::middleware::from_fn(claims)))
        .nest("/proxied", handlers().layer(layers.proxied))
        .nest("/domain", handlers().layer(layers.domain))
        .nest("/reversed", handlers().layer(layers.reversed))
        .nest("/chain", handlers().layer(layers.chain).layer(::axum::middleware::from_fn(claims)))
        .nest("/own", handlers().layer(layers.own))
        .route("/without", get(slug))
}

/// Sends the requests to the axum application, one after the other.
async fn call_axum(app: Router, asks: &[Ask]) -> Vec<Answer> {
    let mut answers = vec![];
    for ask in asks {
        let mut request = Request::builder().method(ask.method).uri(ask.path.split('#').next().unwrap());
        for host in &ask.hosts {
            request = request.header("host", host);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let response = app.clone().oneshot(request.body(Body::from(ask.body.clone())).unwrap()).await.unwrap();
        let header = |(n, v): (&::axum::http::HeaderName, &::axum::http::HeaderValue)| {
            (n.to_string(), v.to_str().unwrap().to_owned())
        };
        let (status, headers) = (response.status().as_u16(), response.headers().iter().map(header).collect());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        answers.push(Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() });
    }
    answers
}

fn actix_app(config: &mut web::ServiceConfig) {
    /// actix-web has no optional extractor that passes other rejections on, so the handler calls the extractor itself.
    async fn open(request: actix_web::HttpRequest) -> Result<String, TenantRejection> {
        use actix_web::FromRequest;
        match Tenant::extract(&request).await {
            Ok(tenant) => Ok(tenant.slug().to_string()),
            Err(TenantRejection::NotIdentified) => Ok("(nobody)".into()),
            Err(rejection) => Err(rejection),
        }
    }
    async fn always_busy() -> Result<HttpResponse, TenantRejection> {
        Err(busy())
    }
    let layers = layers();
    let handlers = |path: &str| {
        web::scope(path)
            .route("/tenant", web::get().to(slug))
            .route("/db", web::get().to(db))
            .route("/open", web::get().to(open))
            .route("/busy", web::get().to(always_busy))
            .route("/wrapped", web::get().to(wrapped))
    };
    let billing = web::scope("/billing").route("", web::get().to(slug)).route("/db", web::get().to(db));
    let claims = || {
        actix_web::middleware::from_fn(
            async |request: actix_web::dev::ServiceRequest, next: actix_web::middleware::Next<_>| {
                let claim =
                    request.headers().get("authorization").and_then(|v| v.to_str().ok()).map(|v| Claims(v.into()));
                if let Some(claim) = claim {
                    request.extensions_mut().insert(claim);
                }
                next.call(request).await
            },
        )
    };
    config
        .service(billing.wrap(layers.host.clone().admit(TenantStatus::Suspended)))
        .service(handlers("/header").wrap(layers.header))
        .service(handlers("/t/{tenant}").wrap(layers.path))
        .service(handlers("/claim").wrap(layers.claim).wrap(claims()))
        .service(handlers("/reversed").wrap(layers.reversed))
        .service(handlers("/chain").wrap(layers.chain).wrap(claims()))
        .service(handlers("/domain").wrap(layers.domain))
        .service(handlers("/proxied").wrap(layers.proxied))
        .service(handlers("/own").wrap(layers.own))
        .route("/without", web::get().to(slug))
        .service(handlers("").wrap(layers.host));
}

/// Sends the requests to the actix-web application, one after the other.
async fn call_actix(configure: impl FnOnce(&mut web::ServiceConfig), asks: &[Ask]) -> Vec<Answer> {
    let app = actix_web::test::init_service(App::new().configure(configure)).await;
    let mut answers = vec![];
    for ask in asks {
        let method = ask.method.parse().unwrap();
        let mut request = actix_web::test::TestRequest::with_uri(ask.path.split('#').next().unwrap()).method(method);
        for host in &ask.hosts {
            request = request.append_header(("host", host.as_str()));
        }
        for (name, value) in &ask.headers {
            request = request.append_header((name.as_str(), value.as_str()));
        }
        let response = actix_web::test::call_service(&app, request.set_payload(ask.body.clone()).to_request()).await;
        let header = |(n, v): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
            (n.to_string(), v.to_str().unwrap().to_owned())
        };
        let (status, headers) = (response.status().as_u16(), response.headers().iter().map(header).collect());
        let body = actix_web::test::read_body(response).await;
        answers.push(Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() });
    }
    answers
}

/// Sends the requests to both applications. Returns the answers of axum, then those of actix-web.
pub(super) async fn answers(asks: &[Ask]) -> [Vec<Answer>; 2] {
    let local = tokio::task::LocalSet::new();
    [call_axum(axum_app(), asks).await, local.run_until(call_actix(actix_app, asks)).await]
}

/// Sends one request to an application that consists of the setup links alone, in axum or in actix-web.
pub(super) async fn link(axum: bool, routes: &SetupRoutes, ask: Ask) -> Answer {
    let (routes, asks) = (routes.clone(), [ask]);
    let answers = match axum {
        true => call_axum(Router::new().merge(routes), &asks).await,
        false => {
            let local = tokio::task::LocalSet::new();
            local.run_until(call_actix(|config| _ = config.service(routes), &asks)).await
        }
    };
    answers.into_iter().next().unwrap()
}
