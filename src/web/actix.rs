//! The impls for actix-web: responses, extractors, the middleware and the setup routes.
//!
//! This file contains only conversions and actix-web's traits. `layer.rs` decides about tenants and `setup.rs` about
//! links.
//!
//! Invariant: `call` does not block, and a cached tenant is served without an extra await.
use super::html::STYLE_PATH;
use super::layer::{Inner, Lookup, Resolution};
use super::request::View;
use super::setup::{BODY_TIMEOUT, MAX_BODY_BYTES, style_sheet};
use super::{RequestView, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use crate::pool::TenantPool;
use crate::store::tokens::TokenPurpose;
use crate::tenant::Tenant;
use actix_web::body::EitherBody;
use actix_web::dev::{
    AppService, HttpServiceFactory, Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready,
};
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

impl From<WebResponse> for HttpResponse {
    fn from(page: WebResponse) -> HttpResponse {
        let status = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        for header in page.headers {
            response.append_header(header);
        }
        response.body(page.body)
    }
}

impl ResponseError for TenantRejection {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    /// The rejection is stored in the response's extensions, where `TenantLayer::on_reject` finds it. The middleware
    /// could not get it from the response's error, because an application's own error type may wrap it.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::from(WebResponse::from(self));
        response.extensions_mut().insert(self.clone());
        response
    }
}

impl FromRequest for Tenant {
    type Error = TenantRejection;
    type Future = Ready<Result<Self, TenantRejection>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Resolution::tenant(request.extensions().get()))
    }
}
impl FromRequest for TenantPool {
    type Error = TenantRejection;
    type Future = Ready<Result<Self, TenantRejection>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Resolution::pool(request.extensions().get()))
    }
}

impl<S, B> Transform<S, ServiceRequest> for TenantLayer
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type InitError = ();
    type Transform = ActixTenantService<S>;
    type Future = Ready<Result<ActixTenantService<S>, ()>>;
    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(ActixTenantService { inner: Rc::new(inner), layer: self.0.clone() }))
    }
}

/// The service that [`TenantLayer`] wraps around another service of actix-web.
pub struct ActixTenantService<S> {
    inner: Rc<S>,
    layer: Arc<Inner>,
}

impl<S, B> Service<ServiceRequest> for ActixTenantService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;
    forward_ready!(inner);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let layer = self.layer.clone();
        let tenant = match layer.look_up(&RequestView(View::Actix(request.request()))) {
            Lookup::Ready(resolution) => {
                request.extensions_mut().insert(resolution);
                let response = self.inner.call(request);
                return Box::pin(async move { Ok(apply_on_reject(&layer, response.await?)) });
            }
            Lookup::Load(tenant) => tenant,
        };
        let inner = self.inner.clone();
        Box::pin(async move {
            match layer.resolve(tenant).await {
                Err(page) => Ok(request.into_response(HttpResponse::from(page)).map_into_right_body()),
                Ok(resolution) => {
                    request.extensions_mut().insert(resolution);
                    Ok(apply_on_reject(&layer, inner.call(request).await?))
                }
            }
        })
    }
}

/// Replaces a response that carries a rejection with the application's response to that rejection.
fn apply_on_reject<B>(layer: &Inner, response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>> {
    let page = layer.replace_rejection(response.response().extensions().get());
    match page {
        Some(page) => response.into_response(HttpResponse::from(page)).map_into_right_body(),
        None => response.map_into_left_body(),
    }
}

impl HttpServiceFactory for SetupRoutes {
    fn register(self, config: &mut AppService) {
        let styles = web::resource(STYLE_PATH).route(web::get().to(async || HttpResponse::from(style_sheet())));
        styles.register(config);
        let links = web::resource("/setup/{purpose}/{token}").app_data(web::Data::new(self));
        let links = links.route(web::get().to(show)).route(web::head().to(show)).route(web::post().to(submit));
        links.register(config);
    }
}

type Link = web::Path<(String, String)>;

async fn show(routes: web::Data<SetupRoutes>, link: Link, request: HttpRequest) -> HttpResponse {
    let (purpose, token) = link.into_inner();
    let client = routes.client(&RequestView(View::Actix(&request)));
    let page = match purpose.parse::<TokenPurpose>() {
        Ok(purpose) => routes.show(&purpose, &token, client).await,
        Err(_) => routes.not_valid_page(),
    };
    page.into()
}

async fn submit(routes: web::Data<SetupRoutes>, link: Link, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let (purpose, token) = link.into_inner();
    let client = routes.client(&RequestView(View::Actix(&request)));
    let body = match tokio::time::timeout(BODY_TIMEOUT, body.to_bytes_limited(MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body.map_err(|_| 400),
        Ok(Err(_)) => Err(413),
        Err(_) => Err(408),
    };
    let page = match purpose.parse::<TokenPurpose>() {
        Ok(purpose) => routes.submit(&purpose, &token, client, body.as_deref().map_err(|status| *status)).await,
        Err(_) => routes.not_valid_page(),
    };
    page.into()
}
