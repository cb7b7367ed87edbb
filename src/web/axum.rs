//! The impls for axum: responses, extractors, the tower layer and the setup routes.
//!
//! This file contains only conversions and the traits of axum and tower. `layer.rs` decides about tenants and
//! `setup/handler.rs` about links.
//!
//! Invariant: `call` does not block, and a cached tenant is served without cloning the inner service.
use super::layer::{Inner, Lookup, Resolution};
use super::request::View;
use super::setup::{BodyError, LINK_PATH, STYLE_PATH, SetupTarget};
use super::{RequestView, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use crate::pool::TenantPool;
use crate::tenant::Tenant;
use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::{FromRequestParts, OptionalFromRequestParts, Path, State};
use ::axum::http::{HeaderName, HeaderValue, Request, StatusCode, request::Parts};
use ::axum::response::{IntoResponse, Response};
use ::axum::routing::any;
use futures_util::StreamExt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

impl IntoResponse for WebResponse {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

impl IntoResponse for TenantRejection {
    /// The rejection is stored in the response's extensions, so that `TenantLayer::on_reject` also applies to
    /// rejections that a handler has returned.
    fn into_response(self) -> Response {
        let mut response = WebResponse::from(&self).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TenantRejection> {
        Resolution::tenant(parts.extensions.get())
    }
}
impl<S: Send + Sync> FromRequestParts<S> for TenantPool {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TenantRejection> {
        Resolution::pool(parts.extensions.get())
    }
}

/// Turns "no rule named a tenant" into `None`. Every other rejection stays an error, so that an optional extractor
/// cannot serve a suspended tenant's request as if it named no tenant.
fn to_optional<T>(found: Result<T, TenantRejection>) -> Result<Option<T>, TenantRejection> {
    match found {
        Err(TenantRejection::NotIdentified) => Ok(None),
        found => found.map(Some),
    }
}
impl<S: Send + Sync> OptionalFromRequestParts<S> for Tenant {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, TenantRejection> {
        to_optional(Resolution::tenant(parts.extensions.get()))
    }
}
impl<S: Send + Sync> OptionalFromRequestParts<S> for TenantPool {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, TenantRejection> {
        to_optional(Resolution::pool(parts.extensions.get()))
    }
}

impl<S> Layer<S> for TenantLayer {
    type Service = TenantService<S>;
    fn layer(&self, inner: S) -> TenantService<S> {
        TenantService { inner, layer: self.0.clone() }
    }
}

/// The service that [`TenantLayer`] wraps around another service.
#[derive(Clone)]
pub struct TenantService<S> {
    inner: S,
    layer: Arc<Inner>,
}

impl<S, B> Service<Request<B>> for TenantService<S>
where
    S: Service<Request<B>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let layer = self.layer.clone();
        let tenant = match layer.look_up(&RequestView(View::Axum(&parts))) {
            Lookup::Ready(resolution) => {
                parts.extensions.insert(resolution);
                let response = self.inner.call(Request::from_parts(parts, body));
                return Box::pin(async move { Ok(apply_on_reject(&layer, response.await?)) });
            }
            Lookup::Load(tenant) => tenant,
            Lookup::Refuse(page) => return Box::pin(async move { Ok(page.into_response()) }),
        };
        // `poll_ready` has made `self.inner` ready, and a clone of it need not be. So this request takes `self.inner`
        // and leaves the clone for the next one.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            match layer.resolve(tenant).await {
                Err(page) => Ok(page.into_response()),
                Ok(resolution) => {
                    parts.extensions.insert(resolution);
                    Ok(apply_on_reject(&layer, inner.call(Request::from_parts(parts, body)).await?))
                }
            }
        })
    }
}

/// Replaces a response that carries a rejection with the application's response to that rejection.
fn apply_on_reject(layer: &Inner, response: Response) -> Response {
    match layer.replace_rejection(response.extensions().get()) {
        Some(page) => page.into_response(),
        None => response,
    }
}

impl<S: Clone + Send + Sync + 'static> From<SetupRoutes> for Router<S> {
    fn from(routes: SetupRoutes) -> Router<S> {
        Router::new().route(LINK_PATH, any(serve_link)).route(STYLE_PATH, any(serve_style_sheet)).with_state(routes)
    }
}

async fn serve_link(
    State(routes): State<SetupRoutes>, Path((purpose, token)): Path<(String, String)>, request: Request<Body>,
) -> WebResponse {
    serve(&routes, SetupTarget::Link { purpose, token }, request).await
}

async fn serve_style_sheet(State(routes): State<SetupRoutes>, request: Request<Body>) -> WebResponse {
    serve(&routes, SetupTarget::StyleSheet, request).await
}

async fn serve(routes: &SetupRoutes, target: SetupTarget, request: Request<Body>) -> WebResponse {
    let (parts, body) = request.into_parts();
    let head = routes.read_head(target, &RequestView(View::Axum(&parts)));
    routes.handle(head, |limit| read_body(body, limit)).await
}

async fn read_body(body: Body, limit: usize) -> Result<Vec<u8>, BodyError> {
    let (mut bytes, mut chunks) = (vec![], body.into_data_stream());
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| BodyError::Broken)?);
        if bytes.len() > limit {
            return Err(BodyError::TooLarge);
        }
    }
    Ok(bytes)
}
