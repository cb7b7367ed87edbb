use std::net::IpAddr;

/// What a rule may look at, the same for both frameworks: they use two `http` crates that do not fit together.
pub struct RequestView<'a>(pub(super) View<'a>);

pub(super) enum View<'a> {
    #[cfg(feature = "axum")]
    Axum(&'a ::axum::http::request::Parts),
    #[cfg(feature = "actix")]
    Actix(&'a actix_web::HttpRequest),
}

impl<'a> RequestView<'a> {
    /// A header's value, if it is there exactly once and is ASCII text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => {
                let mut values = parts.headers.get_all(name).iter();
                only(values.next(), values.next())?.to_str().ok()
            }
            #[cfg(feature = "actix")]
            View::Actix(request) => {
                let mut values = request.headers().get_all(name);
                only(values.next(), values.next())?.to_str().ok()
            }
        }
    }
    /// Whether there is a header of this name at all, readable or not.
    pub(super) fn has_header(&self, name: &str) -> bool {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => parts.headers.contains_key(name),
            #[cfg(feature = "actix")]
            View::Actix(request) => request.headers().contains_key(name),
        }
    }
    /// The host that the request is for, with its port if it has one: of the target (HTTP/2, absolute form), else of the
    /// `Host` header (RFC 9112, section 3.2).
    pub fn host(&self) -> Option<&'a str> {
        let of_target = match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => parts.uri.host(),
            #[cfg(feature = "actix")]
            View::Actix(request) => request.uri().host(),
        };
        of_target.or_else(|| self.header("host"))
    }
    /// The whole path, whatever routers have cut off.
    pub fn path(&self) -> &'a str {
        match &self.0 {
            #[cfg(feature = "axum")]
            View::Axum(parts) => {
                let whole = parts.extensions.get::<::axum::extract::OriginalUri>();
                whole.map_or_else(|| parts.uri.path(), |uri| uri.0.path())
            }
            #[cfg(feature = "actix")]
            View::Actix(request) => request.uri().path(),
        }
    }
    /// Who is at the other end of the connection: behind a proxy, the proxy. With axum it is known to a service made by
    /// `into_make_service_with_connect_info::<SocketAddr>()` alone.
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
    /// What an earlier layer (authentication) has left with the request. By a closure, because actix lends from a `RefCell`.
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

/// Two of them is a request that somebody has tampered with.
#[cfg(any(feature = "axum", feature = "actix"))]
fn only<T>(first: Option<T>, second: Option<T>) -> Option<T> {
    first.filter(|_| second.is_none())
}

impl std::fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestView").field("host", &self.host()).field("path", &self.path()).finish()
    }
}
