use super::html::STYLE_PATH;
use super::layer::{Found, Inner};
use super::request::View;
use super::setup::{BODY, BODY_TIME, style};
use super::{RequestView, SetupRoutes, TenantLayer, TenantRejection, WebResponse};
use crate::pool::TenantPool;
use crate::store::tokens::TokenPurpose;
use crate::tenant::{Tenant, TenantRef};
use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::{FromRequestParts, OptionalFromRequestParts, Path, State};
use ::axum::http::{HeaderName, HeaderValue, Request, StatusCode, request::Parts};
use ::axum::response::{IntoResponse, Response};
use ::axum::routing::get;
use futures_util::StreamExt;
use std::convert::Infallible;
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
    /// It rides in the response's extensions, so that `TenantLayer::on_reject` sees it whoever has returned it.
    fn into_response(self) -> Response {
        let mut response = WebResponse::from(&self).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TenantRejection> {
        Found::tenant(parts.extensions.get())
    }
}
impl<S: Send + Sync> FromRequestParts<S> for TenantPool {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TenantRejection> {
        Found::pool(parts.extensions.get())
    }
}

/// `None` where nobody was named, and nowhere else.
fn optional<T>(found: Result<T, TenantRejection>) -> Result<Option<T>, TenantRejection> {
    match found {
        Err(TenantRejection::NotIdentified) => Ok(None),
        found => found.map(Some),
    }
}
impl<S: Send + Sync> OptionalFromRequestParts<S> for Tenant {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, TenantRejection> {
        optional(Found::tenant(parts.extensions.get()))
    }
}
impl<S: Send + Sync> OptionalFromRequestParts<S> for TenantPool {
    type Rejection = TenantRejection;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, TenantRejection> {
        optional(Found::pool(parts.extensions.get()))
    }
}

impl<S> Layer<S> for TenantLayer {
    type Service = TenantService<S>;
    fn layer(&self, inner: S) -> TenantService<S> {
        TenantService { inner, layer: self.0.clone() }
    }
}

/// [`TenantLayer`] around a service.
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
        let named = self.layer.identify.ask(&RequestView(View::Axum(&parts)));
        let layer = self.layer.clone();
        if let Some(found) = layer.at_once(named.as_ref()) {
            drop(named);
            parts.extensions.insert(found);
            let served = self.inner.call(Request::from_parts(parts, body));
            return Box::pin(async move { Ok(answer(&layer, served.await?)) });
        }
        let named = named.map(TenantRef::into_owned);
        // The one that is ready serves this request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let found = match named {
                Some(named) => layer.find(named).await,
                None => Ok(Found::Nobody),
            };
            match found {
                Err(rejection) => Ok((layer.reject)(&rejection).into_response()),
                Ok(found) => {
                    parts.extensions.insert(found);
                    Ok(answer(&layer, inner.call(Request::from_parts(parts, body)).await?))
                }
            }
        })
    }
}

fn answer(layer: &Inner, response: Response) -> Response {
    match response.extensions().get::<TenantRejection>() {
        Some(rejection) => (layer.reject)(rejection).into_response(),
        None => response,
    }
}

impl<S: Clone + Send + Sync + 'static> From<SetupRoutes> for Router<S> {
    fn from(routes: SetupRoutes) -> Router<S> {
        Router::new()
            .route("/setup/{purpose}/{token}", get(show).post(act))
            .route(STYLE_PATH, get(async || style()))
            .with_state(routes)
    }
}

type Link = Path<(String, String)>;

async fn show(State(routes): State<SetupRoutes>, Path((purpose, token)): Link, Whole(parts): Whole) -> WebResponse {
    let client = routes.client(&RequestView(View::Axum(&parts)));
    match purpose.parse::<TokenPurpose>() {
        Ok(purpose) => routes.show(&purpose, &token, client).await,
        Err(_) => routes.gone(),
    }
}

async fn act(State(routes): State<SetupRoutes>, Path((purpose, token)): Link, request: Request<Body>) -> WebResponse {
    let (parts, body) = request.into_parts();
    let client = routes.client(&RequestView(View::Axum(&parts)));
    let body = tokio::time::timeout(BODY_TIME, whole(body)).await.unwrap_or(Err(408));
    match purpose.parse::<TokenPurpose>() {
        Ok(purpose) => routes.act(&purpose, &token, client, body.as_deref().map_err(|status| *status)).await,
        Err(_) => routes.gone(),
    }
}

/// The body, or the status of a request whose body is too large, or breaks off.
async fn whole(body: Body) -> Result<Vec<u8>, u16> {
    let (mut whole, mut parts) = (vec![], body.into_data_stream());
    while let Some(part) = parts.next().await {
        whole.extend_from_slice(&part.map_err(|_| 400_u16)?);
        if whole.len() > BODY {
            return Err(413);
        }
    }
    Ok(whole)
}

/// The request's head.
struct Whole(Parts);
impl<S: Send + Sync> FromRequestParts<S> for Whole {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.clone()))
    }
}
