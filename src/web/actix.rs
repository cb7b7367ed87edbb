//! The impls for actix-web: responses, extractors, the middleware and the setup routes.
//!
//! This file contains only conversions and actix-web's traits. `layer.rs` decides about tenants and `setup/handler.rs`
//! about links.
//!
//! Invariant: `call` does not block, and a cached tenant is served without an extra await.
use super::layer::{Inner, Lookup, Resolution};
use super::request::View;
use super::setup::{BodyError, LINK_PATH, STYLE_PATH, SetupTarget};
use super::{RequestView, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use crate::pool::TenantPool;
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
            Lookup::Refuse(page) => {
                let response = request.into_response(HttpResponse::from(page)).map_into_right_body();
                return Box::pin(async move { Ok(response) });
            }
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
        let routes = web::Data::new(self);
        web::resource(STYLE_PATH).app_data(routes.clone()).to(serve_style_sheet).register(config);
        web::resource(LINK_PATH).app_data(routes).to(serve_link).register(config);
    }
}

async fn serve_link(
    routes: web::Data<SetupRoutes>, link: web::Path<(String, String)>, request: HttpRequest, body: web::Payload,
) -> HttpResponse {
    let (purpose, token) = link.into_inner();
    serve(&routes, SetupTarget::Link { purpose, token }, &request, body).await
}

async fn serve_style_sheet(routes: web::Data<SetupRoutes>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    serve(&routes, SetupTarget::StyleSheet, &request, body).await
}

async fn serve(routes: &SetupRoutes, target: SetupTarget, request: &HttpRequest, body: web::Payload) -> HttpResponse {
    let head = routes.read_head(target, &RequestView(View::Actix(request)));
    routes.handle(head, |limit| read_body(body, limit)).await.into()
}

async fn read_body(body: web::Payload, limit: usize) -> Result<web::Bytes, BodyError> {
    match body.to_bytes_limited(limit).await {
        Ok(body) => body.map_err(|_| BodyError::Broken),
        Err(_) => Err(BodyError::TooLarge),
    }
}
