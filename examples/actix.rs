//! A small SaaS on actix-web: `cargo run --example actix --features actix`, then <http://localhost:3000/>.
//!
//! This file only connects the handlers of `saas` to actix-web and limits request times. The example uses the server at
//! `TENANTRY_DATABASE_URL`, or it starts one. Keys and data stay in a directory (`-- --data DIR`), so the next start
//! continues with them, also after `kill -9` in the middle of a sign-up; `-- --remove` removes everything. `PORT` (3000)
//! is the port on loopback. `HOST_SUFFIX` (`localhost`) is the host below which each tenant has a subdomain.
use actix_web::body::MessageBody;
use actix_web::dev::{Payload, Server, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{App as Actix, FromRequest, HttpRequest, HttpResponse, HttpServer};
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::process::ExitCode;
use tenantry::web::{TenantRejection, WebResponse};
use tenantry::{Tenant, TenantPool};
use tokio::time::timeout;

pub(crate) mod saas;
use saas::{App, FormRequest};

#[actix_web::main]
async fn main() -> ExitCode {
    let served = saas::run(async |listener, app| Ok(server(listener, app)?.await?));
    saas::report(served.await)
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
        .wrap(from_fn(limit_time))
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
        .route("/admin/{slug}/archive", web::get().to(confirm_archive))
        .route("/admin/{slug}/{verb}", web::post().to(admin_action))
        .default_service(web::to(async |app: A| HttpResponse::from(app.not_found())));
    config
        .app_data(Data::new(app.clone()))
        .route("/style.css", web::get().to(async || HttpResponse::from(App::style())))
        .route("/progress.js", web::get().to(async || HttpResponse::from(App::script())))
        .service(app.setup_routes())
        .service(tenants);
}

/// An error that actix-web answers with this page.
fn page_error(page: WebResponse) -> actix_web::Error {
    InternalError::from_response("", HttpResponse::from(page)).into()
}

async fn limit_time(
    request: ServiceRequest, next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let app = request.app_data::<A>().cloned();
    match (timeout(saas::RESPONSE_TIME, next.call(request)).await, app) {
        (Err(_), Some(app)) => Err(page_error(app.unavailable())),
        (Err(elapsed), None) => Err(actix_web::error::ErrorServiceUnavailable(elapsed)),
        (Ok(answer), _) => answer,
    }
}

impl FromRequest for FormRequest {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (app, body) = (A::from_request(request, payload), web::Payload::from_request(request, payload));
        let request = request.clone();
        Box::pin(async move {
            let app = app.await?;
            let body = match timeout(saas::FORM_TIME, body.await?.to_bytes_limited(saas::FORM)).await {
                Ok(Ok(body)) => body.map_err(|_| page_error(app.unreadable_form(400)))?,
                Ok(Err(_)) => return Err(page_error(app.unreadable_form(413))),
                Err(_) => return Err(page_error(app.unreadable_form(408))),
            };
            let header = |name: &'static str| request.headers().get(name).and_then(|value| value.to_str().ok());
            Ok(Self::new(header, &body))
        })
    }
}

/// The tenant of the request, or `None` on the bare host. Other rejections (suspended, archived) stay errors, which
/// actix-web's `Option<Tenant>` would turn into `None`.
struct OptionalTenant(Option<Tenant>);
impl FromRequest for OptionalTenant {
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

async fn front(app: A, OptionalTenant(tenant): OptionalTenant) -> HttpResponse {
    app.respond(app.front(tenant.as_ref())).into()
}
async fn signup(app: A, form: FormRequest) -> HttpResponse {
    app.respond(app.signup(&form).await).into()
}
async fn operation(app: A, id: Path<String>) -> HttpResponse {
    app.respond(app.operation(&id).await).into()
}
async fn events(app: A, id: Path<String>) -> HttpResponse {
    use futures_util::TryStreamExt;
    match app.events(&id).await {
        Ok(events) => HttpResponse::Ok().content_type("text/event-stream").streaming(events.map_ok(web::Bytes::from)),
        Err(problem) => app.respond(Err(problem)).into(),
    }
}
async fn login_form(app: A, tenant: Tenant, db: TenantPool, form: FormRequest) -> HttpResponse {
    app.respond(app.login_form(&tenant, &db, &form).await).into()
}
async fn login(app: A, tenant: Tenant, db: TenantPool, form: FormRequest) -> HttpResponse {
    app.respond(app.login(&tenant, &db, &form).await).into()
}
async fn logout(app: A, db: TenantPool, form: FormRequest) -> HttpResponse {
    app.respond(app.logout(&db, &form).await).into()
}
async fn notes(app: A, tenant: Tenant, db: TenantPool, form: FormRequest) -> HttpResponse {
    app.respond(app.notes(&tenant, &db, &form).await).into()
}
async fn add_note(app: A, tenant: Tenant, db: TenantPool, form: FormRequest) -> HttpResponse {
    app.respond(app.add_note(&tenant, &db, &form).await).into()
}
async fn health(app: A, db: TenantPool) -> HttpResponse {
    app.respond(app.health(&db).await).into()
}
async fn admin(app: A, OptionalTenant(tenant): OptionalTenant, form: FormRequest) -> HttpResponse {
    app.respond(app.admin(tenant.as_ref(), &form).await).into()
}
async fn admin_login(app: A, OptionalTenant(tenant): OptionalTenant, form: FormRequest) -> HttpResponse {
    app.respond(app.admin_login(tenant.as_ref(), &form)).into()
}
async fn admin_action(
    app: A, OptionalTenant(tenant): OptionalTenant, path: Path<(String, String)>, form: FormRequest,
) -> HttpResponse {
    let (slug, verb) = path.into_inner();
    app.respond(app.admin_action(tenant.as_ref(), &slug, &verb, &form).await).into()
}
async fn confirm_archive(
    app: A, OptionalTenant(tenant): OptionalTenant, slug: Path<String>, form: FormRequest,
) -> HttpResponse {
    app.respond(app.confirm_archive(tenant.as_ref(), &slug, &form).await).into()
}
