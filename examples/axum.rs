//! A small SaaS on axum: `cargo run --example axum --features axum`, then <http://localhost:3000/>.
//!
//! It finds a server at `TENANTRY_DATABASE_URL` (and removes all that it made there), or starts one of its own. `PORT` and
//! `HOST_SUFFIX` say where it listens and under which host its tenants live.
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::net::{Ipv4Addr, SocketAddr};
use tenantry::web::Page;
use tenantry::{Tenant, TenantPool};

mod saas;
use saas::{Anything, App, Seen};

#[tokio::main]
async fn main() -> Result<(), Anything> {
    saas::run(async |app| {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, app.port())).await?;
        let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
        let shutdown = async { drop(tokio::signal::ctrl_c().await) };
        Ok(axum::serve(listener, service).with_graceful_shutdown(shutdown).await?)
    })
    .await
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
        .layer(app.tenants())
        .route("/style.css", get(async || App::style()))
        .route("/progress.js", get(async || App::script()))
        .merge(app.setup_routes())
        .with_state(app)
}

impl FromRequest<App> for Seen {
    type Rejection = StatusCode;
    async fn from_request(request: Request, _: &App) -> Result<Self, StatusCode> {
        let (parts, body) = request.into_parts();
        let body = tokio::time::timeout(saas::FORM_TIME, to_bytes(body, saas::FORM)).await;
        let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        let header = |name| HeaderMap::get(&parts.headers, name).and_then(|value| value.to_str().ok());
        Ok(Self::new(header, &body))
    }
}

type S = State<App>;

async fn front(State(app): S, tenant: Option<Tenant>) -> Page {
    app.answer(app.front(tenant.as_ref()))
}
async fn signup(State(app): S, seen: Seen) -> Page {
    app.answer(app.signup(&seen).await)
}
async fn operation(State(app): S, Path(id): Path<String>) -> Page {
    app.answer(app.operation(&id).await)
}
async fn events(State(app): S, Path(id): Path<String>) -> Response {
    match app.events(&id).await {
        Ok(events) => ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response(),
        Err(problem) => app.answer(Err(problem)).into_response(),
    }
}
async fn login_form(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> Page {
    app.answer(app.login_form(&tenant, &db, &seen).await)
}
async fn login(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> Page {
    app.answer(app.login(&tenant, &db, &seen).await)
}
async fn logout(State(app): S, db: TenantPool, seen: Seen) -> Page {
    app.answer(app.logout(&db, &seen).await)
}
async fn notes(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> Page {
    app.answer(app.notes(&tenant, &db, &seen).await)
}
async fn add_note(State(app): S, tenant: Tenant, db: TenantPool, seen: Seen) -> Page {
    app.answer(app.add_note(&tenant, &db, &seen).await)
}
async fn health(State(app): S, db: TenantPool) -> Page {
    app.answer(app.health(&db).await)
}
async fn admin(State(app): S, tenant: Option<Tenant>, seen: Seen) -> Page {
    app.answer(app.admin(tenant.as_ref(), &seen).await)
}
async fn admin_login(State(app): S, tenant: Option<Tenant>, seen: Seen) -> Page {
    app.answer(app.admin_login(tenant.as_ref(), &seen))
}
async fn admin_act(
    State(app): S, tenant: Option<Tenant>, Path((slug, verb)): Path<(String, String)>, seen: Seen,
) -> Page {
    app.answer(app.admin_act(tenant.as_ref(), &slug, &verb, &seen).await)
}
