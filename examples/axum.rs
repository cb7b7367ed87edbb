//! A small SaaS on axum: `cargo run --example axum --features axum`, then <http://localhost:3000/>.
//!
//! This file only connects the handlers of `saas` to axum and limits request times. The example uses the server at
//! `TENANTRY_DATABASE_URL`, or it starts one. Keys and data stay in a directory (`-- --data DIR`), so the next start
//! continues with them, also after `kill -9` in the middle of a sign-up; `-- --remove` removes everything. `PORT` (3000)
//! is the port on loopback. `HOST_SUFFIX` (`localhost`) is the host below which each tenant has a subdomain.
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
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantPool};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tower::Service;

pub(crate) mod saas;
use saas::{App, FormRequest};

#[tokio::main]
async fn main() -> ExitCode {
    let served = saas::run(async |listener, app| {
        serve(TcpListener::from_std(listener)?, app, async { drop(tokio::signal::ctrl_c().await) }).await;
        Ok(())
    });
    saas::report(served.await)
}

/// Serves until `until` resolves. Unlike `axum::serve`, which waits for ever, it closes a connection whose request head
/// takes longer than [`saas::HEAD_TIME`].
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
            // Most likely there are too many open files. Without this pause the loop would spin until some are closed.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(service) = services.call(peer).await;
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        // The result of the task is ignored: an error has already closed the connection.
        tokio::spawn(open.watch(connection));
    }
    // A client that follows an operation's events could keep its connection open for as long as the operation runs.
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
        .route("/admin/{slug}/archive", get(confirm_archive).post(archive))
        .route("/admin/{slug}/{verb}", post(admin_action))
        .fallback(async |State(app): S| app.not_found())
        .layer(DefaultBodyLimit::max(saas::FORM))
        .layer(app.tenants())
        .layer(from_fn_with_state(app.clone(), limit_time))
        .route("/style.css", get(async || App::style()))
        .route("/progress.js", get(async || App::script()))
        .merge(app.setup_routes())
        .with_state(app)
}

async fn limit_time(State(app): S, request: Request, next: Next) -> Response {
    timeout(saas::RESPONSE_TIME, next.run(request)).await.unwrap_or_else(|_| app.unavailable().into_response())
}

impl FromRequest<App> for FormRequest {
    type Rejection = WebResponse;
    async fn from_request(request: Request, app: &App) -> Result<Self, WebResponse> {
        let headers = request.headers().clone();
        let body = match timeout(saas::FORM_TIME, Bytes::from_request(request, app)).await {
            Ok(body) => body.map_err(|error| app.unreadable_form(error.status().as_u16()))?,
            Err(_) => return Err(app.unreadable_form(408)),
        };
        let header = |name| HeaderMap::get(&headers, name).and_then(|value| value.to_str().ok());
        Ok(Self::new(header, &body))
    }
}

type S = State<App>;

async fn front(State(app): S, tenant: Option<Tenant>) -> WebResponse {
    app.respond(app.front(tenant.as_ref()))
}
async fn signup(State(app): S, form: FormRequest) -> WebResponse {
    app.respond(app.signup(&form).await)
}
async fn operation(State(app): S, Path(id): Path<String>) -> WebResponse {
    app.respond(app.operation(&id).await)
}
async fn events(State(app): S, Path(id): Path<String>) -> Response {
    match app.events(&id).await {
        Ok(events) => ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response(),
        Err(problem) => app.respond(Err(problem)).into_response(),
    }
}
async fn login_form(State(app): S, tenant: Tenant, db: TenantPool, form: FormRequest) -> WebResponse {
    app.respond(app.login_form(&tenant, &db, &form).await)
}
async fn login(State(app): S, tenant: Tenant, db: TenantPool, form: FormRequest) -> WebResponse {
    app.respond(app.login(&tenant, &db, &form).await)
}
async fn logout(State(app): S, db: TenantPool, form: FormRequest) -> WebResponse {
    app.respond(app.logout(&db, &form).await)
}
async fn notes(State(app): S, tenant: Tenant, db: TenantPool, form: FormRequest) -> WebResponse {
    app.respond(app.notes(&tenant, &db, &form).await)
}
async fn add_note(State(app): S, tenant: Tenant, db: TenantPool, form: FormRequest) -> WebResponse {
    app.respond(app.add_note(&tenant, &db, &form).await)
}
async fn health(State(app): S, db: TenantPool) -> WebResponse {
    app.respond(app.health(&db).await)
}
async fn admin(State(app): S, tenant: Option<Tenant>, form: FormRequest) -> WebResponse {
    app.respond(app.admin(tenant.as_ref(), &form).await)
}
async fn admin_login(State(app): S, tenant: Option<Tenant>, form: FormRequest) -> WebResponse {
    app.respond(app.admin_login(tenant.as_ref(), &form))
}
async fn admin_action(
    State(app): S, tenant: Option<Tenant>, Path((slug, verb)): Path<(String, String)>, form: FormRequest,
) -> WebResponse {
    app.respond(app.admin_action(tenant.as_ref(), &slug, &verb, &form).await)
}
async fn confirm_archive(
    State(app): S, tenant: Option<Tenant>, Path(slug): Path<String>, form: FormRequest,
) -> WebResponse {
    app.respond(app.confirm_archive(tenant.as_ref(), &slug, &form).await)
}
async fn archive(State(app): S, tenant: Option<Tenant>, Path(slug): Path<String>, form: FormRequest) -> WebResponse {
    app.respond(app.admin_action(tenant.as_ref(), &slug, "archive", &form).await)
}
