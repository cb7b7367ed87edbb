//! A small SaaS on axum: `cargo run --example axum --features axum`, then <http://localhost:3000/>.
//!
//! It finds a server at `TENANTRY_DATABASE_URL` (and removes all that it made there), or starts one of its own. `PORT` and
//! `HOST_SUFFIX` say where it listens and under which host its tenants live.
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantPool};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tower::Service;

pub(crate) mod saas;
use saas::{Anything, App, Seen};

#[tokio::main]
async fn main() -> Result<(), Anything> {
    saas::run(async |app| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, app.port())).await?;
        serve(listener, app, async { drop(tokio::signal::ctrl_c().await) }).await;
        Ok(())
    })
    .await
}

/// What `axum::serve` does, and a limit for how long a request's head may take: it would wait for ever.
pub(crate) async fn serve(listener: TcpListener, app: App, until: impl Future<Output = ()>) {
    let mut services = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(saas::HEAD_TIME);
    let (open, mut until) = (GracefulShutdown::new(), std::pin::pin!(until));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut until => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Too many open files, most likely: some will close.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(service) = services.call(peer).await;
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        // What goes wrong with a connection has ended it.
        tokio::spawn(open.watch(connection));
    }
    // Whoever follows an operation's events could go on for long.
    let _ = timeout(Duration::from_secs(10), open.shutdown()).await;
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/signup", post(signup))
        .route("/operations/{id}", get(operation))
        .route("/operations/{id}/events", get(events))
        .route("/login", get(login_form).post(login))
        .route("/logout", post(logout))
        .route("/notes", get(notes).post(add_note))
        .route("/health", get(health))
        .route("/admin", get(admin))
        .route("/admin/login", post(admin_login))
        .route("/admin/{slug}/{verb}", post(admin_act))
        .layer(DefaultBodyLimit::max(saas::FORM))
        .layer(app.tenants())
        .layer(from_fn_with_state(app.clone(), in_time))
        .route("/style.css", get(async || App::style()))
        .route("/progress.js", get(async || App::script()))
        .merge(app.setup_routes())
        .with_state(app)
}

async fn in_time(State(app): S, request: Request, next: Next) -> Response {
    timeout(saas::TIME, next.run(request)).await.unwrap_or_else(|_| app.later().into_response())
}

impl FromRequest<App> for Seen {
    type Rejection = WebResponse;
    async fn from_request(request: Request, app: &App) -> Result<Self, WebResponse> {
        let headers = request.headers().clone();
        let body = match timeout(saas::FORM_TIME, Bytes::from_request(request, app)).await {
            Ok(body) => body.map_err(|error| app.unread(error.status().as_u16()))?,
            Err(_) => return Err(app.unread(408)),
        };
        let header = |name| HeaderMap::get(&headers, name).and_then(|value| value.to_str().ok());
        Ok(Self::new(header, &body))
    }
}

type S = State<App>;

async fn front(State(app): S, tenant: Option<Tenant>) -> WebResponse {
    app.answer(app.front(tenant.as_ref()))
}
async fn signup(State(app): S, seen: Seen) -> WebResponse {
    app.answer(app.signup(&seen).await)
}
async fn operation(State(app): S, Path(id): Path<String>) -> WebResponse {
    app.answer(app.operation(&id).await)
}
async fn events(State(app): S, Path(id): Path<String>) -> Response {
    match app.events(&id).await {
        Ok(events) => ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response(),
        Err(problem) => app.answer(Err(problem)).into_response(),
    }
}
async fn login_form(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> WebResponse {
    app.answer(app.login_form(&tenant, &db, &seen).await)
}
async fn login(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> WebResponse {
    app.answer(app.login(&tenant, &db, &seen).await)
}
async fn logout(State(app): S, db: TenantPool, seen: Seen) -> WebResponse {
    app.answer(app.logout(&db, &seen).await)
}
async fn notes(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> WebResponse {
    app.answer(app.notes(&tenant, &db, &seen).await)
}
async fn add_note(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> WebResponse {
    app.answer(app.add_note(&tenant, &db, &seen).await)
}
async fn health(State(app): S, db: TenantPool) -> WebResponse {
    app.answer(app.health(&db).await)
}
async fn admin(State(app): S, tenant: Option<Tenant>, seen: Seen) -> WebResponse {
    app.answer(app.admin(tenant.as_ref(), &seen).await)
}
async fn admin_login(State(app): S, tenant: Option<Tenant>, seen: Seen) -> WebResponse {
    app.answer(app.admin_login(tenant.as_ref(), &seen))
}
async fn admin_act(
    State(app): S, tenant: Option<Tenant>, Path((slug, verb)): Path<(String, String)>, seen: Seen,
) -> WebResponse {
    app.answer(app.admin_act(tenant.as_ref(), &slug, &verb, &seen).await)
}
