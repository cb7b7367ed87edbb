//! [`RequestView`]: read access to a request, the same for axum and actix-web.
//!
//! The rules of [`Identify`](super::Identify) and the client address of `SetupRoutes` read requests through it.
//!
//! Invariant: a header that occurs more than once has no value, because it may have been forged.
use std::net::IpAddr;

/// Read access to a request. It exists because axum and actix-web use incompatible versions of the `http` crate.
pub struct RequestView<'a>(pub(super) View<'a>);

pub(super) enum View<'a> {
    #[cfg(feature = "axum")]
    Axum(&'a ::axum::http::request::Parts),
    #[cfg(feature = "actix")]
    Actix(&'a actix_web::HttpRequest),
}

/// A header that decides about the tenant occurs more than once, holds a list, or is not ASCII text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnclearHeader;

impl<'a> RequestView<'a> {
    /// The method, as the client has sent it.
    pub(super) fn method(&self) -> &'a str {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => parts.method.as_str(),
            #[cfg(feature = "actix")]
            View::Actix(request) => request.method().as_str(),
        }
    }
    /// Value of a header. `None` if the header is missing, occurs more than once, or is not ASCII text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => {
                let mut values = parts.headers.get_all(name).iter();
                take_single(values.next(), values.next())?.to_str().ok()
            }
            #[cfg(feature = "actix")]
            View::Actix(request) => {
                let mut values = request.headers().get_all(name);
                take_single(values.next(), values.next())?.to_str().ok()
            }
        }
    }
    /// Value of a header that decides about the tenant. `None` only if the request has no such header; `Err` if it
    /// occurs more than once or is not ASCII text.
    pub(super) fn single_header(&self, name: &str) -> Result<Option<&'a str>, UnclearHeader> {
        let is_present = match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => parts.headers.contains_key(name),
            #[cfg(feature = "actix")]
            View::Actix(request) => request.headers().contains_key(name),
        };
        if is_present { self.header(name).map(Some).ok_or(UnclearHeader) } else { Ok(None) }
    }
    /// As [`host`](Self::host); `Err` if the request has a `Host` header that is not clear, even one that the host in the
    /// request target overrides.
    pub(super) fn single_host(&self) -> Result<Option<&'a str>, UnclearHeader> {
        let header = self.single_header("host")?;
        Ok(self.target_host().or(header))
    }
    fn target_host(&self) -> Option<&'a str> {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => parts.uri.host(),
            #[cfg(feature = "actix")]
            View::Actix(request) => request.uri().host(),
        }
    }
    /// Host of the request, with its port if it has one. It comes from the request target (HTTP/2 and absolute form),
    /// else from the `Host` header (RFC 9112, section 3.2).
    pub fn host(&self) -> Option<&'a str> {
        self.target_host().or_else(|| self.header("host"))
    }
    /// The whole path of the request, also below a nested router that has removed a prefix.
    pub fn path(&self) -> &'a str {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => {
                let original = parts.extensions.get::<::axum::extract::OriginalUri>();
                original.map_or_else(|| parts.uri.path(), |uri| uri.0.path())
            }
            #[cfg(feature = "actix")]
            View::Actix(request) => request.uri().path(),
        }
    }
    /// Address of the peer of the TCP connection. Behind a proxy this is the proxy. With axum it is `None` unless the
    /// server was started with `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn peer(&self) -> Option<IpAddr> {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => {
                let info = parts.extensions.get::<::axum::extract::ConnectInfo<std::net::SocketAddr>>();
                info.map(|info| info.0.ip())
            }
            #[cfg(feature = "actix")]
            View::Actix(request) => request.peer_addr().map(|address| address.ip()),
        }
    }
    /// Reads a value that an earlier layer, such as authentication, has stored in the request's extensions. `None` if
    /// there is none. It takes a closure because actix-web keeps extensions in a `RefCell`.
    pub fn extension<C: Clone + Send + Sync + 'static, R>(&self, read: impl FnOnce(&C) -> R) -> Option<R> {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => parts.extensions.get::<C>().map(read),
            #[cfg(feature = "actix")]
            View::Actix(request) => {
                use actix_web::HttpMessage as _;
                request.extensions().get::<C>().map(read)
            }
        }
    }
}

/// Returns the first value if there is no second one. A repeated header may be one of the client and one of a proxy,
/// and this code cannot know which is which.
#[cfg(any(feature = "axum", feature = "actix"))]
fn take_single<T>(first: Option<T>, second: Option<T>) -> Option<T> {
    first.filter(|_| second.is_none())
}

impl std::fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestView").field("host", &self.host()).field("path", &self.path()).finish()
    }
}
