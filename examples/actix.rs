//! A small SaaS on actix-web: `cargo run --example actix --features actix`, then <http://localhost:3000/>.
//!
//! It finds a server at `TENANTRY_DATABASE_URL` (and removes all that it made there), or starts one of its own. `PORT` and
//! `HOST_SUFFIX` say where it listens and under which host its tenants live.
use actix_web::body::MessageBody;
use actix_web::dev::{Payload, Server, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{App as Actix, FromRequest, HttpRequest, HttpResponse, HttpServer};
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use tenantry::web::{TenantRejection, WebResponse};
use tenantry::{Tenant, TenantPool};
use tokio::time::timeout;

pub(crate) mod saas;
use saas::{Anything, App, Seen};

#[actix_web::main]
async fn main() -> Result<(), Anything> {
    saas::run(async |app| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, app.port()))?;
        Ok(server(listener, app)?.await?)
    })
    .await
}

pub(crate) fn server(listener: TcpListener, app: App) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        let app = app.clone();
        Actix::new().configure(move |config| configure(config, &app))
    });
    let server = server.client_request_timeout(saas::HEAD_TIME).shutdown_timeout(10);
    Ok(server.workers(2).listen(listener)?.run())
}

fn configure(config: &mut ServiceConfig, app: &App) {
    let tenants = web::scope("")
        .wrap(app.tenants())
        .wrap(from_fn(in_time))
        .route("/", web::get().to(front))
        .route("/signup", web::post().to(signup))
        .route("/operations/{id}", web::get().to(operation))
        .route("/operations/{id}/events", web::get().to(events))
        .route("/login", web::get().to(login_form))
        .route("/login", web::post().to(login))
        .route("/logout", web::post().to(logout))
        .route("/notes", web::get().to(notes))
        .route("/notes", web::post().to(add_note))
        .route("/health", web::get().to(health))
        .route("/admin", web::get().to(admin))
        .route("/admin/login", web::post().to(admin_login))
        .route("/admin/{slug}/{verb}", web::post().to(admin_act));
    config
        .app_data(Data::new(app.clone()))
        .route("/style.css", web::get().to(async || HttpResponse::from(App::style())))
        .route("/progress.js", web::get().to(async || HttpResponse::from(App::script())))
        .service(app.setup_routes())
        .service(tenants);
}

/// A page in place of an answer.
fn instead(page: WebResponse) -> actix_web::Error {
    InternalError::from_response("", HttpResponse::from(page)).into()
}

async fn in_time(
    request: ServiceRequest, next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let app = request.app_data::<A>().cloned();
    match (timeout(saas::TIME, next.call(request)).await, app) {
        (Err(_), Some(app)) => Err(instead(app.later())),
        (Err(late), None) => Err(actix_web::error::ErrorServiceUnavailable(late)),
        (Ok(answer), _) => answer,
    }
}

impl FromRequest for Seen {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (app, body) = (A::from_request(request, payload), web::Payload::from_request(request, payload));
        let request = request.clone();
        Box::pin(async move {
            let app = app.await?;
            let body = match timeout(saas::FORM_TIME, body.await?.to_bytes_limited(saas::FORM)).await {
                Ok(Ok(body)) => body.map_err(|_| instead(app.unread(400)))?,
                Ok(Err(_)) => return Err(instead(app.unread(413))),
                Err(_) => return Err(instead(app.unread(408))),
            };
            let header = |name: &'static str| request.headers().get(name).and_then(|value| value.to_str().ok());
            Ok(Self::new(header, &body))
        })
    }
}

/// actix-web's `Option<T>` would hide every error; nobody is nobody, and the rest is refused.
struct Maybe(Option<Tenant>);
impl FromRequest for Maybe {
    type Error = TenantRejection;
    type Future = Pin<Box<dyn Future<Output = Result<Self, TenantRejection>>>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let tenant = Tenant::from_request(request, payload);
        Box::pin(async move {
            match tenant.await {
                Err(TenantRejection::NotIdentified) => Ok(Self(None)),
                found => found.map(|tenant| Self(Some(tenant))),
            }
        })
    }
}

type A = Data<App>;

async fn front(app: A, Maybe(tenant): Maybe) -> HttpResponse {
    app.answer(app.front(tenant.as_ref())).into()
}
async fn signup(app: A, seen: Seen) -> HttpResponse {
    app.answer(app.signup(&seen).await).into()
}
async fn operation(app: A, id: Path<String>) -> HttpResponse {
    app.answer(app.operation(&id).await).into()
}
async fn events(app: A, id: Path<String>) -> HttpResponse {
    use futures_util::TryStreamExt;
    match app.events(&id).await {
        Ok(events) => HttpResponse::Ok().content_type("text/event-stream").streaming(events.map_ok(web::Bytes::from)),
        Err(problem) => app.answer(Err(problem)).into(),
    }
}
async fn login_form(app: A, tenant: Tenant, db: TenantPool, seen: Seen) -> HttpResponse {
    app.answer(app.login_form(&tenant, &db, &seen).await).into()
}
async fn login(app: A, tenant: Tenant, db: TenantPool, seen: Seen) -> HttpResponse {
    app.answer(app.login(&tenant, &db, &seen).await).into()
}
async fn logout(app: A, db: TenantPool, seen: Seen) -> HttpResponse {
    app.answer(app.logout(&db, &seen).await).into()
}
async fn notes(app: A, tenant: Tenant, db: TenantPool, seen: Seen) -> HttpResponse {
    app.answer(app.notes(&tenant, &db, &seen).await).into()
}
async fn add_note(app: A, tenant: Tenant, db: TenantPool, seen: Seen) -> HttpResponse {
    app.answer(app.add_note(&tenant, &db, &seen).await).into()
}
async fn health(app: A, db: TenantPool) -> HttpResponse {
    app.answer(app.health(&db).await).into()
}
async fn admin(app: A, Maybe(tenant): Maybe, seen: Seen) -> HttpResponse {
    app.answer(app.admin(tenant.as_ref(), &seen).await).into()
}
async fn admin_login(app: A, Maybe(tenant): Maybe, seen: Seen) -> HttpResponse {
    app.answer(app.admin_login(tenant.as_ref(), &seen)).into()
}
async fn admin_act(app: A, Maybe(tenant): Maybe, path: Path<(String, String)>, seen: Seen) -> HttpResponse {
    let (slug, verb) = path.into_inner();
    app.answer(app.admin_act(tenant.as_ref(), &slug, &verb, &seen).await).into()
}
